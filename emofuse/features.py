"""Derived features: computed when the cache is read, and stored nowhere.

LBP histograms of 128 or 256 bins out of the 512 that are cached, the first n of 30 action units, standardisation. What
is fitted is fitted on the training rows it is given, and on nothing else. Plain arrays: `emofuse.training.columns`
reads them from a cache, `emofuse.predict` extracts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.errors import CacheError, SpecError, TrainingError, did_you_mean
from emofuse.specs import FeaturesSpec

if TYPE_CHECKING:
    from emofuse.cache.cached_stream import CachedStream

LBP = "lbp"
ACTION_UNITS = "action_units"
STORED_DIMS = {LBP: 512, ACTION_UNITS: 30}
MAD_TO_DEVIATION = 1.4826  # a normal distribution's standard deviation over its median absolute deviation
_ROWS_AT_ONCE = 4096

RowBlocks = Callable[[], Iterator[tuple[int, npt.NDArray[np.float32]]]]
"""Begins a pass over rows: (first row, features (n, D)) of one block of consecutive rows after another."""


def cached_streams(streams: Mapping[str, CachedStream], names: Sequence[str], where: object) -> dict[str, CachedStream]:
    """The named streams of a cache, in the order of the names.

    Args:
        streams: all of the cache.
        names: those that are asked for.
        where: the cache's path, for the message.

    Raises:
        SpecError: names that are not in the cache, all of them, with what is.
    """
    known = sorted(streams)
    problems = [
        f"features.streams: {name!r} is not in the cache{did_you_mean(name, known)} (there are: {', '.join(known)})"
        for name in names
        if name not in streams
    ]
    if problems:
        raise SpecError(str(where), problems)
    return {name: streams[name] for name in names}


def variant(kind: str, spec: FeaturesSpec) -> int | None:
    """Which variant of a stream of this kind a run sees: how many bins or action units; None for kinds without."""
    return {LBP: spec.lbp_bins, ACTION_UNITS: spec.action_units}.get(kind)


def derived_features(kind: str, stored: npt.NDArray[Any], spec: FeaturesSpec) -> npt.NDArray[np.float32]:
    """What heads see of a stream's stored features, see `derive`."""
    return derive(kind, stored, variant(kind, spec))


def derive(kind: str, stored: npt.NDArray[Any], size: int | None) -> npt.NDArray[np.float32]:
    """One variant of a stream's stored features.

    `lbp`: 512 = radius 1 and radius 2 side by side, 256 = radius 1, 128 = radius 1 with codes merged in pairs
    (code >> 1). `action_units`: the first n of 30. Every other kind: as stored.

    Args:
        kind: of the stream's spec.
        stored: (n, D) as cached or extracted.
        size: how many bins or action units; None for other kinds.

    Returns:
        (n, D') float32.

    Raises:
        CacheError: an `lbp` or `action_units` stream of another width than emofuse stores.
    """
    expected = STORED_DIMS.get(kind, stored.shape[1])
    if stored.shape[1] != expected:
        raise CacheError(f"a stream of kind {kind!r} must hold {expected} values a row, got {stored.shape[1]}")
    if kind == LBP and size == 128:
        merged: npt.NDArray[np.float32] = stored[:, :256:2].astype(np.float32)
        merged += stored[:, 1:256:2]
        return merged
    return np.ascontiguousarray(stored[:, :size], dtype=np.float32)


