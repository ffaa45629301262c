"""Backbones and head in one ONNX graph, from uint8 pictures, against the prediction of the same files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.errors import ResultsError
from emofuse.extraction import BuildOptions, build_cache
from emofuse.onnx_export import export_onnx
from emofuse.onnx_export.backbone import PIXELS
from emofuse.onnx_export.check import BACKBONE_TOLERANCE, OnnxModel
from emofuse.predict import Predictor, find_model
from emofuse.results import run_dir
from emofuse.specs import CacheSpec, FolderSpec, RunSpec, parse_spec
from emofuse.training.runs import train_runs

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RANDOM = {"kind": "random", "seed": 0}
NETWORK = {"kind": "backbone", "model": "mobilenet_v3_small", "weights": RANDOM, "name": "net"}
HERE = BuildOptions(workers=0, device="cpu")


def picture(path, label, rng, size=(90, 70)):
    pixels = rng.integers(0, 160, (*size, 3), dtype=np.uint8)
    pixels[..., label] += 90
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for label, name in enumerate(("red", "green", "blue")):
            for number in range(count):
                picture(root / split / name / f"{split}-{name}-{number}.png", label, rng)
    return root


@pytest.fixture(scope="module")
def train(data, tmp_path_factory):
    """Trains a run on streams of the pictures and gives its folder."""

    def run(*streams):
        out = tmp_path_factory.mktemp("run")
        spec = parse_spec(CacheSpec, {"name": "nets", "streams": list(streams)}, "nets.yaml")
        build_cache(out / "features.zarr", read_dataset(FolderSpec(root=data)), spec, HERE)
        names = [stream.name for stream in spec.streams]
        head = {"embed_dim": 8, "width": 8, "depth": 1}
        wanted = {"name": "net", "features": {"streams": names}, "head": head, "train": {"epochs": 8, "batch_size": 8}}
        ((record, _),) = train_runs(
            open_cache(out / "features.zarr"), [parse_spec(RunSpec, wanted, "run")], out / "runs", device="cpu"
        )
        return run_dir(out / "runs", record.digest)

    return run


@pytest.fixture(scope="module")
def folder(train):
    return train(NETWORK)


def test_pixels_give_the_probabilities_of_predict(folder, data, tmp_path):
    files = sorted((data / "test").rglob("*.png"))
    exported = export_onnx(find_model(folder), tmp_path / "model.onnx", with_backbone=True, samples=files)
    assert (exported.rows, exported.samples) == (3 + 1 + 6, 6)
    assert exported.difference <= BACKBONE_TOLERANCE
    assert exported.inputs[PIXELS].endswith("uint8 RGB batch x 224 x 224 x 3")

    from emofuse.media.decode import read_image
    from emofuse.onnx_export.backbone import PictureGraph
    from emofuse.predict.models import cache_spec_of, load_model

    model = find_model(folder)
    spec = cache_spec_of(model)
    graph = PictureGraph(load_model(model), spec)
    pixels = graph.cut([read_image(path, spec.decode) for path in files])
    outputs = OnnxModel(tmp_path / "model.onnx").outputs({PIXELS: pixels})
    with Predictor(folder) as predictor:
        for row, prediction in zip(outputs, predictor.predict(files), strict=True):
            expected = [prediction.probs[name] for name in ("blue", "green", "red")]
            np.testing.assert_allclose(row, expected, atol=BACKBONE_TOLERANCE)


def test_the_head_alone_is_checked_on_the_features_of_samples(folder, data, tmp_path):
    files = sorted((data / "test").rglob("*.png"))
    exported = export_onnx(find_model(folder), tmp_path / "model.onnx", samples=files)
    assert (exported.rows, exported.samples) == (20 + 6, 6)


def test_several_backbones_of_one_picture_share_a_graph(train, tmp_path):
    other = {"kind": "backbone", "model": "mobilenet_v3_large", "weights": RANDOM, "name": "other", "dtype": "float32"}
    exported = export_onnx(find_model(train(NETWORK, other)), tmp_path / "model.onnx", with_backbone=True)
    assert exported.difference <= BACKBONE_TOLERANCE


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            [{"kind": "lbp", "region": "image"}],
            r"--with-backbone: stream 'lbp' \(lbp\) is no backbone. Export the head alone",
        ),
        (
            [{**NETWORK, "name": "half", "precision": "bfloat16"}],
            "--with-backbone: stream 'half' runs in bfloat16",
        ),
        (
            [{"kind": "backbone", "model": "inception_v3", "weights": RANDOM, "name": "inception"}],
            r"the backbones see different pictures \(net 224x224 of the image, inception 299x299 of the image\)",
        ),
    ],
)
def test_streams_that_cannot_be_in_one_graph_are_named(train, tmp_path, others, message):
    model = find_model(train(NETWORK, *others))
    with pytest.raises(ResultsError, match=message):
        export_onnx(model, tmp_path / "model.onnx", with_backbone=True)
    assert not (tmp_path / "model.onnx").exists()


def test_real_faces_give_what_predict_gives(folder, shared_data, tmp_path):
    files = sorted((shared_data / "faces" / "images").rglob("*.*"))[:6]
    exported = export_onnx(find_model(folder), tmp_path / "model.onnx", with_backbone=True, samples=files)
    assert exported.samples == 6
    assert exported.difference <= BACKBONE_TOLERANCE
