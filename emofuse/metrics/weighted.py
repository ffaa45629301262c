"""Scores of rows that count more than once, so that one formula serves a split and its bootstrap resamples.

A resample counts each row as often as it was drawn. A `RowScorer` is prepared once from the answers of a run (it sorts
them, or takes their squares), and then scores any number of such weightings at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.metrics.confusion import Floats

Rows = npt.NDArray[np.floating[Any]]
"""Targets or outputs of n rows, (n, C)."""

RowScorer = Callable[[Floats], Floats]
"""A function of weights (b, n), how often each row counts, that returns scores (b, M); NaN where one is undefined."""


def check_rows(target: Rows, outputs: Rows, columns: int | None = None) -> None:
    """Check that targets and outputs are of the same n >= 1 rows and C columns, and finite.

    Raises:
        ValueError: they are not.
    """
    if target.ndim != 2 or target.shape != outputs.shape or len(target) == 0 or columns not in {None, target.shape[1]}:
        width = "C" if columns is None else columns
        raise ValueError(
            f"expected targets and outputs (n, {width}) with n >= 1, got {target.shape} and {outputs.shape}"
        )
    for name, values in (("targets", target), ("outputs", outputs)):
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(f"{name}: must be finite, row {row} has {values[row, column]} in column {column}")


def every_row_once(target: Rows) -> Floats:
    """Return the weights (1, n) of the rows as they are."""
    return np.ones((1, len(target)))


def weighted_means(weights: Floats, values: Floats) -> Floats:
    """Return the means (b, M) of values (n, M) under weights (b, n); NaN where no row counts."""
    total = np.asarray(weights.sum(axis=1, keepdims=True), np.float64)
    sums = np.asarray(weights @ values, np.float64)
    return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


def mean_of_defined(scores: Floats) -> Floats:
    """Return the means (b,) of scores (b, C) over the columns that define them; NaN without such a column."""
    defined = ~np.isnan(scores)
    count = defined.sum(axis=1)
    total = np.where(defined, scores, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
