"""The registry agrees with torchvision's own metadata, and every model has weights of its own."""

from __future__ import annotations

import pytest
from torchvision import models

from emofuse.errors import WeightsError
from emofuse.weights import REGISTRY, default_weights

TORCHVISION = [
    entry for entry in REGISTRY.values() if entry.source.endswith("ImageNet-1k") and entry.preset and entry.url
]


def test_every_torchvision_entry_is_the_file_that_torchvision_names():
    assert len(TORCHVISION) > 100
    for entry in TORCHVISION:
        if entry.model not in models.list_models(module=models):
            continue  # of a newer torchvision
        member = models.get_model_weights(entry.model)[entry.preset]
        assert entry.url == member.url
        assert entry.size_mib == pytest.approx(member.meta["_file_size"], abs=0.06)


def test_no_weights_of_the_installed_torchvision_are_missing():
    known = {(entry.model, entry.preset) for entry in TORCHVISION}
    installed = {
        (model, member.name)
        for model in models.list_models(module=models)
        for member in models.get_model_weights(model)
    }
    assert installed - known <= {("vgg16", "IMAGENET1K_FEATURES")}


def test_every_file_that_can_be_fetched_can_be_checked():
    for entry in REGISTRY.values():
        assert entry.licence, entry.name
        if entry.sha256 is None:
            assert entry.url.endswith((".pt", ".bin", ".safetensors")), f"{entry.name}: neither hash nor archive"
        else:
            assert len(entry.sha256) in (8, 10, 64), entry.name


def test_facts_of_the_issue():
    assert REGISTRY["resnet50-v1"].sha256 == "0676ba61"
    assert REGISTRY["resnet50-v2"].sha256 == "11ad3fa6"
    assert REGISTRY["places365"].url.endswith("/resnet50_places365.pth.tar")
    assert REGISTRY["places365"].filename == "places365.pth"
    assert REGISTRY["yolov5nu"].filename == "yolov5nu.pt"
    assert REGISTRY["face_landmarker"].filename == "face_landmarker.task"
    assert REGISTRY["mobilenet_v2-onnx"].url is None
    assert REGISTRY["vit_b_16-swag-e2e-v1"].licence == "CC-BY-NC-4.0"


@pytest.mark.parametrize(
    ("model", "name"),
    [("resnet50", "resnet50-v1"), ("vit_b_16", "vit_b_16-v1"), ("yolov5n", "yolov5nu"), ("yolov5s", "yolov5su")],
)
def test_default_weights(model, name):
    assert default_weights(model).name == name


def test_a_model_without_default_weights_says_what_to_write():
    with pytest.raises(
        WeightsError, match=r"'resnet5' has no default weights in the registry, did you mean 'resnet50'\?"
    ):
        default_weights("resnet5")
    with pytest.raises(WeightsError, match=r"'vit_h_14' has no default .*name: vit_h_14-swag-e2e-v1\}, \{kind: file"):
        default_weights("vit_h_14")
