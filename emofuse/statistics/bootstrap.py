"""What resampled scores tell: intervals, and differences between two runs.

Sources: Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993 (percentile interval: chapter 13; test by the
bootstrap: chapter 16); Davison and Hinkley, *Bootstrap Methods and their Application*, 1997 ((1 + count) / (1 + B):
section 4.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from emofuse.metrics.confusion import Floats

_TIE = 1e-12  # differences of equal ratios may differ in their last bits


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
