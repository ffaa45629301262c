"""Metrics: what a classifier's answers are worth, each by its name, computed from saved predictions.

A metric is one `Metric`: a formula, its direction, what it needs and how it is bootstrapped. Those of emofuse are in
`emofuse.metrics.confusion` and `emofuse.metrics.probabilities`; others come from entry points `emofuse.metrics` and
from plugin files. NumPy alone. A new metric retrains nothing.
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


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        kind: its name in YAML, on the command line and in tables of numbers.
        title: what tables for people call it.
        formula: of `confusion`: counts (..., C, C), true class down and predicted class across -> scores (...); of
            `probs`: labels (n,) int64 and probabilities (n, C), n >= 1 -> a score. NaN where it is not defined.
        needs: `confusion` for a metric of the answers alone, `probs` for one that needs probabilities.
        larger_is_better: its direction.
        resamples: how often rows are drawn for its interval; 0 for a metric that has none.
    """

    kind: str
    title: str
    formula: Callable[..., Any]
    needs: Literal["confusion", "probs"] = "confusion"
    larger_is_better: bool = True
    resamples: int = 1000

    def score(self, labels: Labels, probs: Probs) -> float:
        """The metric of n >= 1 labelled rows; the predicted class is the first of the largest probabilities.

        Args:
            labels: (n,) int64, 0 <= label < C.
            probs: (n, C), rows sum to 1.
        """
        if self.needs == "probs":
            return float(self.formula(labels, probs))
        return float(self.formula(confusion_matrix(labels, probs.argmax(axis=1), probs.shape[1]).astype(np.float64)))

    def resampled(self, labels: Labels, probs: Probs, *, seed: int = 0) -> Floats:
        """(resamples,) float64: the metric of rows that are drawn with replacement, as many as there are."""
        generator, count = np.random.Generator(np.random.PCG64(seed)), len(labels)
        drawn = (generator.integers(count, size=count) for _ in range(self.resamples))
        return np.array([self.score(labels[rows], probs[rows]) for rows in drawn], dtype=np.float64)


def _own_metrics() -> Iterable[Metric]:
    for module in ("emofuse.metrics.confusion_metrics", "emofuse.metrics.probability_metrics"):
        yield from METRICS.declared_in(import_module(module))


METRICS: Family[Metric] = Family(
    noun="metric",
    group="emofuse.metrics",
    name_of=lambda value: value.kind if isinstance(value, Metric) else None,
    load_own=_own_metrics,
)
