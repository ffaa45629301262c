"""Networks of pictures with the outputs that streams store: the pooled vector, the last map, or the tokens.

Every network here takes normalised pictures (B, 3, H, W) and gives (B, D), (B, C, h, w) or (B, N, D), or several of
them from one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import nn

from emofuse.errors import StreamError
from emofuse.streams.networks.classification import cut_head, make_network, make_preset
from emofuse.streams.networks.presets import PicturePreset, Preset
from emofuse.streams.networks.torchvision_parts import models
from emofuse.weights import ResolvedWeights

Output = Literal["pooled", "map", "tokens"]


class Outputs(Protocol):
    """A function that runs a network once on pictures, for all outputs that are wanted."""

    def __call__(
        self, network: Any, pictures: torch.Tensor, wanted: Collection[Output]
    ) -> Mapping[Output, torch.Tensor]:
        """Return the wanted outputs.

        Raises:
            StreamError: the network has no such output.
        """
        ...


def pooled_output(network: Any, pictures: torch.Tensor, wanted: Collection[Output]) -> Mapping[Output, torch.Tensor]:  # noqa: ARG001
    """Return what the network returns as its pooled vector."""
    return {"pooled": network(pictures)}


@dataclass(frozen=True)
class PictureNetwork:
    """A network that is ready to run on pictures.

    Attributes:
        module: the network without its classifier, on the CPU, in evaluation mode.
        preset: its resize, crop and normalisation.
        outputs: the function that gives its outputs.
    """

    module: nn.Module
    preset: PicturePreset
    outputs: Outputs = pooled_output

    def shape(self, output: Output) -> tuple[int, ...]:
        """Return the shape of one row of an output, measured on a blank picture.

        Raises:
            StreamError: the network has no such output.
        """
        first = next(self.module.parameters(), torch.zeros(()))
        with torch.inference_mode():
            blank = torch.zeros(1, 3, *self.preset.size, device=first.device, dtype=first.dtype)
            measured = self.outputs(self.module, blank, {output})[output]
            return tuple((measured.flatten(1) if output == "pooled" else measured).shape[1:])


def make_torchvision_network(model: str, weights: ResolvedWeights, *, classes: int = 1000) -> PictureNetwork:
    """Make a classification model of torchvision without its classifier, see `make_network`.

    Raises:
        StreamError: the network is of a family that is unknown here.
        WeightsError: the file's tensors do not fit the network name by name.
    """
    network = make_network(model, weights, classes=classes)
    cut_head(network)
    return PictureNetwork(
        network.eval(), Preset(make_preset(model, weights)), partial(torchvision_outputs, model=model)
    )


def torchvision_outputs(
    network: Any, pictures: torch.Tensor, wanted: Collection[Output], *, model: str
) -> Mapping[Output, torch.Tensor]:
    """Return outputs of a torchvision network whose classifier was cut.

    `map` is what the network averages over the positions of the picture: its last map, after its last norm and
    activation. A vision transformer has `tokens`: the class token and one token for each patch, after the last norm;
    its map is the tokens of the patches at their places.

    Raises:
        StreamError: the network has no such output.
    """
    if isinstance(network, models.VisionTransformer):
        return _transformer_outputs(network, pictures)
    if "tokens" in wanted:
        raise StreamError(f"{model} has no tokens: only transformers have. Use output: map")
    if "map" not in wanted:
        return {"pooled": network(pictures)}
    place = next((place for families, place in _MAPS.items() if isinstance(network, families)), None)
    if place is None:
        raise StreamError(f"{type(network).__name__} is no torchvision classification network whose map is known here")
    pooled, last = passed(network, pictures, place(network), takes_input=isinstance(network, _MAP_IS_INPUT))
    return {"pooled": pooled, "map": torch.relu(last) if isinstance(network, models.DenseNet) else last}


def passed(
    network: Any, pictures: torch.Tensor, part: nn.Module, *, takes_input: bool = False
) -> tuple[Any, torch.Tensor]:
    """Return what a network returns, and the output or the input of a part of it on the way."""
    caught: list[torch.Tensor] = []

    def catch(_part: object, args: tuple[torch.Tensor, ...], output: torch.Tensor | None = None) -> None:
        value = args[0] if output is None else output
        caught.append(value.clone())  # the layers behind it may work in place

    hook = part.register_forward_pre_hook(catch) if takes_input else part.register_forward_hook(catch)
    try:
        return network(pictures), caught[0]
    finally:
        hook.remove()


def _transformer_outputs(network: Any, pictures: torch.Tensor) -> Mapping[Output, torch.Tensor]:
    pooled, tokens = passed(network, pictures, network.encoder)
    rows, columns = (side // network.patch_size for side in pictures.shape[2:])
    return {"pooled": pooled, "tokens": tokens, "map": tokens_to_map(tokens[:, 1:], rows, columns)}


def tokens_to_map(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return the tokens (B, rows * columns, D) at their places, (B, D, rows, columns)."""
    return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], rows, columns)


_MAP_IS_INPUT = (models.ResNet, models.RegNet, models.GoogLeNet, models.Inception3)
"""Families whose map is the input of their pooling layer."""

_MAPS: dict[tuple[type[nn.Module], ...], Callable[[Any], nn.Module]] = {
    _MAP_IS_INPUT: lambda network: network.avgpool,
    (
        models.AlexNet,
        models.ConvNeXt,
        models.DenseNet,
        models.EfficientNet,
        models.MobileNetV2,
        models.MobileNetV3,
        models.SqueezeNet,
        models.VGG,
    ): lambda network: network.features,
    (models.MNASNet,): lambda network: network.layers,
    (models.ShuffleNetV2,): lambda network: network.conv5,
    (models.MaxVit,): lambda network: network.blocks[-1],
    (models.SwinTransformer,): lambda network: network.permute,
}
"""Families of torchvision and the part that gives their last map."""
