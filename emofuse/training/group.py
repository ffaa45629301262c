"""K heads in training: their weights, their optimizer, and the best weights that each has had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.errors import TrainingError
from emofuse.heads import make_head
from emofuse.heads.dropout import Noise, named_generator
from emofuse.heads.embedding import StreamEmbedding
from emofuse.heads.members import Members, key_of, owners, plain_name, shrink
from emofuse.training.balancing import BranchBalance
from emofuse.training.batches import Order, Standardised, ViewDraws
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member
from emofuse.training.optim import AdamMoments, GroupAdam
from emofuse.training.steps import GraphedStep, TrainStep, capture_cuda
from emofuse.training.streaming import Blocks, Resident, Source, Streamed, Window
from emofuse.training.validation import Validation


class SharedRows:
    """What all members of a group share and what stays when some leave: rows, their order, folds, noise.

    Args:
        table: N rows.
        folds: all folds of the split.
        members: the group.
        machine: where it trains.
        window: how far rows are shuffled; None for the whole table.
    """

    def __init__(
        self,
        table: FeatureTable,
        folds: Sequence[Fold],
        members: Sequence[Member],
        machine: Machine,
        window: Window | None = None,
    ) -> None:
        train = members[0].train
        self.machine = machine
        self.classes = table.classes
        self.folds = sorted({member.fold for member in members})
        self.dims = {
            stream: dim for stream, dim in table.dims.items() if any(stream in member.streams for member in members)
        }
        used = [folds[fold] for fold in self.folds]
        shuffle = named_generator(train.order_seed, "order of rows")
        views = named_generator(train.order_seed, "views of rows")
        self.source = _make_source(table, tuple(self.dims), machine, window)
        self.rows = Standardised(self.source, table, tuple(self.dims), used, device=machine.device, dtype=machine.dtype)
        self.never_missing = {
            stream: torch.tensor([_is_never_missing(table, fold, stream) for fold in used], device=machine.device)
            for stream in self.dims
        }
        self.order = Order(
            folds,
            self.folds,
            count=len(table.labels),
            batch_size=train.batch_size,
            generator=shuffle,
            window=window,
            fixed_width=machine.graphs,
            draws=ViewDraws(len(table.labels), table.views, views) if table.views > 1 else None,
        )
        self.noise = Noise(train.order_seed, self.order.width, machine.device)
        self.validation = Validation(
            self.rows, used, table.classes, device=machine.device, products=machine.products, window=window
        )

    def close(self) -> None:
        """Ends what reads features in the background."""
        self.source.close()


class TrainingGroup:
    """The members that still train, as members of one head.

    Args:
        shared: what they share.
        members: ordered by fold and optimizer setting.
    """

    def __init__(self, shared: SharedRows, members: Sequence[Member]) -> None:
        self._shared = shared
        self._members = tuple(members)
        device = shared.machine.device
        head_members = [replace(member.head_member(), fold=shared.folds.index(member.fold)) for member in members]
        with device:
            self._axis = Members(head_members)
            self._head = make_head(members[0].head, head_members, shared.dims, shared.classes).to(shared.machine.dtype)
        self._own = owners(self._head)
        self._best = {name: torch.empty_like(tensor) for name, tensor in self._state().items()}
        self._set_up(AdamMoments.zero(self._head), {})

    def _set_up(self, moments: AdamMoments, updates: Mapping[int, int]) -> None:
        """What depends on who is there, around the head."""
        trains = [member.train for member in self._members]
        shared, balanced = self._shared, trains[0].gradient_balancing != "off"
        self._balance = BranchBalance(self._head, tuple(shared.dims), trains) if balanced else None
        self._optimizer = GroupAdam(
            self._head,
            moments,
            trains,
            [member.fold for member in self._axis.group],
            rates=self._balance.rates if self._balance else None,
            branches=self._balance.branches if self._balance else {},
            updates=updates,
        )
        self._step = TrainStep(
            self._head,
            self._axis,
            shared.rows,
            smoothing=[train.label_smoothing for train in trains],
            optimizer=self._optimizer,
            balance=self._balance,
            noise=shared.noise,
            products=shared.machine.products,
        )
        self._run = GraphedStep(self._step, capture_cuda) if shared.machine.graphs else self._step

    def train_epoch(self, epoch: int) -> list[dict[str, Any]]:
        """Trains on every row once.

        Returns:
            For each member {epoch, train_loss}, and what `BranchBalance.epoch_means` gives. The device is waited for
            here, once an epoch.
        """
        shared = self._shared
        self._head.train()
        self._step.losses.zero_()
        for index, step in enumerate(
            shared.order.epoch(shared.source, shared.machine.device), start=(epoch - 1) * shared.order.steps
        ):
            shared.noise.advance(index)
            self._run(step)
        rows = self._axis.of_folds(shared.order.rows_of_folds.to(shared.machine.device))
        losses = (self._step.losses / rows).tolist()
        means = self._balance.epoch_means() if self._balance else [{} for _ in losses]
        return [{"epoch": epoch, "train_loss": loss, **mean} for loss, mean in zip(losses, means, strict=True)]

    def validate(self) -> list[dict[str, float]]:
        """For each member {val_loss, val_accuracy, val_macro_f1}."""
        for stream, of_folds in self._shared.never_missing.items():
            embedding = getattr(getattr(self._head, "embeddings", None), key_of(stream), None)
            if isinstance(embedding, StreamEmbedding):
                embedding.follow_mean(embedding.members.of_folds(of_folds))
        return self._shared.validation.scores(self._head, self._axis)

    @torch.no_grad()
    def keep(self, places: Sequence[int]) -> None:
        """Notes the weights of these members as the best that they have had."""
        for name, tensor in self._state().items():
            rows = self._own[name].rows_of(places)
            self._best[name][rows] = tensor[rows]

    def best_of(self, place: int) -> dict[str, npt.NDArray[Any]]:
        """The best weights of one member, as of a single head without the axis of members."""
        rows = {name: self._own[name].rows_of([place]) for name in self._best}
        return {plain_name(name): self._best[name][row[0]].cpu().numpy() for name, row in rows.items() if row}

    def shrink(self, places: Sequence[int]) -> None:
        """Goes on with these members alone. Tensors are replaced one by one, so that there is memory enough."""
        moments, updates, before = self._optimizer.moments, self._optimizer.updates, self._balance
        del self._run, self._step, self._optimizer
        for tensors in (self._best, moments.mean, moments.square):
            for name, tensor in tensors.items():
                tensors[name] = tensor[self._own[name].rows_of(places)]
        shrink(self._head, places)
        self._axis.shrink(places)
        self._members = tuple(self._members[place] for place in places)
        self._set_up(moments, updates)
        if self._balance and before:
            self._balance.go_on(before, places)

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self._head.state_dict().items()}


def _is_never_missing(table: FeatureTable, fold: Fold, stream: str) -> bool:
    """Whether all views of all training rows have the stream: then no step trains what stands for it where it lacks."""
    valid = table.valid[stream].view(table.views, -1)[:, torch.from_numpy(fold.train)]
    return fold.scaling[stream].fitted and bool(valid.all())


def _make_source(table: FeatureTable, streams: Sequence[str], machine: Machine, window: Window | None) -> Source:
    if not isinstance(table.features, Blocks):
        return Resident(table.features, streams, machine.device)
    if window is None or window.block_rows != table.features.block_rows:
        raise TrainingError(
            f"features in blocks of {table.features.block_rows} rows need a window of such blocks, got {window}"
        )
    return Streamed(
        table.features, window, streams, count=len(table.labels), device=machine.device, dtype=machine.dtype
    )
