"""Backbones of timm and open_clip give what these libraries give; every network has its map or tokens too."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn
from torchvision import models

from emofuse.errors import SpecError, StreamError, WeightsError
from emofuse.specs import BackboneSpec, CacheSpec, FileWeights, HubWeights, RandomWeights, digest
from emofuse.streams import stream_identity
from emofuse.streams.backbones import make_backbone
from emofuse.streams.base import Sample, SampleBatch
from emofuse.streams.networks.random_weights import seeded
from emofuse.testing import check_stream
from emofuse.weights import default_weights, import_weights

RANDOM = RandomWeights(seed=3)
VIT = "timm/vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures():
    return [Sample(image) for image in (data.astronaut(), data.coffee())]


@pytest.fixture(scope="module")
def timm():
    return pytest.importorskip("timm", reason="the extra timm is not installed")


@pytest.fixture(scope="module")
def open_clip():
    return pytest.importorskip("open_clip", reason="the extra open_clip is not installed")


def close(expected):
    return pytest.approx(expected, rel=1e-3, abs=1e-4 * float(np.abs(expected).max()))


def seen(transform, sample):
    """What a library's own transform makes of a picture."""
    return transform(Image.fromarray(sample.image))[None]


# ----- timm ---------------------------------------------------------------------------------------


def test_real_weights_give_timms_own_forward_pass(timm, shared_data, pictures):
    path = shared_data / "models" / "tf_efficientnet_lite0_fp16.safetensors"
    spec = BackboneSpec(model="timm/tf_efficientnet_lite0", weights=FileWeights(path=path))
    state = {
        name: value.float() for name, value in importlib.import_module("safetensors.torch").load_file(path).items()
    }
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(state)
    network.eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    rows = make_backbone(spec, "cpu").extract(pictures)
    maps = make_backbone(spec.model_copy(update={"output": "map"}), "cpu").extract(pictures)
    assert rows.features.shape == (2, 1280)
    assert maps.features.shape == (2, 1280, 7, 7)
    for sample, row, features in zip(pictures, rows.features, maps.features, strict=True):
        with torch.inference_mode():
            expected = network.forward_features(seen(transform, sample))
            pooled = network.forward_head(expected, pre_logits=True)
        assert row == close(pooled[0].numpy())
        assert features == close(expected[0].numpy())


def test_real_weights_name_coffee(timm, shared_data):
    from emofuse.streams.networks.timm_networks import _make
    from emofuse.weights import resolve_weights

    path = shared_data / "models" / "tf_efficientnet_lite0_fp16.safetensors"
    network = _make(timm, "tf_efficientnet_lite0", resolve_weights(FileWeights(path=path))).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    names = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    with torch.inference_mode():
        assert names[network(seen(transform, Sample(data.coffee()))).argmax()] == "espresso"


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "tf_efficientnet_lite0", "convnext_atto.d2_in1k"])
def test_the_preprocessing_is_that_of_the_models_data_configuration(timm, pictures, model):
    preset = make_backbone(BackboneSpec(model=f"timm/{model}", weights=RANDOM), "cpu")._shared.preset
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(model).to_dict())
    transform = timm.data.create_transform(**config)
    found = preset.normalise(preset.cut_all(SampleBatch(pictures), torch.device("cpu")))
    for sample, picture in zip(pictures, found, strict=True):
        assert torch.allclose(picture, seen(transform, sample)[0], rtol=0, atol=1e-6)


def test_tokens_and_map_of_a_vision_transformer_are_its_last_features(timm, pictures, tmp_path):
    with seeded(1):
        network = timm.create_model("vit_tiny_patch16_224").eval()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    weights = FileWeights(path=tmp_path / "vit.pth")
    rows = {
        output: make_backbone(BackboneSpec(model=VIT, weights=weights, output=output), "cpu").extract(pictures)
        for output in ("pooled", "tokens", "map")
    }
    with torch.inference_mode():
        expected = network.forward_features(seen(transform, pictures[0]))[0].numpy()
    assert rows["tokens"].features[0] == close(expected)
    assert (rows["tokens"].mask == 1).all()
    assert rows["pooled"].features[0] == close(expected[0])
    assert rows["map"].features.shape == (2, 192, 14, 14)
    assert rows["map"].features[0, :, 2, 5] == close(expected[1 + 2 * 14 + 5])


