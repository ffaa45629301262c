"""The scores of all models of a probe, with intervals on the same resamples of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.metrics.confusion import accuracy, class_scores, over_classes_that_occur
from emofuse.metrics.multilabel import multilabel_scorer
from emofuse.metrics.probability_metrics import log_loss
from emofuse.metrics.regression import regression_scorer
from emofuse.metrics.targets import target_metrics
from emofuse.metrics.weighted import RowScorer
from emofuse.probe.results import SCORES, Answers, Floats, ProbedModel, ProbeOptions
from emofuse.statistics.bootstrap import Interval, bootstrap_interval
from emofuse.statistics.resampling import Resampled, Resampling, RunPredictions, resample_metrics
from emofuse.statistics.row_resampling import ScoredRows, resample_rows
from emofuse.training.targets import WITH_CLASSES

_ROW_SCORERS: Mapping[str, tuple[Callable[[Floats, Floats], RowScorer], tuple[int, int]]] = {
    "regression": (regression_scorer, (0, 2)),
    "multilabel": (multilabel_scorer, (0, 2)),
}
"""Kind of a target -> the scorer of rows, and the places of the two scores among its scores."""


@dataclass(frozen=True)
class Truth:
    """The targets of the answered rows: labels (n,), of targets that are no class also values (n, C).

    Rows with the same number in `units` (n,) are drawn together.
    """

    kind: str
    labels: npt.NDArray[np.int64]
    values: Floats | None
    names: tuple[str, ...]
    units: npt.NDArray[np.int64]

    def resample(self, answers: Sequence[Floats], options: ProbeOptions) -> Resampled:
        """Return the two scores of every model on the same resamples of the rows."""
        unit, resampling = self.units, Resampling(options.resamples, options.seed)
        count = int(unit.max()) + 1
        if self.values is not None and self.kind not in WITH_CLASSES:
            make, places = _ROW_SCORERS[self.kind]
            scorers = [make(self.values, outputs) for outputs in answers]
            runs = [ScoredRows(unit, _some_scores(scorer, places)) for scorer in scorers]
            return resample_rows(runs, units=count, resampling=resampling)
        return resample_metrics(
            [RunPredictions(unit, self.labels, probs.argmax(axis=1)) for probs in answers],
            [accuracy, lambda counts: over_classes_that_occur(class_scores(counts)["f1"], counts)],
            units=count,
            classes=len(self.names),
            resampling=resampling,
        )

    def loss(self, outputs: Floats) -> float:
        """Return the loss of a model."""
        if self.values is None:
            return log_loss(self.labels, outputs)
        return float(target_metrics(self.kind, self.values, outputs, self.names, labels=self.labels)["loss"])


def _some_scores(scorer: RowScorer, places: Sequence[int]) -> RowScorer:
    """Return the scorer of some of the scores, float64 (b, len(places))."""
    return lambda weights: scorer(weights)[:, list(places)]


def score_models(
    answers: Answers,
    truth: Truth,
    options: ProbeOptions,
    plain: Mapping[str, str],
) -> tuple[ProbedModel, ...]:
    """Score all models on the same resamples of the rows, and sort them by their main score."""
    resampled = truth.resample(list(answers.values()), options)
    losses = [truth.loss(outputs) for outputs in answers.values()]
    # A score that the rows do not define, such as that of a constant column, ranks last.
    mains = np.nan_to_num(resampled.observed[:, 0], nan=-np.inf)
    order = sorted(range(len(losses)), key=lambda place: (-mains[place], losses[place]))
    models = []
    for place in order:
        streams, model = list(answers)[place]
        scores = {name: float(resampled.observed[place, number]) for number, name in enumerate(SCORES[truth.kind])}
        intervals = [bootstrap_interval(resampled.drawn[:, place, number]) for number in range(len(scores))]
        models.append(
            ProbedModel(
                streams=tuple(plain[name] for name in streams),
                model=model,
                scores=scores,
                intervals=dict(zip(scores, intervals, strict=True)),
                loss=losses[place],
                behind_best=float(resampled.observed[order[0], 0] - resampled.observed[place, 0]),
                behind_best_interval=_behind(resampled, order[0], place),
            )
        )
    return tuple(models)


def _behind(resampled: Resampled, best: int, place: int) -> Interval:
    return bootstrap_interval(resampled.drawn[:, best, 0] - resampled.drawn[:, place, 0])
