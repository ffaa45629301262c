"""`emofuse sweep best`, as a user calls it."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.results import list_runs


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    features = rng.normal(size=(120, 3)).astype(np.float32) + labels[:, None]
    streams = {"one": ("backbone", features, np.ones(120, np.uint8))}
    splits = rng.choice(["train", "val", "test"], 120).tolist()
    return write_cache(tmp_path_factory.mktemp("cache") / "features.zarr", ("calm", "glad"), labels, splits, streams)


def invoke(*arguments):
    return CliRunner().invoke(app, ["sweep", "best", *map(str, arguments)])


def test_a_cache_and_some_minutes_lead_to_one_recommended_run(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(cache, "--minutes", "0.1", "--device", "cpu")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "emofuse-runs" / "best-features"
    (record,) = list_runs(folder / "runs")
    assert f"Recommended: {record.name}, because its accuracy" in result.output
    assert "Use it: emofuse predict emofuse-runs/best-features/runs/" in result.output
    assert (folder / "report" / "index.html").is_file()


def test_a_dry_run_prints_the_stages_and_writes_nothing(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(cache, "--dry-run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "10 minutes, 5 folds, candidates compared by accuracy" in result.output
    assert "refine " in result.output
    assert not (tmp_path / "emofuse-runs").exists()


def test_the_official_split_takes_no_seed(cache):
    result = invoke(cache, "--split-seed", "1")
    assert result.exit_code == 2
    assert "the official split has no seed" in result.output


def test_a_single_outer_fold_is_refused(cache):
    result = invoke(cache, "--test-folds", "1")
    assert result.exit_code == 2
    assert "one fold would hold all rows" in result.output


def test_its_help_is_its_own_and_the_command_of_one_word_stays(tmp_path):
    assert "--minutes" in invoke("--help").output
    plain = CliRunner().invoke(app, ["sweep", "--help"]).output
    assert "--minutes" not in plain
    assert "--scheduler" in plain
    missing = CliRunner().invoke(app, ["sweep", "bestt"])
    assert "bestt" in str(missing.exception)
