"""The output of a layer inside a backbone is that of the library's own pass up to there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage import data
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from emofuse.errors import StreamError
from emofuse.specs import BackboneSpec, CacheSpec, RandomWeights, digest
from emofuse.streams import stream_identity
from emofuse.streams.backbones import make_backbone
from emofuse.streams.base import Sample
from emofuse.streams.networks.classification import make_network
from emofuse.testing import check_stream
from emofuse.weights import resolve_weights

RANDOM = RandomWeights(seed=3)


@pytest.fixture(scope="module")
def samples():
    return [Sample(data.astronaut()[:300, 100:400])]


def extract(model, samples, **fields):
    stream = make_backbone(BackboneSpec(model=model, weights=RANDOM, **fields), "cpu")
    features = stream.extract(samples).features
    assert features.shape == (len(samples), *stream.shape)
    return features


def pictures(model, samples):
    """The normalised pictures that a torchvision model sees."""
    preset = models.get_model_weights(model).IMAGENET1K_V1.transforms()
    from PIL import Image

    return torch.stack([preset(Image.fromarray(sample.image)) for sample in samples])


@pytest.mark.parametrize(
    ("model", "layer", "shape"),
    [
        ("resnet18", "layer3", (256, 14, 14)),
        ("resnet18", "layer2.0", (128, 28, 28)),
        ("mobilenet_v2", "features.13", (96, 14, 14)),
        ("squeezenet1_1", "features.7", (256, 27, 27)),
    ],
)
def test_a_map_is_the_output_of_the_layer(samples, model, layer, shape):
    features = extract(model, samples, layer=layer, output="map")
    network = create_feature_extractor(make_network(model, resolve_weights(RANDOM)), [layer])
    with torch.inference_mode():
        expected = network(pictures(model, samples))[layer].numpy()
    assert features.shape == (1, *shape)
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())
    pooled = extract(model, samples, layer=layer)
    np.testing.assert_allclose(pooled, expected.mean(axis=(2, 3)), atol=1e-4 * np.abs(expected).max())


def test_the_last_block_gives_the_last_map(samples):
    last = extract("resnet18", samples, output="map")
    np.testing.assert_allclose(extract("resnet18", samples, layer="layer4", output="map"), last, rtol=1e-5)


def test_a_block_of_a_vision_transformer_has_tokens_a_map_and_a_mean_without_the_class_token(samples):
    layer = "encoder.layers.encoder_layer_3"
    tokens = extract("vit_b_32", samples, layer=layer, output="tokens")
    assert tokens.shape == (1, 50, 768)
    assert np.array_equal(extract("vit_b_32", samples, layer=layer, output="map").reshape(768, 49).T, tokens[0, 1:])
    pooled = extract("vit_b_32", samples, layer=layer)
    np.testing.assert_allclose(pooled[0], tokens[0, 1:].mean(axis=0), atol=1e-4)


def test_a_network_with_channels_last_gives_channels_first(samples):
    assert extract("swin_t", samples, layer="features.3", output="map").shape == (1, 192, 28, 28)
    assert extract("swin_t", samples, layer="features.0.0", output="map").shape == (1, 96, 56, 56)


def test_layers_of_timm(samples):
    pytest.importorskip("timm")
    assert extract("timm/vit_tiny_patch16_224", samples, layer="blocks.5", output="map").shape == (1, 192, 14, 14)
    assert extract("timm/resnet18", samples, layer="layer2", output="map").shape == (1, 128, 28, 28)


@pytest.mark.parametrize("output", ["pooled", "map"])
def test_a_layer_keeps_the_contract_of_a_stream(output):
    check_stream(BackboneSpec(model="squeezenet1_1", weights=RANDOM, layer="features.4", output=output))


def test_an_unknown_layer_names_the_nearest_and_the_blocks():
    with pytest.raises(StreamError, match=r"no layer 'layr3', did you mean 'layer3'\? Its blocks: conv1, bn1, relu"):
        make_backbone(BackboneSpec(model="resnet18", weights=RANDOM, layer="layr3"), "cpu")


@pytest.mark.parametrize(
    ("layer", "output", "message"),
    [
        ("layer3", "tokens", r"layer 'layer3' of resnet18 has no tokens: its output is 256 x 14 x 14"),
        ("avgpool", "tokens", r"has no tokens: its output is 512 x 1 x 1"),
        ("fc", "map", r"has no map: its output is 512"),
    ],
)
def test_an_output_that_a_layer_does_not_have_is_an_error_that_names_its_shape(layer, output, message):
    with pytest.raises(StreamError, match=message):
        make_backbone(BackboneSpec(model="resnet18", weights=RANDOM, layer=layer, output=output), "cpu")


def test_a_layer_that_gives_more_than_a_tensor_is_an_error_that_names_the_block_around_it():
    layer = "encoder.layers.encoder_layer_3.self_attention"
    with pytest.raises(StreamError, match=r"gives a tuple, not one tensor a picture\. Take the block around it"):
        make_backbone(BackboneSpec(model="vit_b_32", weights=RANDOM, layer=layer), "cpu")


def test_a_layer_that_is_not_run_says_so():
    with pytest.raises(StreamError, match=r"layer 'aux1' of googlenet does not run for pictures"):
        make_backbone(BackboneSpec(model="googlenet", weights=RANDOM, layer="aux1"), "cpu")


def test_the_layer_is_part_of_name_and_digest():
    spec = BackboneSpec(model="resnet18", weights=RANDOM, layer="layer3")
    plain = BackboneSpec(model="resnet18", weights=RANDOM)
    assert spec.name == "resnet18-layer3"
    assert "layer" not in plain.model_dump(mode="json")
    identities = [stream_identity(each, CacheSpec(streams=(each,))) for each in (spec, plain)]
    assert digest(identities[0]) != digest(identities[1])


def test_layers_of_open_clip_are_refused():
    with pytest.raises(ValidationError, match="layers are for models of torchvision and timm"):
        BackboneSpec(model="open_clip/ViT-B-16", weights=RANDOM, layer="transformer")
