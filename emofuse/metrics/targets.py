"""The scores of one split of a run for every kind of target, as `run.json` holds them and reports show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from emofuse.metrics import Target
from emofuse.metrics.classification import classification_metrics
from emofuse.metrics.distribution import distribution_scores
from emofuse.metrics.multilabel import binary_log_loss, multilabel_scores
from emofuse.metrics.regression import regression_scores
from emofuse.metrics.weighted import Rows, check_rows


def target_metrics(
    kind: str,
    target: npt.NDArray[Any],
    outputs: Rows,
    names: Sequence[str],
    *,
    labels: npt.NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Return the metrics of n >= 1 rows as plain JSON. A score that is undefined is null, never 0.

    `loss` is the cross-entropy (class, distribution), the mean squared error over rows and columns (regression), or the
    mean binary cross-entropy over rows and labels (multilabel).

    Args:
        kind: `class`, `distribution`, `regression` or `multilabel`.
        target: class indices, int64 (n,), of `class`; distributions, values, or 0 and 1, (n, C), of the others.
        outputs: probabilities or values, (n, C).
        names: the names of the C classes, columns or labels.
        labels: the class of each row, int64 (n,), of `distribution`; the class with the largest share unless given.

    Returns:
        class: see `emofuse.metrics.classification.classification_metrics`. distribution: the same against the class of
        each row, and distribution: {cross_entropy, kl, js, l1, cosine}. regression: rows, loss, columns: {name: {ccc,
        pearson, rmse, mae}}, and mean: {...} over the columns. multilabel: rows, loss, columns: {name:
        {average_precision, roc_auc, f1, rows}}, where rows counts those that have the label; macro: {map, roc_auc, f1};
        micro: {f1}.

    Raises:
        ValueError: the kind is unknown, or the shapes or values do not fit.
    """
    if kind == "class":
        return classification_metrics(np.asarray(target, np.int64), outputs, names)
    if kind not in get_args(Target):
        raise ValueError(f"kind of target: {kind!r} is unknown, expected {', '.join(get_args(Target))}")
    check_rows(target, outputs, len(names))
    if kind == "distribution":
        return _distribution(target, outputs, names, target.argmax(axis=1) if labels is None else labels)
    return (_regression if kind == "regression" else _multilabel)(target, outputs, names)


def _distribution(target: Rows, outputs: Rows, names: Sequence[str], labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    distances = distribution_scores(target, outputs)
    scores = classification_metrics(np.asarray(labels, np.int64), outputs, names)
    return {**scores, "loss": distances["cross_entropy"], "distribution": distances}


def _regression(target: Rows, outputs: Rows, names: Sequence[str]) -> dict[str, Any]:
    scores = {name: [_plain(value) for value in values] for name, values in regression_scores(target, outputs).items()}
    squares = np.square(np.asarray(outputs, np.float64) - np.asarray(target, np.float64))
    return {
        "rows": len(target),
        "loss": float(squares.mean()),
        "columns": {
            name: {score: values[place] for score, values in scores.items()}
            for place, name in enumerate(names, start=1)
        },
        "mean": {score: values[0] for score, values in scores.items()},
    }


def _multilabel(target: Rows, outputs: Rows, names: Sequence[str]) -> dict[str, Any]:
    means, of_labels = multilabel_scores(target, outputs)
    having = (np.asarray(target) > 0.5).sum(axis=0)
    return {
        "rows": len(target),
        "loss": binary_log_loss(target, outputs),
        "columns": {
            name: {**{score: _plain(values[place]) for score, values in of_labels.items()}, "rows": int(having[place])}
            for place, name in enumerate(names)
        },
        "macro": {
            "map": _plain(means["average_precision"]),
            "roc_auc": _plain(means["roc_auc"]),
            "f1": _plain(means["f1"]),
        },
        "micro": {"f1": _plain(means["micro_f1"])},
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
