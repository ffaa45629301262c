"""Train K heads as one program. One head is a group of one: there is no other loop.

    for each epoch                                              `_train`
        for the rows of each step                               `TrainingGroup.train_epoch`
            read, forward, loss, backward, update               `TrainingGroup.train_step`
        validate                                                `TrainingGroup.validate`
        keep the weights of members that have never been better
        members that have come to their end leave

Shapes: K members, F folds, B rows of a batch, D features of a stream, C classes.

A member's result depends on itself, the rows and the folds alone, not on the members that train beside it: its initial
weights and its dropout come from its own seed, its batches from the order seed. Only rounding differs, since a matrix
product or fused Adam may add up in another order for one head than for many. In float64 results agree to 1e-12. In
float32 losses differ in their last digits. Validation loss, the default of `train.select`, chooses the same epoch
unless two losses agree to these digits. Macro F1 and accuracy are shares of the validation rows: there one row that
changes sides may choose another epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.heads import make_head
from emofuse.heads.arithmetic import fast_arithmetic
from emofuse.heads.embedding import StreamEmbedding
from emofuse.heads.layers import Linear, Projection, products_in
from emofuse.heads.members import Members, key_of, owners, plain_name, shrink
from emofuse.training.averages import WeightAverages
from emofuse.training.balancing import BranchBalance
from emofuse.training.batches import StepRows
from emofuse.training.cuda_graphs import GraphedStep, capture_cuda
from emofuse.training.losses import MemberLosses
from emofuse.training.machine import Machine
from emofuse.training.members import Ended, FeatureTable, Fold, Member, MemberResult, MemberState, StopRule, check_group
from emofuse.training.mixup import Mixup
from emofuse.training.optim import AdamMoments, GroupAdam, optimizer_key
from emofuse.training.schedule import GradientClip
from emofuse.training.shared_rows import SharedRows
from emofuse.training.side_by_side import stop_if_asked
from emofuse.training.stream_dropout import StreamDropout
from emofuse.training.streaming import Window

SMALLEST_SHARE = 0.75
"""A group shrinks to the members that still train once they are fewer than this share of it."""

OnEpoch = Callable[[int, Mapping[int, Mapping[str, Any]]], None]


def train_group(
    table: FeatureTable,
    folds: Sequence[Fold],
    members: Sequence[Member],
    machine: Machine,
    *,
    window: Window | None = None,
    on_epoch: OnEpoch | None = None,
    stop_rule: StopRule | None = None,
) -> list[MemberResult]:
    """Train members that share head and batches (`structure_key`), each to its own end.

    The best epoch of a member has the lowest loss, or the highest of another score, on its fold's validation rows
    (`train.select`); equal scores go to the lower validation loss, equal losses to the earlier epoch.

    Args:
        table: rows and targets. Targets of rows in no fold are not read.
        folds: all folds of the split; a plain split is one fold. The largest of them decides the number of steps, so a
            member's result depends on the list and not on which of the folds the members use.
        members: K heads.
        machine: where and how precisely they train.
        window: how far rows are shuffled, of a table in blocks (`Blocks.window`); None for the whole table. Tensors
            give the same results as blocks with the same window.
        on_epoch: called with the epoch and {index of a member: the entry added to its history}.
        stop_rule: may dismiss members after an epoch; their result is that of the best epoch until then.

    Returns:
        The results, in the order of members.

    Raises:
        TrainingError: the group cannot be trained as asked, see `check_group`.
    """
    check_group(table, folds, members)
    arranged = sorted(
        range(len(members)), key=lambda index: (*members[index].row_set, *optimizer_key(members[index].train))
    )
    everyone = [MemberProgress(index, members[index]) for index in arranged]
    with fast_arithmetic(machine.device), closing(SharedRows(table, folds, members, machine, window)) as shared:
        group = TrainingGroup(shared, [progress.member for progress in everyone])
        _train(group, everyone, on_epoch, stop_rule)
    results = [progress.result() for progress in sorted(everyone, key=lambda progress: progress.index)]
    scales = [table.target_scale(folds[member.fold]) for member in members]
    return [replace(result, target_scale=scale) for result, scale in zip(results, scales, strict=True)]


def _train(
    group: TrainingGroup,
    everyone: Sequence[MemberProgress],
    on_epoch: OnEpoch | None,
    stop_rule: StopRule | None,
) -> None:
    """Train epoch after epoch until no member is left; `in_group[k]` is the progress of member k of the group."""
    in_group = everyone
    for epoch in count(1):
        entries = [trained | scored for trained, scored in zip(group.train_epoch(epoch), group.validate(), strict=True)]
        active = [k for k, progress in enumerate(in_group) if progress.ended is None]
        group.keep_weights([k for k in active if in_group[k].add_epoch(entries[k])])
        if stop_rule is not None:
            _dismiss(everyone, epoch, stop_rule)
        for k in active:
            if in_group[k].ended is not None and in_group[k].best_epoch:
                in_group[k].weights = group.kept_weights(k)
        if on_epoch is not None:
            on_epoch(epoch, {in_group[k].index: entries[k] for k in active if in_group[k].ended != "diverged"})
        staying = [k for k in active if in_group[k].ended is None]
        if not staying:
            return
        if len(staying) < SMALLEST_SHARE * len(in_group):
            in_group = [in_group[k] for k in staying]
            group.shrink(staying)


def _dismiss(everyone: Sequence[MemberProgress], epoch: int, stop_rule: StopRule) -> None:
    by_index = sorted(everyone, key=lambda progress: progress.index)
    for index in stop_rule(epoch, [progress.state() for progress in by_index]):
        if by_index[index].ended is None:
            by_index[index].ended = "halved"


class TrainingGroup:
    """K heads as one module, with their optimizer and the best weights that each has had.

    Args:
        shared: the rows that all of them read.
        members: the heads, ordered by fold and `optimizer_key`.
    """

    def __init__(self, shared: SharedRows, members: Sequence[Member]) -> None:
        self._shared = shared
        self._members = tuple(members)
        head_members = [replace(member.head_member(), fold=shared.row_sets.index(member.row_set)) for member in members]
        with shared.machine.device:
            self._axis = Members(head_members)
            self._head = make_head(members[0].head, head_members, shared.dims, shared.classes, shared.link).to(
                shared.machine.dtype
            )
        self._owners = owners(self._head)
        self._kept = {name: torch.empty_like(tensor) for name, tensor in self._state().items()}
        trains = [member.train for member in members]
        folds = [member.fold for member in self._axis.group]
        averaged = any(train.ema for train in trains)
        self._averages = WeightAverages(self._state(), self._owners, trains, folds) if averaged else None
        self._set_up(AdamMoments.zero(self._head), {})

    def train_epoch(self, epoch: int) -> list[dict[str, Any]]:
        """Train on every row once.

        Returns:
            For each member {epoch, train_loss}, and the keys of `BranchBalance.epoch_means`. Only here, once an epoch,
            the device is waited for.
        """
        shared = self._shared
        self._head.train()
        self._losses.zero_()
        first = (epoch - 1) * shared.order.steps
        for number, step in enumerate(shared.order.epoch(shared.source, shared.machine.device), start=first):
            stop_if_asked()
            shared.noise.advance(number)
            self._optimizer.set_rates(number, shared.order.steps)
            if self._balance is not None:
                self._balance.set_rates(number, shared.order.steps)
            if self._graphed is not None:
                self._graphed.run(self.train_step, step)
            else:
                self.train_step(step)
            if self._averages is not None:
                self._averages.update(step.idle)
        rows = self._axis.of_folds(shared.order.rows_of_folds.to(shared.machine.device))  # (K,)
        losses = (self._losses / rows).tolist()
        means = self._balance.epoch_means() if self._balance else [{} for _ in losses]
        return [{"epoch": epoch, "train_loss": loss, **mean} for loss, mean in zip(losses, means, strict=True)]

    def train_step(self, step: StepRows) -> None:
        """Read, forward, loss, backward, update: of K heads on the rows of one step."""
        batch, targets = self._shared.rows.read(step.rows, step.present)  # {stream: (F, B, D)}, (F, B)
        if self._stream_dropout is not None:
            batch = self._stream_dropout.apply(batch, self._shared.noise)
        present = self._axis.of_folds(step.present)  # (K, B)
        if self._mixup is not None:
            batch = replace(batch, mix=self._mixup.draw(present, self._shared.noise))
        with products_in(self._shared.machine.products, step.rows.device):
            logits = self._head(batch, self._shared.noise)  # (K, B, C)
        targets = targets.of_members(self._axis)
        sums = self._member_losses.sums(logits, targets, present)  # (K,)
        if batch.mix is not None:
            partners = targets.of_partners(batch.mix.partners)
            sums = batch.mix.loss(sums, self._member_losses.sums(logits, partners, present))
        counts = present.sum(1)  # (K,)
        # No head's loss depends on another's weights, so the gradient of the sum is for each head its own.
        total = (sums / counts.clamp(min=1)).sum()
        gradients = dict(zip(self._weights, torch.autograd.grad(total, tuple(self._weights.values())), strict=True))
        if self._balance is not None:
            self._balance.observe(gradients, counts > 0)  # sets the learning rate of each branch for this step
        if self._clip is not None:
            gradients = self._clip.apply(gradients)
        self._optimizer.step(gradients, step.idle)
        self._losses += sums.detach()

    def validate(self) -> list[dict[str, float]]:
        """Return `val_loss` and the scores of each member on the validation rows of its fold."""
        if self._averages is None:
            return self._scores()
        self._averages.exchange()
        scores = self._scores()
        self._averages.exchange()
        return scores

    def _scores(self) -> list[dict[str, float]]:
        for stream, of_folds in self._shared.never_missing.items():
            embedding = getattr(getattr(self._head, "embeddings", None), key_of(stream), None)
            if isinstance(embedding, StreamEmbedding):
                untrained = embedding.members.of_folds(of_folds)
                if self._stream_dropout is not None:  # it trains the vector for rows without the stream
                    untrained = untrained & ~embedding.members.pick(self._stream_dropout.active)
                embedding.follow_mean(untrained)
        return self._shared.validation.scores(self._head, self._axis)

    @torch.no_grad()
    def keep_weights(self, members: Sequence[int]) -> None:
        """Keep a copy of the weights of these members, or of their averages, in place of what was kept before."""
        if self._averages is not None:
            self._averages.exchange()
        for name, tensor in self._state().items():
            rows = self._owners[name].rows_of(members)
            if rows == list(range(len(tensor))):  # a plain copy takes a quarter of the time
                self._kept[name].copy_(tensor)
            else:
                self._kept[name][rows] = tensor[rows]
        if self._averages is not None:
            self._averages.exchange()

    def kept_weights(self, member: int) -> dict[str, npt.NDArray[Any]]:
        """Return the kept weights of one member, as of a single head without the axis of members."""
        rows = {name: self._owners[name].rows_of([member]) for name in self._kept}
        return {plain_name(name): self._kept[name][row[0]].cpu().numpy() for name, row in rows.items() if row}

    def shrink(self, members: Sequence[int]) -> None:
        """Go on with these members alone. Tensors are replaced one by one, so that only one is in memory twice."""
        moments, updates, balance = self._optimizer.moments, self._optimizer.updates, self._balance
        del self._graphed, self._optimizer  # both hold the memory of all members
        for tensors in (self._kept, moments.mean, moments.square):
            for name, tensor in tensors.items():
                tensors[name] = tensor[self._owners[name].rows_of(members)]
        shrink(self._head, members)
        self._axis.shrink(members)
        self._members = tuple(self._members[k] for k in members)
        if self._averages is not None and not self._averages.shrink(members, self._state(), self._owners):
            self._averages = None
        self._set_up(moments, updates)
        if self._balance and balance:
            self._balance.go_on(balance, members)

    def _set_up(self, moments: AdamMoments, updates: Mapping[int, int]) -> None:
        """Make all that depends on the number of members, apart from the head."""
        trains, shared = [member.train for member in self._members], self._shared
        self._weights = dict(self._head.named_parameters())
        balanced = trains[0].gradient_balancing != "off"
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
        drops = any(train.stream_dropout for train in trains)
        self._stream_dropout = (
            StreamDropout(self._members, self._axis, tuple(shared.dims), shared.machine.device) if drops else None
        )
        self._clip = GradientClip(self._head, trains) if any(train.clip_norm for train in trains) else None
        device, dtype = shared.machine.device, shared.machine.dtype
        mixes = any(train.mixup for train in trains)
        self._mixup = Mixup(trains, device=device, dtype=dtype) if mixes else None
        of_members = [member.fold for member in self._axis.group]
        self._member_losses = MemberLosses(
            trains,
            shared.class_counts[of_members],
            device=device,
            dtype=dtype,
            target=shared.target,
            rows=shared.train_rows[of_members],
        )
        self._losses = torch.zeros(len(trains), dtype=torch.float64, device=device)  # (K,) sums of the epoch so far
        self._graphed = GraphedStep(capture_cuda) if shared.machine.graphs else None
        # With new memory for the gradients in each step, 8 of the paper's heads take 1.29 times as long (batch 64, one
        # CPU core). A step is done with its gradients before the next begins.
        for layer in self._head.modules():
            if isinstance(layer, (Projection, Linear)):
                layer.gradient = torch.empty_like(layer.weight, requires_grad=False)

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self._head.state_dict().items()}


@dataclass
class MemberProgress:
    """The history of one member, its best epoch so far, and how it ended."""

    index: int
    member: Member
    history: list[Mapping[str, Any]] = field(default_factory=list)
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    best_epoch: int = 0
    last_epoch: int = 0
    ended: Ended | None = None
    weights: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def add_epoch(self, entry: Mapping[str, Any]) -> bool:
        """Add an epoch, set `ended` if it was the last, and return whether it is the best so far."""
        train = self.member.train
        self.last_epoch = entry["epoch"]
        if not (math.isfinite(entry["train_loss"]) and math.isfinite(entry["val_loss"])):
            self.ended = "diverged"
            return False
        self.history.append(entry)
        score = (-entry["val_loss"] if train.select == "loss" else entry[f"val_{train.select}"], -entry["val_loss"])
        last = self.member.last_epoch
        is_best = score > self.best_score if last is None else self.last_epoch == last
        if is_best:
            self.best_score, self.best_epoch = score, self.last_epoch
        if self.last_epoch >= (last or train.epochs):
            self.ended = "epochs"
        elif last is None and train.patience is not None and self.last_epoch - self.best_epoch >= train.patience:
            self.ended = "patience"
        return is_best

    def state(self) -> MemberState:
        """Return what a stop rule sees."""
        return MemberState(self.history[self.best_epoch - 1] if self.best_epoch else None, self.ended)

    def result(self) -> MemberResult:
        """Return the result of a member that has ended."""
        if self.ended is None:
            raise RuntimeError(f"member {self.index} is still training")
        return MemberResult(self.weights, self.history, self.best_epoch, self.last_epoch, self.ended)
