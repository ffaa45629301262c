"""The options and the results of a probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from emofuse.solvers.kernels import KernelKind
from emofuse.statistics.bootstrap import Interval

KERNEL_FUSION, AVERAGED = "kernel fusion", "averaged answers"

Floats = npt.NDArray[np.float64]
Answers = Mapping[tuple[tuple[str, ...], str], Floats]
"""(subset, model) -> outputs (n, C) of the rows of all folds, one fold after another."""

SCORES: Mapping[str, tuple[str, str]] = {
    "class": ("accuracy", "macro_f1"),
    "distribution": ("accuracy", "macro_f1"),
    "regression": ("ccc", "rmse"),
    "multilabel": ("map", "macro_f1"),
}
"""Kind of a target -> the scores of a model, the main one first."""


@dataclass(frozen=True)
class ProbeOptions:
    """The options of a probe.

    Attributes:
        streams: the names of the streams to look at; empty for all streams of the cache.
        folds: the number of folds; None for 5, or 3 beyond 3,000 rows.
        seed: the seed of the folds.
        kernel: the kernel of a stream. `linear` is exact and for many rows the faster; `rbf` also sees what is no
            linear function of the features.
        landmarks: the number of training rows that RBF kernels are computed to.
        penalties: the number of penalties that are tried for each subset and fold.
        resamples: the number of bootstrap resamples of the intervals.
        pca: the principal components of each stream that are looked at, a share of the variance or their number; None
            for all features.
        kernels: the kinds of kernels with their factors (`emofuse.solvers.kernels`) that `rbf` tries. Of several, each
            stream gets that whose predictions of left-out training rows, by the stream alone, have the smallest loss.
    """

    streams: tuple[str, ...] = ()
    folds: int | None = None
    seed: int = 0
    kernel: Literal["rbf", "linear"] = "rbf"
    landmarks: int = 512
    penalties: int = 13
    resamples: int = 1000
    pca: float | int | None = None
    kernels: tuple[tuple[KernelKind, float], ...] = (("rbf", 1.0),)


@dataclass(frozen=True)
class ProbedModel:
    """The scores of one model on one subset of streams, on rows that it has not seen.

    Attributes:
        streams: the subset.
        model: `kernel fusion` or `averaged answers`; a single stream has the first alone.
        scores: name -> score, the main one first (`SCORES`): accuracy and macro F1 of the classes that occur; of
            numbers the mean CCC and RMSE of the columns; of several labels mean average precision and macro F1.
        intervals: name -> the 95 % percentile bootstrap interval of the score over rows, or over groups of rows where
            the manifest has groups.
        loss: the mean cross-entropy in nats, binary of several labels; the squared error of numbers.
        behind_best: the main score of the best model less that of this one, with its paired bootstrap interval.
        behind_best_interval: see `behind_best`.
    """

    streams: tuple[str, ...]
    model: str
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]
    loss: float
    behind_best: float
    behind_best_interval: Interval

    @property
    def main_score(self) -> float:
        """The score by which models are compared."""
        return next(iter(self.scores.values()))

    def as_json(self) -> dict[str, Any]:
        """Return the model as plain JSON."""
        scores: dict[str, Any] = {}
        for name, score in self.scores.items():
            scores |= {name: score, f"{name}_interval": asdict(self.intervals[name])}
        return {
            "streams": list(self.streams),
            "model": self.model,
            **scores,
            "loss": self.loss,
            "behind_best": self.behind_best,
            "behind_best_interval": asdict(self.behind_best_interval),
        }

    @property
    def is_as_good_as_best(self) -> bool:
        """Whether its distance to the best model may be chance: the interval of the difference reaches 0."""
        return self.behind_best_interval.low <= 0


@dataclass(frozen=True)
class Probe:
    """The result of a probe.

    Attributes:
        models: every model, the one with the best main score first.
        rows: the number of rows that were answered.
        kind: the kind of target.
        classes: the names of the classes, columns or labels.
        folds: the number of folds.
        majority: the share of the most frequent label, which an answer without features would score; None where rows
            have no class.
        pooled: the streams that are sequences or maps, which were averaged over time or place first.
        seconds: the time that all of it took.
        kernel: the kernel of the streams.
        groups: the number of groups of rows that intervals are drawn over; None where each row is drawn alone.
    """

    models: tuple[ProbedModel, ...]
    rows: int
    kind: str
    classes: tuple[str, ...]
    folds: int
    majority: float | None
    pooled: tuple[str, ...]
    seconds: float
    kernel: str = "rbf"
    groups: int | None = None

    @property
    def suggestion(self) -> ProbedModel:
        """The model with the fewest streams among those that cannot be told from the best."""
        equals = [model for model in self.models if model.is_as_good_as_best]
        return min(equals, key=lambda model: (len(model.streams), -model.main_score))

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "models"}
        suggestion = {"streams": list(self.suggestion.streams), "model": self.suggestion.model}
        return {"models": [model.as_json() for model in self.models], **plain, "suggestion": suggestion}
