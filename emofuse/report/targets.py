"""What a report shows of each kind of target: which scores, by which names, and how they are computed from answers.

Tables, figures and sentences take the names from here, so that they are written once for every kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.metrics import distribution, multilabel, regression
from emofuse.metrics.confusion import Floats
from emofuse.metrics.weighted import Rows, RowScorer
from emofuse.report.measures import MEANS, MOST_CLASSES, measure, measured_paths
from emofuse.report.target_words import (
    CLASS_WORDS,
    DISTRIBUTION_WORDS,
    MULTILABEL_WORDS,
    REGRESSION_WORDS,
    TargetWords,
)

Ints = npt.NDArray[np.int64]
RowMeasure = Callable[[Ints, Rows, Rows], RowScorer]
"""A function of the classes (n,), the true values (n, C) and the outputs (n, C) of a run's rows, that scores them."""


def decimals_of(value: float) -> int:
    """Return the number of decimals that show a value with three significant digits; 3 for 0 and NaN."""
    return max(0, min(12, 2 - math.floor(math.log10(abs(value))))) if abs(value) > 0 else 3


@dataclass(frozen=True)
class ShownScore:
    """One score of a run, or of one class, column or label of it.

    Attributes:
        path: its place in a run's metrics, such as `macro.f1`; of a part, its key.
        title: its heading in tables.
        name: its name in sentences.
        larger_is_better: whether a larger score is better.
        bounds: the least and the largest value that it can have.
        decimals: the number of decimals; None for three significant digits, where scores are in the unit of a column.
    """

    path: str
    title: str
    name: str
    larger_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    decimals: int | None = 3

    @property
    def column(self) -> str:
        """The name in tables of plain numbers."""
        return self.path.replace(".", "_")

    @property
    def difference(self) -> str:
        """The heading of a difference."""
        return f"Δ {self.name}"


@dataclass(frozen=True)
class ReportedTarget:
    """One kind of target.

    Attributes:
        kind: the kind in the specs of runs.
        scores: the scores of a whole run, in the order of the tables of numbers.
        leading: the scores of the first table, each with its difference to the baseline.
        details: the scores of each table of further scores.
        compared: the scores that are compared between configurations, the main one first.
        plotted: the scores that share an axis in the figure of configurations.
        run_scores: the scores of single runs in tables of numbers.
        part: the word for what has scores of its own: a class, a column or a label.
        part_key: the place of the scores of parts in the names of measured scores.
        part_scores: the scores of each part.
        main_part: the one that tables and figures of all parts show.
        support: the heading of the number of rows of each part; empty where all rows have every part.
        curve: the validation score that is drawn by epoch, as `train.select` names it.
        validation: validation score -> its place in a run's metrics.
        paths: a function of the number C of outputs that returns the names of all measured scores.
        rows: a function that prepares the answers of a run for these scores; None if its confusion matrix has all.
        lacking: the sentence on resamples that do not define a score, with their number.
        words: the words of sentences and captions.
        most_parts: the largest number of parts that have intervals of their own; None for any number.
    """

    kind: str
    scores: tuple[ShownScore, ...]
    leading: tuple[ShownScore, ...]
    details: tuple[tuple[ShownScore, ...], ...]
    compared: tuple[ShownScore, ...]
    plotted: tuple[ShownScore, ...]
    run_scores: tuple[ShownScore, ...]
    part: str
    part_key: str
    part_scores: tuple[ShownScore, ...]
    main_part: ShownScore
    support: str
    curve: str
    validation: Mapping[str, str]
    paths: Callable[[int], tuple[str, ...]]
    rows: RowMeasure | None
    lacking: str
    words: TargetWords
    most_parts: int | None

    @property
    def main(self) -> ShownScore:
        """The main score, by which configurations are compared first."""
        return self.compared[0]

    @property
    def parts(self) -> str:
        """The word for several parts."""
        return f"{self.part}es" if self.part.endswith("s") else f"{self.part}s"

    @property
    def has_classes(self) -> bool:
        """Whether every row has one class, and every answer names one."""
        return self.part == "class"

    def part_path(self, place: int, key: str) -> str:
        """Return the name of the measured score of one part, such as `per_class.3.f1`."""
        return f"{self.part_key}.{place}.{key}"

    def bounds(self, path: str) -> tuple[float, float]:
        """Return the least and the largest value of a measured score."""
        key = path.rpartition(".")[2] if path.startswith(f"{self.part_key}.") else ""
        known = {score.path: score.bounds for score in self.scores}
        return next((score.bounds for score in self.part_scores if score.path == key), known.get(path, (0.0, 1.0)))


