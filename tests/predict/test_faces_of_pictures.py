"""A run whose cache gives each face a row predicts each face of a picture."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from face_videos import scene
from PIL import Image

from emofuse.cache.reader import open_cache
from emofuse.cli.predict import as_text
from emofuse.datasets import read_dataset
from emofuse.extraction import BuildOptions, build_cache
from emofuse.predict import Predictor
from emofuse.predict.rows import RowTable
from emofuse.results import run_dir
from emofuse.specs import CacheSpec, FolderSpec, RunSpec, StratifiedSplit, parse_spec
from emofuse.training.runs import train_runs

STREAMS = [
    {"kind": "landmarks"},
    {"kind": "lbp", "region_px": 32},
    {"kind": "backbone", "model": "squeezenet1_1", "weights": {"kind": "random"}, "region": "face", "dtype": "float32"},
]
NAMES = ["landmarks", "lbp", "squeezenet1_1-face"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, has_face_mesh):
    """A cache of ten pictures with two faces each, and the folder of a run on it."""
    if not has_face_mesh:
        pytest.skip("Face Mesh is in MediaPipe 0.10.x alone")
    out = tmp_path_factory.mktemp("all")
    for number in range(10):
        label = ("bright", "dark")[number % 2]
        path = out / "data" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = scene([(5, 20)], size=(360, 220), side=140 + number)
        picture[60:160, 220:320] = scene([(0, 0)], size=(100, 100), side=100)
        Image.fromarray(picture if label == "bright" else picture // 2).save(path)
    spec = parse_spec(CacheSpec, {"face": {"which": "all", "size_px": 64}, "streams": STREAMS}, "test")
    manifest = read_dataset(FolderSpec(root=str(out / "data"), split=StratifiedSplit()))
    build_cache(out / "cache.zarr", manifest, spec, BuildOptions(workers=0, device="cpu"))
    cache = open_cache(out / "cache.zarr")
    run = {
        "name": "faces",
        "features": {"streams": NAMES},
        "train": {"epochs": 1},
        "head": {"embed_dim": 8, "width": 8},
    }
    (record, _), *_ = train_runs(cache, [parse_spec(RunSpec, run, "run")], out / "runs", device="cpu")
    return cache, out / "data", run_dir(out / "runs", record.digest)


def test_every_face_of_a_picture_has_a_prediction_and_it_is_that_of_its_row(trained, tmp_path):
    cache, root, run = trained
    table = cache.manifest.table
    rows = table.with_row_index().filter(pl.col("path").str.ends_with("/3.png"))
    assert rows["sample_id"].str.slice(-2).to_list() == ["#1", "#2"]
    empty = tmp_path / "empty.png"
    Image.fromarray(np.full((120, 160, 3), 90, np.uint8)).save(empty)
    with Predictor(run) as predictor:
        first, second, nobody = predictor.predict([root / rows["path"][0], empty])
        features, status = {}, {}
        for name in NAMES:
            features[name], status[name] = cache.streams[name].read()
        cached = predictor._trained.outputs(features, status, dict.fromkeys(NAMES))
        text_row = RowTable(predictor).of_file(first)
    for prediction, row in ((first, rows["index"][0]), (second, rows["index"][1])):
        probs = [prediction.probs[label] for label in predictor.record.classes]
        assert probs == pytest.approx(cached[row].tolist(), abs=1e-5)
        assert prediction.face is True
        assert len(prediction.action_units) > 0
    assert first.face_box[0] < 60 < 200 < second.face_box[0]
    assert first.to_json()["face_box"] == list(first.face_box)
    assert text_row["right"] == pytest.approx(first.face_box[0] + first.face_box[2])
    assert "face: found at (" in as_text(first)
    assert (nobody.face, nobody.face_box) == (False, None)
    assert "face_box" not in nobody.to_json()
    assert set(nobody.missing) == set(NAMES)
