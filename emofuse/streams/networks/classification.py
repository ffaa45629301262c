"""torchvision's classification networks: made by name with their weights and preset, and cut before the classifier."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emofuse.errors import SpecError, StreamError, WeightsError, did_you_mean
from emofuse.streams.networks.random_weights import seeded, set_norm_statistics
from emofuse.streams.networks.torchvision_parts import models
from emofuse.weights import REGISTRY, ResolvedWeights, load_checkpoint

_OLD_DENSE_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def to_device(network: nn.Module, device: str) -> nn.Module:
    """Return the network on a device, its tensors in channels-last order.

    Raises:
        StreamError: the device cannot be used.
    """
    try:
        return network.to(device).to(memory_format=torch.channels_last)  # up to twice as fast, on CPUs too
    except (RuntimeError, AssertionError) as error:
        raise StreamError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


def make_network(model: str, weights: ResolvedWeights, *, classes: int = 1000) -> nn.Module:
    """Make a whole torchvision network with its classifier, on the CPU, in evaluation mode.

    Random weights are torchvision's own initialisation, seeded. The statistics of their norms are set so that values
    neither grow nor vanish. The global random state stays as it is.

    Raises:
        WeightsError: the file's tensors do not fit the network name by name.
    """
    seed = weights.seed or 0
    with seeded(seed):
        network = _build(model, classes).eval()
    if weights.path is None:
        set_norm_statistics(network, _reference_preset(model).crop_size[0], seed=seed)
    else:
        _load_state(network, model, weights.path)
    return network


def make_preset(model: str, weights: ResolvedWeights) -> Any:
    """Return the resize, centre crop and normalisation of PIL pictures that torchvision publishes for these weights.

    Weights are recognised by their hash. Unknown files and random weights get the preset of the model's first published
    weights (V1 for nearly all models).
    """
    for entry in REGISTRY.values():
        if entry.model == model and entry.preset and weights.sha256 and entry.matches(weights.sha256):
            return models.get_model_weights(model)[entry.preset].transforms()
    return _reference_preset(model)


def cut_head(network: nn.Module) -> int:
    """Remove the classifier in place, so that the network returns the vectors that the classifier received.

    The vectors are averages over the positions of the picture, with two exceptions: AlexNet and VGG give the input of
    their last layer (fc7, 4096 values), and vision transformers give their class token.

    Returns:
        D, the width of the vectors.

    Raises:
        StreamError: the network is of a family that this function does not know.
    """
    match network:
        case models.ResNet() | models.RegNet() | models.ShuffleNetV2() | models.GoogLeNet() | models.Inception3():
            last, network.fc = network.fc, nn.Identity()
        case models.DenseNet():
            last, network.classifier = network.classifier, nn.Identity()
        case models.MobileNetV2() | models.EfficientNet() | models.MNASNet():
            last, network.classifier = network.classifier[-1], nn.Identity()
        case models.MobileNetV3():
            last, network.classifier = network.classifier[0], nn.Identity()
        case models.AlexNet() | models.VGG() | models.ConvNeXt():
            last, network.classifier[-1] = network.classifier[-1], nn.Identity()
        case models.SqueezeNet():
            width = int(network.classifier[1].in_channels)
            network.classifier = nn.AdaptiveAvgPool2d(1)
            return width
        case models.VisionTransformer():
            last, network.heads = network.heads[0], nn.Identity()
        case models.SwinTransformer():
            last, network.head = network.head, nn.Identity()
        case models.MaxVit():
            last, network.classifier = network.classifier[3], network.classifier[:3]
        case _:
            raise StreamError(
                f"{type(network).__name__} is no torchvision classification network whose head is known here"
            )
    return int(last.in_features)


def check_model(model: str) -> None:
    """Check that torchvision has a classification model of this name.

    Raises:
        SpecError: it has none.
    """
    known = models.list_models(module=models)
    if model not in known:
        hint = did_you_mean(model, known) or f", expected one of {', '.join(known)}"
        raise SpecError("backbone", [f"model: {model!r} is no classification model of torchvision{hint}"])


def _build(model: str, classes: int) -> nn.Module:
    """Build the network as its published weights expect it: GoogLeNet and Inception rescale their input themselves."""
    options: dict[str, Any] = {"num_classes": classes}
    if model in ("googlenet", "inception_v3"):
        options |= {"transform_input": True, "aux_logits": True, "init_weights": False}
    network: nn.Module = models.get_model(model, weights=None, **options)
    return network


def _load_state(network: nn.Module, model: str, path: Path) -> None:
    """Load a file strictly: its tensors and those of the network must be the same, name by name."""
    state = load_checkpoint(path)
    if isinstance(network, models.DenseNet):  # its published files name layers as torch no longer allows
        for name in [name for name in state if _OLD_DENSE_NAME.search(name)]:
            state[_OLD_DENSE_NAME.sub(r"\1\2.", name)] = state.pop(name)
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        faults = [line.strip()[:160] for line in str(error).splitlines()]
        raise WeightsError(
            f"{path} holds no weights of {model} as they are needed here: {' | '.join(faults[:6])}"
        ) from None


def _reference_preset(model: str) -> Any:
    """Return the preset of the first weights that torchvision published of a model."""
    return next(iter(models.get_model_weights(model))).transforms()
