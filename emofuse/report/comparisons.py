"""Computes the intervals of test scores and the tests against the baseline: the brackets and p values of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emofuse.report.answers import Pool, pool_by_images, read_answers
from emofuse.report.configurations import Results
from emofuse.report.formats import join_some
from emofuse.statistics import (
    Interval,
    McNemarTest,
    PairedTest,
    Resampled,
    Resampling,
    RunPredictions,
    accuracy,
    bootstrap_interval,
    classes_without_rows,
    holm,
    macro_f1,
    mcnemar,
    paired_bootstrap,
    resample_metrics,
)

MEASURED = {"accuracy": accuracy, "macro.f1": macro_f1}
"""The metrics that have intervals and tests: place in a run's metrics -> formula on a confusion matrix."""

LEAST_RESAMPLES = 2_000
RESAMPLES_PER_COMPARISON = 100
"""The least p is 1 / (1 + B), and Holm multiplies it by the number of comparisons, so that B grows with them."""


@dataclass(frozen=True)
class ReportComparison:
    """The comparison of one configuration with the baseline on the same test images.

    Attributes:
        tests: metric -> its paired bootstrap test.
        corrected: metric -> the p value of this test, corrected by Holm over all comparisons of the report.
        mcnemar: McNemar's test; the baseline is the first of the two.
        mcnemar_corrected: the p value of McNemar's test, corrected likewise.
    """

    tests: Mapping[str, PairedTest]
    corrected: Mapping[str, float]
    mcnemar: McNemarTest
    mcnemar_corrected: float


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty of the test scores of a report.

    Attributes:
        resampling: the number of resamples of the test images, and the seed.
        intervals: label of a configuration -> metric -> interval; without those whose predictions cannot be used.
        comparisons: label -> comparison; without the baseline and those that cannot be compared with it.
        images: the sizes of the sets of test images that were resampled; one size unless configurations differ.
        lacking: the number of resamples that lack a class which has test rows.
        problems: one sentence on each value that could not be computed, with the reason.
    """

    resampling: Resampling
    intervals: Mapping[str, Mapping[str, Interval]]
    comparisons: Mapping[str, ReportComparison]
    images: tuple[int, ...]
    lacking: int
    problems: tuple[str, ...]


def measure_uncertainty(results: Results, runs: Path) -> Uncertainty:
    """Compute the intervals of every configuration and its comparison with the baseline.

    Resamples draw images, not rows. With several split seeds an image may be among the test rows of several splits. A
    resample draws it for all of them at once, so that overlapping splits do not count as more evidence. A score is the
    mean over the runs of a configuration, in each resample as in the tables.

    Configurations are compared if they were scored on the same test images. McNemar's test takes one answer for each
    image: the class with the largest mean probability over all runs of the configuration that test the image (and
    therefore were not trained on it).

    If the predictions of a run are missing, damaged or of another run, its configuration has no interval and no
    comparison. A sentence gives the reason, and the rest of the report stays.
    """
    answered, faults = read_answers(results.configurations, runs)
    pools, contradicting = pool_by_images(answered)
    problems = [f"{label} has no interval and no comparison: {fault}." for label, fault in faults.items()]
    problems += [
        f"{join_some(labels)}: no interval and no comparison, because an image has different labels in the test rows "
        "of different runs; train them again with one set of labels."
        for labels in contradicting
    ]
    baseline_pool = next(
        (pool for pool in pools for item in pool.answered if item.label == results.baseline.label), None
    )
    problems += _not_compared(results, pools, baseline_pool)
    comparable = len(baseline_pool.answered) - 1 if baseline_pool else 0
    resampling = Resampling(max(LEAST_RESAMPLES, RESAMPLES_PER_COMPARISON * comparable))

    intervals: dict[str, dict[str, Interval]] = {}
    comparisons: dict[str, ReportComparison] = {}
    lacking = 0
    for pool in pools:
        scores, missed = _resample(pool, len(results.classes), resampling)
        lacking = max(lacking, missed)
        for label, score in scores.items():
            drawn = zip(MEASURED, score.drawn[:, 0].T, strict=True)
            intervals[label] = {path: bootstrap_interval(values) for path, values in drawn}
        if pool is baseline_pool:
            comparisons = _compare(pool, scores, results.baseline.label)
    images = tuple(sorted({len(pool.sample_id) for pool in pools}))
    return Uncertainty(resampling, intervals, comparisons, images, lacking, tuple(problems))


def _not_compared(results: Results, pools: list[Pool], baseline_pool: Pool | None) -> list[str]:
    """Return why configurations that have intervals are not compared."""
    if len(results.configurations) == 1:
        return []
    if baseline_pool is None:
        return [
            f"Nothing is compared with the baseline {results.baseline.label}, because its predictions cannot be used."
        ]
    elsewhere = [item.label for pool in pools if pool is not baseline_pool for item in pool.answered]
    if not elsewhere:
        return []
    baseline = results.baseline.label
    return [f"Not compared, because scored on other test images than the baseline {baseline}: {join_some(elsewhere)}."]


def _resample(pool: Pool, classes: int, resampling: Resampling) -> tuple[dict[str, Resampled], int]:
    """Return the scores of each configuration by `MEASURED`, and the number of resamples that lack a class."""
    answers: list[RunPredictions] = []
    places: dict[str, range] = {}
    for item in pool.answered:
        places[item.label] = range(len(answers), len(answers) + len(item.rows))
        for rows, predicted in zip(item.rows, item.predicted, strict=True):
            answers.append(RunPredictions(pool.units(rows), rows.label, predicted))
    metrics = [*MEASURED.values(), classes_without_rows]
    resampled = resample_metrics(answers, metrics, units=len(pool.sample_id), classes=classes, resampling=resampling)
    missed = (resampled.drawn[:, :, -1] > resampled.observed[:, -1]).any(axis=1)
    scores = Resampled(resampled.observed[:, :-1], resampled.drawn[:, :, :-1])
    return {label: scores.mean(runs) for label, runs in places.items()}, int(missed.sum())


def _compare(pool: Pool, scores: Mapping[str, Resampled], baseline: str) -> dict[str, ReportComparison]:
    """Compare every other configuration of the pool with the baseline; correct each kind of test separately."""
    right = {item.label: pool.right(item) for item in pool.answered}
    labels = [label for label in scores if label != baseline]
    paired = {
        path: [_test(scores[label], scores[baseline], place) for label in labels] for place, path in enumerate(MEASURED)
    }
    discordant = [mcnemar(right[baseline], right[label]) for label in labels]
    corrected = {path: holm([test.p for test in tests]).tolist() for path, tests in paired.items()}
    mcnemar_corrected = holm([test.p for test in discordant]).tolist()
    return {
        label: ReportComparison(
            {path: tests[place] for path, tests in paired.items()},
            {path: values[place] for path, values in corrected.items()},
            discordant[place],
            mcnemar_corrected[place],
        )
        for place, label in enumerate(labels)
    }


def _test(ours: Resampled, baseline: Resampled, place: int) -> PairedTest:
    observed, baseline_observed = float(ours.observed[0, place]), float(baseline.observed[0, place])
    return paired_bootstrap(observed, baseline_observed, ours.drawn[:, 0, place], baseline.drawn[:, 0, place])
