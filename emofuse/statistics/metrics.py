"""Scores of confusion matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Metric = Callable[[Floats], Floats]
"""(..., C, C) counts, true class down and predicted class across -> (...) scores."""


def accuracy(confusion: Floats) -> Floats:
    """Share of rows on the diagonal; NaN without a row."""
    total = confusion.sum(axis=(-2, -1))
    hit = np.trace(confusion, axis1=-2, axis2=-1)
    return np.divide(hit, total, out=np.full(total.shape, np.nan), where=total > 0)


def macro_f1(confusion: Floats) -> Floats:
    """Mean F1 over the classes that occur, as the scores of a run are defined; NaN without a row.

    A class occurs that has a row or an answer: one with answers and no row counts 0, one with neither is left out, as
    scikit-learn has it. So a resample that misses a class is scored on the others.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    below = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = np.divide(2 * hit, below, out=np.zeros(below.shape), where=below > 0)
    occurs = (below > 0).sum(axis=-1)
    mean: Floats = np.divide(f1.sum(axis=-1), occurs, out=np.full(occurs.shape, np.nan), where=occurs > 0)
    return mean


def classes_without_rows(confusion: Floats) -> Floats:
    """How many classes have no row: tells how often macro F1 was taken over fewer classes than there are."""
    empty: Floats = (confusion.sum(axis=-1) == 0).sum(axis=-1).astype(np.float64)
    return empty
