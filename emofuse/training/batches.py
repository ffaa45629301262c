"""Which rows make which step: one order for a whole group, of which every fold takes its own rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.heads.lanes import Batch
from emofuse.training.members import Fold, Table


@dataclass(frozen=True)
class StepRows:
    """The rows of one step.

    Attributes:
        rows: (F, B) int64 into the table: for each fold those rows of the batch in which it trains, in the batch's
            order, then others that only fill.
        present: (F, B) bool, false where a row only fills.
        idle: folds without any row in this step: their members are not updated.
    """

    rows: Tensor
    present: Tensor
    idle: frozenset[int]


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Sizes of the batches of an epoch of `count` rows.

    The last batch may be smaller. One row alone has no batch statistics, so it joins the batch before it.
    """
    sizes = [batch_size] * (count // batch_size)
    rest = count % batch_size
    if rest == 1 and sizes:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


class Order:
    """The order of rows of a group, epoch by epoch.

    The rows of all folds are shuffled together and cut into batches. A fold's members see of each batch the rows in
    which the fold trains and are trained on their mean loss: the same steps as a run of that fold alone takes when it
    walks through the same batches and skips the rows that it must not see. With a single fold this is any plain
    training loop. All members of a fold see the same rows, so that they are compared under equal luck.

    Args:
        folds: all of them, also those that no member uses: they make the order.
        used: indices of the folds that members use, in ascending order; the F of the steps.
        count: N rows of the table.
        batch_size: rows of a batch, over all folds.
        generator: CPU, seeded by the group's order seed.
        width: B of every step where shapes must not change; else each step is as wide as its fullest fold.
    """

    def __init__(
        self,
        folds: Sequence[Fold],
        used: Sequence[int],
        count: int,
        batch_size: int,
        generator: torch.Generator,
        *,
        fixed_width: bool,
    ) -> None:
        self._rows = torch.from_numpy(np.unique(np.concatenate([fold.train for fold in folds])))
        self._trains = torch.zeros(len(used), count, dtype=torch.bool)
        for index, fold in enumerate(used):
            self._trains[index, torch.from_numpy(folds[fold].train)] = True
        self._sizes = batch_sizes(len(self._rows), batch_size)
        self._generator = generator
        self._fixed_width = fixed_width

    @property
    def width(self) -> int:
        """Rows of the largest batch."""
        return max(self._sizes)

    @property
    def rows_of_folds(self) -> Tensor:
        """(F,) int64: training rows of each fold."""
        return self._trains.sum(1)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self._sizes)

    def epoch(self, device: torch.device) -> Iterator[StepRows]:
        """The steps of the next epoch."""
        order = self._rows[torch.randperm(len(self._rows), generator=self._generator)]
        filled = torch.zeros(self.steps, self.width, dtype=torch.bool)
        for step, size in enumerate(self._sizes):
            filled[step, :size] = True
        rows = torch.zeros(self.steps, self.width, dtype=torch.int64)
        rows[filled] = order
        trains = self._trains[:, rows] & filled
        first = torch.argsort(trains.logical_not().to(torch.uint8), dim=2, stable=True)
        rows = rows.expand_as(first).gather(2, first)
        counts = trains.sum(2)
        present = torch.arange(self.width) < counts.unsqueeze(2)
        rows, present = rows.to(device, non_blocking=True), present.to(device, non_blocking=True)
        for step, of_folds in enumerate(counts.T.tolist()):
            width = self.width if self._fixed_width else max(1, *of_folds)
            idle = frozenset(fold for fold, some in enumerate(of_folds) if not some)
            yield StepRows(rows[:, step, :width], present[:, step, :width], idle)


class Standardised:
    """A table on a device, read through the scaling of every fold.

    The rows of one batch are gathered from memory once a fold, not once a head.

    Args:
        table: N rows.
        streams: that are read.
        folds: the F folds that are used.
        device: where heads train.
        dtype: of what is read.
    """

    def __init__(
        self, table: Table, streams: Sequence[str], folds: Sequence[Fold], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._features = {name: table.features[name].to(device) for name in streams}
        self._valid = {name: table.valid[name].to(device) for name in streams}
        self._labels = table.labels.to(device)
        self._center = _stack([fold.scaling.center for fold in folds], streams, device, dtype)
        self._scale = _stack([fold.scaling.scale for fold in folds], streams, device, dtype)
        self._dtype = dtype

    def read(self, rows: Tensor, present: Tensor) -> tuple[Batch, Tensor]:
        """Features and labels (F, B) int64 of rows (F, B) int64; rows that are not present have no stream."""
        flat = rows.reshape(-1)
        features, valid = {}, {}
        for name, table in self._features.items():
            valid[name] = self._valid[name][flat].view_as(rows) & present
            taken = table[flat].view(*rows.shape, -1).to(self._dtype)
            scaled = (taken - self._center[name]) / self._scale[name]
            features[name] = scaled.masked_fill_(~valid[name].unsqueeze(2), 0)
        return Batch(features, valid), self._labels[flat].view_as(rows)


def _stack(
    arrays: Sequence[Mapping[str, npt.NDArray[np.float32]]],
    streams: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Stream -> (F, 1, D)."""
    return {
        name: torch.stack([torch.from_numpy(fold[name]) for fold in arrays]).unsqueeze(1).to(device, dtype)
        for name in streams
    }
