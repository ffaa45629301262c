"""Runs of several heads and runs that are trained a second time: saved, found again, scored by heads that did not see
the rows, and deaf to the test split."""

from __future__ import annotations

import json

import numpy as np
import pytest

from emofuse.errors import SpecError, TrainingError
from emofuse.metrics.classification import classification_metrics
from emofuse.progress import TrainingState, followed
from emofuse.results import read_predictions, read_record, read_weights, run_dir
from emofuse.specs import RunSpec, parse_spec
from emofuse.training import runs as runs_module
from emofuse.training.data import TrainingData
from emofuse.training.divergence import Divergence
from emofuse.training.rows import rows_digest, targets_of
from emofuse.training.runs import train_run, train_runs, try_runs
from emofuse.training.trained import load_head
from emofuse.training.trained_runs import mean_of_answers

CLASSES = ("joy", "fear", "calm")
SMALL = {"kind": "concat", "embed_dim": 8, "width": 8, "depth": 1}


def run_spec(**changes):
    data = {
        "name": "small",
        "features": {"streams": ["resnet50", "action_units"]},
        "head": SMALL,
        "train": {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2},
    }
    for key, value in changes.items():
        data[key] = {**data[key], **value} if key == "train" else value
    return parse_spec(RunSpec, data, "test")


@pytest.fixture
def cache(tmp_path, plant_cache):
    return plant_cache(tmp_path / "features.zarr")


def trained(cache, folder, **changes):
    record, _ = train_run(cache, run_spec(**changes), folder, device="cpu")
    return record, run_dir(folder, record.digest)


def answers(cache, folder, rows):
    """The probabilities of a saved run for rows of the cache."""
    head = load_head(folder)
    read = {name: cache.streams[name].read() for name in head.record.streams}
    features = {name: values[rows] for name, (values, _) in read.items()}
    return head.outputs(features, {name: status[rows] for name, (_, status) in read.items()})


def chosen_from(cache):
    return np.flatnonzero(np.isin(cache.splits, ["train", "val"]) & (cache.labels >= 0))


# ---------------------------------------------------------------------------------------------- ensembles


def test_an_ensemble_of_folds_is_the_mean_of_the_runs_of_its_folds(cache, tmp_path):
    record, folder = trained(cache, tmp_path / "runs", ensemble={"folds": 3})
    folds = [
        train_run(cache, run_spec(fold={"count": 3, "index": index}), tmp_path / "folds", device="cpu")[0]
        for index in range(3)
    ]
    folders = [run_dir(tmp_path / "folds", each.digest) for each in folds]
    mean = np.mean([read_predictions(each).probs for each in folders], axis=0)
    np.testing.assert_allclose(read_predictions(folder).probs, mean, atol=1e-5)
    test = np.flatnonzero((cache.splits == "test") & (cache.labels >= 0))
    assert record.metrics["test"]["accuracy"] == np.mean(mean.argmax(1) == cache.labels[test])
    assert [head["best_epoch"] for head in record.heads] == [each.best_epoch for each in folds]
    assert [head["fold"] for head in record.heads] == [0, 1, 2]
    assert [len(head["history"]) for head in record.heads] == [4, 4, 4]
    assert record.parameters == sum(each.parameters for each in folds)
    assert record.history[0]["val_loss"] == pytest.approx(np.mean([each.history[0]["val_loss"] for each in folds]))


