"""Runs become configurations: repeats, order, variants of a name, differences, reachable accuracy, refusals."""

from __future__ import annotations

import math
import re

import pytest

from emofuse.errors import ResultsError
from emofuse.report.configurations import Spread
from emofuse.report.grouping import group_runs
from emofuse.report.search import SearchedConfiguration, SearchSummary

CLASSES = ("joy", "fear", "rage")
CUES = {
    "name": "demo",
    "reachable_accuracy": {"expression": 0.3, "scene": 0.4, "expression+scene": 0.6},
    "cue_streams": {"expression": ["landmarks", "action_units"], "scene": ["places365", "resnet50"]},
}


@pytest.fixture
def make(make_run):
    def make(name, **how):
        return make_run(name, **{"classes": CLASSES, "rows": 90, "epochs": 3, **how})

    return make


def with_scores(accuracy, f1=0.5):
    """Changes to a record that set its test scores."""
    entry = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "specificity": 0.5, "support": 3}
    macro = {"precision": 0.5, "recall": 0.5, "f1": f1, "specificity": 0.5}
    per_class = [{"label": label, **entry} for label in CLASSES]
    metrics = {"accuracy": accuracy, "loss": 1.0, "macro": macro, "weighted": macro, "per_class": per_class}
    return {"metrics": {"test": metrics | {"confusion": [[1, 2, 0], [0, 3, 0], [0, 0, 3]]}}}


def labels(results):
    return [item.label for item in results.configurations]


def test_spread_is_mean_sample_deviation_and_extremes():
    spread = Spread.of([0.2, 0.4, 0.9])
    assert spread.mean == pytest.approx(0.5)
    assert spread.sd == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert (spread.low, spread.high, spread.n) == (0.2, 0.9, 3)


def test_spread_leaves_out_what_is_undefined_and_one_value_has_no_deviation():
    one = Spread.of([None, 0.5, math.nan])
    assert (one.mean, one.n) == (0.5, 1)
    assert math.isnan(one.sd)
    assert math.isnan(Spread.of([]).mean)


def test_runs_that_differ_in_seeds_are_repeats_of_one_configuration(make):
    accuracies = {(1, 0): 0.4, (0, 1): 0.5, (0, 0): 0.9}
    runs = [make("a", split_seed=s, seed=t, change=with_scores(value)) for (s, t), value in accuracies.items()]
    (only,) = group_runs(runs, "runs").configurations
    assert only.metric("accuracy") == Spread.of(accuracies.values())
    assert [(run.spec["split"]["seed"], run.spec["train"]["seed"]) for run in only.runs] == [(0, 0), (0, 1), (1, 0)]
    assert only.confusion.tolist() == [[3, 6, 0], [0, 9, 0], [0, 0, 9]]


def test_configurations_stand_in_the_order_given_and_then_as_first_trained(make):
    runs = [make(name) for name in ("d", "c", "b", "a")]
    assert labels(group_runs(runs[::-1], "runs")) == ["d", "c", "b", "a"]
    results = group_runs(runs, "runs", order=["a", "not there", "c"])
    assert labels(results) == ["a", "c", "d", "b"]
    assert results.baseline.label == "a"


def test_one_name_with_two_specs_becomes_two_rows_that_say_what_differs(make):
    runs = [make("a", train={"epochs": 10}), make("a", train={"epochs": 20}), make("b")]
    assert labels(group_runs(runs, "runs")) == ["a (epochs 10)", "a (epochs 20)", "b"]


def test_one_name_with_two_caches_becomes_two_rows_that_name_the_digest(make):
    runs = [make("a", stream_digest="1" * 64), make("a", stream_digest="2" * 64)]
    expected = ["a (digest of resnet50 11111111)", "a (digest of resnet50 22222222)"]
    assert labels(group_runs(runs, "runs")) == expected


def test_one_name_with_many_differences_is_told_apart_by_digests(make):
    runs = [make("a"), make("a", train={"epochs": 1, "batch_size": 8, "patience": 3})]
    first, second = labels(group_runs(runs, "runs"))
    assert re.fullmatch(r"a \(spec [0-9a-f]{8}\)", first)
    assert re.fullmatch(r"a \(spec [0-9a-f]{8}\)", second)
    assert first != second


def test_difference_is_taken_repeat_by_repeat_when_the_seeds_are_the_same(make):
    base = [make("base", seed=seed, change=with_scores(value)) for seed, value in enumerate([0.2, 0.8])]
    other = [make("other", seed=seed, change=with_scores(value)) for seed, value in enumerate([0.3, 0.9])]
    results = group_runs([*base, *other], "runs")
    difference = results.difference(results.configurations[1], "accuracy")
    assert (difference.mean, difference.n) == (pytest.approx(0.1), 2)
    assert difference.sd == pytest.approx(0, abs=1e-12)


