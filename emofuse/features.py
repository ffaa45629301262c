"""Derived features: computed when the cache is read, and stored nowhere.

Variants of streams as their kinds define them (LBP histograms of 128 or 256 bins out of the 512 that are cached, the
first n of 30 action units), and standardisation. What is fitted is fitted on the training rows it is given, and on
nothing else. Plain arrays: `emofuse.training.variants` reads them from a cache, `emofuse.predict` extracts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.errors import CacheError, SpecError, TrainingError, did_you_mean
from emofuse.outliers import FAR, may_have_outliers, ordinary_values
from emofuse.specs import FeaturesSpec
from emofuse.specs.plugins import RECORD, load_recorded
from emofuse.specs.streams import STREAMS, Value, variants_of

if TYPE_CHECKING:
    from emofuse.cache.cached_stream import CachedStream

ACTION_UNITS = "action_units"
MAD_TO_DEVIATION = 1.4826  # a normal distribution's standard deviation over its median absolute deviation
_ROWS_AT_ONCE = 4096
_COLUMNS_BYTES = 256 << 20  # of columns that are looked at whole, in search of outliers
_EPS = float(np.finfo(np.float64).eps)

LIMIT = 10.0
"""A standardised value is limited to so many times that of the training value which is farthest out."""

LEAST_NEUTRAL_ROWS = 3
"""Neutral faces for a deviation of their own: one has none, and that of two is chance."""
LEAST_ROWS = 2
"""Training rows that a stream needs: with fewer there is no deviation, and no batch norm ever sees it."""

RowBlocks = Callable[[], Iterator[tuple[int, npt.NDArray[np.float32]]]]
"""Begins a pass over rows: (first row, features (n, D)) of one block of consecutive rows after another."""


def cached_streams(streams: Mapping[str, CachedStream], names: Sequence[str], where: object) -> dict[str, CachedStream]:
    """The named streams of a cache, in the order of the names. Kinds from plugin files are loaded, for their variants.

    Args:
        streams: all of the cache.
        names: those that are asked for.
        where: the cache's path, for the message.

    Raises:
        SpecError: names that are not in the cache, all of them, with what is.
        PluginError: a kind's plugin file is not there as it was, or the user has never named it.
    """
    known = sorted(streams)
    problems = [
        f"features.streams: {name!r} is not in the cache{did_you_mean(name, known)} (there are: {', '.join(known)})"
        for name in names
        if name not in streams
    ]
    if problems:
        raise SpecError(str(where), problems)
    for name in names:
        record = streams[name].spec.get(RECORD)
        if record is not None and STREAMS.find(streams[name].kind) is None:
            load_recorded(record)
    return {name: streams[name] for name in names}


Choice = tuple[tuple[str, Value], ...]
"""One variant of a stream: (name, value) of every variant of its kind; () for kinds without."""


def chosen_variant(kind: str, stream: str, spec: FeaturesSpec) -> Choice:
    """Which variant of a stream a run sees: the stream's own choice, that of its kind, or the kind's default."""
    own = spec.variants.get(stream, {})
    return tuple(
        (each.name, own.get(each.name, spec.factors.get(each.factor, each.default))) for each in variants_of(kind)
    )


def derived_features(kind: str, stored: npt.NDArray[Any], spec: FeaturesSpec, stream: str) -> npt.NDArray[np.float32]:
    """What heads see of a stream's stored features, see `derive`."""
    return derive(kind, stored, chosen_variant(kind, stream, spec))


def derive(kind: str, stored: npt.NDArray[Any], choice: Choice) -> npt.NDArray[np.float32]:
    """One variant of a stream's stored features: as its kind makes it, or as stored for a kind that is not known here.

    Args:
        kind: of the stream's spec.
        stored: (n, *shape) as cached or extracted.
        choice: of the kind's variants.

    Returns:
        (n, *shape of the variant) float32, an array of its own.

    Raises:
        CacheError: the stream has another shape than its kind stores.
    """
    spec = STREAMS.find(kind)
    if spec is not None and spec.variants and spec.stored_shape is not None and stored.shape[1:] != spec.stored_shape:
        expected, found = (" x ".join(map(str, shape)) for shape in (spec.stored_shape, stored.shape[1:]))
        raise CacheError(f"a stream of kind {kind!r} must hold {expected} values a row, got {found}")
    derived = stored if spec is None or not choice else spec.derive(stored, dict(choice))
    return np.ascontiguousarray(derived, dtype=np.float32)


