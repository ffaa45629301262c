"""The moments of the columns of several sets of rows, in passes over blocks of all rows, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.scaling.outliers import FAR, may_have_outliers, ordinary_values
from emofuse.scaling.vectors import RowBlocks, vectors_of

MAD_TO_DEVIATION = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation
_COLUMNS_BYTES = 256 << 20  # of the columns that are searched for outliers at once
_EPS = float(np.finfo(np.float64).eps)


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


@dataclass(frozen=True)
class Passes:
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


def moments_of_sets(passes: Passes) -> list[RunningMoments]:
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


def leave_out_outliers(passes: Passes, moments: list[RunningMoments]) -> None:
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


def robust_moments(vectors: npt.NDArray[np.float32]) -> RunningMoments:
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
