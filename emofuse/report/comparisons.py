"""Computes the brackets and p values of a report: intervals of test scores and comparisons of configurations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emofuse.errors import ResultsError
from emofuse.report.answers import ConfigurationAnswers, Pool, pool_by_images, read_answers
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.formats import join_some
from emofuse.report.grouping import find_configuration
from emofuse.report.pool_scores import PoolScores, score_pool
from emofuse.report.pooled import PooledScores, pool_folds
from emofuse.report.targets import ReportedTarget
from emofuse.specs.nouns import Noun
from emofuse.statistics import Interval, McNemarTest, PairedTest, Resampling, SplitTest, holm, mcnemar

LEAST_RESAMPLES = 2_000
RESAMPLES_PER_COMPARISON = 100
"""The least p is 1 / (1 + B), and Holm multiplies it by the number of comparisons, so that B grows with them."""

MOST_WORK = 3 * 10**10
"""The budget of resampling: the sum over all runs of their test rows and `ROWS_OF_A_RUN`, times the resamples."""
ROWS_OF_A_RUN = 1_000
"""The number of rows whose counting takes as long as scoring what was counted."""

_CONTRADICTING = (
    "{}: no interval and no comparison, because {} has different labels in the test rows of different runs; "
    "train them again with one set of labels."
)


@dataclass(frozen=True)
class ReportComparison:
    """The comparison of one configuration with another on the same test images.

    Attributes:
        tests: metric -> its test: the paired bootstrap on one test split, the corrected resampled t-test over several.
        corrected: metric -> the p value of this test, corrected by Holm over all comparisons of the report.
        mcnemar: McNemar's test; the configuration that is compared with is the first of the two. None if rows have no
            class.
        mcnemar_corrected: the p value of McNemar's test, corrected likewise; 1 without it.
    """

    tests: Mapping[str, PairedTest | SplitTest]
    corrected: Mapping[str, float]
    mcnemar: McNemarTest | None
    mcnemar_corrected: float


@dataclass(frozen=True)
class Coverage:
    """What the intervals of a configuration cover.

    Attributes:
        splits: the number of different sets of test images.
        repeats: the number of runs.
        images: the number of different test images.
        groups: the number of groups of test images, which are drawn as a whole; None if images are drawn one by one.
        test_to_train: the number of test rows divided by that of training rows.
    """

    splits: int
    repeats: int
    images: int
    groups: int | None
    test_to_train: float


@dataclass(frozen=True)
class Uncertainty:
    """How sure the test scores of a report are.

    Attributes:
        resampling: the number of resamples of the test images, and the seed.
        intervals: label of a configuration or reference model -> metric (see `emofuse.report.targets`) -> interval;
            without those whose predictions cannot be used.
        comparisons: (label, label of the other) -> comparison of the first with the second: those with the baseline,
            then those that were asked for; without those that cannot be made. All are the family of Holm's correction.
        lacking: the number of resamples that lack a class which has test rows, or leave a score undefined.
        problems: one sentence on each value that could not be computed, with the reason.
        reference_problems: the same of reference models.
        coverage: label -> what its intervals cover.
        pooled: label -> its pooled scores, for configurations with outer folds.
    """

    resampling: Resampling
    intervals: Mapping[str, Mapping[str, Interval]]
    comparisons: Mapping[tuple[str, str], ReportComparison]
    lacking: int
    problems: tuple[str, ...]
    coverage: Mapping[str, Coverage] = field(default_factory=dict)
    pooled: Mapping[str, PooledScores] = field(default_factory=dict)
    reference_problems: tuple[str, ...] = ()

    def interval(self, label: str, path: str) -> Interval | None:
        """Return the interval of one score of a configuration; None if it has none."""
        return self.intervals.get(label, {}).get(path)

    def asked_for(self, baseline: str) -> list[tuple[str, str]]:
        """Return the pairs that are compared beside those with the baseline."""
        return [pair for pair in self.comparisons if pair[1] != baseline]

    def least_p(self, path: str) -> float:
        """Return the smallest p value that the paired bootstrap can have after Holm's correction; 0 without such tests.

        A test that no resample contradicts has p = 1 / (1 + B), and Holm multiplies the smallest p of k such tests by k
        or more.
        """
        tests = (comparison.tests[path] for comparison in self.comparisons.values())
        paired = sum(isinstance(test, PairedTest) for test in tests)
        return min(1.0, paired / (1 + self.resampling.count))


def measure_uncertainty(results: Results, runs: Path, pairs: Sequence[tuple[str, str]] = ()) -> Uncertainty:
    """Compute the intervals of every configuration and reference model, and the comparisons of configurations.

    On one test split, resamples draw images (or whole groups of them) and, of a configuration with several runs, also
    the runs; a score is the mean over these runs. Over several test splits, which share rows, scores and differences
    are averaged within a split and have the interval and the p value of the corrected resampled t-test.

    Configurations are compared if they were scored on the same test images. McNemar's test takes one answer for each
    image: the class with the largest mean probability over all runs of the configuration that test the image (and
    therefore were not trained on it).

    If the predictions of a run are missing, damaged or of another run, its configuration has no interval and no
    comparison. A sentence gives the reason, and the rest of the report stays.

    Args:
        results: the configurations and reference models.
        runs: the folder of the saved runs.
        pairs: labels of further configurations to compare, the first with the second.
    """
    answered, faults = read_answers([*results.configurations, *results.references], runs)
    pools, contradicting = pool_by_images(answered)
    pool_of = {item.label: pool for pool in pools for item in pool.answered}
    baseline, labels = results.baseline.label, [item.label for item in results.configurations]
    family = [(label, baseline) for label in labels if label != baseline]
    family += [pair for pair in pairs if pair not in family and pair[::-1] not in family]  # each comparison once
    family = [pair for pair in family if _are_comparable(pair, pool_of)]
    resampling = Resampling(_count_resamples(answered, len(family)))
    scores = {
        id(pool): score_pool(
            pool,
            len(results.classes),
            resampling,
            results.target,
            [pair for pair in family if pool_of[pair[0]] is pool],
        )
        for pool in pools
    }

    def without_interval(labels: Collection[str]) -> list[str]:
        missing = [
            f"{label} has no interval and no comparison: {faults[label]}." for label in labels if label in faults
        ]
        differing = [[label for label in each if label in labels] for each in contradicting]
        return missing + [_CONTRADICTING.format(join_some(each), results.noun.an) for each in differing if each]

    return Uncertainty(
        resampling=resampling,
        intervals={label: scores[id(pool)].intervals(label) for label, pool in pool_of.items()},
        comparisons=_compare(family, pool_of, scores, results.target),
        lacking=max((each.lacking for each in scores.values()), default=0),
        problems=(
            *without_interval(labels),
            *_not_compared(results, pool_of),
            *_pairs_not_compared(results.noun, pairs, pool_of),
        ),
        coverage={item.label: _coverage(item, pool) for pool in pools for item in pool.answered},
        pooled=pool_folds(results, answered, resampling),
        reference_problems=tuple(without_interval([item.label for item in results.references])),
    )


def _count_resamples(answered: Sequence[ConfigurationAnswers], comparisons: int) -> int:
    """Return the number of resamples: more for more comparisons, within the budget of work, and never few."""
    work = sum(len(rows.label) + ROWS_OF_A_RUN for item in answered for rows in item.rows)
    return max(LEAST_RESAMPLES, min(RESAMPLES_PER_COMPARISON * comparisons, MOST_WORK // max(work, 1)))


def _coverage(item: ConfigurationAnswers, pool: Pool) -> Coverage:
    groups = pool.unit_count if pool.grouped else None
    return Coverage(pool.splits, len(item.rows), len(pool.sample_id), groups, item.test_to_train)


def _are_comparable(pair: tuple[str, str], pool_of: Mapping[str, Pool]) -> bool:
    first, second = (pool_of.get(label) for label in pair)
    return first is not None and first is second


def _not_compared(results: Results, pool_of: Mapping[str, Pool]) -> list[str]:
    """Return why configurations that have intervals are not compared with the baseline."""
    if len(results.configurations) == 1:
        return []
    baseline = results.baseline.label
    if baseline not in pool_of:
        return [f"Nothing is compared with the baseline {baseline}, because its predictions cannot be used."]
    pools = ((item.label, pool_of.get(item.label)) for item in results.configurations)
    elsewhere = [label for label, pool in pools if pool is not None and pool is not pool_of[baseline]]
    if not elsewhere:
        return []
    others = f"Not compared, because scored on other test {results.noun.many} than the baseline {baseline}"
    return [f"{others}: {join_some(elsewhere)}."]


def _pairs_not_compared(noun: Noun, pairs: Iterable[tuple[str, str]], pool_of: Mapping[str, Pool]) -> list[str]:
    """Return why pairs that were asked for are not compared; missing predictions have a sentence already."""
    return [
        f"{first} and {second} are not compared, because they were scored on different test {noun.many}."
        for first, second in dict.fromkeys(pairs)
        if first in pool_of and second in pool_of and pool_of[first] is not pool_of[second]
    ]


def _compare(
    family: Sequence[tuple[str, str]],
    pool_of: Mapping[str, Pool],
    scores: Mapping[int, PoolScores],
    target: ReportedTarget,
) -> dict[tuple[str, str], ReportComparison]:
    """Compare all pairs of the family; correct the p values of each kind of test separately."""
    paired = {
        score.path: [scores[id(pool_of[pair[0]])].test(*pair, score.path) for pair in family]
        for score in target.compared
    }
    discordant = _mcnemar_tests(family, pool_of) if target.has_classes else [None for _ in family]
    corrected = {path: holm([test.p for test in tests]).tolist() for path, tests in paired.items()}
    mcnemar_corrected = holm([test.p if test else 1.0 for test in discordant]).tolist()
    return {
        pair: ReportComparison(
            {path: tests[place] for path, tests in paired.items()},
            {path: values[place] for path, values in corrected.items()},
            discordant[place],
            mcnemar_corrected[place],
        )
        for place, pair in enumerate(family)
    }


def _mcnemar_tests(family: Sequence[tuple[str, str]], pool_of: Mapping[str, Pool]) -> list[McNemarTest | None]:
    """Test which of two configurations is right about more images, for all pairs of the family."""
    pools = {id(pool): pool for pool in pool_of.values()}.values()
    right = {item.label: pool.right(item) for pool in pools for item in pool.answered}
    tests: list[McNemarTest | None] = []
    for first, second in family:
        pool = pool_of[first]
        tests.append(mcnemar(right[second], right[first], pool.unit if pool.grouped else None))
    return tests


def find_pairs(results: Results, wanted: Sequence[str | tuple[str, str]], where: str) -> list[tuple[str, str]]:
    """Return the labels of pairs: A is compared with B.

    A and B are names or labels of configurations. As one text they are written as `A=B`, and may have equals signs
    themselves. Of several ways to write the same comparison, the first counts.

    Raises:
        ResultsError: a text has no equals sign between two configurations, or names one configuration twice.
    """
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for each in wanted:
        names = _split_pair(results.configurations, each, where) if isinstance(each, str) else each
        first, second = (
            find_configuration(results.configurations, name, where, "configuration").label for name in names
        )
        if first == second:
            raise ResultsError(f"{where}: a configuration cannot be compared with itself, got {each!r}")
        pairs.setdefault(frozenset((first, second)), (first, second))
    return list(pairs.values())


def _split_pair(configurations: Sequence[ReportedConfiguration], text: str, where: str) -> tuple[str, str]:
    parts = text.split("=")
    if len(parts) == 1:
        raise ResultsError(f"{where}: a comparison is written as A=B, got {text!r}")
    names = {name for item in configurations for name in (item.label, item.name)}
    splits = [("=".join(parts[:at]).strip(), "=".join(parts[at:]).strip()) for at in range(1, len(parts))]
    return next((pair for pair in splits if set(pair) <= names), splits[0])
