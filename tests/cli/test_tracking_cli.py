"""`--log-to` of commands that train, and `emofuse results log`, as a user calls them."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from saved_runs import made_up_record, write_made_up_run
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.errors import ResultsError, TrackingError
from emofuse.results import list_runs

pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
SWEEP = {
    "base": {"head": {"embed_dim": 4, "width": 4, "depth": 1}, "train": {"epochs": 2, "batch_size": 16}},
    "factors": {"streams": "all"},
    "references": "off",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    features = rng.normal(size=(120, 3)).astype(np.float32) + labels[:, None]
    streams = {name: ("backbone", features, np.ones(120, np.uint8)) for name in ("one", "two")}
    splits = rng.choice(["train", "val", "test"], 120).tolist()
    return write_cache(tmp_path_factory.mktemp("cache") / "features.zarr", ("calm", "glad"), labels, splits, streams)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def logged(folder):
    return sorted(path.name.rpartition("-")[0] for path in (folder / "tensorboard").iterdir())


def train(cache, *words):
    return call("train", "--cache", cache, "--streams", "one", "--epochs", "1", "--device", "cpu", *words)


def test_train_logs_its_run_and_one_that_exists_is_not_logged_twice(cache, tmp_path):
    for number in (1, 0):
        done = train(cache, "--log-to", "tensorboard")
        assert done.exit_code == 0, done.output
        assert f"tensorboard: {number} of 1 entries logged" in done.output
    assert logged(tmp_path) == ["one_seed_0"]


def test_a_tracker_that_fails_costs_no_run_and_the_command_in_its_message_logs_it(cache, tmp_path):
    (tmp_path / "tensorboard").write_text("a file is in the way")
    done = train(cache, "--log-to", "tensorboard")
    assert done.exit_code == 1
    assert isinstance(done.exception, TrackingError)
    assert len(list_runs(tmp_path / "runs")) == 1
    assert "one: trained in" in done.output
    again = re.search(r"Log them again: emofuse (.*)$", str(done.exception))[1]
    (tmp_path / "tensorboard").unlink()
    assert call(*again.split()).exit_code == 0
    assert logged(tmp_path) == ["one_seed_0"]


def test_a_package_that_is_missing_is_an_error_before_any_training(cache, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "emofuse.tracking.wandb", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SWEEP))
    commands = [
        ["train", "--cache", cache, "--streams", "one"],
        ["sweep", tmp_path / "s.yaml", "--cache", cache],
        ["sweep", "best", cache],
        ["run", "demo"],
    ]
    for command in commands:
        done = call(*command, "--log-to", "wandb")
        assert done.exit_code == 1
        assert "Install it: pip install 'emofuse[wandb]'" in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.yaml"]


def test_a_sweep_that_is_continued_logs_its_final_runs_and_its_report_once(cache, tmp_path):
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SWEEP))
    command = ("sweep", "s.yaml", "--cache", cache, "--device", "cpu", "--log-to", "tensorboard")
    first, second = call(*command), call(*command)
    names = logged(tmp_path / "emofuse-runs" / "s")
    assert len(names) == len(list_runs(tmp_path / "emofuse-runs" / "s" / "runs")) + 1
    assert "report_s" in names
    assert f"tensorboard: {len(names)} of {len(names)} entries logged" in first.output
    assert f"tensorboard: 0 of {len(names)} entries logged, {len(names)} logged before" in second.output
    searched = call("results", "log", "emofuse-runs/s", "--to", "tensorboard", "--searched")
    assert f"tensorboard: 3 of {len(names) + 3} entries logged, {len(names)} logged before" in searched.output


def test_a_pipeline_logs_its_runs_reference_models_and_report(tmp_path, monkeypatch):
    out = tmp_path / "emofuse-runs" / "demo"
    records = [write_made_up_run(out / "runs", "net")]
    references = [write_made_up_run(out / "runs", "ridge", spec={**made_up_record().spec, "reference": True})]
    write_made_up_run(out / "runs", "of a former file")
    (out / "report").mkdir()
    for name in ("index.html", "summary.md"):
        (out / "report" / name).write_text("text")
    report = SimpleNamespace(summary_markdown=out / "report" / "summary.md")
    summary = SimpleNamespace(records=records, references=references, report=report)
    monkeypatch.setattr("emofuse.pipeline.run_pipeline", lambda *_, **__: summary)
    done = call("run", "demo", "--log-to", "tensorboard")
    assert done.exit_code == 0, done.output
    assert "tensorboard: 3 of 3 entries logged" in done.output
    names = logged(out)
    assert {"net_seed_0", "ridge_seed_0"} <= set(names)
    assert sum(name.startswith("report_") for name in names) == 1


def test_saved_runs_are_logged_afterwards(tmp_path):
    write_made_up_run(tmp_path / "out" / "runs", "net")
    assert call("results", "log", "out", "--to", "tensorboard").exit_code == 0
    assert logged(tmp_path / "out") == ["net_seed_0"]
    assert "1 logged before" in call("results", "log", "out/runs", "--to", "tensorboard").output


def test_a_folder_without_runs_and_an_unknown_tracker_are_named(tmp_path):
    (tmp_path / "out" / "runs").mkdir(parents=True)
    done = call("results", "log", "out", "--to", "tensorboard")
    assert isinstance(done.exception, ResultsError)
    assert "no saved runs in this folder" in str(done.exception)
    assert call("results", "log", "out", "--to", "comet").exit_code == 2
    assert "Missing option '--to'" in call("results", "log", "out").output
