"""Scores of many runs on the same resamples of their units.

A unit is an image or, where several images have one speaker, film or picture in common, the whole group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.metrics.confusion import Floats, ratio

ConfusionFormula = Callable[[Floats], Floats]
"""A function of counts (..., C, C), true class down and predicted class across.

It returns a score (...), or M' scores of each matrix (..., M').
"""

Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.floating[Any]]

_BATCH_BYTES = 2**27
_MATRICES_BYTES = 2**24  # confusion matrices that a processor's cache holds are scored about twice as fast
_LEAST_BATCH = 64  # in smaller batches, preparing the rows takes longer than counting them
EXACT_FLOAT32 = 2**24  # whole numbers up to here are exact in float32, whatever the order of summation


@dataclass(frozen=True)
class Resampling:
    """The number of resamples and their seed.

    Attributes:
        count: the number B of resamples; each draws as many units as there are.
        seed: the seed of PCG64.
    """

    count: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be >= 1, got {self.count}")


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of one run for its test rows.

    Attributes:
        unit: the unit of each row, int64 (n,), 0 <= unit < units. Rows of one unit are drawn together.
        label: the true classes, int64 (n,).
        predicted: the predicted classes, int64 (n,).
    """

    unit: Ints
    label: Ints
    predicted: Ints


@dataclass(frozen=True)
class Resampled:
    """The scores of R runs by M metrics.

    Attributes:
        observed: the scores on the original rows, float64 (R, M).
        drawn: the scores on each resample, float64 (B, R, M). NaN where a resample has no row of the run, which can
            only happen to a run that lacks some of the units.
    """

    observed: Floats
    drawn: Floats

    def mean(self, runs: Sequence[int]) -> Resampled:
        """Return the mean over some of the runs as one run: repeats of one configuration, drawn together."""
        places = list(runs)
        defined = ~np.isnan(self.drawn[:, places])
        count = defined.sum(axis=1, keepdims=True)
        total = np.nansum(self.drawn[:, places], axis=1, keepdims=True)
        drawn = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return Resampled(self.observed[places].mean(axis=0, keepdims=True), drawn)

    def mean_of_drawn(self, runs: Sequence[int], seed: Sequence[int]) -> Resampled:
        """Return the mean over K repeats, whose variance also has that of training inside.

        The variance of the mean over K repeats on n units is v_units / n + v_training / K + v_rest / (n K): units are
        hard or easy, repeats are good or bad, and repeats disagree on single units. Drawing units alone gives the first
        and the third term. The variance s^2 (K - 1) of the observed scores of the repeats is v_training + v_rest / n,
        of which the resamples know the second part: how the differences between repeats vary with the units. So each
        resample adds the mean deviation of K repeats that are drawn with replacement, scaled to a variance of
        (s^2 - v_rest / n) / K, or of 0 if that is negative.

        Few repeats tell little of their variance: where the repeats differ more than the units explain, equals are
        called different too often (`benchmarks/equals.py`).

        Args:
            runs: the K >= 1 repeats, all with the same rows; a single one has no variance of training.
            seed: the seed of the draws; configurations with the same K and seed draw the same repeats.
        """
        places, mean = list(runs), self.mean(runs)
        repeats, count = len(places), len(self.drawn)
        if repeats == 1:
            return mean
        deviation = self.observed[places] - mean.observed  # (K, M)
        rest = self.drawn[:, places] - mean.drawn - deviation
        unexplained = np.square(deviation).sum(axis=0) - np.nansum(np.square(rest), axis=(0, 1)) / count
        share = np.maximum(0.0, ratio(unexplained, np.square(deviation).sum(axis=0)))
        chosen = _uniform(np.random.PCG64(list(seed)), count * repeats, repeats).reshape(count, repeats)
        drawn = deviation[chosen].mean(axis=1, keepdims=True)  # its variance is (K - 1) / K of s^2 / K
        return Resampled(mean.observed, mean.drawn + np.sqrt(share * repeats / (repeats - 1)) * drawn)


