"""Put rows into batches, in an order that all members of a fold share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emofuse.errors import TrainingError
from emofuse.heads.dropout import named_generator
from emofuse.heads.members import HeadBatch
from emofuse.scaling import Projection, Scaling, feature_axis
from emofuse.training.members import FeatureTable, Fold
from emofuse.training.row_draws import BalancedDraws, RowSet
from emofuse.training.streaming import Source, Window
from emofuse.training.targets import RowTargets


@dataclass(frozen=True)
class StepRows:
    """The rows of one step.

    Attributes:
        rows: (F, B) int64 into the table: for each fold (or row set) the rows of the batch that it trains on, in the
            batch's order, then others that fill the tensor up.
        present: (F, B) bool, false where a row only fills the tensor up.
        idle: the folds (or row sets) without any row in this step, whose members are not updated.
    """

    rows: Tensor
    present: Tensor
    idle: frozenset[int]


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Return the sizes of the batches of an epoch of `count` rows.

    The last batch may be smaller. A single row has no batch statistics, so it joins the batch before it.
    """
    sizes = [batch_size] * (count // batch_size)
    rest = count % batch_size
    if rest == 1 and sizes:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


class ViewDraws:
    """Draw the view that each row shows, anew every epoch and apart from the order of rows.

    Args:
        count: the N rows of the table.
        views: V of the table.
        generator: on the CPU, seeded by the group's order seed.
    """

    def __init__(self, count: int, views: int, generator: torch.Generator) -> None:
        self.views = views
        self._count = count
        self._generator = generator

    def of_epoch(self) -> Tensor:
        """Return (N,) int64, the place of each row's view among the V x N rows of the table with all its views."""
        shown = torch.randint(self.views, (self._count,), generator=self._generator)
        return self._count * shown + torch.arange(self._count)


class Order:
    """The order of rows of a group, epoch by epoch.

    The training rows of each fold are shuffled and cut into batches, as in any plain training loop. A run of one fold
    takes the same steps alone as beside the other folds. All members of a fold see the same rows in the same order, so
    their comparison is fair. A fold with fewer rows may be idle in the last step.

    With a window, blocks of rows are shuffled, and then the rows of a number of blocks at a time, so that an epoch can
    be read from a disk in large pieces. The folds must then read the same blocks at the same time. So the training rows
    of all folds are shuffled together and cut into batches, and of each batch the members of a fold see the rows that
    their fold trains on: of five folds, about four fifths.

    Where classes are balanced, the training rows of a fold are drawn anew in every epoch (`BalancedDraws`). With a
    window they are drawn from the training rows of all folds together, and all members have the same balance.

    Args:
        folds: all folds, also those that no member uses, since they decide the number and the width of the steps.
        used: the folds that members use and how their rows are drawn, in ascending order; the F of the steps.
        labels: the labels of all rows, (N,) int64; None if no row set is balanced.
        count: the N rows of the table.
        batch_size: the rows of a batch; with a window, over all folds.
        seed: the order seed of the group.
        window: how far rows are shuffled; None for the whole table.
        fixed_width: whether every step is as wide as the largest batch, for shapes that must not change. Otherwise it
            is as wide as the fullest of all folds, used or not: then shapes, and with them the last bits of sums, do
            not depend on which members train.
        draws: the view that each row shows in an epoch, the same for all folds; None for a table of one view.
    """

    def __init__(
        self,
        folds: Sequence[Fold],
        used: Sequence[RowSet],
        *,
        count: int,
        batch_size: int,
        seed: int,
        window: Window | None,
        fixed_width: bool,
        draws: ViewDraws | None = None,
        labels: Tensor | None = None,
    ) -> None:
        self._draws = draws
        self._row_sets = tuple(used)
        self._used = torch.tensor([row_set.fold for row_set in used], dtype=torch.int64)
        self._trains = torch.zeros(len(folds), count, dtype=torch.bool)
        for index, fold in enumerate(folds):
            self._trains[index, torch.from_numpy(fold.train)] = True
        self._window = window
        self._fixed_width = fixed_width
        parts = list(self._trains) if window is None else [self._trains.any(0)]
        self._rows = [torch.nonzero(part).flatten() for part in parts]
        """The rows that are shuffled together: those of each fold, or with a window those of all of them."""
        self._sizes = [batch_sizes(len(rows), batch_size) for rows in self._rows]
        names = ["order of rows", *(f"order of rows, fold {index}" for index in range(1, len(parts)))]
        self._generators = [named_generator(seed, name) for name in names]
        self._balanced = {
            row_set: BalancedDraws(
                row_set.balance,
                self._rows[row_set.fold if window is None else 0],
                labels,
                1 if draws is None else draws.views,
                named_generator(seed, f"{row_set.balance}, {names[row_set.fold if window is None else 0]}"),
            )
            for row_set in (used if window is None else used[:1])
            if row_set.balance != "none" and labels is not None
        }
        self._rows_of_epoch = self._trains[self._used].sum(1)

    @property
    def width(self) -> int:
        """The rows of the largest batch."""
        return max(map(max, self._sizes))

    @property
    def rows_of_folds(self) -> Tensor:
        """The number of rows of the last epoch, drawn twice or once, of each fold that is used, (F,) int64."""
        return self._rows_of_epoch

    @property
    def steps(self) -> int:
        """The number of steps of an epoch."""
        return max(map(len, self._sizes))

    def epoch(self, source: Source, device: torch.device) -> Iterator[StepRows]:
        """Yield the steps of the next epoch; the source has the rows of a step when it is yielded."""
        windows = self._shuffled_windows(self._window) if self._window else []
        source.follow([blocks for blocks, _ in windows])
        reached = self._reached([len(rows) for _, rows in windows]) if windows else []
        if windows:
            rows, present, widths = self._dealt(torch.cat([of_window for _, of_window in windows]))
        else:
            rows, present, widths = self._cut()
        self._rows_of_epoch = present.sum((1, 2))
        idle = [frozenset(torch.nonzero(~of_step).flatten().tolist()) for of_step in present.any(2).T]
        rows, present = rows.to(device, non_blocking=True), present.to(device, non_blocking=True)
        for step, wide in enumerate(widths):
            if reached:
                source.reach(reached[step])
            width = self.width if self._fixed_width else wide
            yield StepRows(rows[:, step, :width], present[:, step, :width], idle[step])

    def _cut(self) -> tuple[Tensor, Tensor, list[int]]:
        """Return rows and present (F, steps, B), each row set in its own order, and the width of each step."""
        filled = torch.zeros(len(self._sizes), self.steps, self.width, dtype=torch.bool)
        for fold, sizes in enumerate(self._sizes):
            filled[fold, : len(sizes)] = torch.arange(self.width) < torch.tensor(sizes).unsqueeze(1)
        shown = None if self._draws is None else self._draws.of_epoch()
        rows = torch.stack([self._rows[fold][0].repeat(self.steps, self.width) for fold, _ in self._row_sets])
        for place, row_set in enumerate(self._row_sets):
            if row_set in self._balanced:
                order = self._balanced[row_set].of_epoch()
            else:
                order = self._shuffled(self._rows[row_set.fold], row_set.fold)
                order = order if shown is None else shown[order]
            rows[place][filled[row_set.fold]] = order
        return rows, filled[self._used], filled.sum(2).amax(0).tolist()

    def _shuffled_windows(self, window: Window) -> list[tuple[list[int], Tensor]]:
        """Return (blocks, their training rows in random order) of every window."""
        (rows,) = self._rows
        for balanced in self._balanced.values():
            rows = balanced.of_epoch()
        of_rows = rows // window.block_rows
        parts = torch.split(self._shuffled(torch.unique(of_rows)), window.blocks)
        return [(blocks.tolist(), self._shuffled(rows[torch.isin(of_rows, blocks)])) for blocks in parts]

    def _reached(self, counts: Sequence[int]) -> list[int]:
        """Return the last window from which each step has rows, given the number of training rows of each window.

        Raises:
            TrainingError: a batch with rows from three windows, of which a source holds only two.
        """
        (sizes,) = map(torch.tensor, self._sizes)
        ends, stops = torch.tensor(counts).cumsum(0), sizes.cumsum(0)
        first = torch.searchsorted(ends, stops - sizes, right=True)
        last = torch.searchsorted(ends, stops - 1, right=True)
        if int((last - first).max()) > 1:
            raise TrainingError(
                f"a batch of {self.width} rows reaches over more than two windows, the smallest of which has "
                f"{min(counts)} training rows. Give more memory, or take smaller batches"
            )
        return [int(window) for window in last]

    def _shuffled(self, values: Tensor, generator: int = 0) -> Tensor:
        return values[torch.randperm(len(values), generator=self._generators[generator])]

    def _dealt(self, order: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """Return rows and present (F, steps, B) of the used folds in common batches, and the width of each step."""
        filled = torch.arange(self.width) < torch.tensor(self._sizes[0]).unsqueeze(1)
        batches = self._rows[0][0].repeat(self.steps, self.width)
        batches[filled] = order
        of_all = torch.stack([(trains[batches] & filled).sum(1) for trains in self._trains])
        trains = self._trains[self._used][:, batches] & filled
        first = torch.argsort(trains.logical_not().to(torch.uint8), dim=2, stable=True)
        rows = batches.expand_as(first).gather(2, first)
        present = torch.arange(self.width) < of_all[self._used].unsqueeze(2)
        return rows, present, of_all.amax(0).tolist()


class Standardised:
    """A table that is read through the scaling of every fold. A row is gathered once for a fold, not for each head.

    Args:
        source: the source of features, which joins the vectors that are not projected.
        table: labels, targets and weights, and which rows have which stream.
        streams: the streams that are read.
        folds: the F folds that are used.
        device: the device of the heads.
        dtype: the type of the features that heads get.
    """

    def __init__(
        self,
        source: Source,
        table: FeatureTable,
        streams: Sequence[str],
        folds: Sequence[Fold],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.source = source
        self._streams = tuple(streams)
        self._source_of = {name: table.source_of(name) for name in streams}
        self._valid = torch.stack([table.valid[self._source_of[name]] for name in streams]).to(device)
        self._labels = table.labels.to(device)
        steps = {of: table.steps[of].to(device) for of in self._source_of.values() if of in table.steps}
        self._steps = {name: steps[of] for name, of in self._source_of.items() if of in steps}
        self._shapes = {name: table.dims[of] for name, of in self._source_of.items()}

        joined = source.joined
        self._apart = tuple(name for name in streams if name not in joined)

        def stacked(name: str, of: Callable[[Scaling], npt.NDArray[np.float32]]) -> Tensor:
            return _stack([of(fold.scaling[name]) for fold in folds], self._shapes[name]).to(device, dtype)

        self._scalings = {name: _FoldScalings.of(partial(stacked, name)) for name in self._apart}
        self._joined = (
            _JoinedVectors(joined, [table.dims[name] for name in joined], stacked, device) if joined else None
        )
        self._projections = {
            name: _FoldProjections([fold.scaling[name].projection for fold in folds], device, dtype)
            for name in streams
            if name in table.projected
        }
        fitted = [[fold.scaling[name].fitted for fold in folds] for name in streams]
        self._fitted = torch.tensor(fitted, device=device).unsqueeze(2)
        self._dtype = dtype
        self._targets = _targets_of_folds(table, folds, device, dtype)
        weights = [each for fold in folds if (each := table.row_weights(fold)) is not None]
        self._weights = torch.from_numpy(np.stack(weights)).to(device, dtype) if weights else None

    def read(self, rows: Tensor, present: Tensor) -> tuple[HeadBatch, RowTargets]:
        """Return features and targets of rows (F, B) int64; rows that are not present have no stream.

        A row has no stream that too few training rows of its fold have. The numbers are those of `Scaling.apply`. Rows
        are those of the table with all its views: N x view + row.
        """
        flat = rows.reshape(-1)
        valid = self._valid.index_select(1, flat).view(-1, *rows.shape) & present & self._fitted
        features: dict[str, Tensor] = {}
        steps: dict[str, Tensor] = {}
        of_streams = dict(zip(self._streams, valid, strict=True))
        if self._joined is not None:
            stored = self.source.take_joined(flat).view(*rows.shape, -1).to(self._dtype)
            features |= self._joined.standardise(stored, of_streams)
        for name in self._apart:
            there = of_streams[name]
            stored = self.source.take(self._source_of[name], flat).view(*rows.shape, *self._shapes[name])
            scaled = self._scalings[name].standardise(stored.to(self._dtype))
            if name in self._steps:
                of_rows = self._steps[name].index_select(0, flat).view(*rows.shape, -1)
                there = steps[name] = of_rows & there.unsqueeze(2)
            features[name] = torch.where(_beside(there, scaled), scaled, 0)
            if name in self._projections:
                projected = self._projections[name].apply(features[name], feature_axis(self._shapes[name]))
                features[name] = torch.where(_beside(there, projected), projected, 0)
        plain = rows % len(self._labels)
        targets = RowTargets(
            self._labels[plain],
            None if self._targets is None else _of_rows(self._targets, plain),
            None if self._weights is None else self._weights.gather(1, plain),
        )
        return HeadBatch(features, of_streams, steps), targets


@dataclass(frozen=True)
class _FoldScalings:
    """The standardisation of some columns in F folds: three tensors that fit rows (F, B, ...)."""

    center: Tensor
    scale: Tensor
    limit: Tensor

    @classmethod
    def of(cls, stacked: Callable[[Callable[[Scaling], npt.NDArray[np.float32]]], Tensor]) -> _FoldScalings:
        return cls(stacked(lambda scaling: scaling.center), stacked(lambda scaling: scaling.scale), stacked(_limit))

    def standardise(self, stored: Tensor) -> Tensor:
        """Return rows (F, B, ...) standardised, in the memory of `stored`, which must be a copy."""
        return torch.clamp_(stored.sub_(self.center).div_(self.scale), -self.limit, self.limit)


class _JoinedVectors:
    """The vectors of several streams side by side, standardised by one operation for all of them.

    At batch 64 the paper's six streams are read and standardised in 0.34 of the time that they take one by one.

    Args:
        streams: the S streams.
        dims: the shape (D,) of each.
        stacked: (stream, field of a scaling) -> (F, 1, D).
        device: the device of the heads.
    """

    def __init__(
        self,
        streams: Sequence[str],
        dims: Sequence[tuple[int, ...]],
        stacked: Callable[[str, Callable[[Scaling], npt.NDArray[np.float32]]], Tensor],
        device: torch.device,
    ) -> None:
        self._streams = tuple(streams)
        self._widths = [dim for (dim,) in dims]
        self._scalings = _FoldScalings.of(lambda of: torch.cat([stacked(name, of) for name in streams], dim=2))
        self._stream_of = torch.repeat_interleave(torch.tensor(self._widths)).to(device)

    def standardise(self, stored: Tensor, valid: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the features of each stream, (F, B, D), zero in rows that are not valid.

        Args:
            stored: the rows of all streams (F, B, all D) as they are stored, a copy.
            valid: whether each row has each stream, bool (F, B).
        """
        there = torch.stack([valid[name] for name in self._streams], dim=2)
        scaled = self._scalings.standardise(stored)
        # Nearly all batches are whole. To ask that of a GPU would wait for it.
        if there.device.type != "cpu" or not bool(there.all()):
            scaled.masked_fill_(there.logical_not_().index_select(2, self._stream_of), 0)
        return dict(zip(self._streams, torch.split(scaled, self._widths, dim=2), strict=True))


class _FoldProjections:
    """The principal components of one stream in F folds.

    Args:
        projections: those of each fold; None where no member of the fold sees the stream.
        device: the device of the heads.
        dtype: the type of the features that heads get.
    """

    def __init__(self, projections: Sequence[Projection | None], device: torch.device, dtype: torch.dtype) -> None:
        self._components = [
            None if each is None else torch.from_numpy(each.components.T.copy()).to(device, dtype)
            for each in projections
        ]
        self._offsets = [
            None if each is None else torch.from_numpy(each.offset).to(device, dtype) for each in projections
        ]
        self._width = next(each.width for each in projections if each is not None)

    def apply(self, values: Tensor, axis: int) -> Tensor:
        """Return values (F, B, *shape) projected along an axis of `shape`; zeros in folds without a projection."""
        vectors = values.movedim(axis, -1)
        parts = [
            of_fold.new_zeros(*of_fold.shape[:-1], self._width)
            if components is None or offset is None
            else of_fold @ components - offset
            for of_fold, components, offset in zip(vectors, self._components, self._offsets, strict=True)
        ]
        return torch.stack(parts).movedim(-1, axis)


def _targets_of_folds(
    table: FeatureTable, folds: Sequence[Fold], device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    """Return what heads learn: (1, N, C), or of a regression (F, N, C), standardised by the rows of each fold.

    Rows without a target, which no fold has, get 0: what is masked later must not be NaN.
    """
    if table.targets is None:
        return None
    values = table.targets.double().nan_to_num(0.0, 0.0, 0.0)
    scales = [table.target_scale(fold) for fold in folds]
    parts = [(values - torch.from_numpy(each.center)) / torch.from_numpy(each.scale) for each in scales if each]
    return torch.stack(parts or [values]).to(device, dtype)


def _of_rows(targets: Tensor, rows: Tensor) -> Tensor:
    """Return the targets (F, B, C) of rows (F, B), of targets (F, N, C) or (1, N, C)."""
    if len(targets) == 1:
        return targets[0][rows]
    return targets.gather(1, rows.unsqueeze(2).expand(-1, -1, targets.shape[2]))


def _limit(scaling: Scaling) -> npt.NDArray[np.float32]:
    return np.full_like(scaling.scale, np.inf) if scaling.limit is None else scaling.limit


def _stack(arrays: Sequence[npt.NDArray[np.float32]], shape: tuple[int, ...]) -> Tensor:
    """Return F arrays (D,) as (F, 1, ...) for rows (F, B, *shape): one number a feature, or a channel of maps."""
    places = [1] * len(shape)
    places[feature_axis(shape)] = -1
    return torch.from_numpy(np.stack(arrays)).view(len(arrays), 1, *places)


def _beside(mask: Tensor, values: Tensor) -> Tensor:
    """Return the mask with as many axes as the values."""
    return mask.view(*mask.shape, *[1] * (values.dim() - mask.dim()))
