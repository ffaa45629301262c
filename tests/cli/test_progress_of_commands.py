"""Every command that can take long says how far it is: here as if each had, by lines without a pause."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.cli.lines import Lines
from emofuse.status import Status

LABELS = np.random.default_rng(0).integers(0, 2, 60)
SPLITS = ["train", "train", "train", "val", "test"] * 12


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr("emofuse.cli.progress.Lines", lambda: Lines(seconds_between=0))


@pytest.fixture
def new_cache(tmp_path, write_cache):
    def write(name: str, kind: str, dim: int):
        features = np.random.default_rng(1).random((60, dim)).astype(np.float32)
        streams = {name: (kind, features, np.full(60, Status.OK, np.uint8))}
        return write_cache(tmp_path / f"{name}.zarr", ("joy", "fear"), LABELS, SPLITS, streams)

    return write


@pytest.fixture
def cache(new_cache):
    return new_cache("resnet50", "backbone", 4)


def said(*arguments: object) -> tuple[list[str], str]:
    """What a command says of its progress, without times, and its results."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [line.split(",")[0].split(":")[0] for line in done.stderr.splitlines()], done.stdout


def test_exchange_and_checks_of_a_cache(cache, tmp_path, new_cache):
    assert "exporting" in said("cache", "export", cache, "--to", "npz")[0]
    assert "checking" in said("cache", "verify", cache)[0]
    assert "copying" in said("cache", "copy", cache, tmp_path / "copy.zarr")[0]
    vectors = np.ones((60, 2), np.float32)
    np.savez(tmp_path / "x.npz", features=vectors, sample_ids=np.array([f"s{row:04}" for row in range(60)]))
    assert "importing" in said("cache", "import", cache, "--file", tmp_path / "x.npz", "--name", "x")[0]
    other = new_cache("lbp", "lbp", 512)
    assert "merging" in said("cache", "merge", tmp_path / "both.zarr", tmp_path / "copy.zarr", other)[0]


def test_training_and_reports(cache, tmp_path):
    runs = tmp_path / "runs"
    quick = ["--epochs", "2", "--width", "8", "--depth", "1", "--device", "cpu", "--runs", runs]
    lines, results = said("train", "--cache", cache, "--streams", "resnet50", *quick)
    assert {"reading features of resnet50", "standardising resnet50", "0 of 1 runs", "1 of 1 runs"} <= set(lines)
    assert results.startswith("resnet50: trained in ")
    lines, results = said("report", runs)
    assert "writing the report" in lines
    assert "writing the report" not in results


def test_a_look_at_a_dataset(tmp_path):
    for place, label in enumerate(("joy", "fear")):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(12):
            pixels = np.full((40, 40, 3), 20 * number + place, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    lines, results = said("dataset", "check", "folder", "--data", tmp_path / "images", "--split", "stratified")
    assert {"reading the dataset", "reading headers of images", "comparing files"} <= set(lines)
    assert results.startswith("folder dataset at")


def test_the_demo_dataset(tmp_path):
    lines, results = said("dataset", "demo", "--out", tmp_path / "demo", "--images", 24)
    assert "drawing the demo dataset" in lines
    assert results.startswith("24 images")
