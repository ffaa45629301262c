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
        lost: units that only the first one (the baseline) has right.
        gained: units that only the second one has right.
        p: two-sided p value of equal error rates.
        exact: whether p is the binomial one, not that of chi-square.
    """

    lost: int
    gained: int
    p: float
    exact: bool


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