_ANY, _CORRELATION = (0.0, np.inf), (-1.0, 1.0)
_ACCURACY = ShownScore("accuracy", "Accuracy", "accuracy")
_MACRO_F1 = ShownScore("macro.f1", "Macro F1", "macro F1")
_CLASS_SCORES = (
    ShownScore("precision", "Precision", "precision"),
    ShownScore("recall", "Recall", "recall"),
    ShownScore("f1", "F1", "F1"),
    ShownScore("specificity", "Specificity", "specificity"),
)

_MACRO_P, _MACRO_R, *_WEIGHTED = (
    ShownScore("macro.precision", "Macro P", "macro precision"),
    ShownScore("macro.recall", "Macro R", "macro recall"),
    ShownScore("weighted.precision", "Weighted P", "weighted precision"),
    ShownScore("weighted.recall", "Weighted R", "weighted recall"),
    ShownScore("weighted.f1", "Weighted F1", "weighted F1"),
    ShownScore("macro.specificity", "Specificity", "specificity"),
)

CLASS = ReportedTarget(
    kind="class",
    scores=(_ACCURACY, _MACRO_P, _MACRO_R, _MACRO_F1, *_WEIGHTED),
    leading=(_ACCURACY, _MACRO_F1),
    details=((_MACRO_P, _MACRO_R, *_WEIGHTED),),
    compared=(_ACCURACY, _MACRO_F1),
    plotted=(_ACCURACY, _MACRO_F1),
    run_scores=(
        _ACCURACY,
        *(replace(score, path=f"{mean}.{score.path}") for mean in MEANS for score in _CLASS_SCORES),
    ),
    part="class",
    part_key="per_class",
    part_scores=_CLASS_SCORES,
    main_part=_CLASS_SCORES[2],
    support="Support",
    curve="macro_f1",
    validation={"macro_f1": "macro.f1", "accuracy": "accuracy", "loss": "loss"},
    paths=measured_paths,
    rows=None,
    lacking=(
        "Resamples without a row of some class: {:,}. Their macro scores are means over the classes that have rows or "
        "answers."
    ),
    words=CLASS_WORDS,
    most_parts=MOST_CLASSES,
)


def _distribution_paths(columns: int) -> tuple[str, ...]:
    return (*measured_paths(columns), *(f"distribution.{name}" for name in distribution.DISTANCES))


def _distribution_rows(labels: Ints, target: Rows, outputs: Rows) -> RowScorer:
    """Return the scorer of the classes of the rows, and of the distances of their distributions."""
    columns = target.shape[1]
    cells = np.eye(columns**2)[labels * columns + outputs.argmax(axis=1)]
    distances = distribution.distribution_scorer(target, outputs)

    def score(weights: Floats) -> Floats:
        counts = (weights @ cells).reshape(len(weights), columns, columns)
        return np.concatenate([measure(counts), distances(weights)], axis=1)

    return score


_DISTANCES = (
    ShownScore("distribution.js", "JS divergence", "JS divergence", False, (0.0, float(np.log(2)))),
    ShownScore("distribution.kl", "KL divergence", "KL divergence", False, _ANY),
    ShownScore("distribution.cross_entropy", "Cross-entropy", "cross-entropy", False, _ANY),
    ShownScore("distribution.l1", "L1 distance", "L1 distance", False, (0.0, 2.0)),
    ShownScore("distribution.cosine", "Cosine", "cosine similarity"),
)

DISTRIBUTION = replace(
    CLASS,
    kind="distribution",
    scores=(*CLASS.scores, *_DISTANCES),
    details=(*CLASS.details, _DISTANCES),
    compared=(*CLASS.compared, _DISTANCES[0]),
    run_scores=(*CLASS.run_scores, *_DISTANCES),
    words=DISTRIBUTION_WORDS,
    paths=_distribution_paths,
    rows=_distribution_rows,
)


