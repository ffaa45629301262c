"""Scores the configurations of a pool: their intervals, and the test of one against another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from emofuse.metrics.confusion import Floats, accuracy, classes_without_rows, confusion_matrix, macro_f1
from emofuse.report.answers import ConfigurationAnswers, Pool, seed_of_repeats
from emofuse.report.measures import MEASURED, measure, measured_paths
from emofuse.statistics import (
    Interval,
    PairedTest,
    Resampled,
    Resampling,
    RunPredictions,
    SplitTest,
    bootstrap_interval,
    corrected_resampled_t,
    paired_bootstrap,
    resample_metrics,
)

DETAIL_RESAMPLES = 1_000
"""The first resamples that the scores which are not compared are computed on."""


class PoolScores(Protocol):
    """The scores of all configurations of a pool."""

    @property
    def lacking(self) -> int:
        """The number of resamples that lack a class which has test rows."""

    def intervals(self, label: str) -> dict[str, Interval]:
        """Return metric -> interval, for all metrics of `measured_paths`."""

    def test(self, first: str, second: str, path: str) -> PairedTest | SplitTest:
        """Return the test of the difference first - second, of one of the `MEASURED` metrics."""


def score_pool(pool: Pool, classes: int, resampling: Resampling) -> PoolScores:
    """Score a pool by the bootstrap on one test split, and over several test splits by the corrected t-test."""
    return _score_splits(pool, classes) if pool.splits > 1 else _score_resamples(pool, classes, resampling)


@dataclass(frozen=True)
class _ResampledScores:
    """Scores on one test split, resampled.

    Attributes:
        pool: the configurations.
        classes: the number of classes.
        resampling: the number of resamples and the seed.
        compared: label -> its `MEASURED` metrics.
        lacking: see `PoolScores`.
    """

    pool: Pool
    classes: int
    resampling: Resampling
    compared: Mapping[str, Resampled]
    lacking: int

    def intervals(self, label: str) -> dict[str, Interval]:
        drawn = zip(MEASURED, self.compared[label].drawn[:, 0].T, strict=True)
        (item,) = (item for item in self.pool.answered if item.label == label)
        others = _other_intervals(self.pool, item, self.classes, self.resampling)
        return {path: bootstrap_interval(values) for path, values in drawn} | others

    def test(self, first: str, second: str, path: str) -> PairedTest:
        place, (ours, theirs) = MEASURED.index(path), (self.compared[first], self.compared[second])
        observed, other = float(ours.observed[0, place]), float(theirs.observed[0, place])
        return paired_bootstrap(observed, other, ours.drawn[:, 0, place], theirs.drawn[:, 0, place])


@dataclass(frozen=True)
class _SplitScores:
    """Scores over several test splits.

    Attributes:
        by_split: label -> its scores, the mean over the runs of each split, float64 (J, M); splits in the same order.
        paths: the names of the M scores.
        test_to_train: label -> the number of test rows divided by that of training rows.
    """

    by_split: Mapping[str, Floats]
    paths: tuple[str, ...]
    test_to_train: Mapping[str, float]
    lacking: int = 0

    def intervals(self, label: str) -> dict[str, Interval]:
        columns = zip(self.paths, self.by_split[label].T, strict=True)
        return {path: _bounded(column[np.isfinite(column)], self.test_to_train[label]) for path, column in columns}

    def test(self, first: str, second: str, path: str) -> SplitTest:
        place = self.paths.index(path)
        differences = self.by_split[first][:, place] - self.by_split[second][:, place]
        return corrected_resampled_t(differences, max(self.test_to_train[first], self.test_to_train[second]))


def _bounded(scores: Floats, test_to_train: float) -> Interval:
    """Return the interval of scores that lie between 0 and 1; NaN where fewer than two splits define the score."""
    if len(scores) < 2:
        return Interval(math.nan, math.nan)
    interval = corrected_resampled_t(scores, test_to_train).interval
    return Interval(max(0.0, interval.low), min(1.0, interval.high))


def _score_splits(pool: Pool, classes: int) -> _SplitScores:
    by_split = {}
    for item in pool.answered:
        scores: dict[str, list[Floats]] = {key: [] for key in sorted(item.probs)}
        for rows, predicted in zip(item.rows, item.predicted, strict=True):
            scores[rows.key].append(measure(confusion_matrix(rows.label, predicted, classes)))
        by_split[item.label] = np.stack([np.mean(of_split, axis=0) for of_split in scores.values()])
    return _SplitScores(by_split, measured_paths(classes), {item.label: item.test_to_train for item in pool.answered})


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
    compared = {}
    for item in pool.answered:
        seed = seed_of_repeats(item.repeats, resampling.seed)
        compared[item.label] = scores.mean_of_drawn(places[item.label], seed)
    return _ResampledScores(pool, classes, resampling, compared, int(missed.sum()))


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
