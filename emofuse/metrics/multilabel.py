"""Scores of rows that may have several labels at once: average precision, area under the ROC curve, F1.

A label without a row that has it (or without one that lacks it, for the area) has no score. Means over labels are over
those that have one, which are the same labels for every model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.metrics import Metric
from emofuse.metrics.confusion import Floats, ratio
from emofuse.metrics.probability_metrics import SMALLEST_PROB
from emofuse.metrics.weighted import Rows, RowScorer, check_rows, every_row_once, mean_of_defined

SCORES = ("average_precision", "roc_auc", "f1")
THRESHOLD = 0.5
"""A row has a label where its probability is at least this, for F1."""


def multilabel_scorer(target: Rows, outputs: Rows) -> RowScorer:
    """Return the function that scores the rows under weights, (b, n) -> (b, 4 + 3 C).

    The scores are the means over labels of `SCORES`, the F1 of all labels counted together (micro F1), and then the
    three scores of each label. Average precision is the sum of the precisions at each threshold, weighted by the gain
    of recall, without interpolation; rows of one probability are one threshold. The area under the ROC curve counts
    ties half.

    Args:
        target: whether each row has each label, 0 or 1, (n, C).
        outputs: the probabilities, (n, C).
    """
    has = np.asarray(target) > 0.5
    ranked = [_ranked_scorer(has[:, label], np.asarray(outputs)[:, label]) for label in range(has.shape[1])]
    named = np.asarray(outputs) >= THRESHOLD
    counted = np.concatenate([has & named, has, named], axis=1).astype(np.float64)

    def score(weights: Floats) -> Floats:
        hit, support, predicted = np.split(np.asarray(weights @ counted, np.float64), 3, axis=1)
        f1 = np.where(support > 0, ratio(2 * hit, support + predicted), np.nan)
        areas = np.stack([scorer(weights) for scorer in ranked], axis=1)  # (b, C, 2)
        of_labels = np.concatenate([areas, f1[..., None]], axis=2)
        micro = ratio(2 * hit.sum(axis=1), (support + predicted).sum(axis=1), np.nan)
        means = [mean_of_defined(of_labels[:, :, place]) for place in range(len(SCORES))]
        return np.concatenate([np.stack([*means, micro], axis=1), of_labels.reshape(len(weights), -1)], axis=1)

    return score


def _ranked_scorer(has: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> Callable[[Floats], Floats]:
    """Return the function (b, n) -> (b, 2) of average precision and area under the ROC curve of one label.

    Both need the rows above and within each threshold at which a row has the label, and no others.
    """
    order = np.argsort(-scores, kind="stable")
    first = np.append(True, np.diff(scores[order]) != 0)  # whether a row is the first of its threshold
    threshold, starts = np.cumsum(first) - 1, np.flatnonzero(first)
    ends = np.append(starts[1:], len(order))
    positive = np.flatnonzero(has[order])
    used, first_of_used = np.unique(threshold[positive], return_index=True)
    before, last = starts[used], ends[used] - 1

    def score(weights: Floats) -> Floats:
        if len(positive) == 0:
            return np.full((len(weights), 2), np.nan)
        drawn = weights[:, order]
        above = np.cumsum(drawn, axis=1)
        rows_before = np.where(before > 0, above[:, before - 1], 0.0)
        rows_within = above[:, last] - rows_before
        gained = np.add.reduceat(drawn[:, positive], first_of_used, axis=1, dtype=np.float64)
        hits = np.cumsum(gained, axis=1)
        ones = hits[:, -1]
        zeros = above[:, -1] - ones
        precision = (gained * ratio(hits, rows_before + rows_within)).sum(axis=1)
        zeros_above = rows_before - (hits - gained) + (rows_within - gained) / 2  # ties count half
        area = (gained * (zeros[:, None] - zeros_above)).sum(axis=1)
        return np.stack([ratio(precision, ones, np.nan), ratio(area, ones * zeros, np.nan)], axis=1)

    return score


def multilabel_scores(target: Rows, outputs: Rows) -> tuple[dict[str, float], dict[str, Floats]]:
    """Return the means and the scores of each label; NaN where a score is undefined.

    Returns:
        average_precision, roc_auc and f1 (means over labels) and micro_f1; and score -> float64 (C,).

    Raises:
        ValueError: the shapes do not fit, or a value is not finite.
    """
    check_rows(target, outputs)
    scores = multilabel_scorer(target, outputs)(every_row_once(target))[0]
    means = dict(zip((*SCORES, "micro_f1"), scores[: len(SCORES) + 1].tolist(), strict=True))
    return means, dict(zip(SCORES, scores[len(SCORES) + 1 :].reshape(-1, len(SCORES)).T, strict=True))


def binary_log_loss(target: Rows, outputs: Rows) -> float:
    """Return the mean over rows and labels of the negative log of the probability of what each row is.

    Probabilities are clipped to at least 1e-12 so that the loss stays finite.
    """
    has, probs = np.asarray(target) > 0.5, np.asarray(outputs, np.float64)
    return float(-np.log(np.maximum(np.where(has, probs, 1 - probs), SMALLEST_PROB)).mean())


def mean_average_precision(target: Rows, outputs: Rows) -> float:
    """Return the mean average precision over the labels that have rows."""
    return multilabel_scores(target, outputs)[0]["average_precision"]


MAP = Metric("map", "mAP", mean_average_precision, target="multilabel")
