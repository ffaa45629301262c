"""Objects are what YOLO's own prediction finds, in shares of the picture, and ultralytics leaves nothing behind."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

from emofuse.errors import StreamError, WeightsError
from emofuse.specs import FileWeights, ObjectsSpec, RandomWeights, RegistryWeights
from emofuse.status import Status
from emofuse.streams.base import Sample
from emofuse.streams.networks import yolo as yolo_networks
from emofuse.streams.networks.random_weights import set_norm_statistics
from emofuse.streams.networks.yolo import load_yolo, random_yolo
from emofuse.streams.objects import ObjectsStream, make_objects
from emofuse.testing import check_stream
from emofuse.weights import REGISTRY, import_weights

RANDOM = RandomWeights(seed=2)
PX = 96


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def lively():
    """A random YOLOv5n whose last layers are so wide that it finds many things everywhere."""
    network = random_yolo("yolov5n", 0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 2.0)
    set_norm_statistics(network, 320, seed=0)
    generator = torch.Generator().manual_seed(0)
    head = network.model[-1]
    for boxes, scores in zip(head.cv2, head.cv3, strict=True):
        nn.init.normal_(boxes[-1].weight, std=20.0, generator=generator)
        nn.init.normal_(scores[-1].weight, std=20.0, generator=generator)
        nn.init.constant_(scores[-1].bias, -5.0)
    return network


@pytest.fixture
def stream(lively):
    return ObjectsStream(lambda: copy.deepcopy(lively), image_px=PX, min_confidence=0.25, device="cpu")


@pytest.fixture(scope="session")
def pictures():
    wide = np.random.default_rng(0).integers(0, 256, (77, 301, 3)).astype(np.uint8)
    return [data.astronaut(), data.coffee(), data.chelsea(), wide, wide.transpose(1, 0, 2)]


# ----- what is found ------------------------------------------------------------------------------


def test_objects_are_those_of_ultralytics_own_prediction(lively, stream, pictures):
    from ultralytics import YOLO

    yolo = YOLO("yolov5n.yaml", task="detect")
    yolo.model = copy.deepcopy(lively)
    counts = []
    for picture in pictures:
        found = stream.detect([picture])[0]
        boxes = yolo.predict(picture[..., ::-1], imgsz=PX, conf=0.25, iou=0.7, verbose=False, device="cpu")[0].boxes
        expected = torch.cat([boxes.xywhn, boxes.conf[:, None], boxes.cls[:, None]], dim=1).numpy()
        counts.append(len(expected))
        assert len(found) == len(expected)
        assert found[:5] == pytest.approx(expected[:5], abs=1e-4)
    assert sum(counts) > 50


def test_five_objects_of_six_values_the_most_confident_first(stream, pictures):
    rows = stream.extract([Sample(picture) for picture in pictures])
    assert (rows.status == Status.OK).all()
    assert rows.features.dtype == np.float32
    five = rows.features.reshape(len(pictures), 5, 6)
    assert (five >= 0).all()
    assert (five <= 1).all()
    assert (np.diff(five[..., 5], axis=1) <= 0).all()
    assert np.array_equal(five[..., 4], five[..., 5])  # anchor-free heads have one score: see the module
    for picture, row in zip(pictures, five, strict=True):
        found = stream.detect([picture])[0][:5, :5]
        assert row[: len(found), :5] == pytest.approx(found)


def test_pictures_that_need_one_shape_go_through_the_network_together(stream, pictures, monkeypatch):
    several = [*pictures, *(picture[::-1] for picture in pictures)]
    alone = [stream.detect([picture])[0] for picture in several]
    monkeypatch.setattr(stream, "_batch", 3)
    sizes = []
    stream.network.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape)))
    together = stream.detect([*several, *several])
    assert sorted(size[0] for size in sizes) == [1, 1, 1, 2, 3, 3, 3, 3, 3]  # of 4, 4, 4 and 8 pictures of one shape
    for found, expected in zip(together, [*alone, *alone], strict=True):
        assert len(found) == len(expected)
        assert found == pytest.approx(expected, abs=1e-4)


def test_bfloat16_finds_the_same_objects_in_nearly_the_same_places(lively, pictures):
    full, half = (
        ObjectsStream(
            lambda: copy.deepcopy(lively), image_px=320, min_confidence=0.05, device="cpu", precision=precision
        )
        for precision in ("float32", "bfloat16")
    )
    assert {parameter.dtype for parameter in half.network.model[0].parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in half.network.model[-1].parameters()} == {torch.float32}
    for picture in pictures:
        found, expected = half.detect([picture])[0], full.detect([picture])[0]
        assert len(found) == pytest.approx(len(expected), rel=0.2)
        best = np.abs(found[:1] - expected).max(axis=1).min()  # the most sure of one is among those of the other
        assert best < 0.05


def test_columns_name_every_value(stream):
    assert (len(stream.columns),) == stream.shape == (30,)
    assert stream.columns[:7] == (
        "object1_cx",
        "object1_cy",
        "object1_w",
        "object1_h",
        "object1_class_probability",
        "object1_confidence",
        "object2_cx",
    )


def test_zeros_stand_behind_the_last_object(lively, pictures):
    every = ObjectsStream(lambda: copy.deepcopy(lively), image_px=PX, min_confidence=0.25, device="cpu")
    scores = every.detect(pictures[:1])[0][:, 4]
    between = float(scores[1] + scores[2]) / 2
    picky = ObjectsStream(lambda: copy.deepcopy(lively), image_px=PX, min_confidence=between, device="cpu")
    rows = picky.extract([Sample(pictures[0])])
    assert rows.status.tolist() == [Status.OK]
    assert (rows.features[0, :12] != 0).any()
    assert not rows.features[0, 12:].any()


def test_random_weights_find_nothing_and_say_so(pictures):
    rows = make_objects(ObjectsSpec(weights=RANDOM, image_px=PX), "cpu").extract(
        [Sample(picture) for picture in pictures]
    )
    assert (rows.status == Status.NO_DETECTION).all()
    assert not rows.features.any()


def test_pictures_of_any_shape_have_a_row(stream):
    samples = [Sample(np.full((*shape, 3), 90, np.uint8)) for shape in ((1, 1), (20, 5000), (30_000, 1), (96, 96))]
    rows = stream.extract(samples)
    assert rows.features.shape == (4, 30)
    assert np.isfinite(rows.features).all()
    assert stream.extract([]).features.shape == (0, 30)


def test_a_row_does_not_depend_on_its_neighbours(stream, pictures):
    together = stream.extract([Sample(picture) for picture in pictures])
    alone = [stream.extract([Sample(picture)]).features[0] for picture in reversed(pictures)]
    assert np.array_equal(together.features, np.stack(alone[::-1]))


# ----- weights -------------------------------------------------------------------------------------


def test_a_definition_of_a_network_in_the_working_folder_is_not_taken(tmp_path, monkeypatch):
    """ultralytics would evaluate its activation as Python."""
    expected = random_yolo("yolov5n", 1).model[0].conv.weight
    evil = f"activation: open({str(tmp_path / 'ran')!r}, 'w')\n"
    for name in ("yolov5n.yaml", "yolov5.yaml"):
        (tmp_path / name).write_text(evil)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(random_yolo("yolov5n", 1).model[0].conv.weight, expected)
    assert not (tmp_path / "ran").exists()


def test_random_weights_follow_the_seed():
    first, again, other = (random_yolo("yolov5n", seed).model[0].conv.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.fixture(scope="session")
def checkpoint(lively, tmp_path_factory):
    """A checkpoint as ultralytics saves it: the whole network pickled in half precision."""
    from ultralytics import YOLO

    yolo = YOLO("yolov5n.yaml", task="detect")
    yolo.model = copy.deepcopy(lively)
    path = tmp_path_factory.mktemp("o'brien") / "yolov5n.pt"  # a name that ultralytics would take for yolov5nu.pt
    yolo.save(path)
    return path


def test_ultralytics_own_checkpoints_load(checkpoint, stream, pictures):
    spec = ObjectsSpec(weights=FileWeights(path=checkpoint), image_px=PX)
    found, expected = (each.detect(pictures[:1])[0] for each in (make_objects(spec, "cpu"), stream))
    assert np.abs(found[:3, 4] - expected[:3, 4]).max() < 0.05  # half precision


def test_an_imported_checkpoint_goes_by_its_registry_name(checkpoint):
    import_weights(checkpoint, "yolov5nu")
    assert make_objects(ObjectsSpec(image_px=PX), "cpu").shape == (30,)
    with pytest.raises(WeightsError, match="the weights 'yolov5nu' are of yolov5n, the spec's model is yolov5s"):
        make_objects(ObjectsSpec(model="yolov5s", weights=RegistryWeights(name="yolov5nu")), "cpu")
    assert REGISTRY["yolov5su"].model == "yolov5s"


def test_missing_weights_name_the_command():
    with pytest.raises(WeightsError, match="emofuse weights fetch yolov5nu"):
        make_objects(ObjectsSpec(), "cpu")


class Payload:
    def __reduce__(self):
        return os.system, ("echo code ran > ran",)


def test_a_checkpoint_with_code_in_it_is_refused_unrun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evilu.pt"
    torch.save({"model": Payload()}, path)
    with pytest.raises(
        WeightsError, match=r"evilu\.pt is no YOLO checkpoint of ultralytics \(TypeError: .*evilu\.pt references"
    ):
        load_yolo(path)
    assert [found.name for found in tmp_path.iterdir()] == ["evilu.pt"]


def test_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / "x.pt"
    for content in (b"not a checkpoint" * 10, b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"x\.pt is no YOLO checkpoint of ultralytics"):
            load_yolo(path)
    path.write_bytes(b"<!doctype html>")
    with pytest.raises(WeightsError, match="is a web page"):
        load_yolo(path)
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"x\.pt is no YOLO checkpoint"):
        load_yolo(path)


def test_an_ultralytics_that_would_run_code_is_not_used(checkpoint, monkeypatch):
    import ultralytics.utils

    monkeypatch.setattr(ultralytics.utils, "SAFE_LOAD", False)
    with pytest.raises(
        WeightsError, match=r"would run the code in a checkpoint.*set ULTRALYTICS_SAFE_LOAD=true before it is"
    ):
        load_yolo(checkpoint)
    monkeypatch.delattr(torch.serialization, "get_unsafe_globals_in_checkpoint")
    with pytest.raises(WeightsError, match=r"cannot load YOLO checkpoints weights-only: install torch >= 2\.6"):
        load_yolo(checkpoint)


def test_without_ultralytics_the_stream_says_what_to_install(monkeypatch):
    def gone(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(yolo_networks, "import_module", gone)
    yolo_networks._ultralytics.cache_clear()
    try:
        with pytest.raises(StreamError, match="needs the package ultralytics: pip install ultralytics"):
            random_yolo("yolov5n", 0)
    finally:
        yolo_networks._ultralytics.cache_clear()


# ----- what ultralytics leaves behind ----------------------------------------------------------------

_USE = """
import json, os, random, socket, sys
import cv2, numpy as np, torch, torchvision
from PIL import Image