def resample_metrics(
    runs: Sequence[RunPredictions],
    metrics: Sequence[ConfusionFormula],
    *,
    units: int,
    classes: int,
    resampling: Resampling,
) -> Resampled:
    """Score many runs on the same resamples of their units.

    A resample is `units` draws with replacement. A run's confusion matrix on it counts each row as often as its unit
    was drawn. Resample b uses the raw 64-bit words b * units .. (b + 1) * units - 1 of PCG64(seed), which are the same
    in all versions of NumPy: draw = floor(units * (word >> 11) / 2**53). So neither the other runs nor the size of the
    batches (which bounds the memory) changes a score.

    Counting is a matrix product. For one true class, (resamples x rows of the class) times (rows x predicted class of
    every run) gives one line of all confusion matrices at once. It is exact in float32.

    Args:
        runs: the R >= 1 runs; runs with the same units and labels are counted together.
        metrics: functions of confusion matrices, with M scores together.
        units: the number of units to draw from.
        classes: the number C of classes.
        resampling: the number of resamples and the seed.

    Raises:
        ValueError: there is no run, a run has no rows, or a unit, label or prediction is out of range.
    """
    _check_runs(runs, units, classes)
    pools = _pools_of(runs, classes)
    width = _scores_of(metrics, np.zeros((1, classes, classes))).shape[-1]
    scores = np.full((resampling.count, len(runs), width), np.nan)
    observed = np.full((1, len(runs), width), np.nan)
    largest = max(int(np.bincount(run.unit).max()) for run in runs)
    dtype = np.float32 if units * largest < EXACT_FLOAT32 else np.float64
    matrices = 24 * len(runs) * classes**2  # the bytes of one resample
    batch = max(1, min(_BATCH_BYTES // (8 * units + matrices), max(_LEAST_BATCH, _MATRICES_BYTES // matrices)))
    _score(np.ones((1, units), dtype), pools, metrics, observed)
    first = 0
    for counts in draw_units(units, resampling, batch, dtype):
        _score(counts, pools, metrics, scores[first : first + len(counts)])
        first += len(counts)
    return Resampled(observed[0], scores)


@dataclass(frozen=True)
class _RunsOfSameRows:
    """Runs with the same rows, sorted by true class, so that one matrix product counts one class.

    Attributes:
        runs: the indices (r,) of the runs among all runs.
        by_class: for each of the C classes the units (n_c,) and the predicted classes (n_c, r) of its rows.
    """

    runs: Ints
    by_class: tuple[tuple[Ints, Ints], ...]

    def confusions(self, counts: Counts) -> Floats:
        """Return the confusion matrices, float64 (b, r, C, C), of the counts (b, units) of draws."""
        classes = len(self.by_class)
        one_hot = np.eye(classes, dtype=counts.dtype)
        confusion = np.empty((len(counts), len(self.runs), classes, classes))
        for label, (units, predicted) in enumerate(self.by_class):
            columns = one_hot[predicted].reshape(len(units), len(self.runs) * classes)
            confusion[:, :, label] = (counts[:, units] @ columns).reshape(len(counts), len(self.runs), classes)
        return confusion


def _pools_of(runs: Sequence[RunPredictions], classes: int) -> list[_RunsOfSameRows]:
    same: dict[tuple[bytes, bytes], list[int]] = {}
    for place, run in enumerate(runs):
        same.setdefault((run.unit.tobytes(), run.label.tobytes()), []).append(place)
    pools = []
    for places in same.values():
        rows = runs[places[0]]
        predicted = np.stack([runs[place].predicted for place in places], axis=1)
        chosen = [np.flatnonzero(rows.label == label) for label in range(classes)]
        by_class = tuple((rows.unit[of_class], predicted[of_class]) for of_class in chosen)
        pools.append(_RunsOfSameRows(np.array(places), by_class))
    return pools


def draw_units(units: int, resampling: Resampling, batch: int, dtype: npt.DTypeLike) -> Iterator[Counts]:
    """Yield batches of counts (b, units): how often each resample draws each unit."""
    bits = np.random.PCG64(resampling.seed)
    for first in range(0, resampling.count, batch):
        counts = np.empty((min(batch, resampling.count - first), units), dtype)
        for row in counts:
            row[:] = np.bincount(_uniform(bits, units, units), minlength=units)
        yield counts


def _uniform(bits: np.random.PCG64, count: int, bound: int) -> Ints:
    """Return whole numbers, int64 (count,), uniform in 0 .. bound - 1, the same in all versions of NumPy."""
    return ((bits.random_raw(count) >> np.uint64(11)) * (bound * 2.0**-53)).astype(np.int64)


def _score(counts: Counts, pools: Sequence[_RunsOfSameRows], metrics: Sequence[ConfusionFormula], out: Floats) -> None:
    """Write the scores of the counts (b, units) to `out` (b, R, M)."""
    for pool in pools:
        confusion = pool.confusions(counts)
        scores = _scores_of(metrics, confusion)
        scores[confusion.sum(axis=(-2, -1)) == 0] = np.nan
        out[:, pool.runs] = scores


def _scores_of(metrics: Sequence[ConfusionFormula], confusion: Floats) -> Floats:
    """Return the scores (..., M) of all metrics side by side."""
    parts = [np.asarray(metric(confusion), np.float64) for metric in metrics]
    axes = confusion.ndim - 2
    return np.concatenate([part if part.ndim > axes else part[..., None] for part in parts], axis=-1)


def _check_runs(runs: Sequence[RunPredictions], units: int, classes: int) -> None:
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
