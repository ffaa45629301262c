from __future__ import annotations

import pytest
from small_question import small_sweep

from emofuse.specs import FeaturesSpec, RunSpec, TrainSpec
from emofuse.sweep.choice import Choice, choose, score_configurations
from emofuse.sweep.configurations import Configuration
from emofuse.sweep.finalists import describe_losses, final_runs, search_summary


def configuration(streams: str, rate: float) -> Configuration:
    run = RunSpec(
        name=f"{streams} {rate!r}",
        features=FeaturesSpec(streams=tuple(streams.split("+"))),
        train=TrainSpec(learning_rate=rate, seed=7),
    )
    return Configuration(run.name, {"streams": streams.split("+"), "learning_rate": rate}, run)


@pytest.fixture
def chosen(make_row):
    """Choice among (streams, rate, score, how it ended), with `noise` as the baseline."""

    def choose_from(*found) -> tuple[list, Choice]:
        configurations = [configuration(streams, rate) for streams, rate, _, _ in found]
        rows = {
            each.key: [make_row(val_macro_f1=score, ended=ended)]
            for each, (_, _, score, ended) in zip(configurations, found, strict=True)
        }
        scored = score_configurations(configurations, rows, "macro_f1")
        return scored, choose(scored, "macro_f1", ("streams",), ("noise",))

    return choose_from


def test_nothing_is_said_of_a_search_without_losses(chosen):
    _, choice = chosen(("noise", 1e-3, 0.3, "epochs"), ("signal", 1e-3, 0.6, "patience"))
    assert describe_losses(choice) == []


def test_who_cannot_be_chosen_is_named_with_the_reason(chosen):
    _, choice = chosen(
        ("noise", 1e-3, 0.3, "epochs"), ("noise", 1.0, 0.9, "diverged"), ("signal", 1.0, None, "diverged")
    )
    assert describe_losses(choice) == [
        "2 of 3 configurations cannot be chosen, a run of theirs diverged: noise 1.0; signal 1.0.",
        "No finalist for streams signal: every configuration had a run that diverged.",
    ]


def test_a_halved_finalist_and_a_missing_baseline_are_told(chosen):
    _, choice = chosen(("signal", 1e-3, 0.6, "epochs"), ("noise+signal", 1e-3, 0.7, "halved"))
    assert describe_losses(choice) == [
        "Chosen though halving had ended them early, for want of any other: noise+signal 0.001.",
        "No configuration with the baseline's streams can be chosen; the baseline is the best: signal 0.001.",
    ]


def test_of_many_names_the_first_are_told(chosen):
    _, choice = chosen(
        ("noise", 1e-3, 0.3, "epochs"), *(("signal", float(rate), None, "diverged") for rate in range(1, 9))
    )
    assert describe_losses(choice)[0].endswith("signal 4.0; signal 5.0 and 3 more.")


def test_final_runs_are_the_finalists_on_the_whole_split_with_the_final_seeds(chosen):
    _, choice = chosen(("noise", 1e-3, 0.3, "epochs"), ("signal", 1e-3, 0.6, "epochs"))
    runs = final_runs(choice, small_sweep())
    assert [(run.name, run.train.seed, run.fold) for run in runs] == [
        ("signal 0.001", 0, None),
        ("signal 0.001", 1, None),
        ("noise 0.001", 0, None),
        ("noise 0.001", 1, None),
    ]


def test_a_report_is_told_of_every_configuration(chosen):
    scored, choice = chosen(
        ("noise", 1e-3, 0.3, "epochs"), ("signal", 1.0, None, "diverged"), ("signal", 1e-3, 0.6, "halved")
    )
    summary = search_summary(small_sweep(), scored, choice)
    assert (summary.kind, summary.select, summary.heads, summary.folds, summary.best_of) == (
        "grid",
        "macro_f1",
        3,
        2,
        ("streams",),
    )
    assert [(item.score, item.diverged, item.halved, item.chosen) for item in summary.configurations] == [
        (0.3, 0, 0, True),
        (None, 1, 0, False),
        (0.6, 0, 1, True),
    ]
