"""Scores the configurations of a pool: their intervals, and the test of one against another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from emofuse.metrics.confusion import Floats, accuracy, classes_without_rows, confusion_matrix, macro_f1
from emofuse.metrics.weighted import RowScorer
from emofuse.report.answers import ConfigurationAnswers, Pool, RowSet, seed_of_repeats
from emofuse.report.measures import MEASURED, measure, measured_paths
from emofuse.report.targets import CLASS, ReportedTarget
from emofuse.statistics import (
    Interval,
    PairedTest,
    Resampled,
    Resampling,
    RunPredictions,
    ScoredRows,
    SplitTest,
    bootstrap_interval,
    corrected_resampled_t,
    paired_bootstrap,
    resample_metrics,
    resample_rows,
)

DETAIL_RESAMPLES = 1_000
"""The first resamples that the scores which are not compared are computed on."""


class PoolScores(Protocol):
    """The scores of all configurations of a pool."""

    @property
    def lacking(self) -> int:
        """The number of resamples that lack a class or label which has test rows, or leave a score undefined."""

    def intervals(self, label: str) -> dict[str, Interval]:
        """Return metric -> interval, for all measured scores of the target."""

    def observed(self, label: str) -> dict[str, float]:
        """Return compared score -> its value, the mean over runs."""

    def test(self, first: str, second: str, path: str) -> PairedTest | SplitTest:
        """Return the test of the difference first - second, of one of the compared scores of the target."""


def score_pool(pool: Pool, classes: int, resampling: Resampling, target: ReportedTarget = CLASS) -> PoolScores:
    """Score a pool by the bootstrap on one test split, and over several test splits by the corrected t-test.

    Args:
        pool: the configurations.
        classes: the number of outputs.
        resampling: the number of resamples and the seed.
        target: the kind of target.
    """
    if pool.splits > 1:
        return _score_splits(pool, classes, target)
    return _score_resamples(pool, classes, resampling) if target.rows is None else _score_rows(pool, resampling, target)


@dataclass(frozen=True)
class _ResampledScores:
    """Scores on one test split, resampled.

    Attributes:
        measured: label -> its measured scores -> interval.
        compared: label -> its compared scores.
        paths: the names of the compared scores.
        lacking: see `PoolScores`.
    """

    measured: Mapping[str, dict[str, Interval]]
    compared: Mapping[str, Resampled]
    paths: tuple[str, ...]
    lacking: int

    def intervals(self, label: str) -> dict[str, Interval]:
        return self.measured[label]

    def observed(self, label: str) -> dict[str, float]:
        return dict(zip(self.paths, self.compared[label].observed[0].tolist(), strict=True))

    def test(self, first: str, second: str, path: str) -> PairedTest:
        place, (ours, theirs) = self.paths.index(path), (self.compared[first], self.compared[second])
        observed, other = float(ours.observed[0, place]), float(theirs.observed[0, place])
        return paired_bootstrap(observed, other, ours.drawn[:, 0, place], theirs.drawn[:, 0, place])


@dataclass(frozen=True)
class _SplitScores:
    """Scores over several test splits.

    Attributes:
        target: the kind of target.
        by_split: label -> its scores, the mean over the runs of each split, float64 (J, M); splits in the same order.
        paths: the names of the M scores.
        test_to_train: label -> the number of test rows divided by that of training rows.
    """

    target: ReportedTarget
    by_split: Mapping[str, Floats]
    paths: tuple[str, ...]
    test_to_train: Mapping[str, float]
    lacking: int = 0

    def intervals(self, label: str) -> dict[str, Interval]:
        columns = zip(self.paths, self.by_split[label].T, strict=True)
        return {
            path: _bounded(column[np.isfinite(column)], self.test_to_train[label], self.target.bounds(path))
            for path, column in columns
        }

    def observed(self, label: str) -> dict[str, float]:
        means = np.nanmean(self.by_split[label], axis=0)
        return {score.path: float(means[self.paths.index(score.path)]) for score in self.target.compared}

    def test(self, first: str, second: str, path: str) -> SplitTest:
        place = self.paths.index(path)
        differences = self.by_split[first][:, place] - self.by_split[second][:, place]
        defined = differences[np.isfinite(differences)]
        if len(defined) < 2:
            return SplitTest(math.nan, math.nan, Interval(math.nan, math.nan), math.nan, 1.0, len(defined))
        return corrected_resampled_t(defined, max(self.test_to_train[first], self.test_to_train[second]))


def _bounded(scores: Floats, test_to_train: float, bounds: tuple[float, float]) -> Interval:
    """Return the interval of scores between these bounds; NaN where fewer than two splits define the score."""
    if len(scores) < 2:
        return Interval(math.nan, math.nan)
    interval = corrected_resampled_t(scores, test_to_train).interval
    return Interval(max(bounds[0], interval.low), min(bounds[1], interval.high))


def _score_splits(pool: Pool, classes: int, target: ReportedTarget) -> _SplitScores:
    by_split = {}
    for item in pool.answered:
        scores: dict[str, list[Floats]] = {key: [] for key in sorted(item.probs)}
        for place, rows in enumerate(item.rows):
            if target.rows is None:
                scores[rows.key].append(measure(confusion_matrix(rows.label, item.predicted[place], classes)))
            else:
                scores[rows.key].append(_row_scorer(target, rows, item, place)(np.ones((1, len(rows.label))))[0])
        by_split[item.label] = np.stack([np.mean(of_split, axis=0) for of_split in scores.values()])
    test_to_train = {item.label: item.test_to_train for item in pool.answered}
    return _SplitScores(target, by_split, target.paths(classes), test_to_train)


def _row_scorer(target: ReportedTarget, rows: RowSet, item: ConfigurationAnswers, place: int) -> RowScorer:
    """Return the scorer of the answers of one run, whose target has true values."""
    if target.rows is None or rows.target is None:
        raise ValueError(f"a {target.kind} has no true values")
    return target.rows(rows.label, rows.target, item.outputs[place])


def _score_rows(pool: Pool, resampling: Resampling, target: ReportedTarget) -> _ResampledScores:
    """Score one configuration at a time, which bounds the memory; all of them have the same resamples."""
    columns = next(iter(pool.answered[0].probs.values())).shape[1]
    paths, compared_paths = target.paths(columns), tuple(score.path for score in target.compared)
    places = [paths.index(path) for path in compared_paths]
    measured, compared, lacking = {}, {}, 0
    for item in pool.answered:
        runs = [
            ScoredRows(pool.units(rows), _row_scorer(target, rows, item, place)) for place, rows in enumerate(item.rows)
        ]
        scores = resample_rows(runs, units=pool.unit_count, resampling=resampling)
        undefined = np.isnan(scores.drawn) & ~np.isnan(scores.observed)
        lacking = max(lacking, int(undefined.any(axis=(1, 2)).sum()))
        mean = scores.mean_of_drawn(range(len(runs)), seed_of_repeats(item.repeats, resampling.seed))
        measured[item.label] = {
            path: bootstrap_interval(values) for path, values in zip(paths, mean.drawn[:, 0].T, strict=True)
        }
        compared[item.label] = Resampled(mean.observed[:, places], mean.drawn[:, :, places])
    return _ResampledScores(measured, compared, compared_paths, lacking)


def _score_resamples(pool: Pool, classes: int, resampling: Resampling) -> _ResampledScores:
    answers: list[RunPredictions] = []
    places: dict[str, range] = {}
    for item in pool.answered:
        places[item.label] = range(len(answers), len(answers) + len(item.rows))
        answers += _run_predictions(pool, item)
    metrics = [accuracy, macro_f1, classes_without_rows]
    resampled = resample_metrics(answers, metrics, units=pool.unit_count, classes=classes, resampling=resampling)
    missed = (resampled.drawn[:, :, -1] > resampled.observed[:, -1]).any(axis=1)
    scores = Resampled(resampled.observed[:, :-1], resampled.drawn[:, :, :-1])
    measured, compared = {}, {}
    for item in pool.answered:
        mean = scores.mean_of_drawn(places[item.label], seed_of_repeats(item.repeats, resampling.seed))
        of_compared = {
            path: bootstrap_interval(values) for path, values in zip(MEASURED, mean.drawn[:, 0].T, strict=True)
        }
        measured[item.label] = of_compared | _other_intervals(pool, item, classes, resampling)
        compared[item.label] = mean
    return _ResampledScores(measured, compared, MEASURED, int(missed.sum()))


def _other_intervals(
    pool: Pool, item: ConfigurationAnswers, classes: int, resampling: Resampling
) -> dict[str, Interval]:
    """Return the intervals of the metrics that are not compared, one configuration at a time to bound the memory."""
    fewer = Resampling(min(resampling.count, DETAIL_RESAMPLES), resampling.seed)
    runs = _run_predictions(pool, item)
    scores = resample_metrics(runs, [measure], units=pool.unit_count, classes=classes, resampling=fewer)
    drawn = scores.mean_of_drawn(range(len(runs)), seed_of_repeats(item.repeats, resampling.seed)).drawn[:, 0]
    columns = zip(measured_paths(classes), drawn.T, strict=True)
    return {path: bootstrap_interval(column) for path, column in columns if path not in MEASURED}


def _run_predictions(pool: Pool, item: ConfigurationAnswers) -> list[RunPredictions]:
    pairs = zip(item.rows, item.predicted, strict=True)
    return [RunPredictions(pool.units(rows), rows.label, predicted) for rows, predicted in pairs]
