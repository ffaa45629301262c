"""Compiled networks compute what PyTorch computes, for every family of networks and every form of output."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from emofuse.errors import StreamError
from emofuse.specs import BackboneSpec, CacheSpec, FaceSpec, FileWeights, ObjectsSpec, RandomWeights, RegistryWeights
from emofuse.status import Status
from emofuse.streams import runtimes
from emofuse.streams.base import Sample, SampleBatch
from emofuse.streams.extractor import Extractor
from emofuse.streams.faces import make_face_detector
from emofuse.streams.networks import compiled, kept
from emofuse.streams.networks.compiled import TOLERANCE, compile_network, difference, noise
from emofuse.streams.networks.detection import YoloDetector
from emofuse.streams.networks.layers import at_layer
from emofuse.streams.networks.outputs import PictureNetwork, torchvision_outputs
from emofuse.streams.networks.presets import StepsPreset
from emofuse.streams.networks.random_weights import seeded, set_norm_statistics
from emofuse.streams.networks.running import has_bfloat16
from emofuse.streams.networks.shared_backbones import SharedBackbone
from emofuse.streams.networks.yolo import random_yolo
from emofuse.streams.runtimes import (
    TORCH,
    ConversionError,
    NetworkRuntimes,
    networks_on,
    openvino_record,
    openvino_version,
    resolve_runtime,
)
from emofuse.streams.speech import SpeechSpec
from emofuse.testing import example_sound
from emofuse.weights import import_weights

RANDOM = RandomWeights(seed=0)
STATED = 2e-5
"""The largest difference from PyTorch, as a share of the largest value, that `docs/runtimes.md` states."""
STATED_COSINE = 1 - 1e-6

needs_openvino = pytest.mark.skipif(openvino_version() is None, reason="the extra fast is not installed")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _default_is_auto(monkeypatch):
    monkeypatch.delenv(runtimes.VARIABLE)


@pytest.fixture(scope="module")
def pictures():
    generator = np.random.default_rng(0)
    sizes = ((90, 120), (64, 64), (128, 70))
    small = [generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8) for height, width in sizes]
    return [np.asarray(Image.fromarray(each).resize((each.shape[1] * 8, each.shape[0] * 8))) for each in small]


def backbone(model, name, weights=RANDOM, **options):
    return BackboneSpec(model=model, name=name, weights=weights, dtype="float32", **options)


def opened(specs, runtime):
    return Extractor(specs, CacheSpec(streams=specs), device="cpu", runtime=runtime)


def check_agree(expected, rows):
    """Check that rows of a compiled network are those of PyTorch within the stated tolerance."""
    assert np.array_equal(rows.status, expected.status)
    assert rows.mask is None or np.array_equal(rows.mask, expected.mask)
    assert difference(rows.features, expected.features) < STATED
    for one, other in zip(expected.features, rows.features, strict=True):
        a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
        length = np.linalg.norm(a) * np.linalg.norm(b)
        assert length == 0 or a @ b / length > STATED_COSINE


def check_runtimes_agree(specs, samples):
    """Check that both runtimes give the same rows, and OpenVINO the same bytes for a part of the batch."""
    with opened(specs, "torch") as plain:
        expected = plain.extract_samples(SampleBatch.of(samples)).rows
    with opened(specs, "openvino") as extractor:
        assert extractor.runtimes == {spec.name: (openvino_record(),) for spec in specs}
        assert extractor.runtime_notes == ()
        rows = extractor.extract_samples(SampleBatch.of(samples)).rows
        part = extractor.extract_samples(SampleBatch.of(samples[1:])).rows
    for spec in specs:
        assert (expected[spec.name].status == Status.OK).all()
        check_agree(expected[spec.name], rows[spec.name])
        assert np.array_equal(part[spec.name].features, rows[spec.name].features[1:])


@needs_openvino
def test_torchvision_networks_agree_in_all_outputs_and_layers(pictures):
    specs = (
        backbone("mobilenet_v3_small", "pooled"),
        backbone("mobilenet_v3_small", "map", output="map"),
        backbone("mobilenet_v3_small", "layer", layer="features.4"),
        backbone("mobilenet_v3_small", "layer_map", layer="features.4", output="map"),
    )
    check_runtimes_agree(specs, [Sample(picture) for picture in pictures])


@needs_openvino
@pytest.mark.parametrize("layer", [None, "encoder.layers.encoder_layer_1"])
def test_transformers_of_torchvision_agree_although_pytorch_has_a_fast_path_for_their_attention(layer):
    with seeded(0):
        network = models.VisionTransformer(32, 8, 2, 2, 32, 64)
    network.heads = nn.Identity()
    preset = StepsPreset((), (32, 32), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    made = PictureNetwork(network.eval(), preset, partial(torchvision_outputs, model="vit"))
    made = made if layer is None else at_layer(made, "vit", layer)
    on_openvino = NetworkRuntimes("openvino")
    with networks_on(on_openvino):
        shared = SharedBackbone(lambda: made, "cpu")
    wanted = {"pooled", "map", "tokens"}
    for output in wanted:
        shared.ask(output, "image")
    pictures = noise(3, 3, 32, 32)
    with torch.inference_mode():
        expected = {name: values.numpy() for name, values in shared.forward(pictures, wanted).items()}
    before = torch.backends.mha.get_fastpath_enabled()
    on_openvino.compile_all()
    assert torch.backends.mha.get_fastpath_enabled() == before
    outputs = shared.run(SampleBatch([]), "image", lambda: pictures)
    for name in wanted:
        assert outputs[name].shape == expected[name].shape
        assert difference(outputs[name], expected[name]) < STATED


@needs_openvino
def test_networks_of_timm_agree(pictures):
    pytest.importorskip("timm", reason="the extra timm is not installed")
    specs = (
        backbone("timm/vit_tiny_patch16_224", "tokens", output="tokens"),
        backbone("timm/vit_tiny_patch16_224", "map", output="map"),
        backbone("timm/vit_tiny_patch16_224", "layer", layer="blocks.1"),
    )
    check_runtimes_agree(specs, [Sample(picture) for picture in pictures[:2]])


@needs_openvino
def test_towers_of_open_clip_agree(pictures):
    pytest.importorskip("open_clip", reason="the extra open_clip is not installed")
    specs = (
        backbone("open_clip/ViT-S-32-alt", "pooled"),
        backbone("open_clip/ViT-S-32-alt", "tokens", output="tokens"),
    )
    check_runtimes_agree(specs, [Sample(picture) for picture in pictures[:2]])


@needs_openvino
def test_published_weights_of_pictures_agree_on_real_faces(shared_data):
    pytest.importorskip("timm", reason="the extra timm is not installed")
    folder = shared_data / "models"
    files = {
        "squeezenet1_1": "squeezenet1_1.pth",
        "mobilenet_v2": "mobilenet_v2.pth",
        "timm/tf_efficientnet_lite0": "tf_efficientnet_lite0_fp16.safetensors",
    }
    specs = tuple(
        backbone(model, model.rpartition("/")[2], FileWeights(path=folder / file)) for model, file in files.items()
    )
    paths = sorted((shared_data / "faces" / "images").rglob("*.*g"))[:3]
    check_runtimes_agree(specs, [Sample(np.asarray(Image.open(path).convert("RGB"))) for path in paths])


@needs_openvino
def test_networks_that_see_faces_and_spectrograms_agree(pictures):
    specs = (
        backbone("mobilenet_v3_small", "faces", region="face"),
        backbone("mobilenet_v3_small", "sounds", input="mel", windows=2),
    )
    spec = CacheSpec(streams=specs)
    sample = Sample(pictures[0], crop=pictures[1], sound=example_sound(1.0))
    rows = {}
    for runtime in ("torch", "openvino"):
        with Extractor(specs, spec, device="cpu", runtime=runtime) as extractor:
            rows[runtime] = {
                name: stream.extract(SampleBatch([sample, Sample(pictures[0])]))
                for name, stream in extractor.streams.items()
            }
    for name, expected in rows["torch"].items():
        assert expected.status.tolist() == [Status.OK, Status.NO_DETECTION]
        check_agree(expected, rows["openvino"][name])


@needs_openvino
def test_objects_agree_for_pictures_of_all_shapes():
    network = random_yolo("yolov5n", 0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 2.0)
    set_norm_statistics(network, 96, seed=0)
    for scores in network.model[-1].cv3:
        nn.init.normal_(scores[-1].weight, std=20.0, generator=torch.Generator().manual_seed(0))
        nn.init.constant_(scores[-1].bias, -5.0)
    made = NetworkRuntimes("openvino")
    with networks_on(made):
        detector = YoloDetector(lambda: network, min_confidence=0.25, device="cpu", precision="float32")
    for shape in ((1, 96, 64, 3), (3, 64, 96, 3), (2, 96, 96, 3)):
        images = list(noise(*shape).numpy())
        detector.runtime, detector._compiled = TORCH, None
        expected = detector.boxes(images)
        made.register("again", detector._compile)
        made.compile_all()
        assert detector.runtime == openvino_record()
        boxes = detector.boxes(images)
        assert sum(map(len, expected)) > 5
        for one, other in zip(expected, boxes, strict=True):
            assert one.shape == other.shape
            assert np.abs(one - other).max(initial=0) < 1e-3  # pixels


@needs_openvino
def test_retinaface_finds_the_same_faces_in_pictures_of_other_sizes(shared_data, astronaut):
    if importlib.util.find_spec("batch_face") is None:
        pytest.skip("batch-face is not installed")
    weights = FileWeights(path=shared_data / "models" / "retinaface_mobilenet0.25.pth")
    spec = FaceSpec(detector="retinaface", weights=weights)
    made = NetworkRuntimes("openvino")
    with networks_on(made):
        compiled = make_face_detector(spec, {"image", "crop"})
    made.compile_all()
    assert compiled.runtime == openvino_record()
    plain = make_face_detector(spec, {"image", "crop"})
    for image in (astronaut, astronaut[:301, 50:397]):
        expected, face = plain.detect_all(image), compiled.detect_all(image)
        assert len(face) == len(expected) == 1
        assert np.abs(face[0].box - expected[0].box).max() < 0.01  # pixels
        assert np.abs(face[0].five - expected[0].five).max() < 0.01


@needs_openvino
def test_streams_of_faces_name_the_runtime_of_the_detector(shared_data):
    if importlib.util.find_spec("batch_face") is None:
        pytest.skip("batch-face is not installed")
    streams = CacheSpec.model_validate({"streams": [{"kind": "lbp"}]}).streams
    weights = FileWeights(path=shared_data / "models" / "retinaface_mobilenet0.25.pth")
    spec = CacheSpec(streams=streams, face=FaceSpec(detector="retinaface", weights=weights))
    with Extractor(streams, spec, device="cpu", runtime="auto") as extractor:
        assert extractor.runtimes == {"lbp": (openvino_record(),)}


@needs_openvino
@pytest.mark.parametrize("family", ["Wav2Vec2", "Hubert", "WavLM"])
def test_encoders_of_speech_agree_in_all_layers_and_lengths(family, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra speech is not installed")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    more = {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    network = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**sizes, **more))
    network.save_pretrained(tmp_path)
    weights = FileWeights(path=tmp_path / "model.safetensors")
    options = ({}, {"layer": 2, "output": "mean_std"}, {"layer": 1, "output": "sequence"})
    specs = tuple(
        SpeechSpec(name=f"s{index}", weights=weights, seconds=2, dtype="float32", **each)
        for index, each in enumerate(options)
    )
    sounds = [Sample(sound=example_sound(seconds, seed=3)) for seconds in (0.01, 0.7, 1.3)]
    rows = {}
    for runtime in ("torch", "openvino"):
        with opened(specs, runtime) as extractor:
            rows[runtime] = {name: stream.extract(sounds) for name, stream in extractor.streams.items()}
    for name, expected in rows["torch"].items():
        check_agree(expected, rows["openvino"][name])


@needs_openvino
def test_the_encoder_of_whisper_agrees_with_published_weights(shared_data, monkeypatch, tmp_path):
    pytest.importorskip("transformers", reason="the extra speech is not installed")
    monkeypatch.setenv("EMOFUSE_WEIGHTS_DIR", str(tmp_path))
    import_weights(shared_data / "models" / "whisper_tiny_en_encoder_fp16.safetensors", "whisper-tiny.en")
    weights = RegistryWeights(name="whisper-tiny.en")
    specs = tuple(
        SpeechSpec(model="whisper-tiny.en", name=f"s{layer}", weights=weights, layer=layer, dtype="float32")
        for layer in (None, 3)
    )
    rows = {}
    for runtime in ("torch", "openvino"):
        with opened(specs, runtime) as extractor:
            rows[runtime] = {
                name: stream.extract([Sample(sound=example_sound(1.0))]) for name, stream in extractor.streams.items()
            }
    for name, expected in rows["torch"].items():
        check_agree(expected, rows["openvino"][name])


@needs_openvino
def test_outputs_of_one_network_are_computed_in_one_pass(pictures, monkeypatch):
    counted = []

    def counting(graph, *args, **options):
        network = compile_network(graph, *args, **options)
        calls = []
        counted.append(calls)
        return lambda *inputs: (calls.append(1), network(*inputs))[1]

    monkeypatch.setattr(compiled, "compile_network", counting)
    specs = (backbone("mobilenet_v3_small", "pooled"), backbone("mobilenet_v3_small", "map", output="map"))
    with opened(specs, "openvino") as extractor:
        extractor.extract_samples(SampleBatch.of([Sample(picture) for picture in pictures]))
    assert [len(calls) for calls in counted] == [len(pictures)]


class Sorting(nn.Module):
    """A network with a step that OpenVINO does not know."""

    def forward(self, pictures):
        return (torch.linalg.qr(pictures.float().flatten(1).T)[0].T,)


class Wrong(nn.Module):
    """A network whose trace is another network: what it does depends on the values."""

    def forward(self, pictures):
        values = pictures.float().flatten(1)
        return (values if values.sum() > 1e6 else values * 2,)


@needs_openvino
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_network_that_does_not_convert_or_computes_something_else_is_refused():
    with pytest.raises(ConversionError, match=r"OpConversionFailure: .*Model wasn't fully converted"):
        compile_network(Sorting(), [noise(1, 3, 4, 4)])
    with pytest.raises(ConversionError, match=r"its values differ from PyTorch's by 1 of the largest one"):
        compile_network(Wrong(), [noise(1, 3, 4, 4), noise(1, 3, 400, 400)], dynamic=(2, 3))
    assert TOLERANCE < 1


def refuse(*_args, **_options):
    raise ConversionError("no rule for aten::odd")


@needs_openvino
def test_auto_falls_back_to_pytorch_with_a_note_and_openvino_by_name_is_an_error(pictures, monkeypatch):
    monkeypatch.setattr(compiled, "compile_network", refuse)
    specs = (backbone("mobilenet_v3_small", "net"),)
    with opened(specs, "auto") as extractor:
        assert extractor.runtimes == {"net": (TORCH,)}
        assert extractor.runtime_notes == (
            "the network mobilenet_v3_small ran in PyTorch, because OpenVINO cannot run it: no rule for aten::odd",
        )
        rows = extractor.extract_samples(SampleBatch.of([Sample(pictures[0])])).rows["net"]
        assert rows.status.tolist() == [Status.OK]
    with pytest.raises(StreamError, match=r"the network mobilenet_v3_small does not run in OpenVINO: no rule for aten"):
        opened(specs, "openvino")


@needs_openvino
def test_networks_in_bfloat16_stay_in_pytorch_on_cpus_without_it_and_objects_always_do(monkeypatch):
    monkeypatch.setattr(compiled, "has_bfloat16", lambda: False)
    specs = (
        backbone("mobilenet_v3_small", "net", precision="bfloat16"),
        ObjectsSpec(weights=RANDOM, precision="bfloat16", image_px=64),
    )
    with opened(specs, "auto") as extractor:
        assert set(extractor.runtimes.values()) == {(TORCH,)}
        assert [note.partition(" because")[2] for note in extractor.runtime_notes] == [
            " OpenVINO cannot run it: this CPU has no instructions for bfloat16",
            " OpenVINO cannot run it: it would compute coordinates in bfloat16 too, for which eight bits are too few",
        ]


@needs_openvino
def test_bfloat16_in_openvino_is_as_near_to_float32_as_that_of_pytorch(shared_data, monkeypatch, tmp_path):
    if not has_bfloat16():
        pytest.skip("this CPU has no instructions for bfloat16")
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path))
    weights = FileWeights(path=shared_data / "models" / "squeezenet1_1.pth")
    paths = sorted((shared_data / "faces" / "images").rglob("*.*g"))[:3]
    batch = [Sample(np.asarray(Image.open(path).convert("RGB"))) for path in paths]
    features = {}
    for precision, runtime, again in (
        ("float32", "torch", ""),
        ("bfloat16", "torch", ""),
        ("bfloat16", "openvino", ""),
        ("bfloat16", "openvino", "kept"),
    ):
        spec = backbone("squeezenet1_1", "net", weights, precision=precision)
        with Extractor((spec,), CacheSpec(streams=(spec,)), device="cpu", runtime=runtime, threads=1) as extractor:
            rows = extractor.extract_samples(SampleBatch.of(batch)).rows["net"]
            assert extractor.runtimes == {"net": (TORCH if runtime == "torch" else openvino_record(),)}
        features[precision, runtime, again] = rows.features.astype(np.float64)
    exact, *rounded = features.values()
    assert np.array_equal(rounded[1], rounded[2])
    assert difference(rounded[1], exact) < 1.5 * difference(rounded[0], exact)
    for values in rounded:
        assert 0 < difference(values, exact) < 0.05
        lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(exact, axis=1)
        assert ((values * exact).sum(axis=1) / lengths).min() > 0.999


def test_auto_is_pytorch_without_openvino_and_openvino_by_name_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(runtimes, "openvino_version", lambda: None)
    assert resolve_runtime("auto", "cpu") == "torch"
    with pytest.raises(StreamError, match=r"openvino, which is not installed: pip install 'emofuse\[fast\]'"):
        resolve_runtime("openvino", "cpu")


def test_networks_on_a_gpu_run_in_pytorch():
    assert resolve_runtime("auto", "cuda:0") == "torch"
    with pytest.raises(StreamError, match=r"runtime openvino computes networks on the CPU, the device is cuda:0"):
        resolve_runtime("openvino", "cuda:0")


def test_the_environment_says_what_auto_means(monkeypatch):
    monkeypatch.setattr(runtimes, "openvino_version", lambda: "2026.4.1")
    assert resolve_runtime("auto", "cpu") == "openvino"
    monkeypatch.setenv(runtimes.VARIABLE, "torch")
    assert resolve_runtime("auto", "cpu") == "torch"
    assert resolve_runtime("openvino", "cpu") == "openvino"
    monkeypatch.setenv(runtimes.VARIABLE, "onnx")
    with pytest.raises(StreamError, match=r"EMOFUSE_RUNTIME: expected one of auto, torch, openvino, got 'onnx'"):
        resolve_runtime("auto", "cpu")


@needs_openvino
def test_importing_openvino_reports_nothing_and_writes_nothing_into_the_home_folder(tmp_path):
    code = "from emofuse.streams.runtimes import import_openvino as i; i().Core(); import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=True,
        text=True,
    )
    assert list(tmp_path.iterdir()) == []
    assert "openvino_telemetry" not in done.stdout.split()
