"""The rows that the members of a group share, with their order, folds, dropout noise and validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from emofuse.errors import TrainingError
from emofuse.heads.dropout import Noise, named_generator
from emofuse.training.batches import Order, Standardised, ViewDraws
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member
from emofuse.training.streaming import Blocks, Resident, Source, Streamed, Window
from emofuse.training.validation import Validation


class SharedRows:
    """The rows that all members of a group read, and in which order.

    Attributes:
        row_sets: the F folds that members use and how their rows are drawn, ascending.
        dims: stream -> the shape of a row, of the streams that members use.
        source: reads features.
        rows: standardises what `source` reads.
        order: the rows of each step.
        noise: the random numbers of the dropout.
        validation: scores on validation rows.
        target: the kind of target and its loss.
        link: what turns logits into outputs.
        class_counts: the training rows of each class in each fold, or of each label with 1, int64 (F, C).
        train_rows: the number of training rows of each fold, int64 (F,).
        never_missing: stream -> (F,) bool, whether every training row of the fold has the stream.

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
        self.classes, self.target, self.link = table.classes, table.target, table.link
        self.row_sets = sorted({member.row_set for member in members})
        if window is not None and len({row_set.balance for row_set in self.row_sets}) > 1:
            raise TrainingError("members whose features are streamed must share `train.balance`; plan them first")
        self.dims = {
            stream: dim
            for stream, dim in table.head_dims.items()
            if any(stream in member.streams for member in members)
        }
        used = [folds[fold] for fold, _ in self.row_sets]
        views = named_generator(train.order_seed, "views of rows")
        sources = tuple(dict.fromkeys(table.source_of(stream) for stream in self.dims))
        joined = tuple(name for name in self.dims if name in sources and len(self.dims[name]) == 1)
        self.source = _make_source(table, sources, joined, machine, window)
        self.rows = Standardised(self.source, table, tuple(self.dims), used, device=machine.device, dtype=machine.dtype)
        self.order = Order(
            folds,
            self.row_sets,
            count=len(table.labels),
            batch_size=train.batch_size,
            seed=train.order_seed,
            window=window,
            fixed_width=machine.graphs,
            draws=ViewDraws(len(table.labels), table.views, views) if table.views > 1 else None,
            labels=table.labels,
        )
        self.noise = Noise(train.order_seed, self.order.width, machine.device)
        self.validation = Validation(
            self.rows, used, table, device=machine.device, products=machine.products, window=window
        )
        self.class_counts = np.stack([_class_counts(table, fold) for fold in used])
        self.train_rows = np.array([len(fold.train) for fold in used], dtype=np.int64)
        self.never_missing = {
            stream: torch.tensor([_is_never_missing(table, fold, stream) for fold in used], device=machine.device)
            for stream in self.dims
        }

    def close(self) -> None:
        """End the thread that reads features, if there is one."""
        self.source.close()


def _class_counts(table: FeatureTable, fold: Fold) -> npt.NDArray[np.int64]:
    """Return the training rows of each class, or of each label with 1; of a regression nothing that is used."""
    if table.target.kind == "multilabel" and table.targets is not None:
        positives: npt.NDArray[np.int64] = (table.targets.numpy()[fold.train] > 0).sum(axis=0)
        return positives
    return np.bincount(table.labels.numpy()[fold.train], minlength=table.classes)


def _is_never_missing(table: FeatureTable, fold: Fold, stream: str) -> bool:
    """Return whether all training rows have the stream, so that no step trains the vector for rows without it."""
    valid = table.valid[table.source_of(stream)].view(table.views, -1)[:, torch.from_numpy(fold.train)]
    return fold.scaling[stream].fitted and bool(valid.all())


def _make_source(
    table: FeatureTable, streams: Sequence[str], joined: Sequence[str], machine: Machine, window: Window | None
) -> Source:
    if not isinstance(table.features, Blocks):
        return Resident(table.features, streams, machine.device, joined)
    if window is None or window.block_rows != table.features.block_rows:
        raise TrainingError(
            f"features in blocks of {table.features.block_rows} rows need a window of such blocks, got {window}"
        )
    return Streamed(
        table.features,
        window,
        streams,
        count=len(table.labels),
        device=machine.device,
        dtype=machine.dtype,
        joined=joined,
    )
