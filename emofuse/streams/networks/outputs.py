"""Networks of pictures with the output that a stream stores: the pooled vector, the last map, or the tokens.

Every network here takes normalised pictures (B, 3, H, W) and returns (B, D), (B, C, h, w) or (B, N, D).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torchvision import models

from emofuse.errors import StreamError
from emofuse.streams.networks.classification import cut_head, make_network, make_preset
from emofuse.streams.networks.presets import PicturePreset, Preset
from emofuse.weights import ResolvedWeights

Output = Literal["pooled", "map", "tokens"]

DIMENSIONS: dict[Output, tuple[str, ...]] = {
    "pooled": ("feature",),
    "map": ("channel", "y", "x"),
    "tokens": ("time", "feature"),
}
"""The names of the axes of a row. Tokens are a sequence whose steps are positions of the picture, row by row."""


@dataclass(frozen=True)
class PictureNetwork:
    """A network that is ready to run on pictures.

    Attributes:
        module: the network, on the CPU, in evaluation mode.
        preset: its resize, crop and normalisation.
        output: what it returns.
    """

    module: nn.Module
    preset: PicturePreset
    output: Output = "pooled"

    def shape(self) -> tuple[int, ...]:
        """Return the shape of one row, measured on a blank picture."""
        with torch.inference_mode():
            output = self.module(torch.zeros(1, 3, *self.preset.size))
            return tuple((output.flatten(1) if self.output == "pooled" else output).shape[1:])


class Forward(nn.Module):
    """A network whose forward pass is a function of it and of the pictures."""

    def __init__(self, network: nn.Module, function: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.network = network
        self._function = function

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the output of the function."""
        return self._function(self.network, pictures)


def make_torchvision_network(
    model: str, weights: ResolvedWeights, output: Output, *, classes: int = 1000
) -> PictureNetwork:
    """Make a classification model of torchvision without its classifier, see `make_network` and `torchvision_output`.

    Raises:
        StreamError: the model has no such output.
        WeightsError: the file's tensors do not fit the network name by name.
    """
    network = torchvision_output(make_network(model, weights, classes=classes), model, output)
    return PictureNetwork(network.eval(), Preset(make_preset(model, weights)), output)


def torchvision_output(network: nn.Module, model: str, output: Output) -> nn.Module:
    """Return a torchvision classification network with this output in place of its classes.

    `map` is what the network averages over the positions of the picture: its last map, after its last norm and
    activation. A vision transformer has `tokens`: the class token and one token for each patch, after the last norm;
    its map is the tokens of the patches at their places.

    Raises:
        StreamError: the network is of a family that is unknown here, or has no such output.
    """
    if output == "pooled":
        cut_head(network)
        return network
    if output == "tokens":
        if isinstance(network, models.VisionTransformer):
            return Forward(network, _vit_tokens)
        raise StreamError(f"{model} has no tokens: only transformers have. Use output: map")
    for families, function in _MAPS.items():
        if isinstance(network, families):
            return Forward(network, function)
    raise StreamError(f"{type(network).__name__} is no torchvision classification network whose map is known here")


def _vit_tokens(network: Any, pictures: torch.Tensor) -> torch.Tensor:
    patches = network._process_input(pictures)  # noqa: SLF001 - the part of its forward before the encoder
    tokens = torch.cat([network.class_token.expand(len(patches), -1, -1), patches], dim=1)
    encoded: torch.Tensor = network.encoder(tokens)
    return encoded


def _vit_map(network: Any, pictures: torch.Tensor) -> torch.Tensor:
    tokens = _vit_tokens(network, pictures)
    rows, columns = (side // network.patch_size for side in pictures.shape[2:])
    return tokens_to_map(tokens[:, 1:], rows, columns)


def tokens_to_map(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return the tokens (B, rows * columns, D) at their places, (B, D, rows, columns)."""
    return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], rows, columns)


def _maxvit_map(network: Any, pictures: torch.Tensor) -> torch.Tensor:
    maps: torch.Tensor = network.stem(pictures)
    for block in network.blocks:
        maps = block(maps)
    return maps


def _shuffle_map(network: Any, pictures: torch.Tensor) -> torch.Tensor:
    maps = network.maxpool(network.conv1(pictures))
    maps = network.stage4(network.stage3(network.stage2(maps)))
    last: torch.Tensor = network.conv5(maps)
    return last


def _before_avgpool(network: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Return the input of the pooling layer, caught on the way through the whole network."""
    caught: list[torch.Tensor] = []
    hook = network.avgpool.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    try:
        network(pictures)
    finally:
        hook.remove()
    return caught[0]


_MAPS: dict[tuple[type[nn.Module], ...], Callable[[Any, torch.Tensor], torch.Tensor]] = {
    (models.ResNet, models.RegNet, models.GoogLeNet, models.Inception3): _before_avgpool,
    (
        models.AlexNet,
        models.ConvNeXt,
        models.EfficientNet,
        models.MobileNetV2,
        models.MobileNetV3,
        models.SqueezeNet,
        models.VGG,
    ): lambda network, pictures: network.features(pictures),
    (models.DenseNet,): lambda network, pictures: torch.relu(network.features(pictures)),
    (models.MNASNet,): lambda network, pictures: network.layers(pictures),
    (models.ShuffleNetV2,): _shuffle_map,
    (models.MaxVit,): _maxvit_map,
    (models.SwinTransformer,): lambda network, pictures: network.permute(network.norm(network.features(pictures))),
    (models.VisionTransformer,): _vit_map,
}
"""Families of torchvision and the function that computes their last map."""