@dataclass(frozen=True)
class Scaling:
    """Standardisation of one stream: (x - center) / scale; rows without the stream become zeros.

    Attributes:
        center: (D,) float32.
        scale: (D,) float32, above 0.
    """

    center: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, features: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], *, robust: bool = False) -> Self:
        """Mean and population deviation, or median and 1.4826 MAD, of the given rows alone, computed in float64.

        Args:
            features: (N, D) float32.
            rows: (n,) int64, training rows that have the stream.
            robust: median and MAD.
        """
        if robust and len(rows):
            return cls.of(*_median_and_mad(features[rows]))
        (scaling,) = cls.fit_many(lambda: _blocks_of(features), [rows])
        return scaling

    @classmethod
    def fit_many(cls, blocks: RowBlocks, sets: Sequence[npt.NDArray[np.int64]]) -> list[Self]:
        """Mean and population deviation of several sets of rows: two passes over the same blocks, in float64.

        Blocks of the same rows give the same bits, whether they lie in memory or are read.

        Args:
            blocks: of all rows, in order.
            sets: each (n,) int64; without a row, center is 0 and scale 1.
        """
        ordered = [np.sort(rows) for rows in sets]
        totals = _sums(blocks, ordered, lambda block, _: block)
        means = [total / max(len(rows), 1) for total, rows in zip(totals, ordered, strict=True)]
        squares = _sums(blocks, ordered, lambda block, index: np.square(block - means[index]))
        spreads = [np.sqrt(total / max(len(rows), 1)) for total, rows in zip(squares, ordered, strict=True)]
        return [cls.of(mean, spread) for mean, spread in zip(means, spreads, strict=True)]

    @classmethod
    def of(cls, center: npt.NDArray[np.float64], spread: npt.NDArray[np.float64]) -> Self:
        """A scaling by these numbers (D,); what is not finite stays so, for the caller to see.

        A column that is constant up to float32 rounding has scale 1: the aligned eye corners of `landmarks` differ in
        their last bits only, and those blown up to unit variance would be noise to a head.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            eps = np.finfo(np.float32).eps
            rounding = eps * (8 * np.abs(center) + np.max(np.abs(center) + spread))
            return cls(center.astype(np.float32), np.where(spread <= rounding, 1.0, spread).astype(np.float32))

    def apply(self, features: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """(n, D) float32: the given rows standardised, zeros where `valid` (n,) does not hold."""
        scaled = features - self.center
        scaled /= self.scale
        scaled[~valid] = 0
        return scaled


def check_finite(stream: str, scaling: Scaling) -> None:
    """Raises if a stream's features cannot be standardised.

    Raises:
        TrainingError: they are not finite.
    """
    if not (np.isfinite(scaling.center).all() and np.isfinite(scaling.scale).all()):
        raise TrainingError(
            f"stream {stream!r}: rows with status ok hold values that are not finite, or too large to square. "
            f"Drop the stream and build it again: emofuse cache drop CACHE {stream}"
        )


def neutral_rows(
    rows: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    stream: str,
    neutral_label: str,
) -> npt.NDArray[np.int64]:
    """Those of the training rows with a face that show one at rest, the paper's baseline of action units.

    Args:
        rows: (n,) int64, training rows that have the stream.
        labels: (N,) int64.
        classes: label names in index order.
        stream: for messages.
        neutral_label: name of the label.

    Raises:
        TrainingError: it is no label, or no row has it.
    """
    if neutral_label not in classes:
        raise TrainingError(
            f"features.neutral_label: {neutral_label!r} is no label of this dataset"
            f"{did_you_mean(neutral_label, classes)} (there are: {', '.join(classes)}). "
            "Name one of them, or leave it out: the baseline is then the median of all training faces"
        )
    neutral: npt.NDArray[np.int64] = rows[labels[rows] == tuple(classes).index(neutral_label)]
    if len(neutral) == 0:
        raise TrainingError(
            f"features.neutral_label: no training row labelled {neutral_label!r} has stream {stream!r}. "
            "Leave it out: the baseline is then the median of all training faces"
        )
    return neutral


def _blocks_of(features: npt.NDArray[np.float32]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    for first in range(0, len(features), _ROWS_AT_ONCE):
        yield first, features[first : first + _ROWS_AT_ONCE]


def _sums(
    blocks: RowBlocks,
    sets: Sequence[npt.NDArray[np.int64]],
    of_rows: Callable[[npt.NDArray[np.float32], int], npt.NDArray[Any]],
) -> list[npt.NDArray[np.float64]]:
    """For each set of ascending rows (D,) float64: the sum of what is made of its rows of every block."""
    totals: list[Any] = [0.0] * len(sets)
    with np.errstate(invalid="ignore", over="ignore"):
        for first, block in blocks():
            for index, rows in enumerate(sets):
                start, stop = np.searchsorted(rows, (first, first + len(block)))
                own = block[rows[start:stop] - first]
                totals[index] = totals[index] + of_rows(own, index).sum(axis=0, dtype=np.float64)
    return totals


def _median_and_mad(
    features: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Column by column: no second copy of the table."""
    median, mad = np.empty(features.shape[1]), np.empty(features.shape[1])
    for index in range(features.shape[1]):
        wide = features[:, index].astype(np.float64)
        median[index] = np.median(wide)
        mad[index] = np.median(np.abs(wide - median[index]))
    return median, MAD_TO_DEVIATION * mad
