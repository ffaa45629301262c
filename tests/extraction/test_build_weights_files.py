"""Weights that are a file of the user's: recorded by absolute path and hash, found by the hash where the file moved."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.models import mobilenet_v3_small

from emofuse.cache.reader import open_cache
from emofuse.checksum import hash_file
from emofuse.errors import WeightsError
from emofuse.extraction import BuildOptions
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.predict import Predictor
from emofuse.specs import read_pipeline_spec
from emofuse.status import Status
from emofuse.upkeep import compare_sample, repair_cache, retry_rows
from emofuse.weights import import_weights, weights_dir

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

PIPELINE = {
    "dataset": {
        "kind": "folder",
        "root": "pictures",
        "split": {"kind": "stratified", "train": 0.6, "val": 0.2, "test": 0.2},
    },
    "cache": {
        "block_rows": 8,
        "streams": [
            {
                "kind": "backbone",
                "name": "net",
                "model": "mobilenet_v3_small",
                "weights": {"kind": "file", "path": "mine/net.pth"},
            }
        ],
    },
    "runs": [
        {
            "name": "NET",
            "features": {"streams": ["net"]},
            "head": {"kind": "concat", "embed_dim": 4, "depth": 1, "width": 4},
            "train": {"epochs": 1, "batch_size": 8},
        }
    ],
    "references": "off",
}


@pytest.fixture(autouse=True)
def _own_weights_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOFUSE_WEIGHTS_DIR", str(tmp_path / "weights"))


def write_network(path, seed):
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(mobilenet_v3_small().state_dict(), path)
    return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A pipeline in a folder of its own, run from another one; its cache and one run lie in `out`."""
    folder = tmp_path / "project"
    for row in range(20):
        path = folder / "pictures" / ("fear", "joy")[row % 2] / f"{row:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(row).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    write_network(folder / "mine/net.pth", 1)
    (folder / "mine.yaml").write_text(yaml.safe_dump(PIPELINE))
    for name in ("elsewhere", "working"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    options = PipelineOptions(folder / "out", build=BuildOptions(workers=0, device="cpu"), device="cpu")
    run_pipeline(read_pipeline_spec(folder / "mine.yaml"), options, say=lambda _: None)
    monkeypatch.chdir(tmp_path / "working")
    return folder


def predict(project):
    run = next((project / "out/runs").glob("*/run.json")).parent
    with Predictor(run) as predictor:
        (prediction,) = predictor.predict([project / "pictures/joy/01.png"])
    return prediction.probs


def compare(project):
    return compare_sample(project / "out/features.zarr", 4, device="cpu")


def test_the_file_is_recorded_by_its_absolute_path_and_hash(project):
    file = project / "mine/net.pth"
    expected = {"kind": "file", "path": str(file), "sha256": hash_file(file)}
    assert open_cache(project / "out/features.zarr").streams["net"].spec["weights"] == expected
    (record,) = (project / "out/runs").glob("*/run.json")
    assert json.loads(record.read_text())["cache_spec"]["streams"][0]["weights"] == expected


@pytest.mark.parametrize("place", ["mine", "out", "out/runs/RUN", "out/runs", "weights folder"])
def test_predict_finds_a_file_that_has_moved_by_its_hash(project, place):
    before = predict(project)
    run = next((project / "out/runs").glob("*/run.json")).parent
    if place == "weights folder":
        import_weights(project / "mine/net.pth", "my_net")
    else:
        write_network(project / "out/runs" / "net.pth", 2)  # of the same name and other bytes
        shutil.copy(project / "mine/net.pth", project / place.replace("RUN", run.name) / "renamed.pth")
    (project / "mine/net.pth").unlink()
    assert predict(project) == before


def test_a_spec_with_the_hash_finds_the_file_at_training_too(project):
    """Moved to the weights folder, or gone: what is not there is said by path and hash."""
    sha256 = hash_file(project / "mine/net.pth")
    import_weights(project / "mine/net.pth", "my_net")
    (project / "mine/net.pth").unlink()
    asked = {"kind": "file", "path": "mine/net.pth", "sha256": sha256}
    stream = {**PIPELINE["cache"]["streams"][0], "weights": asked}
    text = yaml.safe_dump({**PIPELINE, "cache": {"block_rows": 8, "streams": [stream]}})
    (project / "mine.yaml").write_text(text)
    options = PipelineOptions(project / "new", build=BuildOptions(workers=0, device="cpu"), device="cpu")
    run_pipeline(read_pipeline_spec(project / "mine.yaml"), options, say=lambda _: None)
    recorded = open_cache(project / "new/features.zarr").streams["net"].spec["weights"]
    assert recorded == {"kind": "file", "path": str(weights_dir() / "my_net.pth"), "sha256": sha256}
    (weights_dir() / "my_net.pth").unlink()
    with pytest.raises(WeightsError, match=f"net.pth: the spec says SHA-256 {sha256}, and there is no such file"):
        run_pipeline(read_pipeline_spec(project / "mine.yaml"), options, say=lambda _: None)


def test_upkeep_finds_a_file_that_has_moved_beside_the_cache(project):
    (project / "mine/net.pth").rename(project / "out/net.pth")
    found = compare(project)
    assert (found.rows, found.differences) == (4, ())
    chunk = max((project / "out/features.zarr/streams/net/features").glob("c.*"))
    chunk.write_bytes(chunk.read_bytes()[:-4] + b"\0\1\2\3")
    options = BuildOptions(workers=0, device="cpu")
    assert repair_cache(project / "out/features.zarr", options).blocks == 1
    assert compare(project).differences == ()
    retry_rows(project / "out/features.zarr", [Status.OK], options)


@pytest.mark.parametrize("act", [predict, compare])
def test_another_file_in_its_place_is_never_taken(project, act):
    sha256 = hash_file(project / "mine/net.pth")
    other = hash_file(write_network(project / "mine/net.pth", 2))
    with pytest.raises(WeightsError) as error:
        act(project)
    assert str(error.value).startswith(
        f"{project}/mine/net.pth: the spec says SHA-256 {sha256}, the file has {other}; there is none with this "
    )
    assert str(error.value).endswith("emofuse weights import PATH --as NAME")
    (project / "mine/net.pth").unlink()
    with pytest.raises(WeightsError, match=f"the spec says SHA-256 {sha256}, and there is no such file; there is none"):
        act(project)


@pytest.mark.parametrize("act", [predict, compare])
def test_records_of_former_versions_are_held_against_the_hash_of_their_stream(project, act):
    """They have the path as it was written and no hash beside it; the stream's record of its weights has one."""
    sha256 = hash_file(project / "mine/net.pth")
    for record in (*project.rglob("run.json"), *project.rglob("zarr.json")):
        text = json.loads(record.read_text())
        for weights in _files_in(text):
            weights.update(path="mine/net.pth", sha256=None)
        record.write_text(json.dumps(text))
    with pytest.raises(WeightsError, match=f"the spec says SHA-256 {sha256}, and there is no such file"):
        act(project)
    (project / "mine/net.pth").rename(project / "out/net.pth")
    act(project)


def _files_in(value):
    """Every record of a file of weights in plain data."""
    if isinstance(value, dict):
        if value.get("kind") == "file" and "path" in value:
            yield value
        for each in value.values():
            yield from _files_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from _files_in(each)
