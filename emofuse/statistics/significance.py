"""McNemar's test of two classifiers, and Holm's correction of many tests.

Sources: McNemar, Psychometrika 1947; Edwards, Psychometrika 1948 (continuity correction); Dietterich, Neural
Computation 1998 (McNemar for classifiers); Holm, Scandinavian Journal of Statistics 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.metrics.confusion import Floats

EXACT_BELOW = 25  # discordant pairs; from here on chi-square is within a few per mille of the binomial


@dataclass(frozen=True)
class McNemarTest:
    """McNemar's test of two classifiers on the same units.

    Attributes:
        lost: the number of units that only the first classifier (the baseline) predicts correctly.
        gained: the number of units that only the second classifier predicts correctly.
        p: the two-sided p value of equal error rates.
        exact: whether p comes from the binomial distribution and not from chi-square.
    """

    lost: int
    gained: int
    p: float
    exact: bool


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> McNemarTest:
    """Test whether two classifiers have equal error rates, by the units that exactly one of them predicts correctly.

    With fewer than 25 such units the p value is that of the two-sided binomial test, summed in whole numbers. With more
    it is that of chi-square with Edwards' continuity correction, (|lost - gained| - 1)^2 / (lost + gained), with one
    degree of freedom. Without any such unit p is 1.

    A configuration that was trained several times has several predictions for an image, which are not independent.
    Pass the one prediction of their mean probabilities instead.

    Args:
        first_right: whether the first classifier (the baseline) is right about each unit, bool (n,).
        second_right: whether the second classifier is right about each unit, bool (n,).

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
    if discordant < EXACT_BELOW:
        tail = sum(math.comb(discordant, k) for k in range(min(lost, gained) + 1))
        return McNemarTest(lost, gained, min(1.0, 2 * tail / 2**discordant), exact=True)
    chi_square = max(0, abs(lost - gained) - 1) ** 2 / discordant
    return McNemarTest(lost, gained, math.erfc(math.sqrt(chi_square / 2)), exact=False)


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
