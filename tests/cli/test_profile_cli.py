"""`emofuse profile` from its options to its tables."""

from __future__ import annotations

import json

import pytest
import typer
import yaml
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.errors import DatasetError, ProfileError, SpecError


@pytest.fixture
def pipeline(tmp_path, face):
    runs = [{"name": "LBP", "features": {"streams": ["lbp"]}, "head": {"kind": "linear"}}]
    data = {"dataset": {"kind": "demo"}, "cache": {"face": face, "streams": [{"kind": "lbp"}]}, "runs": runs}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def call(*options, **how):
    return CliRunner().invoke(app, ["profile", *map(str, options)], catch_exceptions=False, **how)


def test_the_tables_are_printed_and_written(pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ["--images", "3", "--rows", "20", "--classes", "4", "--repeats", "2", "--device", "cpu", "--threads", "1"]
    done = call(pipeline, *quick, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("# Efficiency of small\n")
    assert "- Heads train on 20 synthetic rows with 4 labels, not on a cache." in done.stdout
    assert "not counted" in done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith("measuring")]
    assert lines[:2] == ["configuration 1/1: LBP, images to probabilities", "configuration 1/1: LBP, head"]
    assert lines[2:] == [str(tmp_path / "out" / f"profile.{suffix}") for suffix in ("json", "csv", "md")]
    data = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert data["conditions"]["threads"] == 1
    (figures,) = data["configurations"]
    assert [timing["batch"] for timing in figures["path"]["whole"]] == [1, 64]
    assert figures["head"]["epoch"]["train_rows"] == 20


def test_the_cache_of_the_pipeline_is_found_where_run_has_it(pipeline, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "emofuse.profile.profile_pipeline", lambda spec, options, say: seen.update(vars(options)) or 1 / 0
    )
    built = tmp_path / "emofuse-runs" / "small" / "features.zarr"
    for rows, exists, cache in (((), False, None), ((), True, built), (("--rows", 9), True, None)):
        if exists:
            built.mkdir(parents=True, exist_ok=True)
        with pytest.raises(ZeroDivisionError):
            call(pipeline, *rows)
        assert (seen["cache"] and seen["cache"].absolute(), seen["rows"]) == (cache, 9 if rows else 2048)


def test_an_unknown_pipeline_is_told_with_those_that_there_are():
    with pytest.raises(SpecError, match=r"no pipeline of this name, did you mean 'demo'\? \(there are: .*demo"):
        call("demoo")


def test_a_wrong_folder_of_images_is_told(pipeline, tmp_path):
    with pytest.raises(DatasetError, match="nowhere: no such image or folder"):
        call(pipeline, "--data", tmp_path / "nowhere", "--rows", 20)


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_measured(pipeline, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ProfileError, match=r"file: cannot make this folder \(File exists\)\. Name another with --out"):
        call(pipeline, "--out", tmp_path / "file")


def test_rows_are_a_cache_s_or_synthetic(pipeline, tmp_path):
    with pytest.raises(typer.BadParameter, match="heads train either on the rows of --cache or on synthetic ones"):
        call(pipeline, "--cache", tmp_path / "features.zarr", "--rows", 20, standalone_mode=False)
