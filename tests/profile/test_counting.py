"""Counts of extractors, held against published numbers and against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from emofuse.profile.counting import count_flops, face_detector_name, module_cost, stream_costs
from emofuse.profile.figures import MeasuredCost
from emofuse.specs import BackboneSpec, FaceSpec, ObjectsSpec, Places365Spec, RandomWeights
from emofuse.streams import make_stream
from emofuse.streams.texture import LbpStream

RANDOM = RandomWeights(seed=0)


def cost_of(spec) -> MeasuredCost:
    return stream_costs({spec.name: make_stream(spec)}, FaceSpec())[spec.name]


def test_a_product_of_matrices_is_two_operations_a_multiplication():
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert count_flops(lambda: left @ right) == 2 * 3 * 5 * 7


def test_a_convolution_is_two_operations_a_multiplication():
    layer = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1, bias=False)
    assert count_flops(lambda: layer(torch.ones(1, 3, 32, 32))) == 2 * 3 * 3 * 3 * 8 * 16 * 16


def test_attention_is_counted_and_its_fast_path_put_back():
    layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True).eval()
    tokens, dim, wide = 10, 16, 32
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.inference_mode():
        found = count_flops(lambda: layer(torch.ones(1, tokens, dim)))
    projections, scores, network = 4 * tokens * dim * dim, 2 * tokens * tokens * dim, 2 * tokens * dim * wide
    assert found == 2 * (projections + scores + network)
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_recurrent_layers_are_counted_and_their_fused_kernels_put_back():
    layer = nn.LSTM(4, 8, batch_first=True)
    before = torch.backends.mkldnn.enabled
    assert count_flops(lambda: layer(torch.ones(1, 5, 4))) == 2 * 5 * 4 * (4 * 8 + 8 * 8)
    assert torch.backends.mkldnn.enabled == before


def test_resnet50_has_the_4_09_gmac_that_the_paper_rounds_to_4_13_gflops():
    cost = cost_of(BackboneSpec(model="resnet50", weights=RANDOM))
    classifier = 2048 * 1000 + 1000
    assert cost.parameters == 25_557_032 - classifier
    assert cost.flops / 2 == pytest.approx(4.09e9, rel=1e-3)
    assert cost.model_bytes / 2**20 == pytest.approx(89.7, abs=0.3)  # the paper's "MB"


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2", "densenet121", "vit_b_16", "swin_t"])
def test_networks_have_the_operations_that_torchvision_publishes(model):
    published = next(iter(models.get_model_weights(model))).meta
    cost = cost_of(BackboneSpec(model=model, weights=RANDOM))
    classifier = cost_of_classifier(model)
    assert cost.flops / 2e9 + classifier / 1e9 == pytest.approx(published["_ops"], abs=1.1e-3)
    assert cost.parameters == published["num_params"] - classifier - 1000


def cost_of_classifier(model) -> int:
    """Weights of the last layer, which features do without; without its biases."""
    return 1000 * make_stream(BackboneSpec(model=model, weights=RANDOM)).shape[0]


def test_places365_is_a_resnet50():
    assert cost_of(Places365Spec(weights=RANDOM)) == cost_of(BackboneSpec(model="resnet50", weights=RANDOM))


def test_yolo_is_counted_on_its_full_input():
    """Ultralytics publishes 7.7 GFLOPs and 2.6 M parameters of yolov5nu at 640 x 640."""
    cost = cost_of(ObjectsSpec(weights=RANDOM))
    assert cost.flops / 1e9 == pytest.approx(7.7, abs=0.05)
    assert cost.parameters == pytest.approx(2.65e6, rel=0.01)
    half = cost_of(ObjectsSpec(weights=RANDOM, image_px=320))
    assert half.flops == pytest.approx(cost.flops / 4, rel=0.01)


def test_half_as_wide_numbers_take_half_the_bytes():
    exact = cost_of(BackboneSpec(model="resnet18", weights=RANDOM))
    coarse = cost_of(BackboneSpec(model="resnet18", weights=RANDOM, precision="bfloat16"))
    assert coarse.parameters == exact.parameters
    assert coarse.model_bytes == pytest.approx(exact.model_bytes / 2, rel=1e-4)


def test_what_is_no_network_is_not_counted_and_never_zero(face):
    spec = FaceSpec(**face)
    costs = stream_costs({"lbp": LbpStream(region_px=64, without_face="whole_image")}, spec)
    assert costs["lbp"] == MeasuredCost(parameters=0, model_bytes=0, flops=None)
    detector = costs[face_detector_name(spec)]
    assert (detector.parameters, detector.flops) == (None, None)
    assert 1e6 < detector.model_bytes < 5e6


def test_no_face_detector_where_no_stream_looks_at_faces():
    assert set(stream_costs({"resnet18": make_stream(BackboneSpec(model="resnet18", weights=RANDOM))}, FaceSpec())) == {
        "resnet18"
    }


def test_the_bytes_of_a_module_hold_its_buffers():
    norm = nn.BatchNorm1d(8)
    assert module_cost([norm], None) == MeasuredCost(
        16, (16 + 16) * 4 + 8, None
    )  # running mean and variance, a counter


def test_counting_leaves_the_features_as_they_are():
    from emofuse.streams.base import Sample

    stream = make_stream(BackboneSpec(model="resnet18", weights=RANDOM))
    picture = Sample(np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8))
    before = stream.extract([picture]).features
    stream_costs({"resnet18": stream}, FaceSpec())
    np.testing.assert_array_equal(stream.extract([picture]).features, before)


def test_a_network_of_faces_is_counted_on_a_face_as_it_is_on_a_picture():
    face, picture = (cost_of(BackboneSpec(model="resnet18", weights=RANDOM, region=each)) for each in ("face", "image"))
    assert face.flops == picture.flops


def test_the_layers_behind_the_stored_one_are_not_counted():
    whole = cost_of(BackboneSpec(model="resnet18", weights=RANDOM)).flops
    half = cost_of(BackboneSpec(model="resnet18", weights=RANDOM, layer="layer2")).flops
    assert 0.4 < half / whole < 0.6