def no_network(*args, **kwargs):
    raise AssertionError("the network was asked")

socket.getaddrinfo = socket.socket.connect = no_network
cv2.setNumThreads(1); torch.set_num_threads(1)
states = lambda: [
    str(torch.get_rng_state().sum()), str(random.getstate())[:99], str(np.random.get_state()[1][:5]),
    cv2.getNumThreads(), torch.get_num_threads(), str(Image.open), str(np.get_printoptions()),
    sorted(os.environ.items()),
]
before = states()
from emofuse.specs import ObjectsSpec, RandomWeights
from emofuse.streams.base import Sample
from emofuse.streams.objects import make_objects
stream = make_objects(ObjectsSpec(weights=RandomWeights(), image_px=64), "cpu")
stream.extract([Sample(np.zeros((40, 60, 3), np.uint8))])
assert states() == before, (states(), before)
"""


def test_ultralytics_asks_no_network_writes_no_file_prints_nothing_and_changes_nothing(tmp_path):
    environment = {name: value for name, value in os.environ.items() if "YOLO" not in name and "ULTRA" not in name}
    folders = {name: tmp_path / name for name in ("home", "temp", "here")}
    for folder in folders.values():
        folder.mkdir()
    environment |= {
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["temp"]),
        "TORCHINDUCTOR_CACHE_DIR": str(folders["temp"]),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    environment.pop("XDG_CONFIG_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", _USE], capture_output=True, text=True, check=False, env=environment, cwd=folders["here"]
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert [path for folder in folders.values() for path in folder.rglob("*")] == []


def test_pictures_are_opened_by_pillow_itself_afterwards(stream, tmp_path):
    assert Image.open.__module__ == "PIL.Image"
    path = tmp_path / "x.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(path)


# ----- the contract -----------------------------------------------------------------------------------


def test_objects_keep_the_contract_of_a_stream(stream):
    check_stream(ObjectsSpec(weights=RANDOM, image_px=32))
    check_stream(stream)


def test_a_device_that_is_not_there_is_said():
    device = "cuda" if not torch.cuda.is_available() else "cuda:99"
    with pytest.raises(StreamError, match=f"device '{device}' cannot be used: "):
        make_objects(ObjectsSpec(weights=RANDOM), device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_finds_what_the_cpu_finds(lively, pictures):
    cpu, cuda = (
        ObjectsStream(lambda: copy.deepcopy(lively), image_px=PX, min_confidence=0.25, device=device).detect(
            [*pictures] * 9
        )
        for device in ("cpu", "cuda")
    )
    for expected, found in zip(cpu, cuda, strict=True):
        assert len(found) == pytest.approx(len(expected), abs=1)
        assert found[:1] == pytest.approx(expected[:1], abs=1e-3)