def derived_shape(kind: str, shape: tuple[int, ...], choice: Choice) -> tuple[int, ...]:
    """Shape of a row of a variant, from that of a stored row."""
    return derive(kind, np.zeros((0, *shape), np.float32), choice).shape[1:] if choice else shape


def fixed_columns(kind: str) -> tuple[int, ...]:
    """Columns that the streams of a kind make constant, up to rounding."""
    spec = STREAMS.find(kind)
    return () if spec is None else spec.fixed_columns


def feature_axis(shape: tuple[int, ...]) -> int:
    """Which axis of a row is scaled number by number: the channels of a map, else the features. Counted from the end.

    Args:
        shape: of a row: (D,), (T, D), (C, H, W) or (T, C, H, W).
    """
    return -3 if len(shape) >= 3 else -1


def feature_rows(features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(n x vectors a row, D) of (n, *shape): the vectors of all steps and positions, as `Scaling.fit` takes them.

    They are T for a sequence, H x W for a map, T x H x W for a sequence of maps, in that order.
    """
    shape = features.shape[1:]
    if len(shape) == 1:
        return features
    return np.moveaxis(features, feature_axis(shape), -1).reshape(-1, shape[feature_axis(shape)])


def vector_rows(
    rows: npt.NDArray[np.int64], shape: tuple[int, ...], steps: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.int64]:
    """Which of the vectors of `feature_rows` belong to these rows and to steps that are there, ascending.

    Args:
        rows: (n,) int64.
        shape: of a row.
        steps: (N, T) bool of all rows of a sequence, else None.
    """
    if len(shape) == 1:
        return rows
    length = shape[0] if len(shape) in {2, 4} else 1
    places = int(np.prod(shape)) // shape[feature_axis(shape)] // length
    of_steps = (np.sort(rows)[:, None] * length + np.arange(length)).ravel()
    if steps is not None:
        of_steps = of_steps[steps.reshape(-1)[of_steps]]
    vectors: npt.NDArray[np.int64] = (of_steps[:, None] * places + np.arange(places)).ravel()
    return vectors


@dataclass(frozen=True)
class Scaling:
    """Standardisation of one stream: (x - center) / scale within +-limit; rows without the stream become zeros.

    Each column is scaled by its own values alone. A column that is constant over the training rows, up to the rounding
    of its mean (var <= n eps var + (n mean eps)^2, as in scikit-learn), has scale 1 and limit 0: no head can have
    learned what another value of it means. Outliers (`emofuse.outliers`) have no say in center and scale, and no value
    counts as more than `LIMIT` times as far out as the farthest ordinary training value.

    Attributes:
        center: (D,) float32.
        scale: (D,) float32, above 0.
        limit: (D,) float32, of standardised values; None for none, as in runs of former versions.
        fitted: whether `LEAST_ROWS` training rows had the stream. If not, it counts as missing in every row.
    """

    center: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    limit: npt.NDArray[np.float32] | None = None
    fitted: bool = True

    @classmethod
    def fit(
        cls,
        features: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        *,
        robust: bool = False,
        fixed: Sequence[int] = (),
    ) -> Self:
        """Mean and population deviation, or median and 1.4826 MAD, of the given rows alone, computed in float64.

        Args:
            features: (N, D) float32.
            rows: (n,) int64, training rows that have the stream.
            robust: median and MAD.
            fixed: columns that are constant by what the stream is.
        """
        if robust and len(rows) >= LEAST_ROWS:
            return cls.of(_robust_moments(features[rows]), fixed)
        (scaling,) = cls.fit_many(lambda: _blocks_of(features), [rows], fixed)
        return scaling

    @classmethod
    def fit_many(
        cls, blocks: RowBlocks, sets: Sequence[npt.NDArray[np.int64]], fixed: Sequence[int] = ()
    ) -> list[Self]:
        """Mean and population deviation of several sets of rows: two passes over the same blocks, in float64.

        A third one looks for outliers in columns that may have some. Blocks of the same rows give the same bits,
        whether they lie in memory or are read.

        Args:
            blocks: of all rows, in order.
            sets: each (n,) int64; with fewer than `LEAST_ROWS` rows nothing is fitted: center 0, scale 1, limit 0.
            fixed: columns that are constant by what the stream is.
        """
        ordered = [np.sort(rows) for rows in sets]
        moments = _moments(blocks, ordered)
        _leave_out_outliers(blocks, ordered, moments)
        return [cls.of(found, fixed) for found in moments]

    @classmethod
    def of(cls, moments: Moments, fixed: Sequence[int] = ()) -> Self:
        """A scaling by these moments; what is not finite stays so, for the caller to see."""
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

    def around(self, center: npt.NDArray[np.floating[Any]]) -> Self:
        """The same deviation about another center (D,); what was ordinary about the old one still is."""
        limit = self.limit
        if limit is not None:
            limit = np.where(limit > 0, limit + np.abs(center - self.center) / self.scale, 0).astype(np.float32)
        return replace(self, center=center.astype(np.float32), limit=limit)

    def present(self, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(n,) bool: which of these rows have the stream for a head; none if it was not fitted."""
        return valid if self.fitted else np.zeros_like(valid)

    def apply(
        self,
        features: npt.NDArray[np.float32],
        valid: npt.NDArray[np.bool_],
        steps: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.float32]:
        """(n, *shape) float32: these rows standardised, zeros where `valid` (n,) or `steps` (n, T) does not hold."""
        axis = feature_axis(features.shape[1:])
        places = (-1, *[1] * (-axis - 1))
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = features - self.center.reshape(places)
            scaled /= self.scale.reshape(places)
            if self.limit is not None:
                limit = self.limit.reshape(places)
                np.clip(scaled, -limit, limit, out=scaled)
        scaled[~self.present(valid)] = 0
        if steps is not None:
            scaled[~steps] = 0
        return scaled

    def beyond(
        self,
        features: npt.NDArray[np.float32],
        valid: npt.NDArray[np.bool_],
        steps: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.bool_]:
        """(n, D) bool: columns of the given rows of which `apply` limits a value, if they are not constant."""
        count, width = len(features), len(self.center)
        if self.limit is None or not self.fitted:
            return np.zeros((count, width), dtype=np.bool_)
        vectors = feature_rows(features).reshape(count, features[0].size // width if count else 1, width)
        with np.errstate(invalid="ignore", over="ignore"):
            over = np.abs((vectors - self.center) / self.scale) > self.limit
        if steps is not None:
            over &= np.repeat(steps, over.shape[1] // steps.shape[1], axis=1)[:, :, None]
        of_rows: npt.NDArray[np.bool_] = over.any(axis=1) & (self.limit > 0) & valid[:, None]
        return of_rows


@dataclass(frozen=True)
class Moments:
    """What n values of each of D columns are like, in float64.

    Attributes:
        count: n.
        center: (D,) mean or median.
        spread: (D,) deviation, or what stands for it.
        farthest: (D,) largest distance of a value from the center.
    """

    count: int
    center: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    farthest: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: npt.NDArray[np.floating[Any]]) -> Self:
        """Mean and population deviation of values (n, D) in memory."""
        wide = values.astype(np.float64)
        center = wide.mean(axis=0)
        distance = np.abs(wide - center)
        return cls(len(wide), center, np.sqrt(np.square(distance).mean(axis=0)), distance.max(axis=0))

    def is_constant(self) -> npt.NDArray[np.bool_]:
        """(D,) bool: columns whose deviation is no more than the rounding of their mean."""
        var = np.square(self.spread)
        constant: npt.NDArray[np.bool_] = var <= self.count * _EPS * var + np.square(self.count * self.center * _EPS)
        return constant


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
        for index, rows in _parts(blocks, sets):
            totals[index] = totals[index] + of_rows(rows, index).sum(axis=0, dtype=np.float64)
    return totals


def _parts(blocks: RowBlocks, sets: Sequence[npt.NDArray[np.int64]]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """(index of a set, those of its ascending rows that lie in a block), block after block."""
    for first, block in blocks():
        for index, rows in enumerate(sets):
            start, stop = np.searchsorted(rows, (first, first + len(block)))
            yield index, block[rows[start:stop] - first]


def _moments(blocks: RowBlocks, sets: Sequence[npt.NDArray[np.int64]]) -> list[Moments]:
    """Of each set of ascending rows, in two passes."""
    low: list[Any] = [np.inf] * len(sets)
    high: list[Any] = [-np.inf] * len(sets)

    def noted(rows: npt.NDArray[np.float32], index: int) -> npt.NDArray[np.float32]:
        low[index] = np.minimum(low[index], rows.min(axis=0, initial=np.inf))
        high[index] = np.maximum(high[index], rows.max(axis=0, initial=-np.inf))
        return rows

    totals = _sums(blocks, sets, noted)
    means = [total / max(len(rows), 1) for total, rows in zip(totals, sets, strict=True)]
    squares = _sums(blocks, sets, lambda rows, index: np.square(rows - means[index]))
    spreads = [np.sqrt(total / max(len(rows), 1)) for total, rows in zip(squares, sets, strict=True)]
    with np.errstate(invalid="ignore"):
        farthest = [np.maximum(top - mean, mean - bottom) for top, bottom, mean in zip(high, low, means, strict=True)]
    return [Moments(len(rows), *found) for rows, *found in zip(sets, means, spreads, farthest, strict=True)]


def _leave_out_outliers(blocks: RowBlocks, sets: Sequence[npt.NDArray[np.int64]], moments: list[Moments]) -> None:
    """Puts moments of ordinary values in the place of those of all, in columns with outliers."""
    suspects = [may_have_outliers(found.count, found.farthest, found.spread) for found in moments]
    columns = np.flatnonzero(np.any(suspects, axis=0))
    rows_in_all = sum(len(rows) for rows in sets)
    at_once = max(1, _COLUMNS_BYTES // max(1, np.dtype(np.float32).itemsize * rows_in_all))
    for start in range(0, len(columns), at_once):
        own = columns[start : start + at_once]
        parts: list[list[npt.NDArray[np.float32]]] = [[] for _ in sets]
        for index, rows in _parts(blocks, sets):
            parts[index].append(rows[:, own])
        for index, of_set in enumerate(parts):
            values = np.concatenate(of_set)
            for place in np.flatnonzero(suspects[index][own]).tolist():
                ordinary = ordinary_values(values[:, place])
                if ordinary is not None:
                    moments[index] = _with_column(moments[index], own[place], Moments.of(values[ordinary, place, None]))


def _with_column(moments: Moments, column: int, found: Moments) -> Moments:
    """The same with one column's numbers replaced by those of moments of this column alone."""
    parts = {}
    for name in ("center", "spread", "farthest"):
        parts[name] = getattr(moments, name).copy()
        parts[name][column] = getattr(found, name)[0]
    return replace(moments, **parts)


def _robust_moments(features: npt.NDArray[np.float32]) -> Moments:
    """Median and 1.4826 MAD of each column, without a second copy of the table.

    Where the MAD is next to nothing, because more than half of the values are equal, the deviation stands for it.
    """
    dim = features.shape[1]
    median, spread, farthest = np.empty(dim), np.empty(dim), np.empty(dim)
    for index in range(dim):
        wide = features[:, index].astype(np.float64)
        ordinary = ordinary_values(wide)
        kept = wide if ordinary is None else wide[ordinary]
        median[index] = np.median(wide)
        distance = np.abs(wide - median[index])
        mad, deviation = MAD_TO_DEVIATION * np.median(distance), kept.std()
        spread[index] = mad if mad > deviation / FAR else deviation
        farthest[index] = np.abs(kept - median[index]).max()
    return Moments(len(features), median, spread, farthest)
