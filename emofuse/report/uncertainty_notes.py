"""Says in plain words how the intervals and comparisons of a report were computed, and what they cover.

The page has three kinds of these notes: on the intervals, on whether the test rows rank the configurations at all, and
on the comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from emofuse.report.comparisons import RESAMPLES_PER_COMPARISON, Coverage, ReportComparison, Uncertainty
from emofuse.report.configurations import Results
from emofuse.report.formats import format_score, join_some
from emofuse.report.pool_scores import DETAIL_RESAMPLES
from emofuse.specs.nouns import Noun
from emofuse.statistics import EXACT_BELOW, EXCHANGES, PairedTest, SplitTest

SIGNIFICANT = 0.05
_FEW_REPEATS = 10
_BOOTSTRAP_NOTE = (
    "On one test split, p is that of a two-sided paired bootstrap test, with the same resamples for both: the share of "
    "resamples whose difference is at least as far from the observed one as that is from zero, counted as "
    "(1 + number) / (1 + {count:,}). It covers what the intervals of the two scores cover."
)
_FLOOR_NOTE = (
    "The number of resamples is limited, because there are many runs and comparisons: after correction a bootstrap p "
    "is {least:.3f} or more, however large the difference is. A report of fewer configurations has more resamples for "
    "each comparison."
)
_SPLITS_NOTE = (
    "Over several splits, interval and p are those of the corrected resampled t-test of the differences split "
    "by split (Nadeau and Bengio, Machine Learning 2003), which does not treat splits that share rows as independent. "
    "They cover what the intervals of the two scores cover."
)


def interval_notes(results: Results, uncertainty: Uncertainty) -> list[str]:
    """Return a note on each kind of interval that occurs: how it is computed, and what it covers."""
    users: dict[str, list[str]] = {}
    coverages = _coverages(results, uncertainty)
    for label, coverage in coverages.items():
        users.setdefault(_note(coverage, uncertainty, results.noun), []).append(label)
    whole = len(users) == 1
    notes = [f"{'' if whole else f'{join_some(labels)}: '}{note}" for note, labels in users.items()]
    if notes:
        notes[0] = f"Brackets hold 95 % intervals. {notes[0]}"
    if any(coverage.splits == 1 for coverage in coverages.values()):
        notes += list(_resample_notes(results, uncertainty))
    if len(coverages) > 1:
        notes.append(
            "Each interval holds for itself: of many of them, about one in twenty misses. Configurations whose "
            "intervals overlap may still differ, because they are scored on the same rows; the comparisons test this."
        )
    target = results.target
    if coverages and target.most_parts is not None and len(results.classes) > target.most_parts:
        notes.append(f"Single classes have no intervals, because there are more than {target.most_parts} of them.")
    return notes


def _coverages(results: Results, uncertainty: Uncertainty) -> dict[str, Coverage]:
    """Return what the intervals of each configuration cover, without reference models."""
    labels = [item.label for item in results.configurations]
    return {label: uncertainty.coverage[label] for label in labels if label in uncertainty.coverage}


def _note(coverage: Coverage, uncertainty: Uncertainty, noun: Noun) -> str:
    if coverage.splits > 1:
        return _splits_note(coverage, noun)
    count, units = uncertainty.resampling.count, _units(coverage, noun)
    draws = f"each of {count:,} resamples (PCG64, seed {uncertainty.resampling.seed}) draws as many {units}"
    few = " So few repeats may understate that variance." if coverage.repeats < _FEW_REPEATS else ""
    if coverage.repeats == 1:
        return (
            f"Percentile bootstrap: {draws} with replacement. The interval covers the choice of test {noun.many}. It "
            "does not cover the randomness of training or of the split: there is one run on one split."
        )
    return (
        f"Percentile bootstrap over test {noun.many} and repeats: {draws} with replacement and scores the mean over "
        f"the {coverage.repeats} repeats; drawing repeats as well adds the variance between them that the {noun.many} "
        f"do not explain.{few} The interval covers the choice of test {noun.many} and the randomness of training. "
        "It does not cover the choice of the test split: there is one."
    )


def _units(coverage: Coverage, noun: Noun) -> str:
    if coverage.groups is None:
        return f"test {noun.many} as there are ({coverage.images:,})"
    return f"groups of test {noun.many} as there are ({coverage.groups:,} with {coverage.images:,} {noun.many})"


def _splits_note(coverage: Coverage, noun: Noun) -> str:
    repeats = " Repeats within a split are averaged first." if coverage.repeats > coverage.splits else ""
    return (
        f"Corrected resampled t interval over {coverage.splits} splits (Nadeau and Bengio, Machine Learning 2003): the "
        f"splits share rows, so the variance of their scores is multiplied by 1/{coverage.splits} + "
        f"{coverage.test_to_train:.3f}, where the second term is the number of test rows divided by that of training "
        f"rows; {coverage.splits - 1} degree{'s' * (coverage.splits > 2)} of freedom.{repeats} The interval covers the "
        "choice of training and test rows and the randomness of training. The splits together tested "
        f"{coverage.images:,} {noun.many}."
    )


def _resample_notes(results: Results, uncertainty: Uncertainty) -> Iterator[str]:
    drawn = "All configurations are scored on the same resamples."
    if uncertainty.resampling.count > DETAIL_RESAMPLES and results.target.rows is None:
        drawn += f" Scores other than accuracy and macro F1 use the first {DETAIL_RESAMPLES:,} of them."
    if uncertainty.lacking:
        drawn += f" {results.target.lacking.format(uncertainty.lacking)}"
    yield drawn


def ranking_note(results: Results, uncertainty: Uncertainty) -> str:
    """Return the note that these test rows do not rank the configurations; an empty text if they may.

    The rule: the part that the intervals of the main score (accuracy) of all configurations have in common is wider
    than the distance from the lowest to the highest score, and no comparison of these scores is significant after
    Holm's correction.
    """
    items, main = results.configurations, results.target.main
    intervals = [uncertainty.interval(item.label, main.path) for item in items]
    known = [interval for interval in intervals if interval is not None]
    if len(items) < 2 or len(known) < len(items):
        return ""
    if any(each.corrected[main.path] < SIGNIFICANT for each in uncertainty.comparisons.values()):
        return ""
    means = [item.metric(main.path).mean for item in items]
    common = min(each.high for each in known) - max(each.low for each in known)
    distance = max(means) - min(means)
    if not common > distance:
        return ""
    sizes = sorted({int(run.rows["test"]["rows"]) for run in results.runs})
    rows = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    splits = max(each.splits for each in _coverages(results, uncertainty).values())
    which = f"A test split of {rows} rows does not"
    tested = "no difference that was tested is significant"
    if uncertainty.least_p(main.path) >= SIGNIFICANT:
        tested = "so many comparisons with so few resamples cannot find a significant difference"
    if splits > 1:
        outer = all(item.spec["split"]["kind"] == "outer_folds" for item in items)
        which = f"{splits} {'outer folds' if outer else 'overlapping test splits'} of {rows} rows do not"
    return (
        f"{which} rank these {len(items)} configurations: their intervals of {main.name} have a width of "
        f"{format_score(common)} in common, more than the {format_score(distance)} from the lowest {main.name} to the "
        f"highest, and {tested}. Their order may be chance."
    )


def comparison_notes(results: Results, uncertainty: Uncertainty) -> list[str]:
    """Return the notes on how to read the table of comparisons."""
    compared = list(uncertainty.comparisons.values())
    if not compared:
        return []
    tests = [each.tests[results.target.main.path] for each in compared]
    notes = [_difference_note(results, uncertainty)]
    notes += [_BOOTSTRAP_NOTE.format(count=uncertainty.resampling.count)] * any(_is_paired(test) for test in tests)
    notes += _floor_notes(results, uncertainty)
    notes += [_SPLITS_NOTE] * any(not _is_paired(test) for test in tests)
    if results.target.has_classes:
        notes.append(_mcnemar_note(results, compared))
    return [*notes, _family_note(results, len(compared), has_pairs=bool(uncertainty.asked_for(results.baseline.label)))]


def _floor_notes(results: Results, uncertainty: Uncertainty) -> list[str]:
    """Return what the smallest p values can be where the number of resamples does not grow with the comparisons."""
    least, count = uncertainty.least_p(results.target.main.path), len(uncertainty.comparisons)
    limited = least > 0 and uncertainty.resampling.count < RESAMPLES_PER_COMPARISON * count
    notes = []
    if limited:
        note = _FLOOR_NOTE.format(least=_rounded_down(least))
        if least >= SIGNIFICANT:
            note += f" So this test finds no difference at the level of {SIGNIFICANT:g}, which is no sign of equality."
        notes.append(note)
    if not results.target.has_classes:
        return notes
    exchanged = sum(each.mcnemar.grouped for each in uncertainty.comparisons.values() if each.mcnemar)
    by_exchange = min(1.0, exchanged / (1 + EXCHANGES))
    if by_exchange >= SIGNIFICANT:
        notes.append(
            f"McNemar's p of groups is from {EXCHANGES:,} exchanges: after correction it is "
            f"{_rounded_down(by_exchange):.3f} or more."
        )
    elif limited and not exchanged:
        notes.append("McNemar's p is computed without resamples and has no such lower limit.")
    return notes


def _rounded_down(p: float) -> float:
    return math.floor(p * 1000) / 1000


def _is_paired(test: PairedTest | SplitTest) -> bool:
    return isinstance(test, PairedTest)


def _difference_note(results: Results, uncertainty: Uncertainty) -> str:
    other = results.baseline.label
    if uncertainty.asked_for(other):
        return "Δ is the difference of the first configuration less the second, with its 95 % interval."
    return f"Δ is the difference to {other}, with its 95 % interval."


def _mcnemar_note(results: Results, compared: Sequence[ReportComparison]) -> str:
    answers, noun = "the answers", results.noun
    if any(len(item.runs) > 1 for item in results.configurations):
        answers = (
            f"the answers of the mean probabilities over all repeats that have the {noun.one} among their test rows"
        )
    grouped = any(each.mcnemar.grouped for each in compared if each.mcnemar)
    how = (
        f"The p value is from {EXCHANGES:,} random exchanges of the two configurations in whole groups of {noun.many}."
        if grouped
        else f"With fewer than {EXACT_BELOW} of them the p value is the two-sided binomial one, otherwise that of the "
        "chi-square test with continuity correction."
    )
    return (
        f"McNemar p compares {answers}, {noun.one} by {noun.one}. Lost counts the {noun.many} that only the other "
        f"configuration classifies correctly, gained those that only this one does. {how} It holds for these trained "
        f"heads: it covers the choice of test {noun.many}, not the randomness of training."
    )


def _family_note(results: Results, count: int, *, has_pairs: bool) -> str:
    which = "with the baseline and those that were asked for" if has_pairs else "with the baseline"
    comparisons = f"{count} comparison{'s' * (count > 1)}"
    columns = {2: "two", 3: "three", 4: "four"}[len(results.target.compared) + results.target.has_classes]
    return (
        f"All p values are corrected by Holm's step-down method; the family is the {comparisons} of this table "
        f"({which}), each of the {columns} columns separately. Uncorrected values are in comparisons.csv."
    )
