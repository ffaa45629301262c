"""Heads of unfinished runs: an interrupted ensemble goes on from the heads that it had, to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from emofuse.results import list_runs, read_predictions, read_weights, run_dir
from emofuse.specs import RunSpec, parse_spec
from emofuse.training import planning
from emofuse.training import runs as runs_module
from emofuse.training.kept_heads import FOLDER, KeptHead, KeptHeads
from emofuse.training.members import MemberResult
from emofuse.training.runs import train_run, train_runs
from emofuse.training.targets import TargetScale

SCRIPT = Path(__file__).with_name("ensemble_script.py")
ENSEMBLE = {"ensemble": {"folds": 3}}
SEEDS_AGAIN = {"ensemble": {"seeds": [0, 1, 2]}, "refit": "train_val"}


def written_spec(**changes):
    plain = {
        "name": "small",
        "features": {"streams": ["resnet50", "action_units"]},
        "head": {"kind": "concat", "embed_dim": 8, "width": 8, "depth": 1},
        "train": {"epochs": 3, "batch_size": 16, "learning_rate": 1e-2},
    }
    return {**plain, **changes}


def spec_of(**changes):
    return parse_spec(RunSpec, written_spec(**changes), "test")


@pytest.fixture
def cache(tmp_path, plant_cache):
    return plant_cache(tmp_path / "features.zarr")


@pytest.fixture
def groups_of_one(monkeypatch):
    """Every head forms a group of its own, as large heads do."""
    monkeypatch.setattr(planning, "LONGEST_S", 0.0)
    monkeypatch.setattr(planning, "LONGEST_ALONE", 0.0)


@pytest.fixture
def trained_heads(monkeypatch):
    """The number of heads of each group that is trained."""
    counts = []
    train_together = runs_module.train_together

    def counting(data, specs, *arguments, **options):
        counts.append(len(specs))
        return train_together(data, specs, *arguments, **options)

    monkeypatch.setattr(runs_module, "train_together", counting)
    return counts


def interrupt_after(groups):
    """A function that is called in each epoch and ends training as Ctrl-C does, in the group after so many."""
    begun = []

    def on_epoch(entry):
        begun.extend([entry] * (entry["epoch"] == 1))
        if len(begun) > groups:
            raise KeyboardInterrupt

    return on_epoch


def kept(runs):
    return sorted(path.name for path in runs.glob(f"{FOLDER}/*/*"))


def assert_same_run(folder, other):
    ours, theirs = read_weights(folder), read_weights(other)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert np.array_equal(read_predictions(folder).probs, read_predictions(other).probs)
    records = [json.loads((each / "run.json").read_text()) for each in (folder, other)]
    for record in records:
        for changing in ("seconds", "created"):
            del record[changing]
        record["costs"].pop("together", None)
        for refit in record.get("refit", []):
            del refit["seconds"]
    assert records[0] == records[1]


@pytest.mark.usefixtures("groups_of_one")
@pytest.mark.parametrize("changes", [ENSEMBLE, {"ensemble": {"seeds": [0, 4, 7]}}, SEEDS_AGAIN])
def test_an_interrupted_ensemble_goes_on_from_the_heads_that_it_had(cache, tmp_path, trained_heads, changes):
    runs, spec = tmp_path / "runs", spec_of(**changes)
    with pytest.raises(KeyboardInterrupt):
        train_run(cache, spec, runs, device="cpu", on_epoch=interrupt_after(2))
    again = ["refit-0.safetensors", "refit-1.safetensors"] if "refit" in changes else []
    assert kept(runs) == ["head-0.safetensors", "head-1.safetensors", *again]
    assert list_runs(runs) == []
    trained_heads.clear()
    record, trained_now = train_run(cache, spec, runs, device="cpu")
    assert trained_now
    assert trained_heads == [1, 1] if "refit" in changes else [1]
    assert not (runs / FOLDER).exists()
    whole, _ = train_run(cache, spec, tmp_path / "whole", device="cpu")
    assert_same_run(run_dir(runs, record.digest), run_dir(tmp_path / "whole", whole.digest))


@pytest.mark.usefixtures("groups_of_one")
def test_a_second_training_is_taken_up_where_only_the_first_is_there(cache, tmp_path, trained_heads):
    runs, spec = tmp_path / "runs", spec_of(refit="train_val")
    whole, _ = train_run(cache, spec, tmp_path / "whole", device="cpu")
    trained_heads.clear()
    train_together = runs_module.train_together

    def interrupted(data, specs, *arguments, **options):
        if trained_heads:
            raise KeyboardInterrupt
        return train_together(data, specs, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs_module, "train_together", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_run(cache, spec, runs, device="cpu")
    assert kept(runs) == ["head-0.safetensors"]
    trained_heads.clear()
    record, _ = train_run(cache, spec, runs, device="cpu")
    assert trained_heads == [1]
    assert_same_run(run_dir(runs, record.digest), run_dir(tmp_path / "whole", whole.digest))


@pytest.mark.usefixtures("groups_of_one")
@pytest.mark.parametrize(("ending", "held"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 2)])
def test_a_process_that_is_ended_in_the_middle_leaves_its_heads_to_the_next(
    cache, tmp_path, trained_heads, ending, held
):
    runs, plain = tmp_path / "runs", written_spec(**ENSEMBLE)
    command = [sys.executable, str(SCRIPT), str(cache.path), str(runs), str(held), json.dumps(plain)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 600
        while len(kept(runs)) < held:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(ending)
        process.wait(timeout=600)
    finally:
        process.kill()
        process.wait()
    assert kept(runs) == [f"head-{number}.safetensors" for number in range(held)]
    record, _ = train_run(cache, spec_of(**ENSEMBLE), runs, device="cpu")
    assert trained_heads == [1] * (3 - held)
    assert not (runs / FOLDER).exists()
    whole, _ = train_run(cache, spec_of(**ENSEMBLE), tmp_path / "whole", device="cpu")
    assert_same_run(run_dir(runs, record.digest), run_dir(tmp_path / "whole", whole.digest))


@pytest.mark.usefixtures("groups_of_one")
def test_a_kept_head_that_is_damaged_or_of_another_run_is_trained_again(cache, tmp_path, trained_heads):
    runs, spec = tmp_path / "runs", spec_of(**ENSEMBLE)
    with pytest.raises(KeyboardInterrupt):
        train_run(cache, spec, runs, device="cpu", on_epoch=interrupt_after(2))
    first, second = sorted(runs.glob(f"{FOLDER}/*/*"))
    damaged = bytearray(first.read_bytes())
    damaged[-5] ^= 1
    first.write_bytes(damaged)
    second.write_bytes(second.read_bytes()[:-100])
    trained_heads.clear()
    record, _ = train_run(cache, spec, runs, device="cpu")
    assert trained_heads == [1, 1, 1]
    whole, _ = train_run(cache, spec, tmp_path / "whole", device="cpu")
    assert_same_run(run_dir(runs, record.digest), run_dir(tmp_path / "whole", whole.digest))


def test_all_of_a_result_is_kept_and_read_for_its_own_run_alone(tmp_path):
    scale = TargetScale(np.float32([1.5, -2.0]), np.float32([0.1, 3.0]))
    history = [{"epoch": 1, "val_loss": 0.1, "branch_norms": {"lbp": 1 / 3}}, {"epoch": 2, "val_loss": 0.2}]
    result = MemberResult({"w": np.ones(3, np.float32), "late": np.float32(2)}, history, 1, 2, "patience", scale)
    assert all(getattr(result, each.name) != each.default for each in fields(MemberResult))  # all are tried
    heads = KeptHeads(tmp_path)
    heads.write("a" * 64, "head-0", KeptHead(result, 1.5))
    read = heads.read("a" * 64, "head-0")
    assert read.seconds == 1.5
    assert read.result.weights.keys() == result.weights.keys()
    for name, array in result.weights.items():
        np.testing.assert_array_equal(read.result.weights[name], array)
        assert read.result.weights[name].shape == array.shape
    assert all(np.array_equal(vars(read.result.target_scale)[name], array) for name, array in vars(scale).items())
    rest = {each.name for each in fields(MemberResult)} - {"weights", "target_scale"}
    assert all(getattr(read.result, name) == getattr(result, name) for name in rest)
    assert heads.read("a" * 16 + "b" * 48, "head-0") is None


@pytest.mark.usefixtures("groups_of_one")
def test_runs_of_one_training_and_complete_ones_keep_nothing(cache, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(KeptHeads, "write", lambda _, digest, name, head: written.append(name))
    train_runs(cache, [spec_of(), spec_of(name="other", train={"epochs": 1})], tmp_path / "runs", device="cpu")
    assert written == []
    train_run(cache, spec_of(**ENSEMBLE), tmp_path / "runs", device="cpu")
    assert written == ["head-0", "head-1"]


@pytest.mark.usefixtures("groups_of_one")
def test_a_disk_that_refuses_to_keep_a_head_does_not_end_training(cache, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / FOLDER).write_text("a file in the place of the folder")
    record, _ = train_run(cache, spec_of(**ENSEMBLE), runs, device="cpu")
    assert len(record.heads) == 3


@pytest.mark.usefixtures("groups_of_one")
def test_kept_heads_of_a_run_that_exists_are_removed(cache, tmp_path):
    runs, spec = tmp_path / "runs", spec_of(**ENSEMBLE)
    with pytest.raises(KeyboardInterrupt):
        train_run(cache, spec, runs, device="cpu", on_epoch=interrupt_after(1))
    (left,) = runs.glob(f"{FOLDER}/*/*")
    content = left.read_bytes()
    train_run(cache, spec, runs, device="cpu")
    left.parent.mkdir(parents=True)
    left.write_bytes(content)  # as if killed after the run was written
    _, trained_now = train_run(cache, spec, runs, device="cpu")
    assert not trained_now
    assert not (runs / FOLDER).exists()


@pytest.mark.usefixtures("groups_of_one")
def test_an_ensemble_whose_heads_are_all_kept_is_scored_and_written(cache, tmp_path, trained_heads):
    runs, spec = tmp_path / "runs", spec_of(**ENSEMBLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs_module.RunInTraining, "is_complete", False)  # as for each of two calls that share the heads
        with pytest.raises(KeyError):
            train_run(cache, spec, runs, device="cpu")
    assert kept(runs) == [f"head-{number}.safetensors" for number in range(3)]
    trained_heads.clear()
    record, trained_now = train_run(cache, spec, runs, device="cpu")
    assert trained_now
    assert trained_heads == []
    assert len(record.heads) == 3
    assert not (runs / FOLDER).exists()
