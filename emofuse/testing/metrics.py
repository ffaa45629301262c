"""The conformance check of metrics."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from emofuse.metrics import Metric
from emofuse.testing.faults import raise_faults

Rows = npt.NDArray[np.float64]


def check_metric(metric: Metric) -> None:
    """Check that a metric fulfils the contract of `emofuse.metrics.Metric`.

    The check covers a name that YAML and tables can hold; a number for any rows of any number of classes, also where a
    class has no row; the same number for rows in another order; better numbers for better answers, in its direction;
    and, for a metric of confusion matrices, the same scores for many matrices at once as for each alone. A metric of
    another target than `class` is checked on distributions, numbers, or several labels.

    Args:
        metric: the metric to check.

    Raises:
        AssertionError: the contract is broken; the message lists every fault.
    """
    faults = []
    if not re.fullmatch(r"[a-z][a-z0-9_]*", metric.kind):
        faults.append(f"kind must be a name of small letters, digits and _, got {metric.kind!r}")
    if metric.needs not in {"confusion", "probs"}:
        faults.append(f"needs must be confusion or probs, got {metric.needs!r}")
    if metric.target not in {"class", *_EXAMPLES}:
        faults.append(f"target must be class, {', '.join(_EXAMPLES)}, got {metric.target!r}")
    if metric.resamples < 0:
        faults.append(f"resamples must be >= 0, got {metric.resamples}")
    try:
        faults += faults or (_metric_faults(metric) if metric.target == "class" else _other_faults(metric))
    except Exception as error:  # noqa: BLE001 - any exception is a fault to report
        faults.append(f"its formula raised {type(error).__name__}: {error}")
    raise_faults(metric.kind, "a metric", faults)


def _metric_faults(metric: Metric) -> list[str]:
    faults = []
    for seed, classes in ((0, 2), (1, 3), (2, 8)):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, classes, 80)
        noise = rng.random((80, classes))
        scores = {}
        for what, answers in (("good", labels), ("poor", (labels + 1) % classes)):  # both confident, one wrong
            probs = noise + 30 * np.eye(classes)[answers]
            probs /= probs.sum(axis=1, keepdims=True)
            scores[what] = metric.score(labels, probs)
            order = rng.permutation(80)
            reordered = metric.score(labels[order], probs[order])
            if not np.isclose(scores[what], reordered, rtol=1e-9, atol=1e-12):
                faults.append(f"rows in another order have the score {reordered:.6g} instead of {scores[what]:.6g}")
        if not np.isfinite(list(scores.values())).all():
            faults.append(f"a score of {classes} classes is not finite: {scores}")
        else:
            faults += _direction_faults(metric, scores)
        metric.score(labels[labels == labels[0]], probs[labels == labels[0]])  # a resample may miss classes
    if metric.needs == "confusion":
        counts = np.random.default_rng(3).integers(1, 9, (5, 4, 4)).astype(np.float64)
        together, alone = np.asarray(metric.formula(counts)), np.array([metric.formula(each) for each in counts])
        if together.shape != alone.shape or not np.allclose(together, alone, equal_nan=True):
            faults.append("the score of a matrix alone differs from its score among several at once")
    return list(dict.fromkeys(faults))


def _example_of_distributions(rng: np.random.Generator, columns: int) -> tuple[Rows, Rows, Rows]:
    target = rng.dirichlet(np.ones(columns + 1), 80)
    return target, 0.9 * target + 0.1 / (columns + 1), np.roll(target, 1, axis=1)


def _example_of_numbers(rng: np.random.Generator, columns: int) -> tuple[Rows, Rows, Rows]:
    target = rng.normal(size=(80, columns))
    return target, target + 0.1 * rng.normal(size=target.shape), -3 * target


def _example_of_labels(rng: np.random.Generator, columns: int) -> tuple[Rows, Rows, Rows]:
    target = (rng.random((80, columns)) < 0.4).astype(np.float64)
    return target, 0.8 * target + 0.2 * rng.random(target.shape), 0.8 * (1 - target) + 0.2 * rng.random(target.shape)


_EXAMPLES = {
    "distribution": _example_of_distributions,
    "regression": _example_of_numbers,
    "multilabel": _example_of_labels,
}
"""Kind of target -> a function that makes true values, good answers and poor answers."""


def _other_faults(metric: Metric) -> list[str]:
    faults = []
    for seed, columns in ((0, 1), (1, 2), (2, 8)):
        rng = np.random.default_rng(seed)
        target, good, poor = _EXAMPLES[metric.target](rng, columns)
        scores = {"good": metric.score(target, good), "poor": metric.score(target, poor)}
        order = rng.permutation(len(target))
        reordered = metric.score(target[order], good[order])
        if not np.isclose(scores["good"], reordered, rtol=1e-9, atol=1e-12):
            faults.append(f"rows in another order have the score {reordered:.6g} instead of {scores['good']:.6g}")
        if not np.isfinite(list(scores.values())).all():
            faults.append(f"a score of {columns} columns is not finite: {scores}")
        else:
            faults += _direction_faults(metric, scores)
        metric.score(target[:1].repeat(3, axis=0), good[:3])  # a resample may hold one row alone
    return list(dict.fromkeys(faults))


def _direction_faults(metric: Metric, scores: dict[str, float]) -> list[str]:
    if (scores["good"] >= scores["poor"]) if metric.larger_is_better else (scores["good"] <= scores["poor"]):
        return []
    values = f"good answers have {scores['good']:.4g}, poor ones {scores['poor']:.4g}"
    return [f"larger_is_better must be {not metric.larger_is_better}: {values}"]
