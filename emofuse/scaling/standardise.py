"""The standardisation of a stream, fitted on the training rows of a run or fold alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.errors import TrainingError
from emofuse.scaling.moments import Passes, RunningMoments, leave_out_outliers, moments_of_sets, robust_moments
from emofuse.scaling.projection import Part, Projection, fit_projections, shape_after
from emofuse.scaling.vectors import RowBlocks, blocks_of, feature_axis, vectors_of

LIMIT = 10.0
"""A standardised value is limited to this multiple of the training value that is farthest from the center."""
LEAST_ROWS = 2
"""The smallest number of training rows that a stream needs: fewer have no deviation, and no batch norm sees them."""


@dataclass(frozen=True)
class Scaling:
    """The standardisation of one stream: (x - center) / scale within +-limit, and zeros for rows without the stream.

    Each column (feature, or channel of a map) is scaled by its own values alone. A column that is constant over the
    training rows, up to the rounding of its mean (var <= n eps var + (n mean eps)^2, as in scikit-learn), has scale 1
    and limit 0, because no head can learn what another value means. Outliers (see `outliers`) do not influence
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
            return cls.of(robust_moments(vectors_of(features[rows], None if steps is None else steps[rows])), fixed)
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
        passes = Passes(blocks, [np.sort(rows) if len(rows) >= LEAST_ROWS else rows[:0] for rows in sets], steps)
        moments = moments_of_sets(passes)
        leave_out_outliers(passes, moments)
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
    passes = Passes(blocks, ordered, steps)
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
