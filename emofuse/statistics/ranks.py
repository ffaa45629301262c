"""Compares several models over several splits by their ranks: Friedman's test and Nemenyi's critical difference.

Sources: Friedman, Journal of the American Statistical Association 1937; Iman and Davenport, Communications in
Statistics 1980 (the F form); Nemenyi, 1963; Demšar, "Statistical comparisons of classifiers over multiple data sets",
Journal of Machine Learning Research 7, 2006.

The tests take splits for independent. Folds and random splits of one dataset share training rows, so that the tests
find differences too often: they are liberal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEAST_MODELS = 3
LEAST_SPLITS = 5
_SAME = 1e-9  # scores of equal counts may differ in their last bits


@dataclass(frozen=True)
class RankTest:
    """The ranks of K models over N splits.

    Attributes:
        mean_ranks: the mean rank of each model, float64 (K,); 1 is the best.
        splits: the number N of splits.
        chi_square: Friedman's statistic, corrected for ties.
        p: the p value of equal ranks, from the F form of Iman and Davenport.
        critical_difference: the smallest difference of two mean ranks that Nemenyi's test calls significant.
        level: the level of both tests, such as 0.05.
        groups: the models that the tests cannot tell apart, as places in the order of the mean ranks, the best first;
            each group is as large as possible, has at least two models, and is in no other group.
    """

    mean_ranks: Floats
    splits: int
    chi_square: float
    p: float
    critical_difference: float
    level: float
    groups: tuple[tuple[int, ...], ...]

    @property
    def is_significant(self) -> bool:
        """Whether Friedman's test finds any difference. Only then do differences of pairs count."""
        return self.p < self.level


def rank_test(scores: npt.ArrayLike, *, level: float = 0.05) -> RankTest:
    """Rank models in each split, and test whether their mean ranks differ.

    Models with equal scores in a split share the mean of their ranks. Friedman's statistic is the one that is corrected
    for ties; p is that of F = (N - 1) chi^2 / (N (K - 1) - chi^2) with K - 1 and (K - 1)(N - 1) degrees of freedom. The
    critical difference is q sqrt(K (K + 1) / (6 N)), where q is the quantile of the studentized range of K models
    divided by the square root of 2. If Friedman's test finds nothing, all models are one group.

    Args:
        scores: the score of each model in each split, (N, K); a larger score is better.
        level: the level of the tests.

    Raises:
        ValueError: there are fewer than two splits or models, or a score is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError(f"expected finite scores of at least 2 splits and 2 models, got {values.shape}")
    splits, models = values.shape
    ranks = np.stack([_ranks(row) for row in values])
    mean_ranks: Floats = ranks.mean(axis=0)
    chi_square = _friedman(ranks)
    p = _p_of_f(chi_square, splits, models)
    difference = nemenyi_quantile(models, level) * math.sqrt(models * (models + 1) / (6 * splits))
    ordered = np.argsort(mean_ranks, kind="stable")
    reach = difference if p < level else math.inf
    groups = _groups(mean_ranks[ordered], reach)
    return RankTest(
        mean_ranks, splits, chi_square, p, difference, level, tuple(tuple(ordered[g].tolist()) for g in groups)
    )


def nemenyi_quantile(models: int, level: float = 0.05) -> float:
    """Return the quantile of the studentized range with infinite degrees of freedom, divided by the square root of 2.

    It is the q of table 5 in Demšar (2006): 1.960 for 2 models, 2.343 for 3, 2.728 for 5.
    """
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _range_below(middle, models) < 1 - level else (low, middle)
    return high / math.sqrt(2)


def _range_below(width: float, models: int) -> float:
    """Return the probability that the range of K standard normal values is below a width.

    It is K times the integral of phi(z) (Phi(z) - Phi(z - width))^(K - 1), by Simpson's rule, whose error is below
    1e-9 on this grid.
    """
    from scipy.special import ndtr  # loaded here, because most uses of the statistics need NumPy alone

    z = np.linspace(-9.0, 9.0 + width, 2001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    heights = models * density * (ndtr(z) - ndtr(z - width)) ** (models - 1)
    weights = np.ones(len(z))
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return float((weights * heights).sum() * (z[1] - z[0]) / 3)


def _ranks(scores: Floats) -> Floats:
    """Return the rank of each score (K,), 1 for the largest; equal scores share the mean of their ranks."""
    above = scores[None, :] > scores[:, None] + _SAME
    same = np.abs(scores[None, :] - scores[:, None]) <= _SAME
    ranks: Floats = above.sum(axis=1) + (same.sum(axis=1) + 1) / 2
    return ranks


def _friedman(ranks: Floats) -> float:
    """Return Friedman's statistic of ranks (N, K), corrected for ties; 0 if all models are equal in every split."""
    splits, models = ranks.shape
    middle = (models + 1) / 2
    spread = float(((ranks - middle) ** 2).sum())
    if spread == 0:
        return 0.0
    between = float(((ranks.sum(axis=0) - splits * middle) ** 2).sum())
    return (models - 1) * between / spread


def _p_of_f(chi_square: float, splits: int, models: int) -> float:
    from scipy.special import fdtrc

    rest = splits * (models - 1) - chi_square
    if rest <= _SAME:  # every split has the same order
        return 0.0
    return float(fdtrc(models - 1, (models - 1) * (splits - 1), (splits - 1) * chi_square / rest))


def _groups(mean_ranks: Floats, reach: float) -> list[slice]:
    """Return the largest runs of sorted mean ranks that lie closer together than the critical difference."""
    groups: list[slice] = []
    for first in range(len(mean_ranks)):
        last = int(np.flatnonzero(mean_ranks - mean_ranks[first] < reach)[-1])
        if last > first and (not groups or last >= groups[-1].stop):
            groups.append(slice(first, last + 1))
    return groups