def test_each_row_of_train_and_val_is_answered_by_the_head_that_did_not_learn_from_it(cache, tmp_path):
    record, _ = trained(cache, tmp_path / "runs", ensemble={"folds": 3})
    rows = chosen_from(cache)
    probs = np.full((len(cache.labels), 3), np.nan)
    for index in range(3):
        spec = run_spec(fold={"count": 3, "index": index})
        fold, _ = train_run(cache, spec, tmp_path / "folds", device="cpu")
        val = TrainingData.of(cache, spec.split).folds(spec)[index].val
        probs[val] = answers(cache, run_dir(tmp_path / "folds", fold.digest), val)
    assert record.rows["val"]["rows"] == record.rows["train"]["rows"] == len(rows)
    expected = classification_metrics(cache.labels[rows], probs[rows].astype(np.float32), CLASSES)
    assert record.metrics["val"]["confusion"] == expected["confusion"]
    assert record.metrics["val"]["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert record.metrics["train"]["loss"] < record.metrics["val"]["loss"]


def test_seeds_alone_learn_from_the_training_rows_and_count_from_the_seed_of_the_run(cache, tmp_path):
    record, folder = trained(cache, tmp_path / "runs", ensemble={"seeds": [0, 4]}, train={"seed": 2})
    assert [(head["seed"], head["fold"]) for head in record.heads] == [(2000, None), (2004, None)]
    alone = [trained(cache, tmp_path / "alone", train={"seed": seed})[1] for seed in (2000, 2004)]
    mean = np.mean([read_predictions(each).probs for each in alone], axis=0)
    np.testing.assert_allclose(read_predictions(folder).probs, mean, atol=1e-5)
    val = np.flatnonzero((cache.splits == "val") & (cache.labels >= 0))
    of_val = np.mean([answers(cache, each, val) for each in alone], axis=0)
    assert record.rows["val"]["rows"] == len(val)
    expected = classification_metrics(cache.labels[val], of_val.astype(np.float32), CLASSES)
    assert record.metrics["val"]["loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_folds_and_seeds_together_have_a_head_for_each_pair(cache, tmp_path):
    record, folder = trained(cache, tmp_path / "runs", ensemble={"folds": 2, "seeds": [0, 1]})
    assert [(head["seed"], head["fold"]) for head in record.heads] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {name.split(".")[1] for name in read_weights(folder) if name.startswith("heads.")} == {"0", "1", "2", "3"}
    assert record.rows["val"]["rows"] == len(chosen_from(cache))


def test_a_row_is_the_mean_of_the_heads_that_answer_it():
    first, second = np.array([0, 2, 5]), np.array([2, 7])
    ones, twos = np.ones((3, 2), np.float32), np.full((2, 2), 2, np.float32)
    rows, probs = mean_of_answers([(first, ones), (second, twos)])
    assert rows.tolist() == [0, 2, 5, 7]
    assert probs[:, 0].tolist() == [1, 1.5, 1, 2]


@pytest.mark.parametrize("head", ["concat", "logistic", "averaged_logistic", "kernel_ridge"])
@pytest.mark.parametrize("changes", [{"ensemble": {"folds": 3}}, {"refit": "train_val"}], ids=["folds", "refit"])
def test_a_loaded_run_gives_the_same_probs(cache, tmp_path, head, changes):
    changes = {**changes, "head": SMALL if head == "concat" else {"kind": head}}
    _, folder = trained(cache, tmp_path / "runs", **changes)
    test = np.flatnonzero((cache.splits == "test") & (cache.labels >= 0))
    assert np.array_equal(answers(cache, folder, test), read_predictions(folder).probs)


@pytest.mark.parametrize("changes", [{"ensemble": {"folds": 2}}, {"refit": "train_val"}], ids=["folds", "refit"])
def test_such_a_run_is_found_again_and_is_another_run_than_the_plain_one(cache, tmp_path, monkeypatch, changes):
    record, folder = trained(cache, tmp_path / "runs", **changes)
    assert parse_spec(RunSpec, record.spec, "saved") == run_spec(**changes)
    assert record.digest != trained(cache, tmp_path / "runs")[0].digest
    monkeypatch.setattr(runs_module, "train_together", None)
    again, trained_now = train_run(cache, run_spec(**changes), tmp_path / "runs", device="cpu")
    assert not trained_now
    assert again == read_record(folder)


def test_a_plain_run_is_written_and_identified_as_before(cache, tmp_path):
    spec = run_spec()
    assert not {"ensemble", "refit"} & spec.model_dump().keys()
    assert run_spec(refit="none", ensemble=None).model_dump_json() == spec.model_dump_json()
    record, folder = trained(cache, tmp_path / "runs")
    assert not {"heads", "refit"} & json.loads((folder / "run.json").read_text()).keys()
    assert not [name for name in read_weights(folder) if name.startswith("heads.")]
    data = TrainingData.of(cache, spec.split)
    digest = data.digest(run_spec(refit="none"), rows=rows_digest(cache, data.splits, targets_of(cache)))
    assert record.digest == digest


class Follower:
    def __init__(self):
        self.states = []

    def update(self, state):
        self.states.append(state)


def test_progress_counts_runs_and_comes_to_its_end(cache, tmp_path):
    follower = Follower()
    specs = [run_spec(ensemble={"folds": 2}), run_spec(name="again", refit="train_val"), run_spec(name="plain")]
    with followed(follower):
        train_runs(cache, specs, tmp_path / "runs", device="cpu")
    states = [state for state in follower.states if isinstance(state, TrainingState)]
    assert {state.total for state in states} == {3}
    assert (states[-1].runs, states[-1].heads, states[-1].work) == (3, 5, pytest.approx(1.0))
    work = [state.work for state in states]
    assert work == sorted(work)


def test_epochs_of_an_ensemble_are_reported_as_the_mean_of_its_heads(cache, tmp_path):
    seen = []
    specs = [run_spec(name="plain"), run_spec(ensemble={"folds": 2})]
    results = train_runs(
        cache, specs, tmp_path / "runs", device="cpu", on_epoch=lambda _, entries: seen.append(entries)
    )
    for run, (record, _) in enumerate(results):
        assert [entries[run] for entries in seen if run in entries] == list(record.history)


@pytest.mark.parametrize("changes", [{"ensemble": {"folds": 2}}, {"refit": "train_val"}], ids=["folds", "refit"])
def test_such_a_run_diverges_once_as_a_run(cache, tmp_path, changes):
    spec = run_spec(train={"learning_rate": 1e30}, **changes)
    ((result, trained_now),) = try_runs(cache, [spec], tmp_path / "runs", device="cpu")
    assert trained_now
    assert isinstance(result, Divergence)
    assert result.spec == spec.model_dump(mode="json")
    ((_, trained_now),) = try_runs(cache, [spec], tmp_path / "runs", device="cpu")
    assert not trained_now
    with pytest.raises(TrainingError, match="known from before"):
        train_run(cache, spec, tmp_path / "runs", device="cpu")


def test_a_stream_that_one_head_could_not_learn_counts_as_missing_for_it_alone(cache, tmp_path, plant_cache):
    spec = run_spec(fold={"count": 3, "index": 0})
    fold = TrainingData.of(cache, spec.split).folds(spec)[0]
    test = np.flatnonzero((cache.splits == "test") & (cache.labels >= 0))
    status = np.full(len(cache.labels), 2, np.uint8)
    status[fold.val] = status[test] = 1  # the stream is there where head 0 does not learn
    noise = np.random.default_rng(0).normal(size=(len(status), 4)).astype(np.float32)
    partial = plant_cache(tmp_path / "partial.zarr", streams={"noise": ("backbone", noise, status)})
    record, folder = trained(
        partial, tmp_path / "runs", features={"streams": ["resnet50", "noise"]}, ensemble={"folds": 3}
    )
    assert [head["fitted"]["noise"] for head in record.heads] == [False, True, True]
    assert record.streams["noise"]["fitted"]
    assert any("rows of some heads have stream 'noise'" in note for note in record.notes)
    assert not any("row has stream 'noise'" in note for note in record.notes)
    np.testing.assert_allclose(answers(partial, folder, test), read_predictions(folder).probs, atol=1e-6)
    loaded = load_head(folder)
    assert [each.scaling["noise"].fitted for each in loaded.heads] == [False, True, True]


# ---------------------------------------------------------------------------------------------- second trainings


@pytest.fixture
def joined_cache(tmp_path, plant_cache):
    """The same rows, where those of train and val all train, and half of the test rows choose."""
    splits = np.array((["train"] * 4 + ["val"] + ["train"] * 4 + ["test"]) * 15)
    return plant_cache(tmp_path / "joined.zarr", splits=list(splits))


def weights_of(folder):
    return {name: array for name, array in read_weights(folder).items() if not name.startswith("baseline")}


def test_a_network_is_trained_again_on_train_and_val_for_the_epochs_that_were_chosen(cache, joined_cache, tmp_path):
    train = {"epochs": 3, "learning_rate": 1e-3, "select": "loss", "batch_size": 32}
    record, folder = trained(cache, tmp_path / "runs", refit="train_val", train=train)
    plain, of_plain = trained(cache, tmp_path / "runs", train=train)
    joined, expected = trained(joined_cache, tmp_path / "joined", train=train)
    assert record.best_epoch == plain.best_epoch == joined.best_epoch == 3  # the loss falls in all epochs
    found = weights_of(folder)
    for name, array in weights_of(expected).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6)
    assert not np.allclose(found["head.hidden.linear.0.weight"], weights_of(of_plain)["head.hidden.linear.0.weight"])
    (again,) = record.refit
    assert (again["rows"], again["epochs"]) == (len(chosen_from(cache)), 3)
    assert again["train_loss"] == pytest.approx(joined.history[-1]["train_loss"], rel=1e-5)
    assert record.metrics["val"] == plain.metrics["val"]
    assert record.history == plain.history
    assert record.rows["train"]["rows"] == len(chosen_from(cache))
    assert record.rows["val"] == plain.rows["val"]
    assert record.parameters == plain.parameters


def test_the_last_epoch_is_kept_and_patience_is_not_asked(cache, tmp_path):
    """The first training is best in epoch 1 or 2 of 40 at this learning rate, and ends by patience."""
    train = {"epochs": 40, "learning_rate": 0.5, "select": "loss", "patience": 3}
    record, _ = trained(cache, tmp_path / "runs", refit="train_val", train=train)
    assert len(record.history) == record.best_epoch + 3
    assert record.refit[0]["epochs"] == record.best_epoch


def test_a_logistic_regression_is_solved_again_at_the_penalty_that_was_chosen(cache, joined_cache, tmp_path):
    record, folder = trained(cache, tmp_path / "runs", refit="train_val", head={"kind": "logistic"})
    penalty = record.history[record.best_epoch - 1]["penalty"]
    head = {"kind": "logistic", "penalties": [penalty]}
    _, expected = trained(joined_cache, tmp_path / "joined", head=head)
    found = weights_of(folder)
    for name, array in weights_of(expected).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6)


