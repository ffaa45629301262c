"""The scores of an analysis for every kind of target, on the same resamples of rows or groups.

Classes are scored by accuracy and macro F1, distributions by these and their distance, numbers by their mean CCC and
RMSE, several labels by mean average precision and macro F1: the scores that a report compares. Each class, column or
label has a score of its own too: the accuracy in the rows of the class, the CCC, or the average precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.metrics.confusion import accuracy, class_scores, macro_f1
from emofuse.metrics.distribution import DISTANCES, distribution_scorer
from emofuse.metrics.weighted import RowScorer, weighted_means
from emofuse.report.targets import ReportedTarget, ShownScore, reported_target
from emofuse.statistics import Resampled, Resampling, RunPredictions, ScoredRows, resample_metrics, resample_rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PART_SCORES = {"class": "recall", "column": "ccc", "label": "average_precision"}
"""Word for a part of a target -> the key of the score of each part."""
PART_TITLES = {"class": "accuracy", "column": "CCC", "label": "average precision"}


@dataclass(frozen=True)
class ScoredAnswers:
    """The answers of one repeat, as far as scores need them.

    Attributes:
        unit: the unit of each row, int64 (n,).
        classes: the classes and the answers; None for targets without classes.
        values: the scorer of the true values; None for classes.
    """

    unit: Ints
    classes: RunPredictions | None
    values: RowScorer | None


@dataclass(frozen=True)
class Scoring:
    """The scores of one kind of target.

    Attributes:
        kind: the kind.
        names: the names of its C classes, columns or labels.
    """

    kind: str
    names: tuple[str, ...]

    @property
    def target(self) -> ReportedTarget:
        """What a report shows of the kind."""
        return reported_target(self.kind)

    @property
    def scores(self) -> tuple[ShownScore, ...]:
        """The scores of all rows, the main one first."""
        return self.target.compared

    @property
    def gains(self) -> tuple[ShownScore, ...]:
        """The scores of all rows of which a larger one is better."""
        return tuple(score for score in self.scores if score.larger_is_better)

    @property
    def main(self) -> str:
        """The key of the main score."""
        return self.scores[0].column

    @property
    def part_score(self) -> str:
        """The key of the score of each class, column or label."""
        return PART_SCORES[self.target.part]

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys of the scores of the C parts, such as `recall.0`."""
        return tuple(f"{self.part_score}.{place}" for place in range(len(self.names)))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all scores, in the order of `resample`."""
        return (*(score.column for score in self.scores), *self.parts)

    def kept(self, outputs: npt.NDArray[np.floating]) -> npt.NDArray[np.generic]:  # type: ignore[type-arg]
        """Return what scores need of outputs (n, C): the classes (n,), or all of them."""
        return outputs.argmax(axis=1).astype(np.int64) if self.kind == "class" else outputs.astype(np.float32)

    def prepare(
        self, unit: Ints, label: Ints, outputs: npt.NDArray[np.generic], target: Floats | None = None
    ) -> ScoredAnswers:
        """Prepare the answers to n rows for scoring.

        Args:
            unit: the unit of each row that resamples draw.
            label: the true classes; no matter without classes.
            outputs: the outputs (n, C), or the predicted classes (n,).
            target: the true values (n, C) of targets other than a class.
        """
        classes = values = None
        if self.target.has_classes:
            predicted = outputs if outputs.ndim == 1 else outputs.argmax(axis=1)
            classes = RunPredictions(unit, label, predicted.astype(np.int64))
        if self.kind != "class":
            if target is None:
                raise ValueError(f"a {self.kind} is scored by true values, and there are none")
            values = self._scorer(label, target, outputs.astype(np.float64))
        return ScoredAnswers(unit, classes, values)

    def main_scorer(self, answers: ScoredAnswers) -> RowScorer:
        """Return the function of weights (b, n) that returns the main score, (b, 1); NaN where no row counts."""
        if answers.classes is None:
            if answers.values is None:
                raise ValueError("the answers have neither classes nor values")
            return _chosen(answers.values, [0])
        right = (answers.classes.predicted == answers.classes.label).astype(np.float64)
        return lambda weights: weighted_means(weights, right[:, None])

    def _scorer(self, label: Ints, target: Floats, outputs: Floats) -> RowScorer:
        """Return the scorer of the scores that need true values, and of those of the parts."""
        if self.kind == "distribution":
            return _chosen(distribution_scorer(target, outputs), [DISTANCES.index("js")])
        reported = self.target
        paths = reported.paths(len(self.names))
        keys = [score.path for score in self.scores]
        keys += [reported.part_path(place, self.part_score) for place in range(len(self.names))]
        if reported.rows is None:
            raise ValueError(f"a {self.kind} has no scorer of rows")
        return _chosen(reported.rows(label, target, outputs), [paths.index(key) for key in keys])

    def resample(self, answered: Sequence[Sequence[ScoredAnswers]], *, units: int, resampling: Resampling) -> Resampled:
        """Score answers on the same resamples, each as the mean over its repeats.

        Args:
            answered: for each of R answers its repeats.
            units: the number of units to draw from.
            resampling: the number of resamples and the seed.

        Returns:
            Scores (R, M) and (B, R, M) in the order of `keys`.
        """
        flat = [repeat for repeats in answered for repeat in repeats]
        classes = [each.classes for each in flat if each.classes is not None]
        values = [ScoredRows(each.unit, each.values) for each in flat if each.values is not None]
        found = []
        if classes:
            found.append(
                resample_metrics(
                    classes,
                    [accuracy, macro_f1, _recalls],
                    units=units,
                    classes=len(self.names),
                    resampling=resampling,
                )
            )
        if values:
            found.append(resample_rows(values, units=units, resampling=resampling))
        joined = Resampled(
            np.concatenate([each.observed for each in found], axis=1),
            np.concatenate([each.drawn for each in found], axis=2),
        )
        if self.kind == "distribution":  # its distance stands behind the scores of classes
            order = [0, 1, joined.observed.shape[1] - 1, *range(2, joined.observed.shape[1] - 1)]
            joined = Resampled(joined.observed[:, order], joined.drawn[:, :, order])
        return _means(joined, [len(repeats) for repeats in answered])


def _chosen(scorer: RowScorer, places: Sequence[int]) -> Callable[[Floats], Floats]:
    return lambda weights: scorer(weights)[:, list(places)]


def _recalls(counts: Floats) -> Floats:
    """Return the accuracy in the rows of each class; NaN where a resample has no row of the class."""
    recalls: Floats = np.where(counts.sum(axis=-1) > 0, class_scores(counts)["recall"], np.nan)
    return recalls


def _means(resampled: Resampled, repeats: Sequence[int]) -> Resampled:
    """Return the means over the repeats of each answer, which stand one after another."""
    ends = np.cumsum(repeats)
    means = [resampled.mean(range(int(end) - count, int(end))) for count, end in zip(repeats, ends, strict=True)]
    return Resampled(
        np.concatenate([each.observed for each in means]), np.concatenate([each.drawn for each in means], axis=1)
    )
