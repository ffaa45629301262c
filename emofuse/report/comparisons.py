"""Intervals of the test scores, and tests against the baseline: what stands behind the brackets and the p values."""

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
"""The metrics that have intervals and tests: place in a run's metrics -> the same of a confusion matrix."""

LEAST_RESAMPLES = 2_000
RESAMPLES_PER_COMPARISON = 100
"""The least p is 1 / (1 + B) and Holm multiplies it by the number of comparisons, so B grows with them."""


@dataclass(frozen=True)
class ReportComparison:
    """One configuration against the baseline on the same test images.

    Attributes:
        tests: metric -> paired bootstrap.
        corrected: metric -> the p value of that, corrected by Holm over all comparisons of the report.
        mcnemar: McNemar's test; the baseline is the first of the two.
        mcnemar_corrected: its p value, corrected likewise.
    """

    tests: Mapping[str, PairedTest]
    corrected: Mapping[str, float]
    mcnemar: McNemarTest
    mcnemar_corrected: float


@dataclass(frozen=True)
class Uncertainty:
    """How sure the test scores of a report are.

    Attributes:
        resampling: how often test images were drawn, and the seed.
        intervals: label of a configuration -> metric -> interval; without those whose predictions cannot be used.
        comparisons: label -> comparison; without the baseline and those that cannot be compared with it.
        images: sizes of the sets of test images that were drawn from; one, unless configurations differ in it.
        lacking: resamples in which a class that has test rows had none.
        problems: what could not be computed and why, one sentence each.
    """

    resampling: Resampling
    intervals: Mapping[str, Mapping[str, Interval]]
    comparisons: Mapping[str, ReportComparison]
    images: tuple[int, ...]
    lacking: int
    problems: tuple[str, ...]


def measure_uncertainty(results: Results, runs: Path) -> Uncertainty:
    """Intervals of every configuration, and its comparison with the baseline.

    Images are drawn, not rows: with several split seeds an image may stand in the test rows of several splits, and a
    resample draws it for all of them at once, so that the overlap of the splits does not pass for more evidence. A
    score is the mean over the runs of a configuration, in each resample as in the tables.

    Configurations are compared where they were scored on the same test images. McNemar's test takes one answer an
    image: the class with the largest mean probability over all runs of the configuration that have the image among
    their test rows (and so were not trained on it).

    A run whose predictions are missing, damaged or do not fit its record costs its configuration the interval and the
    comparison, and a sentence says so; the rest of the report stands.
    """
    answered, faults = read_answers(results.configurations, runs)
    pools, contradicting = pool_by_images(answered)
    problems = [f"{label} has no interval and no comparison: {fault}." for label, fault in faults.items()]
    problems += [
        f"{join_some(labels)}: no interval and no comparison, because an image has different labels in the test rows "
        "of different runs; train them again with one set of labels."
        for labels in contradicting
    ]
    home = next((pool for pool in pools for item in pool.answered if item.label == results.baseline.label), None)
    problems += _not_compared(results, pools, home)
    comparable = len(home.answered) - 1 if home else 0
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
        if pool is home:
            comparisons = _compare(pool, scores, results.baseline.label)
    images = tuple(sorted({len(pool.sample_id) for pool in pools}))
    return Uncertainty(resampling, intervals, comparisons, images, lacking, tuple(problems))


def _not_compared(results: Results, pools: list[Pool], home: Pool | None) -> list[str]:
    """Why configurations that have intervals are not compared."""
    if len(results.configurations) == 1:
        return []
    if home is None:
        return [
            f"The predictions of the baseline {results.baseline.label} cannot be used: nothing is compared with it."
        ]
    elsewhere = [item.label for pool in pools if pool is not home for item in pool.answered]
    if not elsewhere:
        return []
    baseline = results.baseline.label
    return [f"Scored on other test images than the baseline {baseline}, and so not compared: {join_some(elsewhere)}."]


def _resample(pool: Pool, classes: int, resampling: Resampling) -> tuple[dict[str, Resampled], int]:
    """Scores of each configuration by the metrics of `MEASURED`, and in how many resamples a class was missed."""
    answers: list[RunPredictions] = []
    places: dict[str, range] = {}
    for item in pool.answered:
        places[item.label] = range(len(answers), len(answers) + len(item.rows))
        for rows, predicted in zip(item.rows, item.predicted, strict=True):
            answers.append(RunPredictions(pool.units(rows), rows.label, predicted))
    metrics = [*MEASURED.values(), classes_without_rows]
    found = resample_metrics(answers, metrics, units=len(pool.sample_id), classes=classes, resampling=resampling)
    missed = (found.drawn[:, :, -1] > found.observed[:, -1]).any(axis=1)
    scores = Resampled(found.observed[:, :-1], found.drawn[:, :, :-1])
    return {label: scores.mean(runs) for label, runs in places.items()}, int(missed.sum())


def _compare(pool: Pool, scores: Mapping[str, Resampled], baseline: str) -> dict[str, ReportComparison]:
    """Every other configuration of the pool against the baseline; each kind of test is corrected on its own."""
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
