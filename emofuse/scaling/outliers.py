"""Outliers of a column of features: values that must not decide how the column is scaled.

One value of 3e38 among 840 rows makes the deviation of its column so large that all other values become zeros. The rule
needs no knowledge of what a column holds. Outliers are few: at most one in a hundred of the training values of their
column (at least one). They are far away: more than `FAR` times as far from the median as every other value. And they
are at most one in ten of the values that differ from the median, so that a rare but real value among zeros is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FAR = 1000.0
_ONE_IN = 100  # training values
_ONE_IN_DIFFERING = 10  # values that differ from the median
_SAFETY = 0.9  # share of the largest distance; the values that are no outliers add to the deviation, too

Floats = npt.NDArray[np.float64]


def may_have_outliers(count: int, distance: Floats, spread: Floats) -> npt.NDArray[np.bool_]:
    """Return which columns may have outliers, from the statistics of two passes over the values.

    Where k of n values lie at M and all others close together, the deviation is M sqrt(k (n - k)) / n, and the largest
    distance from the mean sqrt((n - k) / k) deviations.

    Args:
        count: the number of values n.
        distance: the largest distance of a value from the mean, float64 (D,).
        spread: the population deviation, float64 (D,).

    Returns:
        bool (D,); `ordinary_values` decides for the columns that are True.
    """
    most = _most(count)
    if count <= _ONE_IN_DIFFERING:
        return np.zeros(len(spread), dtype=np.bool_)
    with np.errstate(invalid="ignore", over="ignore"):
        may_have: npt.NDArray[np.bool_] = distance > _SAFETY * np.sqrt((count - most) / most) * spread
    return may_have


def ordinary_values(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_] | None:
    """Return which values of a column are no outliers, bool (n,), or None if the column has no outliers.

    Args:
        values: the values of one column, finite, (n,).
    """
    count, most = len(values), _most(len(values))
    if count <= _ONE_IN_DIFFERING:
        return None
    wide = values.astype(np.float64)
    distance = np.abs(wide - np.median(wide))
    top = np.sort(np.partition(distance, count - most - 1)[count - most - 1 :])
    gaps = np.flatnonzero((top[1:] > FAR * top[:-1]) & (top[:-1] > 0))
    if not len(gaps):
        return None
    ordinary = distance <= top[gaps[0]]
    outliers = count - int(ordinary.sum())
    return ordinary if outliers * _ONE_IN_DIFFERING <= np.count_nonzero(distance) else None


def _most(count: int) -> int:
    return max(1, count // _ONE_IN)
