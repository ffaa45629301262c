"""The vectors that a row of any shape is scaled by, and passes over rows in blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_ROWS_AT_ONCE = 4096

RowBlocks = Callable[[], Iterator[tuple[int, npt.NDArray[np.float32]]]]
"""A function that starts a pass over all rows: it yields (first row, features (n, *shape)) of consecutive blocks."""


def feature_axis(shape: tuple[int, ...]) -> int:
    """Return the axis of a row that has one scale for each index, counted from the end: channels, or else features.

    Args:
        shape: the shape of a row: (D,), (T, D), (C, H, W) or (T, C, H, W).
    """
    return -3 if len(shape) >= 3 else -1


def vectors_of(features: npt.NDArray[Any], steps: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[Any]:
    """Return the vectors of all valid steps and all positions, (n vectors, D), as `Scaling` is fitted on them.

    A row has one vector a step, or a position of a map, or a step and position of a sequence of maps, in that order.

    Args:
        features: the features of n rows, (n, *shape).
        steps: the valid steps of sequences, bool (n, T); all of them unless given.
    """
    shape = features.shape[1:]
    if len(shape) == 1:
        return features
    # Contiguous rows of vectors, so that sums round alike for every number of rows.
    vectors = np.ascontiguousarray(np.moveaxis(features, feature_axis(shape), -1)).reshape(
        -1, shape[feature_axis(shape)]
    )
    if steps is None:
        return vectors
    positions = math.prod(shape) // shape[feature_axis(shape)] // shape[0]
    return vectors[np.repeat(steps.reshape(-1), positions)]


def blocks_of(features: npt.NDArray[np.float32]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Yield the first row and the features of one block of rows after another."""
    for first in range(0, len(features), _ROWS_AT_ONCE):
        yield first, features[first : first + _ROWS_AT_ONCE]
