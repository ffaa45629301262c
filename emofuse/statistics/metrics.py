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
    """Mean F1 over all C classes, as the scores of a run are defined: a class with no row and no answer counts 0.

    So a resample that misses a class altogether, or holds a single one, has a low but defined score.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    below = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = np.divide(2 * hit, below, out=np.zeros(below.shape), where=below > 0)
    mean: Floats = f1.mean(axis=-1)
    return mean


def classes_without_rows(confusion: Floats) -> Floats:
    """How many classes have no row: tells how often macro F1 was taken over fewer classes than there are."""
    empty: Floats = (confusion.sum(axis=-1) == 0).sum(axis=-1).astype(np.float64)
    return empty