def test_averaged_regressions_are_solved_again_each_at_its_penalty(cache, joined_cache, tmp_path):
    record, folder = trained(cache, tmp_path / "runs", refit="train_val", head={"kind": "averaged_logistic"})
    head = {"kind": "averaged_logistic", "stream_penalties": list(record.history[0]["penalties"].items())}
    _, expected = trained(joined_cache, tmp_path / "joined", head=head)
    found = weights_of(folder)
    for name, array in weights_of(expected).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6)


def test_kernel_ridge_chooses_its_penalty_anew_by_leave_one_out(cache, joined_cache, tmp_path):
    record, folder = trained(cache, tmp_path / "runs", refit="train_val", head={"kind": "kernel_ridge"})
    plain, _ = trained(cache, tmp_path / "runs", head={"kind": "kernel_ridge"})
    _, expected = trained(joined_cache, tmp_path / "joined", head={"kind": "kernel_ridge"})
    found = weights_of(folder)
    for name, array in weights_of(expected).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6)
    assert record.metrics["val"] == plain.metrics["val"]


def test_seeds_are_trained_again_one_by_one(cache, tmp_path):
    record, folder = trained(cache, tmp_path / "runs", refit="train_val", ensemble={"seeds": [0, 1]})
    alone = [trained(cache, tmp_path / "alone", refit="train_val", train={"seed": seed})[1] for seed in (0, 1)]
    mean = np.mean([read_predictions(each).probs for each in alone], axis=0)
    np.testing.assert_allclose(read_predictions(folder).probs, mean, atol=1e-5)
    assert len(record.refit) == 2