def test_difference_of_means_has_no_spread_when_the_seeds_differ(make):
    base = [make("base", seed=seed, change=with_scores(value)) for seed, value in enumerate([0.2, 0.8])]
    results = group_runs([*base, make("other", seed=7, change=with_scores(0.75))], "runs")
    difference = results.difference(results.configurations[1], "accuracy")
    assert difference.mean == pytest.approx(0.25)
    assert math.isnan(difference.sd)


def test_reachable_accuracy_is_that_of_all_cues_the_streams_can_see(make):
    streams = {
        "face": ("lbp", "landmarks"),
        "scene": ("resnet50",),
        "both": ("places365", "action_units"),
        "no": ("lbp",),
    }
    results = group_runs([make(name, streams=s, dataset=CUES) for name, s in streams.items()], "runs")
    assert [results.reachable(item) for item in results.configurations] == [0.3, 0.4, 0.6, None]


def test_reachable_accuracy_goes_by_kind_when_a_stream_has_a_name_of_its_own(make):
    stream = {"kind": "landmarks", "digest": "1" * 64, "dim": 1404, "used_dim": 1404, "weights": None}
    run = make("a", streams=("mine",), dataset=CUES, change={"streams": {"mine": stream}})
    results = group_runs([run], "runs")
    assert results.reachable(results.configurations[0]) == 0.3


def test_a_cue_that_only_the_order_shows_counts_for_stems_that_know_an_order(make):
    reachable = {**CUES["reachable_accuracy"], "": 0.125}
    dataset = {**CUES, "reachable_accuracy": reachable, "order_cues": ["expression"]}
    stems = ("mean", "max", "mean_std", "attention", "lstm", "gru", "transformer")

    def run(name, head):
        spec = make(name, streams=("landmarks", "resnet50"), dataset=dataset).spec
        changed = {**spec, "head": {**spec["head"], **head}}
        return make(name, streams=("landmarks", "resnet50"), dataset=dataset, change={"spec": changed})

    runs = [run("default", {}), *(run(stem, {"temporal": stem}) for stem in stems)]
    results = group_runs(runs, "runs")
    shown = {item.name: results.reachable(item) for item in results.configurations}
    assert shown == {**dict.fromkeys(("default", *stems[:4]), 0.4), **dict.fromkeys(stems[4:], 0.6)}
    alone = group_runs([make("a", streams=("landmarks",), dataset=dataset)], "runs")
    assert alone.reachable(alone.configurations[0]) == 0.125


def test_a_dataset_without_known_cues_has_no_reachable_accuracy(make):
    results = group_runs([make("a")], "runs")
    assert results.reachable(results.configurations[0]) is None


def test_streams_with_random_weights_are_known(make):
    runs = [
        make("a", streams=("lbp",)),
        make("b", streams=("places365", "lbp", "resnet50"), random_weights=("resnet50",)),
    ]
    results = group_runs(runs, "runs")
    assert [item.random_streams for item in results.configurations] == [(), ("resnet50",)]
    assert results.random_streams == ("resnet50",)


def test_no_runs_are_refused():
    message = "some/runs: no runs in this folder; train first: emofuse run NAME"
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        group_runs([], "some/runs")


def test_runs_of_two_datasets_are_refused(make):
    runs = [
        make("a", dataset={"name": "faces"}),
        make("a", dataset={"name": "scenes"}),
        make("b", dataset={"name": "faces"}),
    ]
    message = (
        "here: runs of different datasets cannot be in one table: 2 of faces (3 classes), 1 of scenes (3 classes). "
        "Move the runs of each dataset into a separate folder"
    )
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        group_runs(runs, "here")


def test_two_runs_of_one_spec_and_seed_are_refused_all_at_once(make):
    first, second, other, twin = make("a"), make("a"), make("b"), make("b")

    def pair(former, later):
        return f"{former.digest[:16]} (made {former.created}) and {later.digest[:16]} (made {later.created})"

    message = (
        "here: runs have the same spec and seeds but were trained on other labels or splits, or by another release of "
        f"emofuse: 'a': {pair(first, second)}; 'b': {pair(other, twin)}. "
        "Delete the folders of those that no longer hold"
    )
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        group_runs([second, first, twin, other], "here")


def test_the_baseline_is_found_by_label_or_by_name(make):
    runs = [make("a", train={"epochs": 10}), make("a", train={"epochs": 20}), make("b")]
    assert group_runs(runs, "here").baseline.label == "a (epochs 10)"
    assert group_runs(runs, "here", baseline="a (epochs 20)").baseline.label == "a (epochs 20)"
    assert group_runs(runs, "here", baseline="b").baseline.label == "b"


