from __future__ import annotations

import pytest
from small_question import small_sweep

from emofuse.results import RunRecord
from emofuse.specs import FeaturesSpec, RunSpec, TrainSpec
from emofuse.sweep.choice import Choice, choose, score_configurations
from emofuse.sweep.configurations import Configuration
from emofuse.sweep.final_runs import final_specs, train_final_runs
from emofuse.sweep.summary import describe_baseline, describe_losses, search_summary
from emofuse.training.divergence import Divergence


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
        "2 of 3 configurations cannot be chosen because a run diverged: noise 1.0; signal 1.0.",
        "No finalist for streams signal: every configuration had a run that diverged.",
    ]


def test_a_halved_finalist_and_a_missing_baseline_are_told(chosen):
    _, choice = chosen(("signal", 1e-3, 0.6, "epochs"), ("noise+signal", 1e-3, 0.7, "halved"))
    assert describe_losses(choice) == [
        "Chosen although halving ended them early, because there was no other: noise+signal 0.001.",
        "No configuration with the baseline's streams can be chosen; the best one is the baseline.",
    ]


def test_of_many_names_the_first_are_told(chosen):
    _, choice = chosen(
        ("noise", 1e-3, 0.3, "epochs"), *(("signal", float(rate), None, "diverged") for rate in range(1, 9))
    )
    assert describe_losses(choice)[0].endswith("signal 4.0; signal 5.0 and 3 more.")


def test_final_runs_are_the_finalists_on_the_whole_split_with_the_final_seeds(chosen):
    _, choice = chosen(("noise", 1e-3, 0.3, "epochs"), ("signal", 1e-3, 0.6, "epochs"))
    runs = final_specs(choice.finalists, small_sweep())
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
    finals = train_final_runs(choice, small_sweep(), lambda specs: [(diverged(spec), True) for spec in specs], print)
    summary = search_summary(small_sweep(), scored, finals)
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
    assert [(item.final_runs, item.final_diverged) for item in summary.configurations] == [
        (2, ("seed 0 in epoch 5", "seed 1 in epoch 5")),
        (0, ()),
        (2, ("seed 0 in epoch 5", "seed 1 in epoch 5")),
    ]


# --- who is used ------------------------------------------------------------------------------------------------------


def diverged(spec) -> Divergence:
    return Divergence("d" * 64, spec.model_dump(mode="json"), 5, "cpu", "2026-01-01T00:00:00+00:00")


@pytest.fixture
def finals(chosen):
    """Final runs of four configurations, by rank a, b, c, d; finalists are a, c and the baseline d."""

    def train(*wild: tuple[str, int]):
        found = [("signal", 1e-3, 0.9), ("signal", 1e-2, 0.8), ("noise+signal", 1e-3, 0.7), ("noise", 1e-3, 0.2)]
        _, choice = chosen(*((*each, "epochs") for each in found))
        names = dict(zip((each.configuration.name for each in choice.ranked), "abcd", strict=True))
        calls = []

        def run(specs):
            calls.append("".join(dict.fromkeys(names[spec.name] for spec in specs)))
            return [(diverged(s) if (names[s.name], s.train.seed) in wild else record(s), True) for s in specs]

        return train_final_runs(choice, small_sweep(), run, said.append), calls, names

    said: list[str] = []
    train.said = said
    return train


def record(spec) -> RunRecord:
    fields = dict.fromkeys(RunRecord.__dataclass_fields__)
    return RunRecord(**{**fields, "name": spec.name, "spec": spec.model_dump(mode="json")})


def test_the_choice_is_used_if_none_of_its_runs_diverged(finals):
    found, calls, names = finals(("c", 0), ("d", 1))
    assert calls == ["acd"]
    assert names[found.used.name] == "a"
    assert found.failed == ()
    assert names[found.baseline.name] == "d"  # one run of two is left
    assert found.trained == 6
    assert finals.said == []


def test_one_run_that_diverges_is_enough_and_the_next_in_the_ranking_is_trained(finals):
    found, calls, names = finals(("a", 1))
    assert calls == ["acd", "b"]
    assert names[found.used.name] == "b"
    assert [names[item.name] for item in found.items] == ["a", "b", "c", "d"]
    assert [item.is_fallback for item in found.items] == [False, True, False, False]
    assert [names[item.name] for item in found.failed] == ["a"]
    assert found.trained == 8
    assert finals.said == [
        (
            "choice: the best configuration diverged in its final runs; the next by validation macro F1 is trained "
            "in its place: signal 0.01"
        )
    ]


def test_a_finalist_takes_the_place_without_another_training(finals):
    found, calls, names = finals(("a", 0), ("b", 0))
    assert calls == ["acd", "b"]
    assert names[found.used.name] == "c"
    assert not found.used.is_fallback
    assert [names[item.name] for item in found.failed] == ["a", "b"]


def test_a_baseline_without_a_scored_run_is_replaced_and_told(finals, chosen):
    found, _, names = finals(("d", 0), ("d", 1))
    assert names[found.baseline.name] == "a"
    _, choice = chosen(("noise", 1e-3, 0.2, "epochs"), ("signal", 1e-3, 0.9, "epochs"))
    assert describe_baseline(choice, found) == [
        "The baseline, noise 0.001, diverged in all its final runs; the others are tested against signal 0.001."
    ]


def test_nothing_is_used_if_every_configuration_diverged(finals):
    found, calls, _ = finals(*((name, 0) for name in "abcd"))
    assert calls == ["acd", "b"]
    assert found.used is None
    assert len(found.failed) == 4
    assert len(found.records) == 4
