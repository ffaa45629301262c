"""Scores the configurations of a pool: their intervals, and the test of one against another."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
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

_BLOCK_BYTES = 2**26
"""The resampled scores of configurations that are scored together; more of them are scored block by block."""

Pair = tuple[str, str]


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
        """Return the test of the difference first - second, of one of the compared scores of the target.

        Raises:
            KeyError: the pair was not among those to compare.
        """


def score_pool(
    pool: Pool,
    classes: int,
    resampling: Resampling,
    target: ReportedTarget = CLASS,
    pairs: Collection[Pair] = (),
) -> PoolScores:
    """Score a pool by the bootstrap on one test split, and over several test splits by the corrected t-test.

    The memory is that of a block of configurations and of the resampled scores of those that stand second in a pair,
    however many configurations there are.

    Args:
        pool: the configurations.
        classes: the number of outputs.
        resampling: the number of resamples and the seed.
        target: the kind of target.
        pairs: the labels of the configurations to compare, the first with the second.
    """
    if pool.splits > 1:
        return _score_splits(pool, classes, target)
    tests = _PairedTests(pairs, tuple(score.path for score in target.compared))
    if target.rows is None:
        return _score_resamples(pool, classes, resampling, tests)
    return _score_rows(pool, resampling, target, tests)


class _PairedTests:
    """Tests of pairs, made while configurations are scored.

    Attributes:
        paths: the names of the M compared scores.
        kept: label -> its resampled scores, (B, 1, M), of the configurations that stand second in a pair.
        observed: label -> compared score -> its value.
        tests: (first, second) -> compared score -> the test.
    """

    def __init__(self, pairs: Collection[Pair], paths: tuple[str, ...]) -> None:
        self.paths = paths
        self.kept: dict[str, Resampled] = {}
        self.observed: dict[str, dict[str, float]] = {}
        self.tests: dict[Pair, dict[str, PairedTest]] = {}
        self._seconds: dict[str, list[str]] = {}
        for first, second in pairs:
            self._seconds.setdefault(first, []).append(second)
        self._kept_labels = {second for _, second in pairs}

    def order(self, answered: Sequence[ConfigurationAnswers]) -> list[ConfigurationAnswers]:
        """Return the configurations in the order to score them: those that others are compared with come first."""
        return sorted(answered, key=lambda item: item.label not in self._kept_labels)

    def add(self, label: str, compared: Resampled) -> None:
        """Test a configuration against those that it is compared with, and keep its scores only if others need them."""
        self.observed[label] = dict(zip(self.paths, compared.observed[0].tolist(), strict=True))
        if label in self._kept_labels:
            self.kept[label] = compared
        else:
            self._test(label, compared)

    def finish(self) -> None:
        """Test the configurations that were kept against each other, when all are scored."""
        for label, compared in self.kept.items():
            self._test(label, compared)
        self.kept.clear()

    def _test(self, label: str, ours: Resampled) -> None:
        for second in self._seconds.get(label, ()):
            theirs = self.kept[second]
            self.tests[label, second] = {
                path: paired_bootstrap(
                    float(ours.observed[0, place]),
                    float(theirs.observed[0, place]),
                    ours.drawn[:, 0, place],
                    theirs.drawn[:, 0, place],
                )
                for place, path in enumerate(self.paths)
            }


@dataclass(frozen=True)
class _ResampledScores:
    """Scores on one test split, resampled.

    Attributes:
        measured: label -> its measured scores -> interval.
        compared: label -> compared score -> its value.
        tests: (first, second) -> compared score -> the test.
        lacking: see `PoolScores`.
    """

    measured: Mapping[str, dict[str, Interval]]
    compared: Mapping[str, dict[str, float]]
    tests: Mapping[Pair, Mapping[str, PairedTest]]
    lacking: int

    def intervals(self, label: str) -> dict[str, Interval]:
        return self.measured[label]

    def observed(self, label: str) -> dict[str, float]:
        return self.compared[label]

    def test(self, first: str, second: str, path: str) -> PairedTest:
        return self.tests[first, second][path]


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


def _score_rows(pool: Pool, resampling: Resampling, target: ReportedTarget, tests: _PairedTests) -> _ResampledScores:
    """Score one configuration at a time, which bounds the memory; all of them have the same resamples."""
    columns = next(iter(pool.answered[0].probs.values())).shape[1]
    paths = target.paths(columns)
    places = [paths.index(path) for path in tests.paths]
    measured, lacking = {}, 0
    for item in tests.order(pool.answered):
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
        tests.add(item.label, Resampled(mean.observed[:, places], mean.drawn[:, :, places]))
    tests.finish()
    return _ResampledScores(measured, tests.observed, tests.tests, lacking)


def _score_resamples(pool: Pool, classes: int, resampling: Resampling, tests: _PairedTests) -> _ResampledScores:
    """Score the configurations block by block; all of them have the same resamples, which depend on the seed alone."""
    metrics = [accuracy, macro_f1, classes_without_rows]
    missed = np.zeros(resampling.count, dtype=np.bool_)
    measured: dict[str, dict[str, Interval]] = {}
    for block in _blocks(tests.order(pool.answered), classes, resampling):
        answers, places = _block_predictions(pool, block)
        resampled = resample_metrics(answers, metrics, units=pool.unit_count, classes=classes, resampling=resampling)
        missed |= (resampled.drawn[:, :, -1] > resampled.observed[:, -1]).any(axis=1)
        scores = Resampled(resampled.observed[:, :-1], resampled.drawn[:, :, :-1])
        for item in block:
            mean = scores.mean_of_drawn(places[item.label], seed_of_repeats(item.repeats, resampling.seed))
            measured[item.label] = {
                path: bootstrap_interval(values) for path, values in zip(MEASURED, mean.drawn[:, 0].T, strict=True)
            }
            tests.add(item.label, mean)
        del resampled, scores  # before the other metrics are resampled
        for label, others in _other_intervals(pool, block, classes, resampling).items():
            measured[label] |= others
    tests.finish()
    return _ResampledScores(measured, tests.observed, tests.tests, int(missed.sum()))


def _blocks(
    answered: Sequence[ConfigurationAnswers], classes: int, resampling: Resampling
) -> Iterator[list[ConfigurationAnswers]]:
    """Yield blocks of configurations whose resampled scores need at most `_BLOCK_BYTES`, or single configurations."""
    detail = min(resampling.count, DETAIL_RESAMPLES) * len(measured_paths(classes))
    most = _BLOCK_BYTES // (8 * max((len(MEASURED) + 1) * resampling.count, detail))
    block: list[ConfigurationAnswers] = []
    runs = 0
    for item in answered:
        if block and runs + len(item.rows) > most:
            yield block
            block, runs = [], 0
        block.append(item)
        runs += len(item.rows)
    if block:
        yield block


def _other_intervals(
    pool: Pool, block: Sequence[ConfigurationAnswers], classes: int, resampling: Resampling
) -> dict[str, dict[str, Interval]]:
    """Return label -> the intervals of the metrics that are not compared."""
    fewer = Resampling(min(resampling.count, DETAIL_RESAMPLES), resampling.seed)
    answers, places = _block_predictions(pool, block)
    scores = resample_metrics(answers, [measure], units=pool.unit_count, classes=classes, resampling=fewer)
    paths = measured_paths(classes)
    intervals = {}
    for item in block:
        mean = scores.mean_of_drawn(places[item.label], seed_of_repeats(item.repeats, resampling.seed))
        columns = zip(paths, mean.drawn[:, 0].T, strict=True)
        intervals[item.label] = {path: bootstrap_interval(column) for path, column in columns if path not in MEASURED}
    return intervals


def _block_predictions(
    pool: Pool, block: Sequence[ConfigurationAnswers]
) -> tuple[list[RunPredictions], dict[str, range]]:
    """Return the predictions of all runs of a block, and label -> the places of its runs among them."""
    answers: list[RunPredictions] = []
    places: dict[str, range] = {}
    for item in block:
        places[item.label] = range(len(answers), len(answers) + len(item.rows))
        answers += _run_predictions(pool, item)
    return answers, places


def _run_predictions(pool: Pool, item: ConfigurationAnswers) -> list[RunPredictions]:
    pairs = zip(item.rows, item.predicted, strict=True)
    return [RunPredictions(pool.units(rows), rows.label, predicted) for rows, predicted in pairs]
