"""Scores of many runs on the same resamples of their units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.metrics.confusion import Floats

Metric = Callable[[Floats], Floats]
"""(..., C, C) counts, true class down and predicted class across -> (...) scores."""

Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.floating[Any]]

_BATCH_BYTES = 2**27
_EXACT_FLOAT32 = 2**24  # whole numbers up to here are exact in float32, whatever the order of summation


@dataclass(frozen=True)
class Resampling:
    """How often units are drawn, and from which seed.

    Attributes:
        count: resamples B, each of as many units as there are.
        seed: of PCG64.
    """

    count: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be >= 1, got {self.count}")


@dataclass(frozen=True)
class Answers:
    """What one run answered to its test rows.

    Attributes:
        unit: (n,) int64, the unit of each row, 0 <= unit < units, each at most once.
        label: (n,) int64, true class.
        predicted: (n,) int64, class answered.
    """

    unit: Ints
    label: Ints
    predicted: Ints


@dataclass(frozen=True)
class Resampled:
    """Scores of R runs by M metrics.

    Attributes:
        observed: (R, M) float64, on the rows as they are.
        drawn: (B, R, M) float64, on each resample; NaN where a resample has no row of the run, which can happen only
            if its rows are not all units.
    """

    observed: Floats
    drawn: Floats

    def mean(self, runs: Sequence[int]) -> Resampled:
        """The mean over some of the runs, as one run: repeats of one configuration, drawn together."""
        places = list(runs)
        defined = ~np.isnan(self.drawn[:, places])
        count = defined.sum(axis=1, keepdims=True)
        total = np.nansum(self.drawn[:, places], axis=1, keepdims=True)
        drawn = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return Resampled(self.observed[places].mean(axis=0, keepdims=True), drawn)


def resample_metrics(
    runs: Sequence[Answers],
    metrics: Sequence[Metric],
    *,
    units: int,
    classes: int,
    resampling: Resampling,
) -> Resampled:
    """Scores of many runs on the same resamples of their units.

    A resample is `units` draws with replacement; a run's confusion matrix on it counts each row as often as its unit
    was drawn. Resample b uses the raw 64-bit words b * units .. (b + 1) * units - 1 of PCG64(seed), which NumPy
    promises for all its versions: draw = floor(units * (word >> 11) / 2**53). So neither the runs nor the batches
    (which bound the memory) change a number.

    Counting is a matrix product: rows sorted by true class, (resamples x rows of the class) times (rows x predicted
    class of every run) gives one line of all confusion matrices at once. It is exact in float32.

    Args:
        runs: R >= 1 of them; those with the same units and labels are counted together.
        metrics: M functions of confusion matrices.
        units: how many there are to draw from.
        classes: C.
        resampling: how often, and the seed.

    Raises:
        ValueError: no run, a run without rows, or a unit, label or answer out of range.
    """
    _check_runs(runs, units, classes)
    tables = _tables(runs, classes)
    scores = np.full((resampling.count, len(runs), len(metrics)), np.nan)
    observed = np.full((1, len(runs), len(metrics)), np.nan)
    dtype = np.float32 if units < _EXACT_FLOAT32 else np.float64
    batch = max(1, _BATCH_BYTES // (8 * units + 24 * len(runs) * classes**2))
    _score(np.ones((1, units), dtype), tables, metrics, observed)
    first = 0
    for counts in _draws(units, resampling, batch, dtype):
        _score(counts, tables, metrics, scores[first : first + len(counts)])
        first += len(counts)
    return Resampled(observed[0], scores)


@dataclass(frozen=True)
class _Table:
    """Runs with the same rows, by true class: what one matrix product a class counts.

    Attributes:
        runs: (r,) their places among all runs.
        by_class: C pairs of units (n_c,) and answers (n_c, r).
    """

    runs: Ints
    by_class: tuple[tuple[Ints, Ints], ...]

    def confusions(self, counts: Counts) -> Floats:
        """(b, units) draws -> (b, r, C, C) float64 counts."""
        classes = len(self.by_class)
        one_hot = np.eye(classes, dtype=counts.dtype)
        confusion = np.empty((len(counts), len(self.runs), classes, classes))
        for label, (units, predicted) in enumerate(self.by_class):
            answers = one_hot[predicted].reshape(len(units), len(self.runs) * classes)
            confusion[:, :, label] = (counts[:, units] @ answers).reshape(len(counts), len(self.runs), classes)
        return confusion


def _tables(runs: Sequence[Answers], classes: int) -> list[_Table]:
    same: dict[tuple[bytes, bytes], list[int]] = {}
    for place, run in enumerate(runs):
        same.setdefault((run.unit.tobytes(), run.label.tobytes()), []).append(place)
    tables = []
    for places in same.values():
        rows = runs[places[0]]
        predicted = np.stack([runs[place].predicted for place in places], axis=1)
        of_class = [np.flatnonzero(rows.label == label) for label in range(classes)]
        tables.append(_Table(np.array(places), tuple((rows.unit[found], predicted[found]) for found in of_class)))
    return tables


def _draws(units: int, resampling: Resampling, batch: int, dtype: npt.DTypeLike) -> Iterator[Counts]:
    """How often each unit is drawn in each resample, (b, units) a batch."""
    bits = np.random.PCG64(resampling.seed)
    for first in range(0, resampling.count, batch):
        counts = np.empty((min(batch, resampling.count - first), units), dtype)
        for row in counts:
            drawn = (bits.random_raw(units) >> np.uint64(11)) * (units * 2.0**-53)
            row[:] = np.bincount(drawn.astype(np.int64), minlength=units)
        yield counts


def _score(counts: Counts, tables: Sequence[_Table], metrics: Sequence[Metric], out: Floats) -> None:
    """Fills out (b, R, M)."""
    for table in tables:
        confusion = table.confusions(counts)
        scores = np.stack([metric(confusion) for metric in metrics], axis=-1)
        scores[confusion.sum(axis=(-2, -1)) == 0] = np.nan
        out[:, table.runs] = scores


def _check_runs(runs: Sequence[Answers], units: int, classes: int) -> None:
    if not runs:
        raise ValueError("no run to resample")
    for place, run in enumerate(runs):
        if not run.unit.shape == run.label.shape == run.predicted.shape or run.unit.ndim != 1 or len(run.unit) == 0:
            shapes = f"{run.unit.shape}, {run.label.shape} and {run.predicted.shape}"
            raise ValueError(f"run {place}: expected unit, label and predicted of one shape (n,), n >= 1, got {shapes}")
        for name, values, bound in (
            ("unit", run.unit, units),
            ("label", run.label, classes),
            ("predicted", run.predicted, classes),
        ):
            if values.min() < 0 or values.max() >= bound:
                raise ValueError(f"run {place}: {name} must be 0 .. {bound - 1}, got {values.min()} .. {values.max()}")
        if len(np.unique(run.unit)) < len(run.unit):
            raise ValueError(f"run {place}: a unit has more than one row")