@pytest.mark.parametrize("classes", [1000, 7, 0])
def test_a_file_may_have_another_classifier_or_none(timm, pictures, tmp_path, classes):
    with seeded(1):
        network = timm.create_model("vit_tiny_patch16_224", num_classes=classes).eval()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    row = make_backbone(BackboneSpec(model=VIT, weights=FileWeights(path=tmp_path / "vit.pth")), "cpu")
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    network.reset_classifier(0)
    with torch.inference_mode():
        expected = network(seen(transform, pictures[1]))[0].numpy()
    assert row.extract(pictures[1:]).features[0] == close(expected)


@pytest.mark.parametrize("classes", [1000, 0])
def test_a_file_that_lacks_a_tensor_is_refused(timm, tmp_path, classes):
    state = timm.create_model("vit_tiny_patch16_224", num_classes=classes).state_dict()
    del state["blocks.3.mlp.fc1.weight"]
    torch.save(state, tmp_path / "vit.pth")
    with pytest.raises(WeightsError, match=r"vit\.pth holds no weights of timm/vit_tiny_patch16_224 .*blocks\.3\.mlp"):
        make_backbone(BackboneSpec(model=VIT, weights=FileWeights(path=tmp_path / "vit.pth")), "cpu")


def test_unknown_models_of_timm_get_the_nearest_names(timm):
    with pytest.raises(
        SpecError, match=r"'vit_tiny_patch16_22' is no model of timm, did you mean 'vit_tiny_patch16_22"
    ):
        make_backbone(BackboneSpec(model="timm/vit_tiny_patch16_22", weights=RANDOM), "cpu")
    with pytest.raises(SpecError, match=r"timm's vit_tiny_patch16_224 has no weights 'augreg', .*augreg_in21k"):
        make_backbone(BackboneSpec(model=f"{VIT}.augreg", weights=RANDOM), "cpu")
    with pytest.raises(SpecError, match=r"'zzzzzz' is no model of timm\. See timm\.list_models\(\)"):
        make_backbone(BackboneSpec(model="timm/zzzzzz", weights=RANDOM), "cpu")


def test_a_convolutional_network_of_timm_has_no_tokens(timm):
    with pytest.raises(StreamError, match=r"tf_efficientnet_lite0 has no tokens: its features are a map"):
        make_backbone(BackboneSpec(model="timm/tf_efficientnet_lite0", weights=RANDOM, output="tokens"), "cpu")


def test_a_network_with_channels_last_gives_channels_first(timm, pictures):
    stream = make_backbone(BackboneSpec(model="timm/swin_tiny_patch4_window7_224", weights=RANDOM, output="map"), "cpu")
    assert (stream.shape, stream.dimensions) == ((768, 7, 7), ("channel", "y", "x"))


def test_vit_tiny_has_weights_in_the_registry():
    assert default_weights(VIT).name == "vit_tiny_patch16_224"


# ----- open_clip ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(open_clip):
    with seeded(2):
        return open_clip.create_model("ViT-S-32-alt", pretrained=None).eval()


@pytest.mark.parametrize("part", ["whole", "tower"])
def test_open_clip_gives_its_image_embedding(open_clip, clip, pictures, tmp_path, part):
    torch.save((clip if part == "whole" else clip.visual).state_dict(), tmp_path / "clip.pt")
    spec = BackboneSpec(model="open_clip/ViT-S-32-alt", weights=FileWeights(path=tmp_path / "clip.pt"))
    transform = open_clip.image_transform(224, is_train=False)
    rows = make_backbone(spec, "cpu").extract(pictures)
    for sample, row in zip(pictures, rows.features, strict=True):
        with torch.inference_mode():
            assert row == close(clip.encode_image(seen(transform, sample))[0].numpy())


def test_tokens_and_map_of_open_clip_are_without_the_class_token(open_clip, clip, pictures, tmp_path):
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    spec = BackboneSpec(model="open_clip/ViT-S-32-alt", weights=FileWeights(path=tmp_path / "clip.pt"), output="tokens")
    tokens = make_backbone(spec, "cpu").extract(pictures).features
    maps = make_backbone(spec.model_copy(update={"output": "map"}), "cpu").extract(pictures).features
    assert tokens.shape == (2, 49, 384)
    assert np.array_equal(maps.reshape(2, 384, 49).transpose(0, 2, 1), tokens)


def test_the_tag_of_open_clip_decides_the_preprocessing(open_clip):
    plain, tagged = (
        make_backbone(BackboneSpec(model=model, weights=RANDOM), "cpu")
        for model in ("open_clip/ViT-B-32", "open_clip/ViT-B-32/openai")
    )
    assert plain._shared.preset.mean == tagged._shared.preset.mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    activations = [{type(part).__name__ for part in stream.network.modules()} for stream in (plain, tagged)]
    assert ["QuickGELU" in names for names in activations] == [False, True]
    from emofuse.streams.networks.open_clip_networks import open_clip_preprocessing

    assert open_clip_preprocessing("ViT-B-16-SigLIP/webli")["mean"] == [0.5, 0.5, 0.5]
    assert open_clip_preprocessing("ViT-B-16-SigLIP/webli")["resize_mode"] == "squash"
    assert open_clip_preprocessing("ViT-B-16")["resize_mode"] == "shortest"


def test_unknown_models_of_open_clip_get_the_nearest_names(open_clip):
    with pytest.raises(SpecError, match=r"'ViT-B-33' is no model of open_clip, did you mean 'ViT-B-32"):
        make_backbone(BackboneSpec(model="open_clip/ViT-B-33", weights=RANDOM), "cpu")
    with pytest.raises(SpecError, match=r"open_clip's ViT-B-32 has no weights 'openal', did you mean 'openai'"):
        make_backbone(BackboneSpec(model="open_clip/ViT-B-32/openal", weights=RANDOM), "cpu")


def test_weights_that_do_not_fit_open_clips_tower_are_refused(open_clip, clip, tmp_path):
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "other.pt")
    spec = BackboneSpec(model="open_clip/ViT-S-32-alt", weights=FileWeights(path=tmp_path / "other.pt"))
    with pytest.raises(WeightsError, match=r"other\.pt holds no weights of open_clip/ViT-S-32-alt .*Missing key"):
        make_backbone(spec, "cpu")


# ----- all libraries ------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_a_missing_library_is_an_error_that_names_the_extra(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        StreamError, match=rf"need {library}, which is not installed: pip install 'emofuse\[{library}\]'"
    ):
        make_backbone(BackboneSpec(model=f"{library}/any", weights=RANDOM), "cpu")


def test_an_unknown_library_is_named():
    with pytest.raises(ValueError, match=r"'tim' is no library of models, did you mean 'timm'\?"):
        BackboneSpec(model="tim/vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("resnet18", "resnet18"),
        (f"{VIT}.augreg_in21k", "vit_tiny_patch16_224.augreg_in21k"),
        ("open_clip/ViT-B-16/openai", "ViT-B-16-openai"),
    ],
)
def test_the_stream_is_named_by_its_model(model, name):
    assert BackboneSpec(model=model).name == name
    assert BackboneSpec(model=model, input="mel").name == f"{name}-mel"


