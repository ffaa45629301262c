"""Intervals of resampled scores, and tests of the difference between two runs.

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
    """The interval of a score; both ends are NaN where it is not defined."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """The difference between a run and a baseline on the same draws.

    Attributes:
        difference: the observed difference.
        interval: the percentile interval of the difference.
        p: the two-sided p value of no difference.
    """

    difference: float
    interval: Interval
    p: float


def bootstrap_interval(drawn: Floats, level: float = 0.95) -> Interval:
    """Return the percentile interval: the middle `level` of (B,) resampled scores, by linear interpolation.

    Scores that are NaN are left out.
    """
    known = drawn[~np.isnan(drawn)]
    if len(known) == 0:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def paired_bootstrap(
    observed: float, baseline_observed: float, drawn: Floats, baseline_drawn: Floats, level: float = 0.95
) -> PairedTest:
    """Return the interval and p value of the difference to a baseline that is scored on the same resamples.

    The resampled differences d_b vary around the observed difference d as d varies around the true one. If the true
    difference were 0, a difference as large as d would be as frequent as a d_b that lies |d| or more away from d. So
    the two-sided p value is p = (1 + |{b: |d_b - d| >= |d|}|) / (1 + B). It is never 0.

    Args:
        observed: the score on the original rows.
        baseline_observed: the baseline's score on the original rows.
        drawn: the scores on the resamples, (B,).
        baseline_drawn: the baseline's scores on the same resamples, (B,).
        level: the level of the interval.

    Raises:
        ValueError: the numbers of resamples differ.
    """
    if drawn.shape != baseline_drawn.shape or drawn.ndim != 1:
        raise ValueError(f"expected (B,) scores of the same resamples, got {drawn.shape} and {baseline_drawn.shape}")
    difference = observed - baseline_observed
    differences = drawn - baseline_drawn
    known = differences[~np.isnan(differences)]
    far = int(np.count_nonzero(np.abs(known - difference) >= abs(difference) - _TIE))
    return PairedTest(difference, bootstrap_interval(differences, level), (1 + far) / (1 + len(known)))
