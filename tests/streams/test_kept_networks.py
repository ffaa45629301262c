"""Compiled networks are kept on the machine: opened without PyTorch, never trusted without their digest, bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from emofuse.specs import BackboneSpec, CacheSpec, ObjectsSpec, RandomWeights
from emofuse.streams.base import Sample, SampleBatch
from emofuse.streams.extractor import Extractor
from emofuse.streams.kept_networks import is_network_kept
from emofuse.streams.networks import compiled, kept
from emofuse.streams.networks.detection import boxes_of_output
from emofuse.streams.networks.squares import Square
from emofuse.streams.networks.yolo import boxes_of
from emofuse.streams.runtimes import NetworkRuntimes, openvino_version

STREAMS = (
    BackboneSpec(model="mobilenet_v3_small", name="net", weights=RandomWeights(seed=0), dtype="float32"),
    BackboneSpec(model="mobilenet_v3_small", name="map", weights=RandomWeights(seed=0), output="map", dtype="float32"),
    ObjectsSpec(weights=RandomWeights(seed=0), image_px=64),
)
SPEC = CacheSpec(streams=STREAMS)

needs_openvino = pytest.mark.skipif(openvino_version() is None, reason="the extra fast is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def keeps(folder, monkeypatch):
    monkeypatch.setenv(kept.VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="module")
def pictures():
    return [np.random.default_rng(row).integers(0, 256, (90, 70 + 40 * row, 3), dtype=np.uint8) for row in range(2)]


def extract(pictures, runtime="openvino"):
    with Extractor(STREAMS, SPEC, device="cpu", runtime=runtime, threads=1) as extractor:
        rows = extractor.extract_samples(SampleBatch([Sample(picture) for picture in pictures])).rows
    return {name: each.features for name, each in rows.items()}


@pytest.fixture(scope="module")
def converted(folder, pictures):
    """The features of the process that converts the networks and keeps them."""
    if openvino_version() is None:
        pytest.skip("the extra fast is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(kept.VARIABLE, str(folder))
        return extract(pictures)


def test_kept_networks_give_the_same_bytes_in_a_process_without_pytorch(keeps, converted, pictures, tmp_path):
    assert all(is_network_kept(spec, threads=1) for spec in STREAMS)
    assert not any(is_network_kept(spec, threads=2) for spec in STREAMS)
    np.savez(tmp_path / "pictures.npz", *pictures)
    code = f"""
import sys
import numpy as np
from emofuse.specs import CacheSpec
from emofuse.streams.base import Sample, SampleBatch
from emofuse.streams.extractor import Extractor
spec = CacheSpec.model_validate_json({SPEC.model_dump_json(exclude_none=True)!r})
pictures = np.load({str(tmp_path / "pictures.npz")!r}).values()
with Extractor(spec.streams, spec, device="cpu", runtime="openvino", threads=1) as extractor:
    rows = extractor.extract_samples(SampleBatch([Sample(picture) for picture in pictures])).rows
np.savez({str(tmp_path / "rows.npz")!r}, **{{name: each.features for name, each in rows.items()}})
sys.exit("torch" in sys.modules or "ultralytics" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    rows = np.load(tmp_path / "rows.npz")
    for name, features in converted.items():
        assert np.array_equal(rows[name], features)
    plain = extract(pictures, "torch")
    for name, features in plain.items():
        assert np.abs(converted[name] - features).max() <= 2e-5 * max(np.abs(features).max(), 1)


def test_a_kept_network_that_is_cut_off_or_changed_is_converted_again(keeps, converted, pictures, monkeypatch):
    conversions = []
    convert = compiled.converted_model
    monkeypatch.setattr(compiled, "converted_model", lambda *given: conversions.append(1) or convert(*given))
    files = sorted((file for file in keeps.glob("*.network") if file.stat().st_size > 10_000), key=os.path.getsize)
    whole = {file: file.read_bytes() for file in files}
    files[0].write_bytes(whole[files[0]][:-1])
    changed = bytearray(whole[files[1]])
    changed[-100] ^= 1
    files[1].write_bytes(changed)
    again = extract(pictures)
    assert len(conversions) == 2
    for name, features in converted.items():
        assert np.array_equal(again[name], features)
    assert extract(pictures).keys() == converted.keys()
    assert len(conversions) == 2  # they were kept again


def test_files_that_other_users_could_have_written_are_not_used(keeps, converted):
    key = next(file.stem for file in keeps.glob("*.network"))
    assert kept.read_kept(key) is not None
    file = keeps / f"{key}.network"
    file.chmod(0o666)
    assert kept.read_kept(key) is None
    file.chmod(0o600)
    keeps.chmod(0o777)
    assert kept.read_kept(key) is None
    keeps.chmod(0o700)
    assert kept.read_kept(key) is not None


def test_another_library_or_cpu_has_other_networks(monkeypatch):
    key = kept.network_key(network="a")
    assert key == kept.network_key(network="a") != kept.network_key(network="b")
    for change in ({"cpu": "another"}, {"code": "another"}, {"openvino": "1"}):
        monkeypatch.setattr(kept, "_machine", lambda change=change: {"cpu": kept._cpu(), **change})
        assert kept.network_key(network="a") != key


def test_what_was_not_used_for_longest_is_deleted_when_all_take_too_much(tmp_path, monkeypatch):
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "compiled"))
    monkeypatch.setattr(kept, "LIMIT_BYTES", 26_000)
    for number, key in enumerate(("a", "b", "c")):
        kept.keep(key, {"number": number}, bytes(4000))
        os.utime(tmp_path / "compiled" / f"{key}.network", (number, number))
    assert kept.read_kept("a").facts == {"number": 0}  # used just now
    kept.keep("d", {}, bytes(4000))
    assert [kept.is_kept(key) for key in "abcd"] == [True, False, True, True]
    monkeypatch.setenv(kept.VARIABLE, "off")
    kept.keep("e", {})
    assert not kept.is_kept("e")
    assert kept.read_kept("a") is None


