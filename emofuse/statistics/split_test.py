"""The corrected resampled t-test: intervals and p values over random splits whose rows overlap.

Scores of several random splits of one dataset are not independent, because the splits share most of their training
rows and some of their test rows. The variance between them is too small by this dependence. Nadeau and Bengio
("Inference for the generalization error", Machine Learning 52, 2003) correct it by a factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.statistics.bootstrap import Interval

_NOTHING = 1e-12  # scores of equal counts may differ in their last bits


@dataclass(frozen=True)
class SplitTest:
    """A mean over J overlapping splits, and the corrected test of whether it is 0.

    Attributes:
        difference: the mean over the splits, of the differences of two configurations or of the scores of one.
        error: the corrected standard error of the mean.
        interval: the interval of the mean, from the t distribution.
        t: the mean divided by its error.
        p: the two-sided p value of a mean of 0.
        splits: the number J of splits; the t distribution has J - 1 degrees of freedom.
    """

    difference: float
    error: float
    interval: Interval
    t: float
    p: float
    splits: int


def corrected_resampled_t(differences: npt.ArrayLike, test_to_train: float, level: float = 0.95) -> SplitTest:
    """Test a mean over overlapping splits (Nadeau and Bengio, 2003).

    The squared standard error is (1 / J + n_test / n_train) s^2, where s^2 is the variance (J - 1) of the J values.
    Without the second term this is the t-test of independent values, which calls far too many differences real.

    Average the repeats within a split first: J is the number of splits, not that of runs. The splits may be random
    splits of several seeds, or the folds of one or several cross-validations.

    Args:
        differences: one value for each split, (J,).
        test_to_train: the number of test rows divided by the number of training rows, n_test / n_train.
        level: the level of the interval.

    Raises:
        ValueError: there are fewer than two splits, a value is not finite, or the ratio is not above 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"expected at least 2 finite values, one for each split, got {values}")
    if not test_to_train > 0:
        raise ValueError(f"test_to_train: must be above 0, got {test_to_train}")
    from scipy.special import stdtr, stdtrit  # loaded here, because most uses of the statistics need NumPy alone

    splits, mean = len(values), float(values.mean())
    error = math.sqrt((1 / splits + test_to_train) * float(values.var(ddof=1)))
    if error <= _NOTHING:
        is_zero = abs(mean) <= _NOTHING
        return SplitTest(
            mean, 0.0, Interval(mean, mean), 0.0 if is_zero else math.copysign(math.inf, mean), float(is_zero), splits
        )
    reach = float(stdtrit(splits - 1, (1 + level) / 2)) * error
    t = mean / error
    return SplitTest(
        mean, error, Interval(mean - reach, mean + reach), t, float(2 * stdtr(splits - 1, -abs(t))), splits
    )
