"""Metrics of a head's predictions, found by name and computed from saved predictions.

A `Metric` holds a formula, its direction, its inputs and the number of bootstrap resamples. The package's own metrics
of classes are in `emofuse.metrics.confusion_metrics` and `emofuse.metrics.probability_metrics`; those of other targets
are in `emofuse.metrics.distribution`, `emofuse.metrics.regression` and `emofuse.metrics.multilabel`. Others come from
entry points `emofuse.metrics` and from plugin files. Only NumPy is needed, and a new metric requires no training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from emofuse.metrics.confusion import Floats, confusion_matrix
from emofuse.registry import Family

Labels = npt.NDArray[np.int64]
Probs = npt.NDArray[np.floating[Any]]
Target = Literal["class", "distribution", "regression", "multilabel"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        kind: the name in YAML, on the command line and in tables of numbers.
        title: the name in tables for people.
        formula: a function of counts (..., C, C) that returns scores (...), true class down and predicted class across;
            or, if `needs` is `probs`, a function of labels (n,) int64 and probabilities (n, C), n >= 1, that returns a
            score; or, if `target` is not `class`, a function of the true values (n, C) and the outputs (n, C), n >= 1,
            that returns a score. A score that is not defined is NaN.
        needs: `confusion` for a metric of the predicted classes alone, `probs` for one that needs probabilities; a
            metric of another target than `class` has the true values and the outputs.
        larger_is_better: whether a larger score is better.
        resamples: the number of bootstrap resamples for its interval; 0 for a metric without an interval.
        target: the kind of target that it scores. Metrics of `class` also score distributions, by the class of a row.
    """

    kind: str
    title: str
    formula: Callable[..., Any]
    needs: Literal["confusion", "probs"] = "confusion"
    larger_is_better: bool = True
    resamples: int = 1000
    target: Target = "class"

    def scores_target(self, kind: str) -> bool:
        """Return whether it can score a target of this kind."""
        return kind == self.target or (kind == "distribution" and self.target == "class")

    def score(self, truth: npt.NDArray[Any], outputs: Probs) -> float:
        """Return the score of n >= 1 rows. The predicted class is the first of the largest probabilities.

        Args:
            truth: the true classes, int64 (n,), 0 <= label < C; the true values (n, C) if `target` is not `class`.
            outputs: the probabilities, (n, C), where each row sums to 1; or the outputs of another target, (n, C).
        """
        if self.target != "class" or self.needs == "probs":
            return float(self.formula(truth, outputs))
        counts = confusion_matrix(truth, outputs.argmax(axis=1), outputs.shape[1])
        return float(self.formula(counts.astype(np.float64)))

    def resampled(
        self, truth: npt.NDArray[Any], outputs: Probs, *, seed: int = 0, unit: Labels | None = None
    ) -> Floats:
        """Return the scores, float64 (resamples,), of bootstrap resamples: n rows drawn with replacement each.

        Args:
            truth: the true classes, int64 (n,), or the true values, (n, C).
            outputs: the probabilities or other outputs, (n, C).
            seed: the seed of the draws.
            unit: the unit of each row, int64 (n,), from 0: all rows of a unit are drawn together, and as many units as
                there are; each row is a unit of its own unless given.
        """
        generator, count = np.random.Generator(np.random.PCG64(seed)), len(truth)
        drawn = (generator.integers(count, size=count) for _ in range(self.resamples))
        if unit is not None:
            rows_of = np.split(np.argsort(unit, kind="stable"), np.cumsum(np.bincount(unit))[:-1])
            units = (generator.integers(len(rows_of), size=len(rows_of)) for _ in range(self.resamples))
            drawn = (np.concatenate([rows_of[each] for each in chosen]) for chosen in units)
        return np.array([self.score(truth[rows], outputs[rows]) for rows in drawn], dtype=np.float64)


def _own_metrics() -> Iterable[Metric]:
    for module in ("confusion_metrics", "probability_metrics", "distribution", "regression", "multilabel"):
        yield from METRICS.declared_in(import_module(f"emofuse.metrics.{module}"))


METRICS: Family[Metric] = Family(
    noun="metric",
    group="emofuse.metrics",
    name_of=lambda value: value.kind if isinstance(value, Metric) else None,
    load_own=_own_metrics,
)