# ---------------------------------------------------------------------------------------------- deaf and refused


@pytest.mark.parametrize("head", ["concat", "logistic", "averaged_logistic", "kernel_ridge"])
@pytest.mark.parametrize("changes", [{"ensemble": {"folds": 2}}, {"refit": "train_val"}], ids=["folds", "refit"])
def test_poisoned_test_labels_and_features_change_no_choice(tmp_path, cache, plant_cache, head, changes):
    test = cache.splits == "test"
    labels = np.where(test, 0, cache.labels)
    features, status = cache.streams["resnet50"].read()
    poisoned = np.where(test[:, None], 100, features).astype(np.float16)
    streams = {"resnet50": ("backbone", poisoned, status)}
    wrong = plant_cache(tmp_path / "wrong.zarr", labels=labels, streams=streams)
    changes = {**changes, "head": SMALL if head == "concat" else {"kind": head}}
    (one, of_one), (other, of_other) = (
        trained(each, tmp_path / name, **changes) for each, name in ((cache, "one"), (wrong, "other"))
    )
    assert one.digest != other.digest
    assert one.metrics["test"] != other.metrics["test"]
    assert (one.metrics["val"], one.metrics["train"]) == (other.metrics["val"], other.metrics["train"])
    assert (one.history, one.best_epoch) == (other.history, other.best_epoch)
    assert [head["history"] for head in one.heads] == [head["history"] for head in other.heads]
    found = weights_of(of_other)
    assert all(np.array_equal(array, found[name]) for name, array in weights_of(of_one).items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ensemble": {}}, "ensemble: give a number of folds, or two seeds or more"),
        ({"ensemble": {"seeds": [3]}}, "ensemble: give a number of folds, or two seeds or more"),
        ({"ensemble": {"seeds": [3, 3]}}, "seeds: a seed is given twice: 3, 3"),
        ({"ensemble": {"seeds": [3, 1000]}}, "seeds: must be 0 to 999, got 3, 1000"),
        ({"ensemble": {"folds": 1}}, "ensemble.folds: must be >= 2, got 1"),
        ({"ensemble": {"folds": 2}, "refit": "train_val"}, "give either refit or ensemble.folds"),
        ({"ensemble": {"folds": 2}, "fold": {"index": 1}}, "either one fold or an ensemble of folds, got both"),
        ({"ensemble": {"seeds": [0, 1]}, "head": {"kind": "logistic"}}, "a logistic head has no seed"),
    ],
)
def test_contradictions_are_one_clear_error(changes, message):
    with pytest.raises(SpecError) as error:
        run_spec(**changes)
    assert message in str(error.value)
    assert "|" not in str(error.value)


def test_more_folds_than_rows_are_refused_before_training(cache, tmp_path):
    with pytest.raises(TrainingError, match="200 folds"):
        trained(cache, tmp_path / "runs", ensemble={"folds": 200})
