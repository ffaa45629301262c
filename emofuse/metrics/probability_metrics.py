"""Metrics that need probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.metrics import Labels, Metric, Probs

SMALLEST_PROB = 1e-12
_BINS = 15


def _of_true_class(labels: Labels, probs: Probs) -> npt.NDArray[np.float64]:
    of_true: npt.NDArray[np.float64] = probs[np.arange(len(labels)), labels].astype(np.float64)
    return of_true


def log_loss(labels: Labels, probs: Probs) -> float:
    """Return the mean negative log of the true class's probability, clipped to at least 1e-12 to stay finite."""
    return float(-np.log(np.maximum(_of_true_class(labels, probs), SMALLEST_PROB)).mean())


def top_2(labels: Labels, probs: Probs) -> float:
    """Return the share of rows whose true class has one of the two largest probabilities; ties go to the first."""
    largest = np.argsort(-probs, axis=1, kind="stable")[:, :2]
    return float((largest == labels[:, None]).any(axis=1).mean())


def brier(labels: Labels, probs: Probs) -> float:
    """Return the mean squared distance of the probabilities to the true class (Brier, 1950), 0 to 2."""
    squares = np.square(probs.astype(np.float64))
    of_true = _of_true_class(labels, probs)
    return float((squares.sum(axis=1) - np.square(of_true) + np.square(1 - of_true)).mean())


def calibration_error(labels: Labels, probs: Probs) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy over 15 even bins.

    (Guo et al., ICML 2017.)
    """
    confidence = probs.max(axis=1).astype(np.float64)
    right = (probs.argmax(axis=1) == labels).astype(np.float64)
    bins = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    gap = np.bincount(bins, weights=right - confidence, minlength=_BINS)
    return float(np.abs(gap).sum() / len(labels))


def roc_auc(labels: Labels, probs: Probs) -> float:
    """Return the mean area under the ROC curve of each class against the rest.

    Classes without rows on one of the two sides are left out; without any class the score is NaN.
    """
    areas = [_area(labels == index, probs[:, index]) for index in range(probs.shape[1])]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else float("nan")


def _area(positive: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> float:
    """Return the area from the ranks of the positives; ties share their mean rank (Mann & Whitney, 1947)."""
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


LOG_LOSS = Metric("log_loss", "Log loss", log_loss, needs="probs", larger_is_better=False)
TOP_2 = Metric("top_2", "Top 2", top_2, needs="probs")
BRIER = Metric("brier", "Brier", brier, needs="probs", larger_is_better=False)
ECE = Metric("ece", "ECE", calibration_error, needs="probs", larger_is_better=False)
ROC_AUC = Metric("roc_auc", "ROC AUC", roc_auc, needs="probs", resamples=200)
