"""What streams are worth: from solved models of a cache, from saved runs, and by the design of the demo."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.analysis.planted import planted_values, planted_worth
from emofuse.analysis.scoring import Scoring
from emofuse.analysis.shapley import Game, shapley_values
from emofuse.analysis.solved_outputs import SolvedOptions
from emofuse.analysis.sources import open_source
from emofuse.analysis.subsets import has_all_subsets, saved_subsets, solve_subsets
from emofuse.analysis.worth import SubsetAnswers, measure_worth
from emofuse.cache.reader import open_cache
from emofuse.errors import ResultsError, TrainingError
from emofuse.specs import OfficialSplit, RunSpec, parse_spec
from emofuse.statistics import Resampling
from emofuse.training.runs import train_runs

RESAMPLING = Resampling(300, 0)
FAST = SolvedOptions(folds=3, landmarks=60, penalties=5)


@pytest.fixture(scope="module")
def solved(planted):
    return solve_subsets(planted.cache, options=FAST)


def made_up(right, units=None, classes=("x", "y")):
    """Answers of subsets to rows of class 0: `right` subset -> bool (n,)."""
    count = len(next(iter(right.values())))
    unit = np.arange(count) if units is None else units
    label = np.zeros(count, np.int64)
    scoring = Scoring("class", classes)
    answers = {subset: [scoring.prepare(unit, label, np.where(ok, 0, 1))] for subset, ok in right.items()}
    return SubsetAnswers(("p", "q"), scoring, answers, int(unit.max()) + 1, units is not None, "Made up.")


def subsets_of_two(rng, rows=40):
    return {subset: rng.random(rows) < 0.3 + 0.25 * len(subset) for subset in Game(("p", "q")).subsets}


def test_the_worth_by_accuracy_is_the_mean_of_the_worth_in_single_rows():
    right = subsets_of_two(np.random.default_rng(0))
    worth = measure_worth(made_up(right), RESAMPLING)
    in_rows = [shapley_values(("p", "q"), {s: float(ok[row]) for s, ok in right.items()}) for row in range(40)]
    for stream in ("p", "q"):
        assert worth.get(stream).value == pytest.approx(np.mean([each[stream] for each in in_rows]))


def test_intervals_are_those_of_resampled_rows_the_same_for_all_subsets():
    right = subsets_of_two(np.random.default_rng(1))
    right[frozenset("p")] = right[frozenset()]  # alone, p changes no row, whatever is drawn
    worth = measure_worth(made_up(right), RESAMPLING)
    alone = worth.get("p", "add_one_in")
    assert (alone.value, alone.interval.low, alone.interval.high) == (0, 0, 0)
    assert worth.get("q", "add_one_in").interval.low < worth.get("q", "add_one_in").interval.high


def test_groups_are_drawn_as_a_whole():
    rng = np.random.default_rng(2)
    four = {subset: np.repeat(rng.random(10) < 0.3 + 0.25 * len(subset), 4) for subset in Game(("p", "q")).subsets}
    rows = measure_worth(made_up(four), RESAMPLING).get("p").interval
    groups = measure_worth(made_up(four, np.repeat(np.arange(10), 4)), RESAMPLING).get("p").interval
    assert groups.high - groups.low > 1.5 * (rows.high - rows.low)


def test_streams_that_tell_labels_are_worth_something_and_noise_is_not(solved):
    worth = measure_worth(solved.subsets, RESAMPLING)
    assert worth.get("a").interval.low > 0.1
    assert worth.get("b").interval.low > 0.1
    assert worth.get("noise").interval.low < 0.02
    assert sum(worth.get(stream).value for stream in ("a", "b", "noise")) == pytest.approx(worth.total)


def test_a_stream_helps_the_class_that_it_tells_and_chance_is_the_start_for_every_class(solved):
    worth = measure_worth(solved.subsets, RESAMPLING)
    by_class = [worth.get("a", "shapley", f"recall.{place}").value for place in range(3)]
    assert by_class[0] == max(by_class) > 0.3
    for place in range(3):
        values = worth.values[f"recall.{place}"]
        assert (values[0].value, values[0].interval.low) == pytest.approx((1 / 3, 1 / 3))
        total = sum(worth.get(stream, "shapley", f"recall.{place}").value for stream in ("a", "b", "noise"))
        assert total == pytest.approx(values[-1].value - 1 / 3)


def test_every_row_is_answered_once_in_outer_folds_and_no_stream_is_the_majority(planted, solved):
    assert sorted(solved.rows.tolist()) == list(range(len(planted.truth)))
    guess = solved.subsets.answers[frozenset()][0].classes
    assert len(set(guess.predicted.tolist())) <= 2  # a fold's training rows may have another majority
    assert (guess.label == planted.truth[solved.rows]).all()


def test_the_test_rows_of_a_split_are_answered_by_models_of_its_other_rows(planted, write_cache, tmp_path):
    answers = solve_subsets(planted.cache, ("a", "b"), SolvedOptions(split=OfficialSplit(), landmarks=60, penalties=5))
    assert (planted.cache.splits[answers.rows] == "test").all()
    turned = np.where(planted.cache.splits == "test", (planted.truth + 1) % 3, planted.truth)
    streams = {}
    for name in ("a", "b"):
        features, status = planted.cache.streams[name].read()
        streams[name] = ("backbone", features, status)
    path = write_cache(tmp_path / "f.zarr", planted.cache.classes, turned, planted.cache.splits.tolist(), streams)
    other = solve_subsets(open_cache(path), ("a", "b"), SolvedOptions(split=OfficialSplit(), landmarks=60, penalties=5))
    for subset, probs in answers.outputs.items():
        assert np.array_equal(probs, other.outputs[subset])  # labels of test rows change no answer


def test_too_many_streams_are_refused(planted):
    with pytest.raises(TrainingError, match=r"11 streams have 2,048 subsets, at most 10 are looked at.*--streams"):
        solve_subsets(planted.cache, [str(number) for number in range(11)])


@pytest.fixture(scope="module")
def swept(planted, tmp_path_factory):
    """Saved runs of all subsets of two streams."""
    runs = tmp_path_factory.mktemp("swept") / "runs"
    plain = {"split": {"kind": "official"}, "head": {"kind": "kernel_ridge"}}
    subsets = (["a"], ["b"], ["a", "b"])
    specs = [
        parse_spec(RunSpec, {"name": "+".join(names), "features": {"streams": names}, **plain}, "test")
        for names in subsets
    ]
    train_runs(planted.cache, specs, runs, device="cpu")
    return runs


def test_saved_runs_of_all_subsets_are_used_as_they_are(planted, swept):
    source = open_source(swept.parent, cache=planted.path)
    assert has_all_subsets(source.results)
    answers = saved_subsets(source.results, source.runs, cache=source.cache)
    worth = measure_worth(answers, RESAMPLING)
    by_name = {item.label: item.metric("accuracy").mean for item in source.results.configurations}
    values = dict(zip(worth.game.subsets, worth.values["accuracy"], strict=True))
    assert values[frozenset("a")].value == pytest.approx(by_name["a"])
    assert values[frozenset("ab")].value == pytest.approx(by_name["a+b"])
    trained = planted.truth[planted.cache.splits != "test"]
    guess = np.bincount(trained).argmax()
    assert values[frozenset()].value == pytest.approx((planted.truth[planted.cache.splits == "test"] == guess).mean())


def test_a_subset_without_a_run_is_named(planted):
    source = open_source(planted.folder)
    assert not has_all_subsets(source.results)
    with pytest.raises(ResultsError, match=r"6 of 7 subsets of the streams have no run \(a, b, noise.*emofuse explain"):
        saved_subsets(source.results, source.runs)


INFO = {
    "reachable_accuracy": {"x": 0.5, "y": 0.4, "x+y": 0.8},
    "cue_streams": {"x": ["lbp"], "y": ["landmarks", "action_units"]},
}


def test_the_worth_by_design_is_that_of_the_reachable_accuracies():
    values = planted_values(INFO, ("lbp", "fau"), {"lbp": "lbp", "fau": "action_units"})
    assert values == {
        frozenset(): 0.25,
        frozenset({"lbp"}): 0.5,
        frozenset({"fau"}): 0.4,
        frozenset({"lbp", "fau"}): 0.8,
    }
    worth = planted_worth(INFO, ("lbp", "fau"), {"fau": "action_units"})
    assert worth == pytest.approx({"lbp": (0.25 + 0.4) / 2, "fau": (0.15 + 0.3) / 2})


def test_streams_of_the_same_cue_share_its_worth_by_design_and_one_of_no_cue_has_none():
    worth = planted_worth(INFO, ("landmarks", "action_units", "objects"))
    assert worth == pytest.approx({"landmarks": 0.075, "action_units": 0.075, "objects": 0})


def test_data_of_no_known_design_have_no_worth_by_design():
    assert planted_worth({"name": "faces"}, ("lbp",)) is None
