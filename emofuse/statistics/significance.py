"""McNemar's test of two classifiers, and Holm's correction of many tests.

Sources: McNemar, Psychometrika 1947; Edwards, Psychometrika 1948 (continuity correction); Dietterich, Neural
Computation 1998 (McNemar for classifiers); Good, *Permutation, Parametric and Bootstrap Tests of Hypotheses*, 2005
(exchange of whole groups); Holm, Scandinavian Journal of Statistics 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.metrics.confusion import Floats

EXCHANGES = 10_000
_BATCH = 2**22
EXACT_BELOW = 25  # discordant pairs; from here on chi-square is within a few per mille of the binomial


@dataclass(frozen=True)
class McNemarTest:
    """McNemar's test of two classifiers on the same units.

    Attributes:
        lost: the number of units that only the first classifier (the baseline) predicts correctly.
        gained: the number of units that only the second classifier predicts correctly.
        p: the two-sided p value of equal error rates.
        exact: whether p comes from the binomial distribution and not from chi-square.
        grouped: whether p comes from exchanging the classifiers in whole groups of units.
    """

    lost: int
    gained: int
    p: float
    exact: bool
    grouped: bool = False


def mcnemar(
    first_right: npt.NDArray[np.bool_],
    second_right: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64] | None = None,
    seed: int = 0,
) -> McNemarTest:
    """Test whether two classifiers have equal error rates, by the units that exactly one of them predicts correctly.

    With fewer than 25 such units the p value is that of the two-sided binomial test, summed in whole numbers. With more
    it is that of chi-square with Edwards' continuity correction, (|lost - gained| - 1)^2 / (lost + gained), with one
    degree of freedom. Without any such unit p is 1.

    A configuration that was trained several times has several predictions for an image, which are not independent.
    Pass the one prediction of their mean probabilities instead.

    Units of one group (a speaker, a film) are not independent either. With `groups`, the classifiers are exchanged in
    each whole group at random, 10,000 times: if they are equal, a sum of gained - lost as large as the observed one is
    as frequent as among these. p is (1 + such exchanges) / (1 + 10,000). With groups of one unit it approaches the
    binomial test.

    Args:
        first_right: whether the first classifier (the baseline) is right about each unit, bool (n,).
        second_right: whether the second classifier is right about each unit, bool (n,).
        groups: the group of each unit, int64 (n,), from 0.
        seed: the seed of the exchanges.

    Raises:
        ValueError: the numbers of units differ.
    """
    if first_right.shape != second_right.shape or first_right.ndim != 1:
        raise ValueError(
            f"expected (n,) predictions of the same units, got {first_right.shape} and {second_right.shape}"
        )
    lost = int(np.count_nonzero(first_right & ~second_right))
    gained = int(np.count_nonzero(second_right & ~first_right))
    discordant = lost + gained
    if groups is not None:
        gains = np.bincount(groups, weights=second_right.astype(np.float64) - first_right)
        return McNemarTest(lost, gained, _exchange_groups(gains[gains != 0], seed), exact=False, grouped=True)
    if discordant < EXACT_BELOW:
        tail = sum(math.comb(discordant, k) for k in range(min(lost, gained) + 1))
        return McNemarTest(lost, gained, min(1.0, 2 * tail / 2**discordant), exact=True)
    chi_square = max(0, abs(lost - gained) - 1) ** 2 / discordant
    return McNemarTest(lost, gained, math.erfc(math.sqrt(chi_square / 2)), exact=False)


def _exchange_groups(gains: Floats, seed: int) -> float:
    """Return the two-sided p value of the sum of the gains (G,) of groups, each of which may have either sign."""
    if len(gains) == 0:
        return 1.0
    bits, far, observed = np.random.PCG64(seed), 0, abs(gains.sum())
    batch = max(1, _BATCH // len(gains))
    for first in range(0, EXCHANGES, batch):
        count = min(batch, EXCHANGES - first)
        exchanged = (bits.random_raw(count * len(gains)) >> np.uint64(63)).reshape(count, len(gains))
        far += int(np.count_nonzero(np.abs((1.0 - 2.0 * exchanged) @ gains) >= observed))
    return (1 + far) / (1 + EXCHANGES)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Return m p values after Holm's step-down correction, float64 (m,), in their order.

    The smallest is multiplied by m, the next by m - 1, and so on. No corrected value is below the one before it or
    above 1. Rejecting at corrected values below 0.05 keeps the probability of any false rejection below 5 %, however
    the tests depend on each other.

    Raises:
        ValueError: a value is not between 0 and 1.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if raw.ndim != 1 or not np.all((raw >= 0) & (raw <= 1)):
        raise ValueError(f"expected p values between 0 and 1, got {raw}")
    order = np.argsort(raw, kind="stable")
    corrected = np.empty_like(raw)
    factors = np.arange(len(raw), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * raw[order]))
    return corrected