@pytest.mark.skipif(sys.platform == "win32", reason="files are locked by fcntl")
def test_two_processes_convert_a_network_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "compiled"))
    held = threading.Event()

    def convert():
        with kept.converting("key"):
            held.set()
            time.sleep(0.2)
            kept.keep("key", {"by": "the first"})

    first = threading.Thread(target=convert)
    first.start()
    held.wait()
    with kept.not_waiting(), pytest.raises(kept.IsConvertedElsewhereError), kept.converting("key"):
        pass
    with kept.converting("key"):
        assert kept.read_kept("key").facts == {"by": "the first"}
    first.join()
    assert sorted(file.name for file in (tmp_path / "compiled").iterdir()) == ["key.network"]


@needs_openvino
def test_networks_that_another_process_converts_are_compiled_last():
    compiled_in_order = []

    def elsewhere():
        if not kept._WAITS.get():
            raise kept.IsConvertedElsewhereError
        compiled_in_order.append("elsewhere")

    made = NetworkRuntimes("openvino", threads=1)
    made.register("elsewhere", elsewhere)
    made.register("here", lambda: compiled_in_order.append("here"))
    made.compile_all()
    assert compiled_in_order == ["here", "elsewhere"]


@pytest.mark.parametrize("model", ["resnet50", "efficientnet_b1", "vit_b_16", "inception_v3", "regnet_y_400mf"])
def test_squares_are_those_of_torchvision_bit_for_bit(model):
    for weights in models.get_model_weights(model):
        preset = weights.transforms()
        square = Square.of_preset(preset)
        assert Square.from_facts(json.loads(json.dumps(square.facts()))) == square
        preset.mean, preset.std = (0.0,) * 3, (1.0,) * 3
        for height, width in ((1, 1), (333, 500), (501, 256), (256, 256), (37, 41)):
            image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
            expected = (preset(Image.fromarray(image)) * 255).round().to(torch.uint8).numpy()
            assert np.array_equal(square.cut(image), expected)


def test_a_square_larger_than_its_picture_is_padded_as_by_torchvision():
    from torchvision.transforms import functional

    image = np.random.default_rng(0).integers(0, 256, (31, 50, 3), dtype=np.uint8)
    resized = functional.resize(Image.fromarray(image), [20])
    expected = functional.pil_to_tensor(functional.center_crop(resized, [25, 27])).numpy()
    assert np.array_equal(Square((20,), (25, 27), "bilinear", True).cut(image), expected)


@pytest.mark.parametrize("count", [0, 1, 60, 900, 3000])
def test_boxes_without_pytorch_are_those_of_torchvision_bit_for_bit(count):
    random = np.random.default_rng(count)
    raw = np.concatenate([random.uniform(50, 400, (2, count)), random.uniform(5, 200, (2, count))]).astype(np.float32)
    scores = random.uniform(0, 1, (6, count)).astype(np.float32) ** 3
    raw = np.concatenate([raw, scores])
    (expected,) = boxes_of(torch.from_numpy(raw[None]), 0.25, 0.7)
    boxes = boxes_of_output(raw, 0.25)
    assert boxes.shape == expected.shape
    assert np.array_equal(boxes, expected)
    assert count < 60 or 0 < len(boxes) < count
