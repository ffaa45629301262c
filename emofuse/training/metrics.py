"""What a classifier's probabilities are worth: NumPy alone, held against scikit-learn by the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.metrics.confusion import class_scores, confusion_matrix
from emofuse.metrics.probability_metrics import log_loss

_MEASURES = ("precision", "recall", "f1", "specificity")


def classification_metrics(
    labels: npt.NDArray[np.int64], probs: npt.NDArray[np.floating[Any]], classes: Sequence[str]
) -> dict[str, Any]:
    """Metrics of n >= 1 labelled rows, all as plain JSON.

    Macro is the plain mean over the classes that occur, which have a row or were predicted for one; a class that has no
    row and was never predicted is left out, for there is nothing to score it by (scikit-learn's default). One that was
    predicted and has no row counts 0. Weighted is the mean by support, and a ratio with nothing below the line is 0
    (scikit-learn's `zero_division=0`).
    Specificity of a class is TN / (TN + FP), one class against the rest. The predicted class is the first of the
    largest probabilities. `loss` is the mean negative log of the true class's probability, probabilities clipped to
    at least 1e-12 so that it stays finite.

    Args:
        labels: (n,) int64, 0 <= label < C.
        probs: (n, C), rows sum to 1.
        classes: C label names.

    Returns:
        accuracy, loss; macro and weighted: {precision, recall, f1, specificity}; per_class: one entry a class with
        label, those four and support; confusion: C lists of C counts, true class by predicted class.

    Raises:
        ValueError: no row, or shapes that do not fit.
    """
    count = len(classes)
    if labels.ndim != 1 or len(labels) == 0 or probs.shape != (len(labels), count):
        raise ValueError(
            f"expected labels (n,) with n >= 1 and probs (n, {count}), got {labels.shape} and {probs.shape}"
        )
    if labels.min() < 0 or labels.max() >= count:
        raise ValueError(f"labels must be 0 .. {count - 1}, got {labels.min()} .. {labels.max()}")
    confusion = confusion_matrix(labels, probs.argmax(axis=1), count)
    support = confusion.sum(axis=1)
    table = class_scores(confusion)
    occurs = support + confusion.sum(axis=0) > 0
    return {
        "accuracy": float(np.trace(confusion) / len(labels)),
        "loss": log_loss(labels, probs),
        "macro": {name: float(table[name][occurs].mean()) for name in _MEASURES},
        "weighted": {name: float(table[name] @ support / len(labels)) for name in _MEASURES},
        "per_class": [
            {"label": label, **{name: float(table[name][c]) for name in _MEASURES}, "support": int(support[c])}
            for c, label in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }
