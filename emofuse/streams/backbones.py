"""Pooled features of torchvision's classification networks, and of the Places365 ResNet-50.

What is cached is what the plain network computes from torchvision's own preset (resize, centre crop, normalisation) of
the same picture, cut before the classifier. Which preset goes with which weights is torchvision's metadata, not a table
of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import models

from emofuse.errors import SpecError, StreamError, WeightsError, did_you_mean
from emofuse.specs.weights import Precision
from emofuse.streams.base import Batch, Rows, Sample
from emofuse.streams.networks import BackboneSpec, Places365Spec
from emofuse.streams.presets import Preset
from emofuse.streams.random_weights import seeded, set_norm_statistics
from emofuse.weights import REGISTRY, ResolvedWeights, default_weights, load_checkpoint, resolve_weights

_PLACES365_CLASSES = 365
_CPU_BATCH = 4  # the fastest on one core: 16 falls out of its cache (benchmarks/steps.py)
_GPU_BATCH = 64
_OLD_DENSE_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


class BackboneStream:
    """One frozen network with its head cut off -> one pooled vector a picture.

    Holds no per-sample state: one instance serves every block of a worker. float32 is without TF32 on every device;
    in bfloat16 the weights and all values between layers are bfloat16, and sums within a layer float32.

    Attributes:
        network: the torchvision network, its head cut off.
    """

    dtype = np.dtype(np.float32)
    needs_face = False
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __init__(self, network: nn.Module, transform: Any, device: str, precision: Precision = "float32") -> None:
        self.dim = cut_head(network)
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.network = _to_device(network, device).to(self._dtype)
        self._preset = Preset(transform)
        self._device = torch.device(device)
        self._batch = _CPU_BATCH if self._device.type == "cpu" else _GPU_BATCH

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Pooled features of n pictures.

        Returns:
            features (n, dim) float32, every row OK.
        """
        if not samples:
            return Rows.ok(np.zeros((0, self.dim), dtype=self.dtype))
        pictures = self._preset.cut_all(Batch.of(samples), self._device)
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            pooled = torch.cat([self._forward(part) for part in torch.split(pictures, self._batch)])
            return Rows.ok(pooled.cpu().numpy())

    def close(self) -> None:
        """Nothing to release that the garbage collector does not."""

    def _forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8 -> (B, dim) float32, both on the device."""
        batch = self._preset.normalise(pictures).to(self._dtype, memory_format=torch.channels_last)
        pooled: torch.Tensor = self.network(batch).flatten(1).float()
        return pooled


def make_backbone(spec: BackboneSpec, device: str) -> BackboneStream:
    """The stream of a torchvision model by name.

    Raises:
        SpecError: torchvision has no such classification model, or it cannot be cut before its classifier.
        WeightsError: the weights are missing, damaged, or another model's.
    """
    check_model(spec.model)
    weights = resolve_weights(spec.weights or default_weights(spec.model))
    network, transform = make_network(spec.model, weights), make_preset(spec.model, weights)
    return BackboneStream(network, transform, device, spec.precision)


def make_places365(spec: Places365Spec, device: str) -> BackboneStream:
    """The stream of the Places365 ResNet-50 (365 classes): 2048 values before its classifier.

    Raises:
        WeightsError: the weights are missing, damaged, or another model's.
    """
    weights = resolve_weights(spec.weights)
    network = make_network("resnet50", weights, classes=_PLACES365_CLASSES)
    return BackboneStream(network, make_preset("resnet50", weights), device, spec.precision)


def _to_device(network: nn.Module, device: str) -> nn.Module:
    try:
        return network.to(device).to(memory_format=torch.channels_last)  # up to twice as fast, on CPUs too
    except (RuntimeError, AssertionError) as error:
        raise StreamError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


def make_network(model: str, weights: ResolvedWeights, *, classes: int = 1000) -> nn.Module:
    """A whole torchvision network with its classifier, on the CPU, in evaluation mode.

    Random weights are torchvision's own initialisation, seeded, with the norms' statistics set so that values neither
    grow nor die out. The global random state is left alone.

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
    """Resize, centre crop and normalisation as torchvision publishes them for some weights of a model, on PIL pictures.

    The weights are known by their hash, wherever the file lies. Other files and random weights get the preset of the
    model's first published weights (V1 for nearly all).
    """
    for entry in REGISTRY.values():
        if entry.model == model and entry.preset and weights.sha256 and entry.matches(weights.sha256):
            return models.get_model_weights(model)[entry.preset].transforms()
    return _reference_preset(model)


def cut_head(network: nn.Module) -> int:
    """Takes the classifier off in place, so that the network gives the vectors that went into it.

    All are averages over the picture's positions, but for AlexNet and VGG, which have none (the input of their last
    layer: fc7, 4096 values), and vision transformers (their class token).

    Returns:
        The width of the vectors.

    Raises:
        StreamError: a family that is not known here.
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
    """Raises `SpecError` if torchvision has no such classification model."""
    known = models.list_models(module=models)
    if model not in known:
        hint = did_you_mean(model, known) or f", expected one of {', '.join(known)}"
        raise SpecError("backbone", [f"model: {model!r} is no classification model of torchvision{hint}"])


def _build(model: str, classes: int) -> nn.Module:
    """The network as its published weights expect it: GoogLeNet and Inception rescale their input themselves."""
    options: dict[str, Any] = {"num_classes": classes}
    if model in ("googlenet", "inception_v3"):
        options |= {"transform_input": True, "aux_logits": True, "init_weights": False}
    network: nn.Module = models.get_model(model, weights=None, **options)
    return network


def _load_state(network: nn.Module, model: str, path: Path) -> None:
    """Loads a file strictly: every tensor has its place, every place its tensor."""
    state = load_checkpoint(path)
    if isinstance(network, models.DenseNet):  # its published files name layers as torch no longer allows
        for name in [name for name in state if _OLD_DENSE_NAME.search(name)]:
            state[_OLD_DENSE_NAME.sub(r"\1\2.", name)] = state.pop(name)
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        faults = [line.strip()[:160] for line in str(error).splitlines()]
        raise WeightsError(
            f"{path} holds no weights of {model} as it is needed here: {' | '.join(faults[:6])}"
        ) from None


def _reference_preset(model: str) -> Any:
    """The preset of the first weights that torchvision published of a model."""
    return next(iter(models.get_model_weights(model))).transforms()
