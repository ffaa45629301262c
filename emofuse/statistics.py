"""How sure a test score is: bootstrap intervals, paired comparisons, and their correction. NumPy alone.

What is drawn is the *unit*, here an image of the test rows. All runs are scored on the same draws, so that a difference
between two of them is that of the same images, and so that repeats of one configuration (several seeds, also several
random splits whose test rows overlap) are drawn together: an image that is drawn twice counts twice in every run that
has it. All of this is conditional on the trained heads: it says what other test images would change, not what another
training would.

Sources: Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993 (percentile interval: chapter 13; test by the
bootstrap: chapter 16); Davison and Hinkley, *Bootstrap Methods and their Application*, 1997 ((1 + count) / (1 + B):
section 4.2); McNemar, Psychometrika 1947; Edwards, Psychometrika 1948 (continuity correction); Dietterich, Neural
Computation 1998 (McNemar for classifiers); Holm, Scandinavian Journal of Statistics 1979.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.floating[Any]]
Metric = Callable[[Floats], Floats]
"""(..., C, C) counts, true class down and predicted class across -> (...) scores."""

EXACT_BELOW = 25  # discordant pairs; from here on chi-square is within a few per mille of the binomial
_BATCH_BYTES = 2**27
_EXACT_FLOAT32 = 2**24  # whole numbers up to here are exact in float32, whatever the order of summation
_TIE = 1e-12  # differences of equal ratios may differ in their last bits


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


@dataclass(frozen=True)
class Interval:
    """An interval of a score; NaN where it is not defined."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """A difference to a baseline on the same draws.

    Attributes:
        difference: observed.
        interval: percentile interval of the difference.
        p: two-sided p value of no difference.
    """

    difference: float
    interval: Interval
    p: float


@dataclass(frozen=True)
class McNemarTest:
    """McNemar's test of two classifiers on the same units.

    Attributes:
        lost: units that only the first one (the baseline) has right.
        gained: units that only the second one has right.
        p: two-sided p value of equal error rates.
        exact: whether p is the binomial one, not that of chi-square.
    """

    lost: int
    gained: int
    p: float
    exact: bool


def accuracy(confusion: Floats) -> Floats:
    """Share of rows on the diagonal; NaN without a row."""
    total = confusion.sum(axis=(-2, -1))
    hit = np.trace(confusion, axis1=-2, axis2=-1)
    return np.divide(hit, total, out=np.full(total.shape, np.nan), where=total > 0)


def macro_f1(confusion: Floats) -> Floats:
    """Mean F1 over all C classes, as the scores of a run are defined: a class with no row and no answer counts 0.

    So a resample that misses a class altogether, or holds a single one, has a low but defined score.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    below = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = np.divide(2 * hit, below, out=np.zeros(below.shape), where=below > 0)
    mean: Floats = f1.mean(axis=-1)
    return mean


def classes_without_rows(confusion: Floats) -> Floats:
    """How many classes have no row: tells how often macro F1 was taken over fewer classes than there are."""
    empty: Floats = (confusion.sum(axis=-1) == 0).sum(axis=-1).astype(np.float64)
    return empty


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


def bootstrap_interval(drawn: Floats, level: float = 0.95) -> Interval:
    """Percentile interval: the middle `level` of (B,) resampled scores, by linear interpolation; NaN are left out."""
    known = drawn[~np.isnan(drawn)]
    if len(known) == 0:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def paired_bootstrap(
    observed: float, baseline_observed: float, drawn: Floats, baseline_drawn: Floats, level: float = 0.95
) -> PairedTest:
    """Interval and p value of a difference to a baseline, both scored on the same resamples.

    The resampled differences scatter around the observed one as that scatters around the true one. If the true one
    were 0, a difference as far from 0 as the observed would be as common as a resampled difference so far from the
    observed: p = (1 + |{b: |d_b - d| >= |d|}|) / (1 + B), two-sided, never 0.

    Args:
        observed: score on the rows as they are.
        baseline_observed: the baseline's.
        drawn: (B,) scores on the resamples.
        baseline_drawn: (B,) the baseline's on the same resamples.
        level: of the interval.

    Raises:
        ValueError: not the same number of resamples.
    """
    if drawn.shape != baseline_drawn.shape or drawn.ndim != 1:
        raise ValueError(f"expected (B,) scores of the same resamples, got {drawn.shape} and {baseline_drawn.shape}")
    difference = observed - baseline_observed
    differences = drawn - baseline_drawn
    known = differences[~np.isnan(differences)]
    far = int(np.count_nonzero(np.abs(known - difference) >= abs(difference) - _TIE))
    return PairedTest(difference, bootstrap_interval(differences, level), (1 + far) / (1 + len(known)))


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> McNemarTest:
    """McNemar's test: of the units that exactly one of two classifiers has right, does one have more than the other?

    With fewer than 25 of them the p value is that of the two-sided binomial test, summed in whole numbers; else of
    chi-square with Edwards' continuity correction, (|lost - gained| - 1)^2 / (lost + gained) with one degree of
    freedom. Without any, p is 1.

    A configuration that was trained several times has several answers to an image, which are not independent: give
    the one answer of their mean probabilities, not all of them.

    Args:
        first_right: (n,) whether the first one (the baseline) has each unit right.
        second_right: (n,) the same of the second.

    Raises:
        ValueError: not the same units.
    """
    if first_right.shape != second_right.shape or first_right.ndim != 1:
        raise ValueError(f"expected (n,) answers to the same units, got {first_right.shape} and {second_right.shape}")
    lost = int(np.count_nonzero(first_right & ~second_right))
    gained = int(np.count_nonzero(second_right & ~first_right))
    discordant = lost + gained
    if discordant < EXACT_BELOW:
        tail = sum(math.comb(discordant, k) for k in range(min(lost, gained) + 1))
        return McNemarTest(lost, gained, min(1.0, 2 * tail / 2**discordant), exact=True)
    chi_square = max(0, abs(lost - gained) - 1) ** 2 / discordant
    return McNemarTest(lost, gained, math.erfc(math.sqrt(chi_square / 2)), exact=False)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Holm's step-down correction of m p values: (m,) float64, in their order.

    The smallest is multiplied by m, the next by m - 1, and so on; none is below the one before it nor above 1. A
    corrected value below 0.05 keeps the chance of even one false finding among the m below 5 %, however they depend
    on each other.

    Raises:
        ValueError: something that is no p value.
    """
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or not np.all((given >= 0) & (given <= 1)):
        raise ValueError(f"expected p values between 0 and 1, got {given}")
    order = np.argsort(given, kind="stable")
    corrected = np.empty_like(given)
    factors = np.arange(len(given), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * given[order]))
    return corrected


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
