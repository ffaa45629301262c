"""Standardisation of streams, fitted on the training rows of a run or fold alone, in float64.

`Scaling` is the fitted result. Its moments are computed in passes over blocks of rows, from memory or from a cache. A
stream may be projected to its principal components after that (`emofuse.projection`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.errors import TrainingError
from emofuse.outliers import FAR, may_have_outliers, ordinary_values
from emofuse.projection import Part, Projection, fit_projections, shape_after

MAD_TO_DEVIATION = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation
_ROWS_AT_ONCE = 4096
_COLUMNS_BYTES = 256 << 20  # of the columns that are searched for outliers at once
_EPS = float(np.finfo(np.float64).eps)

LIMIT = 10.0
"""A standardised value is limited to this multiple of the training value that is farthest from the center."""
LEAST_ROWS = 2
"""The smallest number of training rows that a stream needs: fewer have no deviation, and no batch norm sees them."""

RowBlocks = Callable[[], Iterator[tuple[int, npt.NDArray[np.float32]]]]
"""A function that starts a pass over all rows: it yields (first row, features (n, *shape)) of consecutive blocks."""


def feature_axis(shape: tuple[int, ...]) -> int:
    """Return the axis of a row that has one scale for each index, counted from the end: channels, or else features.

    Args:
        shape: the shape of a row: (D,), (T, D), (C, H, W) or (T, C, H, W).
    """
    return -3 if len(shape) >= 3 else -1


def vectors_of(features: npt.NDArray[Any], steps: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[Any]:
    """Return the vectors of all valid steps and all positions, (n vectors, D), as `Scaling` is fitted on them.

    A row has one vector a step, or a position of a map, or a step and position of a sequence of maps, in that order.

    Args:
        features: the features of n rows, (n, *shape).
        steps: the valid steps of sequences, bool (n, T); all of them unless given.
    """
    shape = features.shape[1:]
    if len(shape) == 1:
        return features
    # Contiguous rows of vectors, so that sums round alike for every number of rows.
    vectors = np.ascontiguousarray(np.moveaxis(features, feature_axis(shape), -1)).reshape(
        -1, shape[feature_axis(shape)]
    )
    if steps is None:
        return vectors
    positions = math.prod(shape) // shape[feature_axis(shape)] // shape[0]
    return vectors[np.repeat(steps.reshape(-1), positions)]


@dataclass(frozen=True)
class Scaling:
    """The standardisation of one stream: (x - center) / scale within +-limit, and zeros for rows without the stream.

    Each column (feature, or channel of a map) is scaled by its own values alone. A column that is constant over the
    training rows, up to the rounding of its mean (var <= n eps var + (n mean eps)^2, as in scikit-learn), has scale 1
    and limit 0, because no head can learn what another value means. Outliers (`emofuse.outliers`) do not influence
    center and scale. A value counts as at most `LIMIT` times as far out as the farthest ordinary training value.

    Attributes:
        center: the center of every column, (D,) float32.
        scale: the scale of every column, (D,) float32, above 0.
        limit: the largest magnitude of standardised values, (D,) float32; None for no limit, as in runs of former
            versions.
        fitted: whether at least `LEAST_ROWS` training rows had the stream. Otherwise it counts as missing in every row.
        projection: the principal components that heads see in place of the standardised columns; None for the columns.
    """

    center: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    limit: npt.NDArray[np.float32] | None = None
    fitted: bool = True
    projection: Projection | None = None

    @classmethod
    def fit(
        cls,
        features: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        *,
        steps: npt.NDArray[np.bool_] | None = None,
        robust: bool = False,
        fixed: Sequence[int] = (),
    ) -> Self:
        """Compute mean and population deviation, or median and 1.4826 MAD, of the given rows alone, in float64.

        Args:
            features: the features of all rows, (N, *shape) float32.
            rows: the training rows that have the stream, (n,) int64.
            steps: the valid steps of sequences, bool (N, T).
            robust: whether to use median and MAD.
            fixed: the columns that are constant by definition.
        """
        if robust and len(rows) >= LEAST_ROWS:
            return cls.of(_robust_moments(vectors_of(features[rows], None if steps is None else steps[rows])), fixed)
        (scaling,) = cls.fit_many(lambda: blocks_of(features), [rows], fixed, steps=steps)
        return scaling

    @classmethod
    def fit_many(
        cls,
        blocks: RowBlocks,
        sets: Sequence[npt.NDArray[np.int64]],
        fixed: Sequence[int] = (),
        *,
        steps: npt.NDArray[np.bool_] | None = None,
    ) -> list[Self]:
        """Compute mean and population deviation of several sets of rows in two passes over the blocks, in float64.

        A third pass searches columns that may have outliers. Equal blocks give equal bits, from memory and from disk.
        The memory needed is that of one block, also for sequences and maps.

        Args:
            blocks: the features of all rows, block by block in order.
            sets: the rows of each set, (n,) int64. A set of fewer than `LEAST_ROWS` rows is not fitted: its scaling has
                center 0, scale 1 and limit 0.
            fixed: the columns that are constant by definition.
            steps: the valid steps of sequences, bool (N, T).
        """
        # A stream of too few rows is not fitted, even if these have many steps or positions.
        passes = _Passes(blocks, [np.sort(rows) if len(rows) >= LEAST_ROWS else rows[:0] for rows in sets], steps)
        moments = _moments(passes)
        _leave_out_outliers(passes, moments)
        return [cls.of(of_set, fixed) for of_set in moments]

    @classmethod
    def of(cls, moments: RunningMoments, fixed: Sequence[int] = ()) -> Self:
        """Return the scaling by these moments. Values that are not finite stay so, for the caller to check."""
        if moments.count < LEAST_ROWS:
            zeros = np.zeros(len(moments.center), np.float32)
            return cls(zeros, np.ones_like(zeros), zeros, fitted=False)
        with np.errstate(invalid="ignore", over="ignore", under="ignore", divide="ignore"):
            scale = moments.spread.astype(np.float32)
            constant = moments.is_constant() | (scale == 0)
            constant[list(fixed)] = True
            scale = np.where(constant, np.float32(1), scale)
            limit = np.where(constant, 0.0, LIMIT * moments.farthest / scale).astype(np.float32)
            return cls(moments.center.astype(np.float32), scale, limit)

    def shape_of_rows(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a row as heads see it, from its shape before."""
        if self.projection is None:
            return shape
        return shape_after(shape, feature_axis(shape), self.projection.width)

    def around(self, center: npt.NDArray[np.floating[Any]]) -> Self:
        """Return the scaling with another center (D,); values within the former limit stay within the new one."""
        limit = self.limit
        if limit is not None:
            limit = np.where(limit > 0, limit + np.abs(center - self.center) / self.scale, 0).astype(np.float32)
        return replace(self, center=center.astype(np.float32), limit=limit)

    def present(self, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which of these rows have the stream for a head, bool (n,); none if it was not fitted."""
        return valid if self.fitted else np.zeros_like(valid)

    def apply(
        self,
        features: npt.NDArray[np.float32],
        valid: npt.NDArray[np.bool_],
        steps: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Standardise and project rows (n, *shape); zero where `valid` (n,) or `steps` (n, T) is false."""
        scaled = self.standardise(features)
        if self.projection is not None:
            scaled[~valid] = 0  # what stands in rows that are not there may be no number
            if steps is not None:
                scaled[~steps] = 0
            scaled = self.projection.apply(scaled, feature_axis(features.shape[1:]))
        scaled[~self.present(valid)] = 0
        if steps is not None:
            scaled[~steps] = 0
        return scaled

    def standardise(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return rows (n, *shape) standardised and limited, of all rows and steps and before the projection."""
        axis = feature_axis(features.shape[1:])
        broadcast = (-1, *[1] * (-axis - 1))
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = features - self.center.reshape(broadcast)
            scaled /= self.scale.reshape(broadcast)
            if self.limit is not None:
                limit = self.limit.reshape(broadcast)
                np.clip(scaled, -limit, limit, out=scaled)
        return scaled

    def beyond(
        self,
        features: npt.NDArray[np.float32],
        valid: npt.NDArray[np.bool_],
        steps: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Return, bool (n, D), the columns in which `apply` limits a value of a row; constant columns do not count."""
        count, width = len(features), len(self.center)
        if self.limit is None or not self.fitted:
            return np.zeros((count, width), dtype=np.bool_)
        vectors = vectors_of(features).reshape(count, features[0].size // width if count else 1, width)
        with np.errstate(invalid="ignore", over="ignore"):
            over = np.abs((vectors - self.center) / self.scale) > self.limit
        if steps is not None:
            over &= np.repeat(steps, over.shape[1] // steps.shape[1], axis=1)[:, :, None]
        of_rows: npt.NDArray[np.bool_] = over.any(axis=1) & (self.limit > 0) & valid[:, None]
        return of_rows


def with_projections(
    stream: str,
    scalings: Sequence[Scaling],
    blocks: RowBlocks,
    sets: Sequence[npt.NDArray[np.int64]],
    *,
    wanted: float,
    shape: tuple[int, ...],
    steps: npt.NDArray[np.bool_] | None = None,
) -> list[Scaling]:
    """Return scalings with the principal components of the rows that each was fitted on, in one pass over the blocks.

    Args:
        stream: the name of the stream, for messages.
        scalings: the scaling of each set of rows.
        blocks: the features of all rows, block by block in order.
        sets: the training rows of each set that have the stream, (n,) int64.
        wanted: the share of the variance, below 1, or the number of components.
        shape: the shape of a row.
        steps: the valid steps of sequences, bool (N, T).

    Raises:
        TrainingError: see `fit_projections`.
    """
    ordered = [np.sort(rows) if each.fitted else rows[:0] for each, rows in zip(scalings, sets, strict=True)]
    passes = _Passes(blocks, ordered, steps)
    of_row = math.prod(shape) // shape[feature_axis(shape)]  # the vectors of a row
    if steps is None:
        counts = [of_row * len(rows) for rows in ordered]
    else:
        counts = [of_row // shape[0] * int(steps[rows].sum()) for rows in ordered]

    def standardised() -> Iterator[Part]:
        for index, vectors in passes:
            yield index, scalings[index].standardise(vectors).astype(np.float64)

    projections = fit_projections(stream, standardised, counts, len(scalings[0].center), wanted)
    return [replace(each, projection=projection) for each, projection in zip(scalings, projections, strict=True)]


@dataclass(frozen=True)
class RunningMoments:
    """The moments of n values of each of D columns, in float64.

    Attributes:
        count: the number of values n.
        center: the mean or median, (D,).
        spread: the deviation or its robust estimate, (D,).
        farthest: the largest distance of a value from the center, (D,).
    """

    count: int
    center: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    farthest: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: npt.NDArray[np.floating[Any]]) -> Self:
        """Compute mean and population deviation of values (n, D)."""
        wide = values.astype(np.float64)
        center = wide.mean(axis=0)
        distance = np.abs(wide - center)
        return cls(len(wide), center, np.sqrt(np.square(distance).mean(axis=0)), distance.max(axis=0))

    def is_constant(self) -> npt.NDArray[np.bool_]:
        """Return the columns whose deviation is no more than the rounding of their mean, bool (D,)."""
        var = np.square(self.spread)
        constant: npt.NDArray[np.bool_] = var <= self.count * _EPS * var + np.square(self.count * self.center * _EPS)
        return constant


def check_finite(stream: str, scaling: Scaling) -> None:
    """Check that a stream's features can be standardised.

    Raises:
        TrainingError: a center or scale is not finite.
    """
    if not (np.isfinite(scaling.center).all() and np.isfinite(scaling.scale).all()):
        raise TrainingError(
            f"stream {stream!r}: rows with status ok hold values that are not finite, or too large to square. "
            f"Drop the stream and build it again: emofuse cache drop CACHE {stream}"
        )


def blocks_of(features: npt.NDArray[np.float32]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Yield the first row and the features of one block of rows after another."""
    for first in range(0, len(features), _ROWS_AT_ONCE):
        yield first, features[first : first + _ROWS_AT_ONCE]


@dataclass(frozen=True)
class _Passes:
    """Passes over the vectors of several sets of rows, block by block, so that no set is ever in memory as a whole.

    Attributes:
        blocks: the features of all rows, block by block.
        sets: the rows of each set, int64, ascending.
        steps: the valid steps of sequences, bool (N, T).
    """

    blocks: RowBlocks
    sets: Sequence[npt.NDArray[np.int64]]
    steps: npt.NDArray[np.bool_] | None

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of a set, the vectors (n, D) of its rows in a block), block after block."""
        for first, block in self.blocks():
            for index, rows in enumerate(self.sets):
                start, stop = np.searchsorted(rows, (first, first + len(block)))
                inside = rows[start:stop]
                yield index, vectors_of(block[inside - first], None if self.steps is None else self.steps[inside])

    def sums(
        self, of_vectors: Callable[[npt.NDArray[np.float32], int], npt.NDArray[Any]]
    ) -> list[npt.NDArray[np.float64]]:
        """Return, for each set, the sum (D,) float64 of a function of its vectors and its index."""
        totals: list[Any] = [0.0] * len(self.sets)
        with np.errstate(invalid="ignore", over="ignore"):
            for index, vectors in self:
                totals[index] = totals[index] + of_vectors(vectors, index).sum(axis=0, dtype=np.float64)
        return totals


def _moments(passes: _Passes) -> list[RunningMoments]:
    """Compute the moments of each set in two passes."""
    counts = [0] * len(passes.sets)
    low: list[Any] = [np.inf] * len(passes.sets)
    high: list[Any] = [-np.inf] * len(passes.sets)

    def noted(vectors: npt.NDArray[np.float32], index: int) -> npt.NDArray[np.float32]:
        counts[index] += len(vectors)
        low[index] = np.minimum(low[index], vectors.min(axis=0, initial=np.inf))
        high[index] = np.maximum(high[index], vectors.max(axis=0, initial=-np.inf))
        return vectors

    totals = passes.sums(noted)
    means = [total / max(count, 1) for total, count in zip(totals, counts, strict=True)]
    squares = passes.sums(lambda vectors, index: np.square(vectors - means[index]))
    spreads = [np.sqrt(total / max(count, 1)) for total, count in zip(squares, counts, strict=True)]
    with np.errstate(invalid="ignore"):
        farthest = [np.maximum(top - mean, mean - bottom) for top, bottom, mean in zip(high, low, means, strict=True)]
    return [RunningMoments(*of_set) for of_set in zip(counts, means, spreads, farthest, strict=True)]


def _leave_out_outliers(passes: _Passes, moments: list[RunningMoments]) -> None:
    """Replace the moments of columns with outliers by those of their ordinary values."""
    suspects = [may_have_outliers(of_set.count, of_set.farthest, of_set.spread) for of_set in moments]
    columns = np.flatnonzero(np.any(suspects, axis=0))
    vectors_in_all = sum(of_set.count for of_set in moments)
    at_once = max(1, _COLUMNS_BYTES // max(1, np.dtype(np.float32).itemsize * vectors_in_all))
    for start in range(0, len(columns), at_once):
        chosen = columns[start : start + at_once]
        parts: list[list[npt.NDArray[np.float32]]] = [[] for _ in moments]
        for index, vectors in passes:
            parts[index].append(vectors[:, chosen])
        for index, of_set in enumerate(parts):
            values = np.concatenate(of_set)
            for place in np.flatnonzero(suspects[index][chosen]).tolist():
                ordinary = ordinary_values(values[:, place])
                if ordinary is not None:
                    column = RunningMoments.of(values[ordinary, place, None])
                    moments[index] = _with_column(moments[index], chosen[place], column)


def _with_column(moments: RunningMoments, column: int, of_column: RunningMoments) -> RunningMoments:
    """Return the moments with one column replaced by the moments of this column alone."""
    parts = {}
    for name in ("center", "spread", "farthest"):
        parts[name] = getattr(moments, name).copy()
        parts[name][column] = getattr(of_column, name)[0]
    return replace(moments, **parts)


def _robust_moments(vectors: npt.NDArray[np.float32]) -> RunningMoments:
    """Compute median and 1.4826 MAD of each column of (n, D), without a second copy of the table.

    The deviation replaces a MAD near zero, which occurs where more than half of the values are equal.
    """
    dim = vectors.shape[1]
    median, spread, farthest = np.empty(dim), np.empty(dim), np.empty(dim)
    for index in range(dim):
        wide = vectors[:, index].astype(np.float64)
        ordinary = ordinary_values(wide)
        kept = wide if ordinary is None else wide[ordinary]
        median[index] = np.median(wide)
        distance = np.abs(wide - median[index])
        mad, deviation = MAD_TO_DEVIATION * np.median(distance), kept.std()
        spread[index] = mad if mad > deviation / FAR else deviation
        farthest[index] = np.abs(kept - median[index]).max()
    return RunningMoments(len(vectors), median, spread, farthest)
