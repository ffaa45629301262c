"""The three sentences on top of the page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emofuse.report import SearchedConfiguration, SearchSummary
from emofuse.report.comparisons import measure_uncertainty
from emofuse.report.formats import format_interval, format_p
from emofuse.report.grouping import group_runs
from emofuse.report.page.overview import overview


@pytest.fixture
def make(make_run):
    def make(name="a", streams=("resnet50",), **how):
        return make_run(name, streams, **{"classes": ("joy", "fear"), "rows": 100, "epochs": 3, **how})

    return make


def test_the_overview_says_what_was_trained_what_is_best_and_whether_it_is_really_better(make, make_run):
    results = group_runs([make("weak", skill=0.1), make("strong", ("lbp", "resnet50"), skill=0.9)], "runs")
    measured = measure_uncertainty(results, make_run.folder)
    strong = results.configurations[1]
    intervals = {path: format_interval(one) for path, one in measured.intervals["strong"].items()}
    comparison = measured.comparisons["strong", results.baseline.label]
    gain, p = comparison.tests["accuracy"], format_p(comparison.corrected["accuracy"])
    trained = (
        "2 configurations of 2 feature streams (resnet50 and lbp) were trained on 70 rows of made-up with 2 classes, "
        "and scored on 10 test rows."
    )
    best = (
        "The best by validation macro F1 is strong; on the test split it has "
        f"accuracy {strong.metric('accuracy').mean:.3f} [{intervals['accuracy']}] and "
        f"macro F1 {strong.metric('macro.f1').mean:.3f} [{intervals['macro.f1']}]."
    )
    chance = "is unlikely to" if float(p) < 0.05 else "may"
    difference = (
        f"Against the baseline weak that is +{gain.difference:.3f} [{format_interval(gain.interval, signed=True)}] "
        f"accuracy (p = {p}), which {chance} be chance."
    )
    assert overview(results, measured) == [trained, best, difference]


def test_the_overview_does_not_choose_by_test_rows(make, unmeasured):
    """The one with the worse validation score is the better one on the test rows, and is not named."""
    lucky = make("lucky", skill=0.9, change={"history": [{"val_macro_f1": 0.1}], "best_epoch": 1})
    chosen = make("chosen", skill=0.2, change={"history": [{"val_macro_f1": 0.9}], "best_epoch": 1})
    results = group_runs([make("base", skill=0.3), lucky, chosen], "runs")
    assert overview(results, unmeasured)[1].startswith("The best by validation macro F1 is chosen; on the test split ")


def test_the_overview_says_that_nothing_beats_the_baseline(make, make_run, unmeasured):
    results = group_runs([make("weak", skill=0.1), make("strong", skill=0.9)], "runs", baseline="strong")
    assert overview(results, measure_uncertainty(results, make_run.folder))[2].startswith(
        "It is the baseline itself; the next by validation, weak, differs from it by −"
    )
    single = group_runs([make("only")], "runs")
    trained, best, difference = overview(single, unmeasured)
    assert trained.startswith("One configuration of the stream resnet50 was trained on 70 rows of made-up")
    assert best.startswith("only reaches accuracy ")
    assert difference == "There is no other configuration here that it could be compared with."


def test_the_overview_says_that_a_difference_without_predictions_was_not_tested(make, unmeasured):
    results = group_runs([make("weak", skill=0.1), make("strong", skill=0.9)], "runs")
    assert overview(results, unmeasured)[2].endswith("was not tested, for a reason that the notes give.")


def test_the_overview_says_that_the_choice_diverged(make, unmeasured):
    first = SearchedConfiguration("first", {}, 0.9, None, 1, final_runs=2, final_diverged=("seed 1 in epoch 3",))
    second = SearchedConfiguration("second", {}, 0.8, None, 1, final_runs=2, used=True)

    def best(*searched):
        search = SearchSummary("grid", "macro_f1", searched, 2)
        runs = [make(name) for name in ("first", "second")]
        return overview(group_runs(runs, "runs", baseline="first", search=search), unmeasured)[1]

    assert best(first, second).startswith(
        "The chosen configuration, first, diverged in its final runs. Next best by validation macro F1 is second; on "
    )
    assert best(replace(first, final_diverged=(), used=True), second).startswith(
        "The best by validation macro F1 is first;"
    )
    assert best(first, replace(second, used=False, final_diverged=("seed 0 in epoch 1",))) == (
        "No configuration can be used, because every configuration that can be chosen had a final run that diverged."
    )
