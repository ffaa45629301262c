"""A small pipeline with runs of face streams, picture streams and both, and videos of a real face that moves."""

from __future__ import annotations

import pytest
from face_videos import RUNS, SIZE, scene
from media_files import write_clip
from PIL import Image

from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.extraction import BuildOptions, build_cache
from emofuse.predict import Predictor
from emofuse.results import run_dir
from emofuse.specs import CacheSpec, FolderSpec, RunSpec, StratifiedSplit, parse_spec
from emofuse.training.runs import train_runs

_HEAD = {"embed_dim": 8, "width": 8}
_NET = {"kind": "backbone", "model": "squeezenet1_1", "weights": {"kind": "random", "seed": 1}}


@pytest.fixture(scope="session")
def runs(tmp_path_factory, session_face):
    """Name -> folder of a saved run, see `RUNS`: of 20 small pictures of one face, bright ones and dark ones."""
    out = tmp_path_factory.mktemp("runs")
    for number in range(20):
        label = ("bright", "dark")[number % 2]
        path = out / "data" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = 100 + 3 * number
        picture = scene([(10, 5)], size=(side + 20, side + 10), side=side)
        Image.fromarray(picture if label == "bright" else picture // 2).save(path)
    streams = [{"kind": "action_units"}, {"kind": "landmarks"}, _NET, {**_NET, "region": "face"}]
    spec = parse_spec(CacheSpec, {"face": session_face, "streams": streams}, "test")
    manifest = read_dataset(FolderSpec(root=str(out / "data"), split=StratifiedSplit()))
    build_cache(out / "cache.zarr", manifest, spec, BuildOptions(workers=0, device="cpu"))
    specs = [
        parse_spec(
            RunSpec, {"name": name, "features": {"streams": of_run}, "train": {"epochs": 1}, "head": _HEAD}, name
        )
        for name, of_run in RUNS.items()
    ]
    trained = train_runs(open_cache(out / "cache.zarr"), specs, out / "runs", device="cpu")
    return {record.spec["name"]: run_dir(out / "runs", record.digest) for record, _ in trained}


@pytest.fixture(scope="session")
def open_run(runs):
    """Opens a run by name, once for all tests."""
    opened = {}

    def open_(name):
        if name not in opened:
            opened[name] = Predictor(runs[name])
        return opened[name]

    yield open_
    for predictor in opened.values():
        predictor.close()


@pytest.fixture(scope="session")
def face_video(tmp_path_factory):
    """A video of 20 frames of a face that moves to the right, but frames 8 to 11 show none; with sound."""
    path = tmp_path_factory.mktemp("video") / "face.mp4"

    def picture(number, width, height):
        return scene([] if 8 <= number < 12 else [(10 + 5 * number, 40)], (width, height))

    return write_clip(path, frames=20, size=SIZE, picture=picture, sound="aac")
