"""Says how the comparisons of a report were computed, and how to read them."""

from __future__ import annotations

from collections.abc import Sequence

from emofuse.report.comparisons import ReportComparison, Uncertainty
from emofuse.report.configurations import Results
from emofuse.statistics import EXACT_BELOW, EXCHANGES, PairedTest, SplitTest

_BOOTSTRAP_NOTE = (
    "On one test split, p is that of a two-sided paired bootstrap test, with the same resamples for both: the share of "
    "resamples whose difference is at least as far from the observed one as that is from zero, counted as "
    "(1 + number) / (1 + {count:,}). It covers what the intervals of the two scores cover."
)
_SPLITS_NOTE = (
    "Over several splits, interval and p are those of the corrected resampled t-test of the differences split "
    "by split (Nadeau and Bengio, Machine Learning 2003), which does not treat splits that share rows as independent. "
    "They cover what the intervals of the two scores cover."
)


def comparison_notes(results: Results, uncertainty: Uncertainty) -> list[str]:
    """Return the notes on how to read the table of comparisons."""
    compared = list(uncertainty.comparisons.values())
    if not compared:
        return []
    tests = [each.tests[results.target.main.path] for each in compared]
    notes = [_difference_note(results, uncertainty)]
    notes += [_BOOTSTRAP_NOTE.format(count=uncertainty.resampling.count)] * any(_is_paired(test) for test in tests)
    notes += [_SPLITS_NOTE] * any(not _is_paired(test) for test in tests)
    if results.target.has_classes:
        notes.append(_mcnemar_note(results, compared))
    return [*notes, _family_note(results, len(compared), has_pairs=bool(uncertainty.asked_for(results.baseline.label)))]


def _is_paired(test: PairedTest | SplitTest) -> bool:
    return isinstance(test, PairedTest)


def _difference_note(results: Results, uncertainty: Uncertainty) -> str:
    other = results.baseline.label
    if uncertainty.asked_for(other):
        return "Δ is the difference of the first configuration less the second, with its 95 % interval."
    return f"Δ is the difference to {other}, with its 95 % interval."


def _mcnemar_note(results: Results, compared: Sequence[ReportComparison]) -> str:
    answers = "the answers"
    if any(len(item.runs) > 1 for item in results.configurations):
        answers = "the answers of the mean probabilities over all repeats that have the image among their test rows"
    grouped = any(each.mcnemar.grouped for each in compared if each.mcnemar)
    how = (
        f"The p value is from {EXCHANGES:,} random exchanges of the two configurations in whole groups of images."
        if grouped
        else f"With fewer than {EXACT_BELOW} of them the p value is the two-sided binomial one, otherwise that of the "
        "chi-square test with continuity correction."
    )
    return (
        f"McNemar p compares {answers}, image by image. Lost counts the images that only the other configuration "
        f"classifies correctly, gained those that only this one does. {how} It holds for these trained heads: it "
        "covers the choice of test images, not the randomness of training."
    )


def _family_note(results: Results, count: int, *, has_pairs: bool) -> str:
    which = "with the baseline and those that were asked for" if has_pairs else "with the baseline"
    comparisons = f"{count} comparison{'s' * (count > 1)}"
    columns = {2: "two", 3: "three", 4: "four"}[len(results.target.compared) + results.target.has_classes]
    return (
        f"All p values are corrected by Holm's step-down method; the family is the {comparisons} of this table "
        f"({which}), each of the {columns} columns separately. Uncorrected values are in comparisons.csv."
    )
