"""Scores of any number of confusion matrices at once. F1 is computed here and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[Any]
"""Counts (..., C, C), true class down and predicted class across."""


def confusion_matrix(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int) -> Counts:
    """Return the confusion matrix, int64 (C, C), of n rows."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def ratio(above: Counts, below: Counts, nothing: float = 0.0) -> Floats:
    """Return `above / below`, and `nothing` where `below` is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.full(above.shape, nothing), where=below > 0)


def class_scores(counts: Counts) -> dict[str, Floats]:
    """Return precision, recall, F1 and specificity (..., C) of every class; 0 where the denominator is 0.

    The specificity of a class is TN / (TN + FP), one class against the rest.
    """
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    support, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    negatives = counts.sum(axis=(-2, -1))[..., None] - support
    return {
        "precision": ratio(hit, predicted),
        "recall": ratio(hit, support),
        "f1": _f1(hit, support, predicted),
        "specificity": ratio(negatives - (predicted - hit), negatives),
    }


def _f1(hit: Counts, support: Counts, predicted: Counts) -> Floats:
    return ratio(2 * hit, support + predicted)


def over_classes_that_occur(scores: Floats, counts: Counts) -> Floats:
    """Return the mean (...) of scores (..., C) over the classes that have a row or a prediction; NaN without a row.

    A class with predictions and no row counts with a score of 0. A class with neither is left out, as in scikit-learn,
    so a resample that lacks a class is scored on the others.
    """
    return _mean_where(scores, (counts.sum(axis=-1) + counts.sum(axis=-2)) > 0)


def _mean_where(scores: Floats, occurs: npt.NDArray[np.bool_]) -> Floats:
    return ratio(np.where(occurs, scores, 0).sum(axis=-1), occurs.sum(axis=-1), np.nan)


def by_support(scores: Floats, counts: Counts) -> Floats:
    """Return the mean (...) of scores (..., C) weighted by the rows of each class; NaN without a row."""
    support = counts.sum(axis=-1)
    return ratio((scores * support).sum(axis=-1), support.sum(axis=-1), np.nan)


def accuracy(counts: Counts) -> Floats:
    """Return the share of rows on the diagonal; NaN without a row."""
    return ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)), np.nan)


def macro_f1(counts: Counts) -> Floats:
    """Return the mean F1 over the classes that occur, see `over_classes_that_occur`."""
    support, predicted = counts.sum(axis=-1), counts.sum(axis=-2)  # once: millions of resamples are scored
    scores = _f1(np.diagonal(counts, axis1=-2, axis2=-1), support, predicted)
    return _mean_where(scores, (support + predicted) > 0)


def classes_without_rows(counts: Counts) -> Floats:
    """Return the number of classes without a row: macro F1 of such a resample may be a mean over fewer classes."""
    empty: Floats = (counts.sum(axis=-1) == 0).sum(axis=-1).astype(np.float64)
    return empty


def balanced_accuracy(counts: Counts) -> Floats:
    """Return the mean recall over the classes that have rows; NaN without a row."""
    has_rows = counts.sum(axis=-1) > 0
    return ratio(class_scores(counts)["recall"].sum(axis=-1), has_rows.sum(axis=-1), np.nan)


def kappa(counts: Counts) -> Floats:
    """Return Cohen's kappa, the agreement beyond chance; NaN where chance alone always agrees."""
    rows = counts.sum(axis=(-2, -1)).astype(np.float64)
    hit = np.trace(counts, axis1=-2, axis2=-1)
    by_chance = ratio((counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1), rows)
    return ratio(hit - by_chance, rows - by_chance, np.nan)


def matthews(counts: Counts) -> Floats:
    """Return Matthews' correlation of labels and predictions (Gorodkin, 2004); 0 where either is constant."""
    counts = np.asarray(counts, np.float64)
    rows, hit = counts.sum(axis=(-2, -1)), np.trace(counts, axis1=-2, axis2=-1)
    support, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    covariance = hit * rows - (support * predicted).sum(axis=-1)
    spreads = (rows**2 - (predicted**2).sum(axis=-1)) * (rows**2 - (support**2).sum(axis=-1))
    return ratio(covariance, np.sqrt(spreads))