def test_an_unknown_or_ambiguous_baseline_is_refused(make):
    runs = [make("a", train={"epochs": 10}), make("a", train={"epochs": 20}), make("b")]
    message = "here: no runs of the baseline 'c', there are: 'a (epochs 10)', 'a (epochs 20)', 'b'"
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        group_runs(runs, "here", baseline="c")
    message = "here: the baseline 'a' means several configurations, name one of: 'a (epochs 10)', 'a (epochs 20)'"
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        group_runs(runs, "here", baseline="a")


def with_validation(**scores):
    """Changes to a record that set the validation scores of the epoch kept, after a worse one."""
    return {
        "history": [{f"val_{name}": 0.0 for name in scores}, {f"val_{k}": v for k, v in scores.items()}],
        "best_epoch": 2,
    }


def ranking(results):
    return [item.label for item in results.ranked]


def test_configurations_are_ranked_by_the_validation_score_that_chose_their_epochs(make):
    scores = {"a": (0.2, 0.9, 3.0), "b": (0.5, 0.6, 1.0), "c": (0.4, 0.7, 2.0)}

    def group(select):
        runs = [
            make(
                name,
                train={"select": select},
                change=with_validation(macro_f1=f1, accuracy=accuracy, loss=loss),
            )
            for name, (f1, accuracy, loss) in scores.items()
        ]
        return group_runs(runs, "runs")

    assert ranking(group("macro_f1")) == ["b", "c", "a"]
    assert ranking(group("accuracy")) == ["a", "c", "b"]
    assert ranking(group("loss")) == ["b", "c", "a"]


def test_ranking_takes_the_mean_over_repeats_and_macro_f1_where_selections_differ(make):
    runs = [make("a", seed=seed, change=with_validation(macro_f1=f1)) for seed, f1 in enumerate([0.1, 0.9])]
    runs.append(make("b", train={"select": "loss"}, change=with_validation(macro_f1=0.6, loss=0.1)))
    results = group_runs(runs, "runs")
    assert results.select == "macro_f1"
    assert ranking(results) == ["b", "a"]
    assert results.configurations[0].validation("macro_f1") == Spread.of([0.1, 0.9])


def test_a_configuration_without_a_validation_score_is_ranked_last(make):
    scores = [None, 0.1, 0.2]
    runs = [make(f"c{index}", change=with_validation(macro_f1=score)) for index, score in enumerate(scores)]
    assert ranking(group_runs(runs, "runs")) == ["c2", "c1", "c0"]


def test_finalists_are_ranked_by_the_scores_of_their_search(make):
    runs = [make(name, change=with_validation(macro_f1=f1)) for name, f1 in (("a", 0.9), ("b", 0.1))]
    searched = tuple(
        SearchedConfiguration(name, {}, loss, None, 1) for name, loss in (("x", 0.1), ("b", 0.2), ("a", 0.3))
    )
    search = SearchSummary("grid", "loss", searched, 3)
    results = group_runs(runs, "runs", search=search)
    assert (results.select, ranking(results)) == ("loss", ["b", "a"])


def test_what_was_halved_or_diverged_in_the_end_is_ranked_last(make):
    runs = [make(name) for name in "abc"]
    searched = (
        SearchedConfiguration("a", {}, 0.9, None, 1, final_runs=2, final_diverged=("seed 1 in epoch 3",)),
        SearchedConfiguration("b", {}, 0.8, None, 1, halved=1, final_runs=2),
        SearchedConfiguration("c", {}, 0.1, None, 1, final_runs=2, used=True),
    )
    results = group_runs(runs, "runs", search=SearchSummary("grid", "macro_f1", searched, 3))
    assert ranking(results) == ["c", "b", "a"]


def test_a_search_that_does_not_know_all_names_ranks_none(make):
    runs = [make(name, change=with_validation(macro_f1=f1)) for name, f1 in (("a", 0.9), ("b", 0.1))]
    search = SearchSummary("grid", "macro_f1", (SearchedConfiguration("b", {}, 0.99, None, 1),), 1)
    assert ranking(group_runs(runs, "runs", search=search)) == ["a", "b"]


def test_of_many_configurations_the_best_by_validation_and_the_baseline_are_featured(make):
    runs = [make(f"c{index:02}", change=with_validation(macro_f1=index / 100)) for index in range(13)]
    best = ["c12", "c11", "c10", "c09", "c08", "c07"]
    assert [item.label for item in group_runs(runs, "runs").featured] == [*best, "c00"]
    assert [item.label for item in group_runs(runs, "runs", baseline="c10").featured] == best
    few = group_runs(runs[:12], "runs")
    assert few.featured == few.configurations