def _regression_paths(columns: int) -> tuple[str, ...]:
    means = (f"mean.{name}" for name in regression.SCORES)
    return (*means, *(f"columns.{place}.{name}" for place in range(columns) for name in regression.SCORES))


_NUMBER_SCORES = (
    ShownScore("ccc", "CCC", "CCC", bounds=_CORRELATION),
    ShownScore("pearson", "Pearson r", "Pearson's r", bounds=_CORRELATION),
    ShownScore("rmse", "RMSE", "RMSE", False, _ANY, None),
    ShownScore("mae", "MAE", "MAE", False, _ANY, None),
)
_MEAN_SCORES = tuple(replace(score, path=f"mean.{score.path}") for score in _NUMBER_SCORES)
_MEAN_CCC, _MEAN_PEARSON, _MEAN_RMSE, _MEAN_MAE = _MEAN_SCORES

REGRESSION = ReportedTarget(
    kind="regression",
    scores=_MEAN_SCORES,
    leading=(_MEAN_CCC, _MEAN_RMSE),
    details=((_MEAN_PEARSON, _MEAN_MAE),),
    compared=(_MEAN_CCC, _MEAN_RMSE),
    plotted=(_MEAN_CCC,),
    run_scores=_MEAN_SCORES,
    part="column",
    part_key="columns",
    part_scores=_NUMBER_SCORES,
    main_part=_NUMBER_SCORES[0],
    support="",
    curve="ccc",
    validation={"ccc": "mean.ccc", "loss": "loss"},
    paths=_regression_paths,
    rows=lambda _, target, outputs: regression.regression_scorer(target, outputs),
    lacking="Resamples in which all rows of a column have one value: {:,}; its CCC and correlation leave them out.",
    words=REGRESSION_WORDS,
    most_parts=None,
)


def _multilabel_paths(columns: int) -> tuple[str, ...]:
    means = ("macro.map", "macro.roc_auc", "macro.f1", "micro.f1")
    return (*means, *(f"columns.{place}.{name}" for place in range(columns) for name in multilabel.SCORES))


_MAP = ShownScore("macro.map", "mAP", "mAP")
_MULTILABEL_SCORES = (
    _MAP,
    _MACRO_F1,
    ShownScore("micro.f1", "Micro F1", "micro F1"),
    ShownScore("macro.roc_auc", "ROC AUC", "area under the ROC curve"),
)
_LABEL_SCORES = (
    ShownScore("average_precision", "Average precision", "average precision"),
    ShownScore("roc_auc", "ROC AUC", "area under the ROC curve"),
    ShownScore("f1", "F1", "F1"),
)

MULTILABEL = ReportedTarget(
    kind="multilabel",
    scores=_MULTILABEL_SCORES,
    leading=(_MAP, _MACRO_F1),
    details=(_MULTILABEL_SCORES[2:],),
    compared=(_MAP, _MACRO_F1),
    plotted=(_MAP, _MACRO_F1),
    run_scores=_MULTILABEL_SCORES,
    part="label",
    part_key="columns",
    part_scores=_LABEL_SCORES,
    main_part=_LABEL_SCORES[0],
    support="Rows",
    curve="map",
    validation={"map": "macro.map", "macro_f1": "macro.f1", "loss": "loss"},
    paths=_multilabel_paths,
    rows=lambda _, target, outputs: multilabel.multilabel_scorer(target, outputs),
    lacking="Resamples in which no row has some label: {:,}; their means are over the other labels.",
    words=MULTILABEL_WORDS,
    most_parts=None,
)

TARGETS: Mapping[str, ReportedTarget] = {
    target.kind: target for target in (CLASS, DISTRIBUTION, REGRESSION, MULTILABEL)
}


def reported_target(kind: str) -> ReportedTarget:
    """Return what a report shows of a kind of target.

    Raises:
        KeyError: the kind is unknown.
    """
    return TARGETS[kind]


def part_entries(metrics: Mapping[str, Any], names: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """Return the scores of each part in a run's metrics, in the order of the outputs."""
    if "per_class" in metrics:
        return list(metrics["per_class"])
    return [metrics["columns"][name] for name in names]
