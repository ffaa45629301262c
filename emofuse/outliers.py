"""Values that no measurement of a column can have meant: found before they decide how the column is scaled.

One value of 3e38 among 840 rows makes the deviation of its column so large that all other values become zeros. The rule
asks for no knowledge of what a column holds: values are outliers if they are few and far away, which are at most one in
a hundred of the training values of their column (one at least), and more than `FAR` times as far from its median as
every other value. A rare but real value next to zeros has nothing that it is far from: outliers are at most one in ten
of the values that differ from the median.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FAR = 1000.0
_ONE_IN = 100  # training values
_ONE_OF_DIFFERING = 10
_SAFETY = 0.9  # of what outliers make of a column's largest distance, for what the other values add to the deviation

Floats = npt.NDArray[np.float64]


def may_have_outliers(count: int, distance: Floats, spread: Floats) -> npt.NDArray[np.bool_]:
    """Which columns are worth a closer look, by what is known of them after two passes.

    Where k of n values lie at M and all others close together, the deviation is M sqrt(k (n - k)) / n, and the largest
    distance from the mean sqrt((n - k) / k) deviations.

    Args:
        count: n.
        distance: (D,) largest distance of a value from the mean.
        spread: (D,) population deviation.
    """
    most = _most(count)
    if count <= _ONE_OF_DIFFERING:
        return np.zeros(len(spread), dtype=np.bool_)
    with np.errstate(invalid="ignore", over="ignore"):
        found: npt.NDArray[np.bool_] = distance > _SAFETY * np.sqrt((count - most) / most) * spread
    return found


def ordinary_values(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_] | None:
    """(n,) bool: the values of a column that are no outliers, or None if there are none.

    Args:
        values: (n,) finite.
    """
    count, most = len(values), _most(len(values))
    if count <= _ONE_OF_DIFFERING:
        return None
    wide = values.astype(np.float64)
    distance = np.abs(wide - np.median(wide))
    top = np.sort(np.partition(distance, count - most - 1)[count - most - 1 :])
    gaps = np.flatnonzero((top[1:] > FAR * top[:-1]) & (top[:-1] > 0))
    if not len(gaps):
        return None
    ordinary = distance <= top[gaps[0]]
    outliers = count - int(ordinary.sum())
    return ordinary if outliers * _ONE_OF_DIFFERING <= np.count_nonzero(distance) else None


def _most(count: int) -> int:
    return max(1, count // _ONE_IN)
