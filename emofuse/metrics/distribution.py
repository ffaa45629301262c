"""Distances of predicted distributions over classes from the true ones, such as the votes of annotators.

Sources: Lin, IEEE Transactions on Information Theory 1991 (Jensen-Shannon divergence); Geng, IEEE Transactions on
Knowledge and Data Engineering 2016 (distances of label distributions). Logarithms are natural.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emofuse.metrics import Metric
from emofuse.metrics.confusion import Floats, ratio
from emofuse.metrics.probability_metrics import SMALLEST_PROB
from emofuse.metrics.weighted import Rows, RowScorer, check_rows, every_row_once, weighted_means

DISTANCES = ("cross_entropy", "kl", "js", "l1", "cosine")


def row_distances(target: Rows, outputs: Rows) -> Floats:
    """Return the distances of every row, float64 (n, 5), in the order of `DISTANCES`.

    They are the cross-entropy -sum t log p, the Kullback-Leibler divergence sum t log(t / p), the Jensen-Shannon
    divergence (0 to log 2), the sum of absolute differences (0 to 2), and the cosine similarity (1 for equal ones).
    Predicted probabilities are clipped to at least 1e-12 in logarithms, so that all distances are finite.
    """
    true, answer = np.asarray(target, np.float64), np.asarray(outputs, np.float64)
    cross_entropy = -(true * np.log(np.maximum(answer, SMALLEST_PROB))).sum(axis=1)
    entropy = -_times_log(true, true).sum(axis=1)
    middle = (true + answer) / 2
    between = (_times_log(true, true) + _times_log(answer, answer) - 2 * _times_log(middle, middle)).sum(axis=1) / 2
    lengths = np.sqrt(np.square(true).sum(axis=1) * np.square(answer).sum(axis=1))
    cosine = ratio((true * answer).sum(axis=1), lengths)
    l1 = np.abs(true - answer).sum(axis=1)
    return np.stack([cross_entropy, cross_entropy - entropy, np.maximum(between, 0.0), l1, cosine], axis=1)


def distribution_scorer(target: Rows, outputs: Rows) -> RowScorer:
    """Return the function that scores the rows under weights, (b, n) -> (b, 5), the means of `row_distances`.

    Args:
        target: the true distributions, (n, C); each row sums to 1.
        outputs: the predicted distributions, (n, C); each row sums to 1.
    """
    distances = row_distances(target, outputs)
    return lambda weights: weighted_means(weights, distances)


def distribution_scores(target: Rows, outputs: Rows) -> dict[str, float]:
    """Return distance -> its mean over the rows.

    Raises:
        ValueError: the shapes do not fit, or a value is not finite.
    """
    check_rows(target, outputs)
    scores = distribution_scorer(target, outputs)(every_row_once(target))[0]
    return dict(zip(DISTANCES, scores.tolist(), strict=True))


def _times_log(values: Floats, of: Floats) -> Floats:
    """Return `values * log(of)`, and 0 where `of` is 0."""
    product: Floats = values * np.log(of, out=np.zeros_like(of), where=of > 0)
    return product


def _distance(name: str) -> Callable[[Rows, Rows], float]:
    def formula(target: Rows, outputs: Rows) -> float:
        return distribution_scores(target, outputs)[name]

    return formula


JS = Metric("js", "Jensen-Shannon", _distance("js"), target="distribution", larger_is_better=False)
KL = Metric("kl", "Kullback-Leibler", _distance("kl"), target="distribution", larger_is_better=False)