@pytest.mark.parametrize(
    "model",
    [
        "resnet18",
        "squeezenet1_1",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "densenet121",
        "shufflenet_v2_x0_5",
        "regnet_y_400mf",
        "mnasnet0_5",
        "swin_t",
        "googlenet",
    ],
)
def test_the_mean_of_a_map_is_the_pooled_vector(model, pictures):
    spec = BackboneSpec(model=model, weights=RANDOM)
    pooled = make_backbone(spec, "cpu").extract(pictures[:1]).features[0]
    stream = make_backbone(spec.model_copy(update={"output": "map"}), "cpu")
    features = stream.extract(pictures[:1]).features[0]
    assert stream.shape == features.shape == (len(pooled), *features.shape[1:])
    assert features.mean(axis=(1, 2)) == close(pooled)


def test_a_vision_transformer_of_torchvision_has_tokens_and_a_map(pictures):
    spec = BackboneSpec(model="vit_b_32", weights=RANDOM)
    rows = {
        output: make_backbone(spec.model_copy(update={"output": output}), "cpu").extract(pictures[:1]).features[0]
        for output in ("pooled", "tokens", "map")
    }
    assert rows["tokens"].shape == (50, 768)
    assert rows["tokens"][0] == close(rows["pooled"])
    assert np.array_equal(rows["map"].reshape(768, 49).T, rows["tokens"][1:])


def test_a_network_without_tokens_says_so():
    with pytest.raises(StreamError, match=r"resnet18 has no tokens: only transformers have\. Use output: map"):
        make_backbone(BackboneSpec(model="resnet18", weights=RANDOM, output="tokens"), "cpu")


def test_a_network_without_a_map_says_so():
    from emofuse.streams.networks.outputs import torchvision_outputs

    with pytest.raises(StreamError, match="Linear is no torchvision classification network whose map is known here"):
        torchvision_outputs(nn.Linear(2, 2), torch.zeros(1, 2), {"map"}, model="linear")


@pytest.mark.parametrize(
    ("model", "output"),
    [
        (VIT, "pooled"),
        (VIT, "tokens"),
        ("timm/resnet18", "map"),
        ("squeezenet1_1", "map"),
        ("open_clip/ViT-S-32-alt", "pooled"),
    ],
)
def test_every_output_keeps_the_contract_of_a_stream(model, output):
    library = model.partition("/")[0] if "/" in model else "torchvision"
    pytest.importorskip(library)
    check_stream(BackboneSpec(model=model, weights=RANDOM, output=output))


def test_the_identity_holds_output_and_preprocessing(timm):
    def identity(**fields):
        spec = BackboneSpec(**{"model": VIT, "weights": RANDOM, **fields})
        return stream_identity(spec, CacheSpec(streams=(spec,)))

    plain = identity()
    assert plain["values"]["preprocessing"] == {
        "crop_mode": "center",
        "crop_pct": 0.9,
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    others = [
        identity(output="map"),
        identity(model="timm/vit_small_patch16_224"),
        identity(weights=RandomWeights(seed=4)),
    ]
    assert len({digest(each) for each in [plain, *others]}) == 4


def test_the_identity_of_hub_weights_is_their_hash(timm, tmp_path):
    path = tmp_path / "vit.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), path)
    stored = import_weights(path, "mine")
    hub = HubWeights(repo="timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", revision="main", sha256=stored.sha256)
    specs = [BackboneSpec(model=VIT, weights=weights) for weights in (hub, FileWeights(path=path))]
    one, other = (stream_identity(spec, CacheSpec(streams=(spec,))) for spec in specs)
    assert one == other
    assert make_backbone(specs[0], "cpu").shape == (192,)  # the imported file is found by its hash


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("model", "output"), [(VIT, "tokens"), ("timm/resnet18", "map"), ("resnet18", "map")])
def test_outputs_on_cuda_agree_with_the_cpu(pictures, model, output):
    spec = BackboneSpec(model=model, weights=RANDOM, output=output)
    cpu, cuda = (make_backbone(spec, device).extract(pictures).features for device in ("cpu", "cuda"))
    assert cuda == close(cpu)
    check_stream(spec, device="cuda")
