"""A backbone's row is torchvision's own forward pass of torchvision's own preset, cut before the classifier."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn
from torchvision import models

from emofuse.errors import SpecError, StreamError, WeightsError
from emofuse.specs import BackboneSpec, FileWeights, Places365Spec, RandomWeights, RegistryWeights
from emofuse.streams.backbones import BackboneStream, make_backbone, make_places365
from emofuse.streams.base import Sample, SampleBatch
from emofuse.streams.networks import presets, squares
from emofuse.streams.networks.classification import cut_head, make_network, make_preset
from emofuse.streams.networks.outputs import PictureNetwork
from emofuse.streams.networks.presets import Preset, on_device
from emofuse.streams.networks.random_weights import seeded
from emofuse.streams.networks.shared_backbones import SharedBackbone
from emofuse.testing import check_stream
from emofuse.weights import ResolvedWeights, import_weights, resolve_weights

sys.path.append(str(Path(__file__).parents[1]))

from python2_checkpoint import write_python2_checkpoint

RANDOM = RandomWeights(seed=3)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pictures():
    """Three photographs of different shapes."""
    return [Sample(image) for image in (data.astronaut(), data.coffee(), data.chelsea())]


def plain_forward(network: nn.Module, layer: str, preset, sample: Sample) -> np.ndarray:
    """What goes into `layer` of an untouched torchvision network, which sees one picture through its preset."""
    seen = []
    hook = network.get_submodule(layer).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.inference_mode():
        network(preset(Image.fromarray(sample.image))[None])
    hook.remove()
    return seen[0].flatten(1).numpy()[0]


# ----- what is cached -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "model", "layer", "pooled"),
    [
        ("squeezenet1_1", "squeezenet1_1", "classifier.0", "mean"),
        ("mobilenet_v2", "mobilenet_v2", "classifier.0", None),
    ],
)
def test_real_weights_give_the_plain_forward_pass(shared_data, pictures, name, model, layer, pooled):
    stored = import_weights(shared_data / "models" / f"{name}.pth")
    stream = make_backbone(BackboneSpec(model=model, weights=RegistryWeights(name=stored.name)), "cpu")
    network = models.get_model(model, weights=None).eval()
    network.load_state_dict(torch.load(shared_data / "models" / f"{name}.pth", weights_only=True))
    preset = models.get_model_weights(model).IMAGENET1K_V1.transforms()
    rows = stream.extract(pictures)
    for sample, row in zip(pictures, rows.features, strict=True):
        expected = plain_forward(network, layer, preset, sample)
        if pooled == "mean":
            expected = expected.reshape(*stream.shape, -1).mean(axis=1)
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-5 * float(np.abs(expected).max()))
    assert (rows.status == 1).all()


@pytest.mark.parametrize("model", ["squeezenet1_1", "mobilenet_v2"])
def test_bfloat16_points_where_float32_does(shared_data, model):
    stored = import_weights(shared_data / "models" / f"{model}.pth")
    samples = [Sample(image) for image in (data.astronaut(), data.coffee(), data.chelsea())]
    specs = [
        BackboneSpec(model=model, weights=RegistryWeights(name=stored.name), precision=precision)
        for precision in ("float32", "bfloat16")
    ]
    full, half = (make_backbone(spec, "cpu").extract(samples).features for spec in specs)
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    cosine = (full * half).sum(axis=1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert (cosine > 0.999).all()
    assert np.linalg.norm(half - full, axis=1) == pytest.approx(0, abs=0.05 * float(np.linalg.norm(full, axis=1).min()))


def test_networks_with_one_preset_prepare_a_picture_once(monkeypatch):
    seen = []
    monkeypatch.setattr(squares, "middle", lambda image: seen.append(image.shape) or Image.fromarray(image))
    samples = SampleBatch([Sample(data.astronaut()), Sample(data.coffee())])
    first, second = (
        make_backbone(BackboneSpec(model=model, weights=RANDOM), "cpu") for model in ("squeezenet1_1", "resnet18")
    )
    other = make_backbone(BackboneSpec(model="inception_v3", weights=RANDOM), "cpu")
    alone = second.extract(SampleBatch(samples)).features
    seen.clear()
    first.extract(samples)
    assert np.array_equal(second.extract(samples).features, alone)
    assert len(seen) == 2
    other.extract(samples)
    assert len(seen) == 4


def test_real_squeezenet_names_coffee_and_a_cat(shared_data):
    stored = import_weights(shared_data / "models" / "squeezenet1_1.pth")
    weights = resolve_weights(RegistryWeights(name=stored.name))
    network, preset = make_network("squeezenet1_1", weights), make_preset("squeezenet1_1", weights)
    names = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]

    def best(image):
        with torch.inference_mode():
            return names[network(preset(Image.fromarray(image))[None]).argmax()]

    assert best(data.coffee()) == "espresso"
    assert best(data.cat()) in ("tabby", "tiger cat", "Egyptian cat")


@pytest.mark.parametrize(
    ("model", "layer", "dim"),
    [
        ("resnet18", "fc", 512),
        ("resnet50", "fc", 2048),
        ("mobilenet_v3_small", "classifier", 576),
        ("efficientnet_b0", "classifier", 1280),
        ("densenet121", "classifier", 1024),
        ("shufflenet_v2_x0_5", "fc", 1024),
        ("regnet_y_400mf", "fc", 440),
        ("mnasnet0_5", "classifier", 1280),
        ("convnext_tiny", "classifier.2", 768),
        ("swin_t", "head", 768),
        ("vit_b_32", "heads", 768),
        ("alexnet", "classifier.6", 4096),
    ],
)
def test_every_family_gives_the_input_of_its_classifier(pictures, model, layer, dim):
    weights = resolve_weights(RANDOM)
    stream = make_backbone(BackboneSpec(model=model, weights=RANDOM), "cpu")
    expected = plain_forward(make_network(model, weights), layer, make_preset(model, weights), pictures[1])
    row = stream.extract(pictures[1:2]).features[0]
    assert stream.shape == (dim,) == (len(expected),)
    assert row == pytest.approx(expected, rel=1e-3, abs=1e-4 * float(np.abs(expected).max()))
    stored = row.astype(np.float16)
    assert np.isfinite(stored).all()
    assert 0.001 < np.abs(stored).max() < 10_000


def test_widths_of_models_too_large_to_run_here():
    expected = {
        "inception_v3": 2048,
        "googlenet": 1024,
        "mobilenet_v3_large": 960,
        "mobilenet_v2": 1280,
        "vgg16": 4096,
        "vgg11_bn": 4096,
        "vit_b_16": 768,
        "efficientnet_v2_s": 1280,
        "maxvit_t": 512,
        "swin_v2_t": 768,
        "resnext50_32x4d": 2048,
        "squeezenet1_0": 512,
    }
    widths = {}
    for model in expected:
        options = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}
        with torch.device("meta"):
            widths[model] = cut_head(models.get_model(model, weights=None, **options))
    assert widths == expected


def test_inception_rescales_its_input_and_loads_its_auxiliary_head(tmp_path, pictures):
    network = models.inception_v3(weights=None, init_weights=False, transform_input=True, aux_logits=True).eval()
    torch.save(network.state_dict(), tmp_path / "inception.pth")
    spec = BackboneSpec(model="inception_v3", weights=FileWeights(path=tmp_path / "inception.pth"))
    preset = models.Inception_V3_Weights.IMAGENET1K_V1.transforms()
    assert preset.crop_size == [299]
    expected = plain_forward(network, "fc", preset, pictures[0])
    row = make_backbone(spec, "cpu").extract(pictures[:1]).features[0]
    assert row == pytest.approx(expected, rel=1e-3, abs=1e-4 * float(np.abs(expected).max()))


def test_a_network_that_is_not_torchvisions_is_refused():
    with pytest.raises(StreamError, match="Linear is no torchvision classification network whose head is known here"):
        cut_head(nn.Linear(2, 2))


def test_unknown_models_get_a_hint():
    with pytest.raises(
        SpecError, match=r"'resnet5' is no classification model of torchvision, did you mean 'resnet50'\?"
    ):
        make_backbone(BackboneSpec(model="resnet5", weights=RANDOM), "cpu")
    with pytest.raises(SpecError, match=r"'fcn_resnet50' is no classification model"):
        make_backbone(BackboneSpec(model="fcn_resnet50", weights=RANDOM), "cpu")
    with pytest.raises(SpecError, match=r"'zzzz' is no classification model of torchvision, expected one of alexnet, "):
        make_backbone(BackboneSpec(model="zzzz", weights=RANDOM), "cpu")


# ----- presets ------------------------------------------------------------------------------------


def resolved(sha256):
    return ResolvedWeights("file", "x.pth", Path("x.pth"), sha256)


@pytest.mark.parametrize(
    ("model", "sha256", "resize", "crop", "interpolation"),
    [
        ("resnet50", "0676ba61" + "0" * 56, 256, 224, "bilinear"),
        ("resnet50", "11ad3fa6" + "0" * 56, 232, 224, "bilinear"),
        ("resnet50", "f" * 64, 256, 224, "bilinear"),
        ("resnet50", "46529c86902bd0cfb0ea562a30b2850c28d2620d96282b3db9c318e1d774f6c5", 256, 224, "bilinear"),
        ("efficientnet_b0", None, 256, 224, "bicubic"),
        ("vit_b_16", "9ac1b537" + "0" * 56, 384, 384, "bicubic"),
        ("squeezenet1_1", "f19c622d144f9a441c2f15348b5d80ec45b2381af4438d0c3fad6bcedad1dc63", 256, 224, "bilinear"),
    ],
)
def test_the_weights_choose_the_preset(model, sha256, resize, crop, interpolation):
    preset = make_preset(model, resolved(sha256))
    assert (preset.resize_size, preset.crop_size, preset.interpolation.value) == ([resize], [crop], interpolation)


@pytest.mark.parametrize("model", ["resnet50", "efficientnet_b0", "inception_v3", "vit_b_16"])
def test_both_parts_of_a_preset_are_torchvisions_own_bit_for_bit(pictures, model):
    transform = next(iter(models.get_model_weights(model))).transforms()
    preset = Preset(transform)
    found = preset.normalise(preset.cut_all(SampleBatch(pictures), torch.device("cpu")))
    for sample, picture in zip(pictures, found, strict=True):
        assert torch.equal(picture, transform(Image.fromarray(sample.image)))


def test_presets_share_a_square_unless_they_cut_it_otherwise():
    squares = {
        name: Preset(models.get_weight(name).transforms()).square
        for name in (
            "ResNet50_Weights.IMAGENET1K_V1",
            "MobileNet_V2_Weights.IMAGENET1K_V1",
            "ResNet50_Weights.IMAGENET1K_V2",
            "EfficientNet_B0_Weights.IMAGENET1K_V1",
        )
    }
    first, second, *others = squares.values()
    assert first == second
    assert len({first, *others}) == 3


# ----- odd pictures -------------------------------------------------------------------------------


def test_pictures_of_any_shape_have_a_row():
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 30_000), (5_000, 20), (20, 5_000), (3, 400)]
    samples = [Sample(rng.integers(0, 256, (*shape, 3)).astype(np.uint8)) for shape in shapes]
    rows = make_backbone(BackboneSpec(model="squeezenet1_1", weights=RANDOM), "cpu").extract(samples)
    assert rows.features.shape == (5, 512)
    assert np.isfinite(rows.features).all()


def test_a_very_long_picture_is_seen_as_by_the_preset():
    long = np.tile(data.chelsea()[100:116], (1, 3, 1))[:, : 16 * 70]
    stream = make_backbone(BackboneSpec(model="squeezenet1_1", weights=RANDOM), "cpu")
    weights = resolve_weights(RANDOM)
    network, preset = make_network("squeezenet1_1", weights), make_preset("squeezenet1_1", weights)
    expected = plain_forward(network, "classifier.0", preset, Sample(long)).reshape(512, -1).mean(axis=1)
    row = stream.extract([Sample(long)]).features[0]
    assert np.abs(row - expected).max() < 0.02 * np.abs(expected).max()


def test_no_pictures_no_rows():
    stream = make_backbone(BackboneSpec(model="squeezenet1_1", weights=RANDOM), "cpu")
    rows = stream.extract([])
    assert (rows.features.shape, rows.features.dtype) == ((0, 512), np.float32)


# ----- random weights -----------------------------------------------------------------------------


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone(pictures):
    before = torch.get_rng_state()
    first, again, other = (
        make_backbone(BackboneSpec(model="resnet18", weights=RandomWeights(seed=seed)), "cpu").extract(pictures[:1])
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(first.features, again.features)
    assert not np.allclose(first.features, other.features, rtol=0.1)


def test_random_weights_are_the_same_in_another_process_with_more_threads():
    code = (
        "import hashlib, torch; torch.set_num_threads(2); torch.manual_seed(99)\n"
        "from emofuse.streams.networks.classification import make_network\n"
        "from emofuse.weights import ResolvedWeights\n"
        "network = make_network('resnet18', ResolvedWeights('random', 'random', seed=5))\n"
        "print(hashlib.sha256(b''.join(t.numpy().tobytes() for t in network.state_dict().values())).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    network = make_network("resnet18", ResolvedWeights("random", "random", seed=5))
    here = hashlib.sha256(b"".join(t.numpy().tobytes() for t in network.state_dict().values())).hexdigest()
    assert there == here


def test_norm_statistics_keep_deep_random_features_alive(pictures):
    with seeded(3):
        network = models.mobilenet_v2().eval()
        cut_head(network)
        preset = Preset(models.MobileNet_V2_Weights.DEFAULT.transforms())
        untouched = BackboneStream(SharedBackbone(lambda: PictureNetwork(network, preset), "cpu"))
    assert np.abs(untouched.extract(pictures[:1]).features).max() < 1e-6  # zero in float16
    kept = make_backbone(BackboneSpec(model="mobilenet_v2", weights=RANDOM), "cpu").extract(pictures).features
    assert 0.1 < np.abs(kept).max() < 100
    assert np.ptp(kept, axis=0).mean() > 0.01  # pictures differ


# ----- files of weights ---------------------------------------------------------------------------


def test_places365_loads_its_old_checkpoint(tmp_path, pictures):
    with seeded(0):
        network = models.resnet50(num_classes=365).eval()
    state = {f"module.{k}": v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / "resnet50_places365.pth.tar"
    write_python2_checkpoint(path, {"epoch": 90, "arch": "r\xe9snet50", "state_dict": state, "best_prec1": 54.7})
    stream = make_places365(Places365Spec(weights=FileWeights(path=path)), "cpu")
    preset = models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    expected = plain_forward(network, "fc", preset, pictures[0])
    assert stream.shape == (2048,)
    assert stream.extract(pictures[:1]).features[0] == pytest.approx(
        expected, rel=1e-3, abs=1e-4 * float(np.abs(expected).max())
    )


def test_densenets_published_names_are_understood(tmp_path):
    with seeded(0):
        network = models.densenet121().eval()
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in name else name: tensor
        for name, tensor in network.state_dict().items()
    }
    assert any("norm.1." in name for name in old)
    torch.save(old, tmp_path / "densenet.pth")
    loaded = make_network("densenet121", resolve_weights(FileWeights(path=tmp_path / "densenet.pth")))
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save(models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    spec = BackboneSpec(model="resnet34", weights=FileWeights(path=tmp_path / "resnet18.pth"))
    with pytest.raises(
        WeightsError, match=r"resnet18\.pth holds no weights of resnet34 .*Missing key\(s\) in state_dict"
    ):
        make_backbone(spec, "cpu")
    with pytest.raises(WeightsError, match=r"holds no weights of resnet50 .*"):
        make_places365(Places365Spec(weights=FileWeights(path=tmp_path / "resnet18.pth")), "cpu")


def test_missing_weights_name_the_command():
    with pytest.raises(WeightsError, match="emofuse weights fetch resnet50-v1"):
        make_backbone(BackboneSpec(model="resnet50"), "cpu")
    with pytest.raises(WeightsError, match="emofuse weights fetch places365"):
        make_places365(Places365Spec(), "cpu")


# ----- the contract -------------------------------------------------------------------------------


def test_a_backbone_keeps_the_contract_of_a_stream():
    check_stream(BackboneSpec(model="squeezenet1_1", weights=RANDOM))


def test_a_device_that_is_not_there_is_said():
    device = "cuda" if not torch.cuda.is_available() else "cuda:99"
    with pytest.raises(StreamError, match=f"device '{device}' cannot be used: "):
        make_backbone(BackboneSpec(model="squeezenet1_1", weights=RANDOM), device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(pictures):
    spec = BackboneSpec(model="resnet50", weights=RANDOM)
    cpu, cuda = (make_backbone(spec, device).extract(pictures).features for device in ("cpu", "cuda"))
    assert cuda == pytest.approx(cpu, rel=1e-3, abs=1e-4 * float(np.abs(cpu).max()))
    check_stream(spec, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_networks_on_a_gpu_share_one_upload(pictures, monkeypatch):
    sent = []
    monkeypatch.setattr(presets, "on_device", lambda *given: sent.append(given) or on_device(*given))
    first, second = (
        make_backbone(BackboneSpec(model=model, weights=RANDOM), "cuda") for model in ("squeezenet1_1", "resnet18")
    )
    batch = SampleBatch([*pictures] * 40)  # two batches of the network
    first.extract(batch)
    found = second.extract(batch).features
    assert len(sent) == 1
    alone = make_backbone(BackboneSpec(model="resnet18", weights=RANDOM), "cpu").extract(pictures).features
    assert found[-3:] == pytest.approx(alone, rel=1e-3, abs=1e-4 * float(np.abs(alone).max()))
