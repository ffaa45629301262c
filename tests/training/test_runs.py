"""Saved runs: complete, found again, honest about their rows, and deaf to the test split."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from emofuse import results
from emofuse.cache.reader import CachedStream, open_cache
from emofuse.datasets.splits import stratified_split
from emofuse.datasets.targets import Targets
from emofuse.errors import IncompleteCacheError, ResultsError, SpecError, TrainingError
from emofuse.metrics.classification import classification_metrics
from emofuse.predict import missing_streams
from emofuse.profile.head import count_head
from emofuse.progress import StepState, TrainingState, followed
from emofuse.results import read_predictions, read_record, read_weights, run_dir
from emofuse.specs import CacheSpec, EnsembleSpec, KernelRidgeHeadSpec, RunSpec, StratifiedSplit, parse_spec
from emofuse.status import Status
from emofuse.training import runs as runs_module
from emofuse.training.data import TrainingData
from emofuse.training.divergence import Divergence, divergence_path
from emofuse.training.machine import Machine
from emofuse.training.members import MemberResult
from emofuse.training.notes import _learning, beats_chance
from emofuse.training.rows import rows_digest, targets_of
from emofuse.training.runs import train_run, train_runs, try_runs
from emofuse.training.together import Trained, train_together
from emofuse.training.trained import load_head
from emofuse.training.trained_runs import TrainedRun

CLASSES = ("joy", "fear", "calm")
ROWS = 120
RANDOM = {"kind": "random", "name": None, "sha256": None, "seed": 0}


def planted():
    """Labels, splits and streams of a small learnable dataset: a fifth without a face, one row unlabelled."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, ROWS)
    faces = np.where(rng.random(ROWS) < 0.2, 2, 1).astype(np.uint8)
    signal = np.eye(3)[labels] * 3
    streams = {
        "resnet50": ("backbone", (signal + rng.normal(size=(ROWS, 3))).astype(np.float16), np.ones(ROWS, np.uint8)),
        "action_units": ("action_units", rng.normal(5, 2, size=(ROWS, 30)).astype(np.float32), faces),
        "lbp": ("lbp", rng.random((ROWS, 512)).astype(np.float32), faces),
    }
    labels[7] = -1
    splits = np.array(["train", "train", "train", "val", "test"] * (ROWS // 5))
    return labels, splits, streams


@pytest.fixture
def new_cache(tmp_path, write_cache):
    def write(labels=None, splits=None, streams=None, name="features"):
        planted_labels, planted_splits, planted_streams = planted()
        labels = planted_labels if labels is None else labels
        splits = planted_splits if splits is None else splits
        path = tmp_path / f"{name}.zarr"
        return open_cache(
            write_cache(
                path, CLASSES, labels, list(splits), streams or planted_streams, weights={"resnet50": dict(RANDOM)}
            )
        )

    return write


@pytest.fixture
def cache(new_cache):
    return new_cache()


def run_spec(*streams, **changes):
    data = {
        "name": "small",
        "features": {"streams": streams or ("resnet50", "action_units")},
        "head": {"embed_dim": 8, "width": 8, "depth": 1},
        "train": {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2},
    }
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) and key in data else value
    return parse_spec(RunSpec, data, "test")


# ---------------------------------------------------------------------------------------------- what is saved


def test_a_run_says_all_there_is_to_say(cache, tmp_path):
    spec = run_spec()
    record, trained_now = train_run(cache, spec, tmp_path / "runs", device="cpu")
    assert trained_now
    folder = run_dir(tmp_path / "runs", record.digest)
    assert asdict(read_record(folder)) == json.loads(json.dumps(asdict(record)))
    assert record.name == "small"
    assert parse_spec(RunSpec, record.spec, "saved") == spec
    assert record.classes == list(CLASSES)
    assert record.dataset == {"name": "planted", "kind": "folder"}
    assert record.streams["resnet50"] == {
        "kind": "backbone",
        "digest": cache.streams["resnet50"].digest,
        "dim": 3,
        "used_dim": 3,
        "weights": RANDOM,
        "fitted": True,
    }
    assert (record.streams["action_units"]["dim"], record.streams["action_units"]["used_dim"]) == (30, 25)
    assert record.rows["train"]["rows"] == 71
    assert {split: part["rows"] for split, part in record.rows.items()} == {"train": 71, "val": 24, "test": 24}
    faceless = np.flatnonzero((cache.streams["action_units"].status[:, 0] == 2) & (cache.labels >= 0))
    for split in ("train", "val", "test"):
        lacking = int(np.sum(cache.splits[faceless] == split))
        assert record.rows[split]["missing"] == {"resnet50": {}, "action_units": {"no_detection": lacking}}
    assert set(record.metrics) == {"train", "val", "test"}
    assert record.metrics["test"]["accuracy"] > 0.7
    assert len(record.history) == 4
    assert record.history[record.best_epoch - 1]["val_accuracy"] == record.metrics["val"]["accuracy"]
    assert set(record.versions) == {"emofuse", "python", "numpy", "torch"}
    assert record.machine["device"] == "cpu"
    assert record.seconds > 0
    assert record.created.endswith("+00:00")
    head = load_head(folder).heads[0].head
    assert record.parameters == sum(tensor.numel() for tensor in head.parameters())


@pytest.mark.parametrize("changes", [{}, {"head": KernelRidgeHeadSpec()}, {"ensemble": EnsembleSpec(seeds=(0, 1))}])
def test_the_record_counts_the_operations_of_all_heads_as_a_profile_does(cache, tmp_path, changes):
    spec = run_spec().model_copy(update=changes)
    record, _ = train_run(cache, spec, tmp_path / "runs", device="cpu")
    dims = {name: stream["used_dim"] for name, stream in record.streams.items()}
    if "head" in changes:
        rows = record.rows["train"]["rows"]  # kernel values to each of them, then the coefficients
        assert record.costs["flops"] == 2 * rows * (sum(dims.values()) + len(CLASSES))
    else:
        assert record.costs["flops"] == count_head(spec, dims, len(CLASSES)).flops
    heads = len(spec.heads())
    assert record.costs["together"]["heads"] == heads
    assert record.costs["together"]["seconds"] == pytest.approx(record.seconds)


def test_the_cache_spec_of_a_run_is_enough_to_extract_again(cache, tmp_path):
    spec = run_spec("lbp", "action_units")
    record, _ = train_run(cache, spec, tmp_path / "runs", device="cpu")
    again = parse_spec(CacheSpec, dict(record.cache_spec), "saved")
    assert [stream.name for stream in again.streams] == ["lbp", "action_units"]
    assert again.decode.model_dump() == cache.decode
    assert again.face.model_dump() == cache.face


def test_predictions_are_the_test_rows_and_their_metrics(cache, tmp_path):
    record, _ = train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    found = read_predictions(run_dir(tmp_path / "runs", record.digest))
    rows = np.flatnonzero((cache.splits == "test") & (cache.labels >= 0))
    assert found.sample_id.tolist() == cache.sample_ids[rows].tolist()
    assert found.label.tolist() == cache.labels[rows].tolist()
    assert classification_metrics(found.label, found.probs, CLASSES) == record.metrics["test"]


@pytest.mark.parametrize(
    "head", ["concat", "linear", "gated", "late", "attention", "logistic", "averaged_logistic", "kernel_ridge"]
)
def test_a_loaded_head_gives_the_same_probs(cache, tmp_path, head):
    spec = run_spec("lbp", "action_units", "resnet50", head=head)
    record, _ = train_run(cache, spec, tmp_path / "runs", device="cpu")
    folder = run_dir(tmp_path / "runs", record.digest)
    saved = read_predictions(folder)
    trained = load_head(folder)
    rows = np.flatnonzero((cache.splits == "test") & (cache.labels >= 0))
    read = {name: cache.streams[name].read() for name in record.streams}
    probs = trained.outputs(
        {name: features[rows] for name, (features, _) in read.items()},
        {name: status[rows] for name, (_, status) in read.items()},
    )
    assert np.array_equal(probs, saved.probs)
    assert trained.record == read_record(folder)
    assert not trained.heads[0].head.training


def test_the_baseline_is_of_all_action_units_whatever_the_head_looks_at(cache, tmp_path):
    kept = {}
    for streams in (("resnet50",), ("resnet50", "action_units")):
        record, _ = train_run(cache, run_spec(*streams), tmp_path / "runs", device="cpu")
        kept[len(streams)] = load_head(run_dir(tmp_path / "runs", record.digest))
    features, status = cache.streams["action_units"].read()
    faces = features[(cache.splits == "train") & (cache.labels >= 0) & (status == 1)]
    for trained in kept.values():
        np.testing.assert_allclose(trained.action_unit_baseline.center, np.median(faces, axis=0), rtol=1e-6)
    assert np.array_equal(kept[2].heads[0].scaling["action_units"].scale, kept[2].action_unit_baseline.scale[:25])


def test_no_baseline_without_action_units(new_cache, tmp_path):
    _, splits, streams = planted()
    cache = new_cache(streams={"resnet50": streams["resnet50"]})
    record, _ = train_run(cache, run_spec("resnet50"), tmp_path / "runs", device="cpu")
    assert load_head(run_dir(tmp_path / "runs", record.digest)).action_unit_baseline is None

    kind, features, status = streams["action_units"]
    faceless = {**streams, "action_units": (kind, features, np.where(splits == "train", 2, status).astype(np.uint8))}
    cache = new_cache(streams=faceless, name="faceless")
    record, _ = train_run(cache, run_spec("resnet50"), tmp_path / "runs", device="cpu")
    assert load_head(run_dir(tmp_path / "runs", record.digest)).action_unit_baseline is None

    cache = new_cache(name="unfinished")
    (cache.path / "streams" / "action_units" / "status" / "c.0.0").unlink()
    record, _ = train_run(open_cache(cache.path), run_spec("resnet50"), tmp_path / "runs2", device="cpu")
    assert load_head(run_dir(tmp_path / "runs2", record.digest)).action_unit_baseline is None


def test_a_stream_s_name_may_be_the_beginning_of_another_s(new_cache, tmp_path):
    _, _, streams = planted()
    cache = new_cache(streams={"a": streams["resnet50"], "a.center": streams["resnet50"]})
    record, _ = train_run(cache, run_spec("a", "a.center"), tmp_path / "runs", device="cpu")
    assert set(load_head(run_dir(tmp_path / "runs", record.digest)).heads[0].scaling) == {"a", "a.center"}


# ---------------------------------------------------------------------------------------------- found again


def test_the_same_run_is_not_trained_again(cache, tmp_path, monkeypatch):
    first, _ = train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    monkeypatch.setattr(runs_module, "train_together", None)
    monkeypatch.setattr(CachedStream, "read", None)
    second, trained_now = train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    assert not trained_now
    assert asdict(second) == json.loads(json.dumps(asdict(first)))


def test_a_run_takes_the_name_it_was_asked_for_last(cache, tmp_path):
    first, _ = train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    second, trained_now = train_run(cache, run_spec(name="other"), tmp_path / "runs", device="cpu")
    assert not trained_now
    assert (second.name, second.spec["name"], second.digest) == ("other", "other", first.digest)
    folder = run_dir(tmp_path / "runs", first.digest)
    assert read_record(folder) == second
    assert sorted(path.name for path in folder.iterdir()) == ["predictions.npz", "run.json", "weights.safetensors"]


def test_the_same_run_trained_twice_has_the_same_bits(cache, tmp_path):
    saved = []
    for folder in ("one", "two"):
        record, _ = train_run(cache, run_spec(), tmp_path / folder, device="cpu")
        saved.append((record, read_weights(run_dir(tmp_path / folder, record.digest))))
        torch.rand(3)
    (first, weights), (second, again) = saved
    assert first.metrics == second.metrics
    assert first.history == second.history
    assert all(np.array_equal(weights[name], again[name]) for name in weights)


def test_the_digest_changes_with_what_changes_the_weights_and_with_nothing_else(cache, new_cache):
    def digest_of(spec, cache=cache):
        data = TrainingData.of(cache, spec.split)
        return data.digest(spec, rows=rows_digest(cache, data.splits, targets_of(cache)))

    base = digest_of(run_spec())
    assert digest_of(run_spec(name="other")) == base
    changes = [
        run_spec("resnet50"),
        run_spec("action_units", "resnet50"),
        run_spec(head={"width": 9}),
        run_spec(train={"seed": 1}),
        run_spec(features={"action_units": 30}),
        run_spec(split={"kind": "stratified"}),
        run_spec(split={"kind": "stratified", "seed": 1}),
    ]
    labels, splits, streams = planted()
    relabelled, resplit = labels.copy(), splits.copy()
    relabelled[0] = (labels[0] + 1) % 3
    resplit[0] = "val"
    other_bytes = {**streams, "resnet50": ("places365", *streams["resnet50"][1:])}
    others = [
        digest_of(run_spec(), new_cache(labels=relabelled, name="relabelled")),
        digest_of(run_spec(), new_cache(splits=resplit, name="resplit")),
        digest_of(run_spec(), new_cache(streams=other_bytes, name="other_bytes")),
    ]
    assert len({base, *(digest_of(spec) for spec in changes), *others}) == 1 + len(changes) + len(others)
    without_lbp = {name: stream for name, stream in streams.items() if name != "lbp"}
    assert digest_of(run_spec(), new_cache(streams=without_lbp, name="without_lbp")) == base


# ---------------------------------------------------------------------------------------------- several at once


def repeats(**changes):
    """Runs of two configurations and two splits, seeds side by side."""
    return [
        run_spec(*streams, name="+".join(streams), split=split, train={"seed": seed}, **changes)
        for split in ({"kind": "official"}, {"kind": "stratified", "seed": 4})
        for streams in (("resnet50",), ("lbp", "action_units"))
        for seed in (0, 1)
    ]


def test_runs_trained_together_are_those_trained_one_by_one(cache, tmp_path):
    specs = repeats()
    together = train_runs(cache, specs, tmp_path / "together", device="cpu")
    assert all(trained_now for _, trained_now in together)
    for spec, (record, _) in zip(specs, together, strict=True):
        alone, _ = train_run(cache, spec, tmp_path / "alone", device="cpu")
        assert record.spec == spec.model_dump(mode="json")
        ours, theirs = (asdict(each) for each in (record, alone))
        for own in (ours, theirs):
            own["costs"].pop("together")
            assert own.pop("seconds") > 0
            own.pop("created")
        assert flat(ours) == approximately(flat(theirs))
        saved, found = (run_dir(tmp_path / folder, record.digest) for folder in ("together", "alone"))
        np.testing.assert_allclose(read_predictions(saved).probs, read_predictions(found).probs, atol=1e-5)
        weights = read_weights(found)
        for name, array in read_weights(saved).items():
            np.testing.assert_allclose(array, weights[name], rtol=1e-3, atol=1e-5)
    assert len(list((tmp_path / "together").iterdir())) == len(specs)
    groups = [record.costs["together"] for record, _ in together]
    assert sum(record.seconds / group["seconds"] for (record, _), group in zip(together, groups, strict=True)) == (
        pytest.approx(len({group["seconds"] for group in groups}))
    )
    assert all(group["heads"] == groups.count(group) for group in groups)


def flat(value, prefix=""):
    if isinstance(value, dict):
        return {key: found for name, part in value.items() for key, found in flat(part, f"{prefix}.{name}").items()}
    if isinstance(value, list | tuple):
        return flat(dict(enumerate(value)), prefix)
    return {prefix: value}


def approximately(values):
    return {name: pytest.approx(v, rel=1e-4, abs=1e-6) if isinstance(v, float) else v for name, v in values.items()}


def test_a_searched_run_and_the_final_run_of_the_same_spec_have_the_same_history(cache, tmp_path):
    specs = [run_spec("resnet50"), run_spec("lbp", "action_units")]
    searched = train_together(TrainingData.of(cache, specs[0].split), specs, Machine.of(torch.device("cpu")))
    final = train_runs(cache, specs, tmp_path / "runs", device="cpu")
    for trained, (record, _) in zip(searched, final, strict=True):
        assert record.history == trained.result.history
        assert record.best_epoch == trained.result.best_epoch
        assert record.digest != trained.digest  # it also says which test rows it was scored on


def test_each_run_is_told_when_it_is_known_and_what_is_there_comes_first(cache, tmp_path):
    specs = repeats()
    train_runs(cache, [specs[5], specs[2]], tmp_path / "runs", device="cpu")
    told = []
    found = train_runs(cache, specs, tmp_path / "runs", device="cpu", on_run=lambda *each: told.append(each))
    assert [index for index, _, _ in told[:2]] == [2, 5]
    assert sorted(index for index, _, _ in told) == list(range(8))
    assert [trained_now for _, _, trained_now in told] == [False] * 2 + [True] * 6
    assert [found[index] for index, _, _ in told] == [(record, trained_now) for _, record, trained_now in told]


def test_the_same_run_under_two_names_is_trained_once(cache, tmp_path):
    (first, trained), (second, again) = train_runs(
        cache, [run_spec(name="one"), run_spec(name="two")], tmp_path / "runs", device="cpu"
    )
    assert (trained, again) == (True, False)
    assert (first.name, second.name, second.digest) == ("one", "two", first.digest)


def test_a_run_that_diverges_is_named_and_the_others_are_written(cache, tmp_path):
    wild = [run_spec(name="wild", train={"learning_rate": 1e38, "seed": seed}) for seed in (0, 3)]
    calm = [run_spec(name="calm"), run_spec("lbp", name="other", train={"batch_size": 32})]
    told = []
    with pytest.raises(TrainingError) as caught:
        train_runs(
            cache,
            [wild[0], calm[0], wild[1], calm[1]],
            tmp_path / "runs",
            device="cpu",
            on_run=lambda *e: told.append(e),
        )
    assert [f"run 'wild' (seed {seed}): the loss is not finite" in str(caught.value) for seed in (0, 3)] == [True] * 2
    assert "calm" not in str(caught.value)
    assert sorted(index for index, _, _ in told) == [1, 3]
    assert {record.name for record in results.list_runs(tmp_path / "runs")} == {"calm", "other"}
    alone, _ = train_run(cache, calm[0], tmp_path / "alone", device="cpu")
    assert told[0][1].metrics["test"]["accuracy"] == pytest.approx(alone.metrics["test"]["accuracy"])


def test_nothing_is_trained_if_one_of_the_runs_cannot_be(cache, tmp_path):
    with pytest.raises(SpecError, match="'resnet' is not in the cache"):
        train_runs(cache, [run_spec(), run_spec("resnet")], tmp_path / "runs", device="cpu")
    (cache.path / "streams" / "lbp" / "status" / "c.0.0").unlink()
    with pytest.raises(IncompleteCacheError, match="'lbp' lacks 1 of 1 blocks"):
        train_runs(open_cache(cache.path), [run_spec("resnet50"), run_spec("lbp")], tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


def test_every_split_reads_the_cache_once_for_all(cache, tmp_path, monkeypatch):
    read = []
    whole = CachedStream.read
    monkeypatch.setattr(CachedStream, "read", lambda self, *args: read.append(self.name) or whole(self, *args))
    train_runs(cache, repeats(), tmp_path / "runs", device="cpu")
    assert sorted(read) == ["action_units", "lbp", "resnet50"]


def test_a_run_of_a_fold_is_scored_on_the_test_rows_of_the_split(cache, tmp_path):
    spec = run_spec(fold={"count": 4, "index": 2})
    record, _ = train_run(cache, spec, tmp_path / "runs", device="cpu")
    assert record.rows["test"]["rows"] == 24
    assert record.rows["train"]["rows"] + record.rows["val"]["rows"] == 95
    assert record.history[record.best_epoch - 1]["val_accuracy"] == record.metrics["val"]["accuracy"]


# ---------------------------------------------------------------------------------------------- splits


def test_a_stratified_run_splits_the_labels_anew(cache, tmp_path):
    spec = run_spec(split={"kind": "stratified", "seed": 3})
    record, _ = train_run(cache, spec, tmp_path / "runs", device="cpu")
    labels = [CLASSES[label] if label >= 0 else None for label in cache.labels]
    expected = stratified_split(labels, StratifiedSplit(seed=3))
    found = read_predictions(run_dir(tmp_path / "runs", record.digest))
    assert found.sample_id.tolist() == [
        sample_id for sample_id, split in zip(cache.sample_ids, expected, strict=True) if split == "test"
    ]
    assert sum(part["rows"] for part in record.rows.values()) == ROWS - 1


def test_wrong_test_labels_and_features_do_not_change_the_weights(new_cache, tmp_path):
    labels, splits, streams = planted()
    poisoned = labels.copy()
    poisoned[splits == "test"] = 0
    kind, features, status = streams["action_units"]
    features = features.copy()
    features[splits == "test"] = 1e6
    others = {**streams, "action_units": (kind, features, status)}
    clean, wrong = new_cache(), new_cache(labels=poisoned, streams=others, name="wrong")
    saved = {}
    for cache in (clean, wrong):
        record, _ = train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
        saved[record.digest] = (record, read_weights(run_dir(tmp_path / "runs", record.digest)))
    (first, weights), (second, again) = saved.values()
    assert first.metrics["test"] != second.metrics["test"]
    assert first.best_epoch == second.best_epoch
    assert first.history == second.history
    assert all(np.array_equal(weights[name], again[name]) for name in weights)


def test_scaling_is_fitted_on_the_training_rows_of_the_run(new_cache, tmp_path):
    labels, splits, streams = planted()
    kind, features, status = streams["resnet50"]
    features = features.copy()
    features[(splits == "val") | (splits == "test")] = 1000
    cache = new_cache(streams={**streams, "resnet50": (kind, features, status)})
    record, _ = train_run(cache, run_spec("resnet50"), tmp_path / "runs", device="cpu")
    found = load_head(run_dir(tmp_path / "runs", record.digest)).heads[0].scaling["resnet50"]
    stored, _ = cache.streams["resnet50"].read()
    train = stored[(splits == "train") & (labels >= 0)].astype(np.float32)
    np.testing.assert_allclose(found.center, train.mean(axis=0, dtype=np.float64), rtol=1e-6)


def test_rows_left_out_and_labels_never_seen_are_noted(new_cache, tmp_path):
    labels, splits, streams = planted()
    splits = splits.copy()
    splits[10:15] = ""
    splits[(labels == 2) & (splits == "train")] = "val"
    kind, features, status = streams["action_units"]
    faceless = np.where(splits == "train", 2, status).astype(np.uint8)
    cache = new_cache(splits=splits, streams={**streams, "action_units": (kind, features, faceless)})
    record, _ = train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    assert record.notes == [
        "6 of 120 rows are in no split of this run: 1 without a label, 5 with a label but no split.",
        "No training row is labelled 'calm': the head cannot learn it.",
        (
            "No training row has stream 'action_units': the head learned nothing from it, and it counts as missing in "
            "every row."
        ),
        *record.notes[3:],
    ]


def without_pictures(rows, status=3):
    """The planted streams, of which the pictures' rows have a status; `good` are vectors of another tool."""
    labels, _, streams = planted()
    found = {}
    for name, (kind, features, given) in streams.items():
        changed = given.copy()
        changed[rows] = status
        found[name] = (kind, features, changed)
    good = (np.eye(3)[labels] + np.random.default_rng(1).normal(size=(ROWS, 3))).astype(np.float32)
    return found | {"good": ("imported", good, np.ones(ROWS, np.uint8))}


@pytest.mark.parametrize("fold", [None, {"count": 3, "index": 1}])
def test_rows_whose_picture_cannot_be_read_neither_train_nor_count(new_cache, tmp_path, fold):
    """The broken files are half of one label: a head that saw them would learn that label from the fault."""
    labels, splits, _ = planted()
    broken = np.flatnonzero(labels == 1)[::2]
    cache = new_cache(streams=without_pictures(broken))
    record, _ = train_run(cache, run_spec("resnet50", "good", fold=fold), tmp_path / "runs", device="cpu")
    kept = np.setdiff1d(np.flatnonzero(labels >= 0), broken)
    found = read_predictions(run_dir(tmp_path / "runs", record.digest))
    assert found.sample_id.tolist() == cache.sample_ids[kept[splits[kept] == "test"]].tolist()
    for split in ("train", "val", "test") if fold is None else ("test",):
        assert record.rows[split]["rows"] == np.sum(splits[kept] == split)
    assert sum(part["rows"] for part in record.rows.values()) == len(kept)
    assert all("unreadable" not in part["missing"]["resnet50"] for part in record.rows.values())
    counts = ", ".join(f"{np.sum(splits[broken] == split)} of split {split}" for split in ("train", "val", "test"))
    assert (
        f"{len(broken)} of 119 labelled rows are left out, because their pictures cannot be read: {counts}."
        in record.notes
    )
    clean = new_cache(streams=without_pictures([]), name="clean")
    assert TrainingData.of(clean, run_spec().split).digest(run_spec()) != record.digest


def test_vectors_of_another_tool_need_no_picture_and_a_picture_that_is_there_is_a_row(new_cache, tmp_path):
    broken = np.arange(0, ROWS, 10)
    specs = {"imported": run_spec("good", name="good"), "both": run_spec("good", "lbp", name="both")}
    for status in (2, 3, 4):
        cache = new_cache(streams=without_pictures(broken, status), name=f"status{status}")
        rows = {
            name: train_run(cache, spec, tmp_path / "runs", device="cpu")[0].rows["train"]["rows"]
            for name, spec in specs.items()
        }
        assert rows == {"imported": 71, "both": 71 - 12 * (status == 3)}, status


def test_runs_with_and_without_unreadable_rows_train_in_groups_of_their_own(new_cache, tmp_path):
    cache = new_cache(streams=without_pictures(np.arange(0, ROWS, 10)))
    specs = [run_spec(*streams, name="+".join(streams)) for streams in (("good",), ("good", "lbp"), ("lbp",))]
    together = train_runs(cache, specs, tmp_path / "together", device="cpu")
    for spec, (record, _) in zip(specs, together, strict=True):
        alone, _ = train_run(cache, spec, tmp_path / "alone", device="cpu")
        assert record.rows == alone.rows
        assert flat(record.metrics) == approximately(flat(alone.metrics))


def test_a_split_without_a_readable_row_is_an_error_before_anything_is_trained(new_cache, tmp_path):
    _, splits, _ = planted()
    cache = new_cache(streams=without_pictures(np.flatnonzero(splits != "val")))
    with pytest.raises(
        TrainingError,
        match=r"no readable labelled row has split 'train' \(to learn from\) nor 'test' \(to report on\): their "
        r"pictures cannot be read \(labelled rows: train 71, test 24\)\. `emofuse cache problems",
    ):
        train_run(cache, run_spec("lbp"), tmp_path / "runs", device="cpu")
    with pytest.raises(TrainingError, match=r"no readable labelled row has split 'train'"):
        TrainingData.of(cache, run_spec().split).folds(run_spec())
    with pytest.raises(TrainingError, match=r"got 24 \(71 more have pictures that cannot be read\)\. Take fewer"):
        TrainingData.of(cache, run_spec().split).folds(run_spec(fold={"count": 30, "index": 0}))
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------------------------------------- notes


def test_notes_say_which_labels_and_streams_validation_and_test_rows_lack(new_cache, tmp_path):
    labels, splits, streams = planted()
    labels, splits = labels.copy(), splits.copy()
    splits[(labels == 2) & (splits != "train")] = "train"
    statuses = {"val": 2, "test": 1, "train": 1}
    kind, features, _ = streams["lbp"]
    lbp = (kind, features, np.array([statuses[split] for split in splits], np.uint8))
    cache = new_cache(labels=labels, splits=splits, streams={**streams, "lbp": lbp})
    record, _ = train_run(cache, run_spec("resnet50", "lbp"), tmp_path / "runs", device="cpu")
    for expected in (
        (
            "No validation row is labelled 'calm': no epoch is chosen for it, and macro F1 of the validation rows is "
            "over the other labels."
        ),
        (
            "No test row is labelled 'calm': macro scores of the test rows are over the labels that have rows or "
            "predictions."
        ),
        "No validation row has stream 'lbp': the epoch was chosen without it.",
        (
            "All training rows have stream 'lbp', and not all validation and test rows: the head never learned what it "
            "means that the stream is missing, its mean stands for it."
        ),
    ):
        assert expected in record.notes


def test_a_head_at_chance_and_a_best_epoch_that_is_the_last_are_noted(new_cache, tmp_path):
    labels, _, _ = planted()
    noise = ("backbone", np.random.default_rng(5).normal(size=(ROWS, 3)).astype(np.float32), np.ones(ROWS, np.uint8))
    cache = new_cache(streams={**planted()[2], "noise": noise})
    records = {
        name: train_run(cache, run_spec(name, train={"select": "loss", "epochs": 2}), tmp_path / "runs", device="cpu")[
            0
        ]
        for name in ("noise", "resnet50")
    }
    at_chance = {name: any("cannot be told from chance" in note for note in r.notes) for name, r in records.items()}
    assert at_chance == {"noise": True, "resnet50": False}
    assert records["resnet50"].best_epoch == 2
    assert (
        "The best epoch is the last one of 2, or close to it: the head may not have converged. Give it more epochs "
        "or a higher learning rate."
    ) in records["resnet50"].notes
    assert len(labels) == ROWS


def test_a_head_that_learned_nothing_from_its_training_rows_is_noted(cache, tmp_path):
    for rate, noted in ((1e-2, False), (1e-9, True)):
        record, _ = train_run(cache, run_spec(train={"learning_rate": rate}), tmp_path / "runs", device="cpu")
        assert any(note.startswith("The head has learned nothing from its training rows") for note in record.notes) is (
            noted
        )


@pytest.mark.parametrize(("best", "noted"), [(94, False), (96, True), (100, True)])
def test_a_best_epoch_close_to_the_last_is_noted(best, noted):
    result = MemberResult({}, [], best, 100, "epochs")
    trained = TrainedRun(run_spec(), (Trained(run_spec(), "", result, {}, 0, 0.0),))
    metrics = {"test": {"confusion": [[50, 0], [0, 50]]}, "train": {"loss": 0.1}}
    targets = Targets("class", ("a", "b"), np.array([0, 0, 1, 1]))
    notes = list(_learning(targets, trained, {"train": np.arange(4)}, metrics))
    assert [note.startswith("The best epoch is the last one of 100, or close to it") for note in notes] == [
        True
    ] * noted


@pytest.mark.parametrize(("right", "beats"), [(40, False), (46, True)])
def test_chance_is_the_commonest_label_and_the_luck_of_one_in_twenty(right, beats):
    """100 rows, 36 of the label: by chance 36 are right, deviation 4.8, so 45 are more than luck."""
    confusion = [[right - 10, 36 - right + 10], [54 - (10), 10]]
    assert beats_chance(confusion, 0) is beats


def test_one_absurd_value_is_named_and_leaves_the_scores_as_they_are(new_cache, tmp_path):
    """3e38 in a training row, and in a test row: the stream is as good as without them, in memory and streamed."""
    labels, splits, streams = planted()
    kind, features, status = streams["resnet50"]
    wide = features.astype(np.float32)
    clean, _ = train_run(
        new_cache(streams={**streams, "resnet50": (kind, wide, status)}, name="clean"),
        run_spec("resnet50"),
        tmp_path / "runs",
        device="cpu",
    )
    rows = [int(np.flatnonzero((splits == split) & (labels >= 0))[3]) for split in ("train", "test")]
    absurd = wide.copy()
    absurd[rows, 1] = 3e38
    for name, poisoned in (("one", rows[:1]), ("two", rows)):
        values = wide.copy()
        values[poisoned, 1] = absurd[poisoned, 1]
        cache = new_cache(streams={**streams, "resnet50": (kind, values, status)}, name=name)
        record, _ = train_run(cache, run_spec("resnet50"), tmp_path / name, device="cpu")
        assert record.metrics["val"]["accuracy"] >= clean.metrics["val"]["accuracy"] - 0.05
        first = f"column 1 of row {str(cache.sample_ids[rows[0]])!r}"
        what, counts = (
            (f"the value in {first} lies", "It counts")
            if name == "one"
            else (
                f"2 values in 2 rows (the first: {first}) lie",
                "They count",
            )
        )
        assert (
            f"Stream 'resnet50': {what} more than 10 times as far out as every ordinary training value. "
            f"{counts} as that far."
        ) in record.notes
        saved = load_head(run_dir(tmp_path / name, record.digest))
        stored, codes = cache.streams["resnet50"].read()
        test = np.flatnonzero((splits == "test") & (labels >= 0))
        np.testing.assert_allclose(
            saved.outputs({"resnet50": stored[test]}, {"resnet50": codes[test]}),
            read_predictions(run_dir(tmp_path / name, record.digest)).probs,
            atol=1e-6,
        )


@pytest.mark.parametrize("kind", ["concat", "linear", "gated", "late", "attention"])
@pytest.mark.parametrize("seen", [0, 1])
def test_a_saved_run_leaves_out_what_it_never_learned_when_it_scores_and_predicts(new_cache, tmp_path, kind, seen):
    labels, splits, streams = planted()
    there = (splits == "test").astype(np.uint8)
    there[np.flatnonzero((splits == "train") & (labels >= 0))[:seen]] = 1
    noise = (50 + 10 * np.random.default_rng(0).normal(size=(ROWS, 4))).astype(np.float32)
    cache = new_cache(streams={**streams, "noise": ("backbone", noise, np.where(there, 1, 2).astype(np.uint8))})
    head = {"kind": kind} if kind == "linear" else {"kind": kind, "embed_dim": 8, "width": 8}
    spec = parse_spec(
        RunSpec,
        {
            "name": "small",
            "features": {"streams": ["resnet50", "noise"]},
            "head": head,
            "train": {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2},
        },
        "test",
    )
    record, _ = train_run(cache, spec, tmp_path / "runs", device="cpu")
    assert [record.streams[name]["fitted"] for name in ("resnet50", "noise")] == [True, False]
    who = ("No training row has", "Only one training row has")[seen]
    assert any(note.startswith(f"{who} stream 'noise': the head learned nothing from it") for note in record.notes)
    folder = run_dir(tmp_path / "runs", record.digest)
    test = np.flatnonzero((splits == "test") & (labels >= 0))
    features = {name: cache.streams[name].read()[0][test] for name in ("resnet50", "noise")}
    codes = {name: cache.streams[name].read()[1][test] for name in ("resnet50", "noise")}
    with_it = load_head(folder).outputs(features, codes)
    without = load_head(folder).outputs(features, codes | {"noise": np.full(len(test), 2, np.uint8)})
    assert np.array_equal(with_it, without)
    np.testing.assert_allclose(with_it, read_predictions(folder).probs, atol=1e-6)
    ok = {"resnet50": Status.OK, "noise": Status.OK}
    assert missing_streams(record, ok) == {"noise": "never_learned"}
    assert missing_streams(record, ok | {"noise": Status.NO_DETECTION}) == {"noise": "no_detection"}


def test_saved_runs_of_former_versions_predict_as_they_did(cache, tmp_path):
    """They have no limits, and streams that do not say whether they were fitted."""
    from safetensors.numpy import save_file

    record, _ = train_run(cache, run_spec("resnet50"), tmp_path / "runs", device="cpu")
    folder = run_dir(tmp_path / "runs", record.digest)
    features = np.array([[1, 2, 3], [1e6, 0, 0]], np.float32)
    new = load_head(folder).outputs({"resnet50": features}, {"resnet50": np.ones(2, np.uint8)})
    save_file(
        {name: array for name, array in read_weights(folder).items() if not name.endswith("limit")},
        folder / "weights.safetensors",
    )
    saved = json.loads((folder / "run.json").read_text())
    del saved["streams"]["resnet50"]["fitted"]
    (folder / "run.json").write_text(json.dumps(saved))
    old = load_head(folder)
    assert old.heads[0].scaling["resnet50"].limit is None
    assert old.heads[0].scaling["resnet50"].fitted
    found = old.outputs({"resnet50": features}, {"resnet50": np.ones(2, np.uint8)})
    assert np.array_equal(found[0], new[0])
    assert not np.array_equal(found[1], new[1])


# ---------------------------------------------------------------------------------------------- refused


def test_unknown_streams_are_refused_before_anything_is_read(cache, tmp_path):
    with pytest.raises(SpecError, match=r"features\.streams: 'resnet' is not in the cache, did you mean 'resnet50'"):
        train_run(cache, run_spec("resnet"), tmp_path / "runs", device="cpu")


def test_lacking_splits_are_named_together(new_cache, tmp_path):
    cache = new_cache(splits=[""] * ROWS)
    with pytest.raises(TrainingError, match=r"'train' \(to learn from\) nor 'val' \(.*\) nor 'test' \(to report on\)"):
        train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    train_run(cache, run_spec(split={"kind": "stratified"}), tmp_path / "runs", device="cpu")


def test_a_run_that_diverges_is_an_error_that_names_the_epoch(cache, tmp_path):
    told = []
    spec = run_spec(train={"learning_rate": 1e38})
    with pytest.raises(
        TrainingError,
        match=r"run 'small' \(seed 0\): the loss is not finite in epoch 1 with learning_rate 1e\+38: .*Lower",
    ):
        train_run(cache, spec, tmp_path / "runs", device="cpu", on_epoch=told.append)
    assert told == []
    assert results.list_runs(tmp_path / "runs") == []


def test_a_run_that_is_known_to_diverge_is_not_trained_again(cache, tmp_path, monkeypatch):
    spec, runs = run_spec(train={"learning_rate": 1e38}), tmp_path / "runs"
    ((first, trained),) = try_runs(cache, [spec], runs, device="cpu")
    assert (first.name, first.seed, first.epoch, trained) == ("small", 0, 1, True)
    monkeypatch.setattr("emofuse.training.runs.train_together", None)
    other = spec.model_copy(update={"name": "other"})
    ((again, trained),) = try_runs(cache, [other], runs, device="cpu")
    assert (again, trained) == (replace(first, spec=other.model_dump(mode="json")), False)
    path = divergence_path(runs, first.digest)
    with pytest.raises(
        TrainingError, match=rf"diverged\. Lower .* \(known .* to try it again, delete {re.escape(str(path))}"
    ):
        train_run(cache, spec, runs, device="cpu")
    monkeypatch.undo()
    path.unlink()
    ((_, trained),) = try_runs(cache, [spec], runs, device="cpu")
    assert trained


def test_a_run_that_diverges_is_a_result_beside_others(cache, tmp_path):
    told = []
    specs = [run_spec(name="wild", train={"learning_rate": 1e38}), run_spec(name="calm")]
    tried = try_runs(cache, specs, tmp_path / "runs", device="cpu", on_run=lambda *each: told.append(each))
    assert [type(result) for result, _ in tried] == [Divergence, results.RunRecord]
    assert sorted(told, key=lambda each: each[0]) == [(index, *each) for index, each in enumerate(tried)]


@pytest.mark.parametrize(("damage", "message"), [("{", "damaged"), ('{"format": 9}', "format 9"), ("[]", "damaged")])
def test_a_damaged_divergence_is_named_with_what_to_do(cache, tmp_path, damage, message):
    spec = run_spec(train={"learning_rate": 1e38})
    ((found, _),) = try_runs(cache, [spec], tmp_path / "runs", device="cpu")
    path = divergence_path(tmp_path / "runs", found.digest)
    path.write_text(damage)
    with pytest.raises(ResultsError, match=message) as error:
        train_run(cache, spec, tmp_path / "runs", device="cpu")
    assert str(path) in str(error.value)
    assert "delete it" in str(error.value)


def test_each_epoch_is_told_as_it_ends(cache, tmp_path):
    told = []
    record, _ = train_run(cache, run_spec(), tmp_path / "runs", device="cpu", on_epoch=told.append)
    assert told == record.history
    assert set(told[0]) == {"epoch", "train_loss", "val_loss", "val_accuracy", "val_macro_f1"}


def test_a_refused_run_leaves_nothing(new_cache, tmp_path):
    cache = new_cache(labels=np.zeros(ROWS, np.int64))
    with pytest.raises(TrainingError, match="all 72 training rows are labelled 'joy'"):
        train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


def test_weights_that_do_not_fit_their_record_are_refused(cache, tmp_path):
    from safetensors.numpy import save_file

    record, _ = train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    folder = run_dir(tmp_path / "runs", record.digest)
    weights = read_weights(folder)
    without = {name: array for name, array in weights.items() if name != "scaling.resnet50.scale"}
    save_file(without, folder / "weights.safetensors")
    with pytest.raises(ResultsError, match=r"does not fit run\.json \('scaling\.resnet50\.scale'\); delete the folder"):
        load_head(folder)
    save_file({**weights, "head.join.bias.weight": np.zeros(5, np.float32)}, folder / "weights.safetensors")
    with pytest.raises(ResultsError, match=r"does not fit run\.json \(.*size mismatch for join\.bias\.weight"):
        load_head(folder)


def test_the_runs_of_a_folder_that_is_none_itself_are_named(cache, tmp_path):
    record, _ = train_run(cache, run_spec(name="mine"), tmp_path / "runs", device="cpu")
    folder = run_dir(tmp_path / "runs", record.digest)
    for above in (tmp_path, tmp_path / "runs"):
        with pytest.raises(ResultsError) as error:
            read_record(above)
        expected = f"{above}: no run here (run.json is missing); the runs below it: {folder} (mine, seed 0)"
        assert str(error.value) == expected


def test_renaming_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ResultsError, match="no run here"):
        results.rename_run(tmp_path, "x")


@pytest.mark.parametrize(("count", "noted"), [(2, True), (3, False)])
def test_too_few_neutral_faces_are_noted(tmp_path, write_cache, count, noted):
    features = np.random.default_rng(5).normal(3, 2, (40, 30)).astype(np.float32)
    labels = np.array([2] * count + [0, 1] * 18 + [0] * (4 - count))
    splits = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    streams = {"action_units": ("action_units", features, np.ones(40, np.uint8))}
    own = open_cache(write_cache(tmp_path / "f.zarr", ("a", "b", "calm"), labels, splits, streams))
    asked = {"streams": ["action_units"], "neutral_label": "calm"}
    spec = parse_spec(RunSpec, {"name": "a", "features": asked, "train": {"epochs": 1}}, "x")
    record, _ = train_run(own, spec, tmp_path / "runs", device="cpu")
    note = "Fewer than 3 training faces labelled 'calm' have stream 'action_units': its baseline is their mean"
    assert any(note in line for line in record.notes) == noted


# --------------------------------------------------------------------------------------------- how far it is


class Follower:
    def __init__(self):
        self.states = []

    def update(self, state):
        self.states.append(state)


def test_who_follows_is_told_of_runs_epochs_speed_and_the_best(cache, tmp_path):
    by_f1 = {"select": "macro_f1"}
    specs = [
        run_spec(name="a", train=by_f1),
        run_spec(name="b", train={"seed": 1, **by_f1}),
        run_spec("resnet50", name="c", train=by_f1),
    ]
    train_run(cache, specs[1], tmp_path / "runs", device="cpu")
    follower = Follower()
    with followed(follower):
        found = train_runs(cache, specs, tmp_path / "runs", device="cpu")
    told = [state for state in follower.states if isinstance(state, TrainingState)]
    assert {(state.what, state.total) for state in told} == {("training", 3)}
    assert [state.runs for state in told] == sorted(state.runs for state in told)
    assert (told[0].runs, told[0].epoch, told[0].work) == (1, 0, 0.0)  # the one that was found
    assert (told[-1].runs, told[-1].heads, told[-1].work) == (3, 2, 1.0)
    assert {state.epoch for state in told if state.epochs == 4} == {0, 1, 2, 3, 4}
    work = [state.work for state in told]
    assert work == sorted(work)
    rows = [found[index][0].rows["train"]["rows"] for index in (0, 2)]
    assert told[-1].rows == 4 * sum(rows)
    entries = {record.name: record.history for record, _ in (found[0], found[2])}
    scores = {name: max(entry["val_macro_f1"] for entry in history) for name, history in entries.items()}
    assert told[-1].best[1] == max(scores.values())
    assert scores[told[-1].best[0]] == told[-1].best[1]
    during = [state.losses for state in told if state.losses is not None]
    means = [np.mean([history[-1][loss] for history in entries.values()]) for loss in ("train_loss", "val_loss")]
    assert during[-1] == pytest.approx(tuple(means))  # both train in one group


def test_who_follows_is_told_that_features_are_read_standardised_and_runs_scored(cache, tmp_path):
    follower = Follower()
    with followed(follower):
        train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    ended = [state for state in follower.states if isinstance(state, StepState) and state.ended]
    assert {state.what for state in ended} == {
        "planning",
        "reading features of resnet50",
        "reading features of action_units",
        "standardising resnet50",
        "scoring",
    }
    (standardised,) = {(state.done, state.total) for state in ended if state.what == "standardising resnet50"}
    assert standardised == (cache.layout.blocks, cache.layout.blocks)


def test_runs_that_are_found_are_not_told_of(cache, tmp_path):
    train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    follower = Follower()
    with followed(follower):
        train_run(cache, run_spec(), tmp_path / "runs", device="cpu")
    assert follower.states == []


def test_the_best_by_loss_is_the_lowest(cache, tmp_path):
    follower = Follower()
    with followed(follower):
        record, _ = train_run(cache, run_spec(train={"select": "loss"}), tmp_path / "runs", device="cpu")
    last = follower.states[-1]
    assert (last.select, last.best) == ("loss", ("small", min(entry["val_loss"] for entry in record.history)))


def test_a_run_that_diverges_is_done_too(cache, tmp_path):
    follower = Follower()
    with followed(follower):
        try_runs(cache, [run_spec(train={"learning_rate": 1e30})], tmp_path / "runs", device="cpu")
    assert (follower.states[-1].runs, follower.states[-1].total) == (1, 1)


def test_options_that_a_solved_head_does_not_use_are_noted(cache, tmp_path):
    rare = {"class_weights": "balanced", "focal_gamma": 2.0, "mixup": 0.2, "stream_dropout": 0.1, "ema": 0.9}
    notes = {}
    for kind in ("logistic", "kernel_ridge"):
        plain = {"name": kind, "features": {"streams": ["resnet50"]}, "head": kind, "train": rare}
        spec = parse_spec(RunSpec, plain, "test")
        notes[kind] = train_run(cache, spec, tmp_path / "runs", device="cpu")[0].notes
    ending = "focal_gamma, ema, stream_dropout, mixup of its training had no effect."
    assert f"The head is solved, and not trained: {ending}" in notes["logistic"]
    assert f"The head is solved, and not trained: class_weights, {ending}" in notes["kernel_ridge"]


def test_options_that_do_nothing_for_a_trained_head_are_noted(cache, tmp_path):
    idle = {"stream_dropout": 0.5, "schedule": "cosine", "warmup": 1.0, "batch_size": 10**6}
    record, _ = train_run(
        cache, run_spec(features={"streams": ["resnet50"]}, train=idle), tmp_path / "runs", device="cpu"
    )
    rows = record.rows["train"]["rows"]
    assert {
        "The head has one stream, which every row keeps: stream_dropout of its training had no effect.",
        "The learning rate rose until the last step (warmup: 1): schedule: cosine had no effect.",
        f"A batch of 1000000 holds all {rows} training rows: each epoch was one step.",
    } <= set(record.notes)
    busy, _ = train_run(
        cache, run_spec(train={**idle, "warmup": 0.5, "batch_size": rows}), tmp_path / "runs", device="cpu"
    )
    assert not [note for note in busy.notes if "no effect" in note or "one step" in note]


def test_extreme_options_together_train_to_a_finite_end(cache, tmp_path):
    extremes = [
        {"mixup": 0.4, "stream_dropout": 0.9, "warmup": 1.0},
        {"mixup": 1e300, "clip_norm": 1e-9, "focal_gamma": 50.0},
        {"mixup": 1e-12, "clip_norm": 1e-300, "label_smoothing": 0.99},
        {"ema": 0.9999, "epochs": 3, "schedule": "cosine"},
        {"batch_size": 10**9, "mixup": 1.0, "gradient_balancing": "on"},
        {"logit_adjustment": 100.0, "class_weights": "balanced", "patience": 1},
    ]
    for kind in ("concat", "late"):
        specs = [run_spec(name=f"{index}", head=kind, train=train) for index, train in enumerate(extremes)]
        for record, _ in train_runs(cache, specs, tmp_path / kind, device="cpu", memory_bytes=10**9):
            assert np.isfinite(record.metrics["test"]["loss"])
            assert all(np.isfinite(entry["train_loss"]) for entry in record.history)


def test_a_divergence_names_a_large_weight_decay(cache, tmp_path):
    large = {"weight_decay": 1e300, "optimizer": "adamw"}
    with pytest.raises(
        TrainingError, match=r"and weight_decay 1e\+300: .* Lower the weight decay or the learning rate"
    ):
        train_run(cache, run_spec(train=large), tmp_path / "runs", device="cpu")


def test_a_run_with_options_is_saved_with_them_and_one_without_has_the_digest_it_always_had(cache, tmp_path):
    options = {"class_weights": "sqrt", "schedule": "cosine", "ema": 0.9, "stream_dropout": 0.3, "mixup": 0.2}
    spec = run_spec(train=options)
    record, _ = train_run(cache, spec, tmp_path / "runs", device="cpu")
    assert options.items() <= record.spec["train"].items()
    assert parse_spec(RunSpec, record.spec, "run.json") == spec
    data = TrainingData.of(cache, spec.split, memory_bytes=10**9)
    off = {"class_weights": "none", "schedule": "constant", "ema": 0.0, "stream_dropout": 0.0, "mixup": 0.0}
    assert data.digest(run_spec(train=off)) == data.digest(run_spec())
    assert data.digest(spec) != data.digest(run_spec())
