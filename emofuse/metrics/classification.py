"""The scores of one split of a run, as `run.json` holds them and reports show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.metrics.confusion import accuracy, by_support, class_scores, confusion_matrix, over_classes_that_occur
from emofuse.metrics.probability_metrics import log_loss


def classification_metrics(
    labels: npt.NDArray[np.int64], probs: npt.NDArray[np.floating[Any]], classes: Sequence[str]
) -> dict[str, Any]:
    """Return the metrics of n >= 1 labelled rows as plain JSON.

    The predicted class is the first of the largest probabilities. Macro scores are plain means over the classes that
    have a row or a prediction; a class with neither is left out, as scikit-learn leaves it out by default. A class with
    predictions and no row counts 0. Weighted scores are means by support. A ratio with a denominator of 0 is 0
    (scikit-learn's `zero_division=0`). The specificity of a class is TN / (TN + FP), one class against the rest. `loss`
    is the mean negative logarithm of the probability of the true class, clipped to at least 1e-12 so that it stays
    finite.

    Args:
        labels: the true classes, int64 (n,), 0 <= label < C.
        probs: the probabilities, (n, C); each row sums to 1.
        classes: the C label names.

    Returns:
        accuracy, loss; macro and weighted: {precision, recall, f1, specificity}; per_class: one entry a class with
        label, those four and support; confusion: C lists of C counts, true class by predicted class.

    Raises:
        ValueError: there is no row, or the shapes or labels do not fit.
    """
    count = len(classes)
    if labels.ndim != 1 or len(labels) == 0 or probs.shape != (len(labels), count):
        raise ValueError(
            f"expected labels (n,) with n >= 1 and probs (n, {count}), got {labels.shape} and {probs.shape}"
        )
    if labels.min() < 0 or labels.max() >= count:
        raise ValueError(f"labels must be 0 .. {count - 1}, got {labels.min()} .. {labels.max()}")
    confusion = confusion_matrix(labels, probs.argmax(axis=1), count)
    scores, support = class_scores(confusion), confusion.sum(axis=1)
    return {
        "accuracy": float(accuracy(confusion)),
        "loss": log_loss(labels, probs),
        "macro": {name: float(over_classes_that_occur(values, confusion)) for name, values in scores.items()},
        "weighted": {name: float(by_support(values, confusion)) for name, values in scores.items()},
        "per_class": [
            {"label": label, **{name: float(values[c]) for name, values in scores.items()}, "support": int(support[c])}
            for c, label in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }
