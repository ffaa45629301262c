"""The output of a layer inside a network of torchvision or timm: a map, tokens, or their mean over the picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from emofuse.errors import StreamError, did_you_mean
from emofuse.streams.networks.outputs import Output, PictureNetwork, tokens_to_map
from emofuse.streams.networks.torchvision_parts import models

_LISTED = 24


class _ReachedError(Exception):
    """Ends a forward pass at the layer whose output is wanted."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def at_layer(network: PictureNetwork, model: str, layer: str) -> PictureNetwork:
    """Return a network of torchvision or timm that stops at one of its layers and gives the outputs of that layer.

    The layers behind it are not run. Of a layer that runs several times in a pass, the first output counts.

    Args:
        network: the network.
        model: its name, for errors.
        layer: the name of the layer, as `named_modules` gives it.

    Raises:
        StreamError: the network has no such layer.
    """
    find_layer(network.module, model, layer)
    return replace(network, outputs=partial(layer_outputs, model=model, layer=layer))


def layer_outputs(
    network: Any, pictures: torch.Tensor, wanted: Collection[Output], *, model: str, layer: str
) -> Mapping[Output, torch.Tensor]:
    """Return outputs of a layer for pictures (B, 3, H, W).

    They are its `map` (B, C, h, w), its `tokens` (B, N, D), and `pooled` (B, D), the mean of either over the picture,
    without the class token and others that stand for no place.

    Raises:
        StreamError: the layer has no such output.
    """
    module = find_layer(network, model, layer)
    what = f"layer {layer!r} of {model}"
    features = _reach(network, module, pictures, what)
    if features.ndim == 4 and _is_channels_last(network) and not isinstance(module, nn.Conv2d):
        features = features.permute(0, 3, 1, 2)
    patches = features[:, _prefix_tokens(network) :] if features.ndim == 3 else features
    outputs: dict[Output, torch.Tensor] = {}
    for output in wanted:
        match output, features.ndim:
            case ("map", 4) | ("tokens", 3) | ("pooled", 2):
                outputs[output] = features
            case "map", 3:
                outputs[output] = _as_map(patches, pictures, what)
            case "pooled", 4:
                outputs[output] = features.mean(dim=(2, 3))
            case "pooled", 3:
                outputs[output] = patches.mean(dim=1)
            case _:
                shape = " x ".join(map(str, features.shape[1:]))
                raise StreamError(f"{what} has no {output}: its output is {shape}")
    return outputs


def _reach(network: nn.Module, module: nn.Module, pictures: torch.Tensor, what: str) -> torch.Tensor:
    """Run a network up to one of its layers and return the output of that layer, one tensor a picture."""

    def stop(layer: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 - the signature of hooks
        raise _ReachedError(output)

    hook = module.register_forward_hook(stop)
    try:
        network(pictures)
    except _ReachedError as reached:
        output = reached.output
    else:
        raise StreamError(f"{what} does not run for pictures")
    finally:
        hook.remove()
    if isinstance(output, torch.Tensor) and len(output) == len(pictures):
        return output
    gives = f"{len(output)} parts" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
    raise StreamError(f"{what} gives {gives}, not one tensor a picture. Take the block around it")


def _as_map(patches: torch.Tensor, pictures: torch.Tensor, what: str) -> torch.Tensor:
    """Return the tokens of patches (B, N, D) at their places in the picture, (B, D, rows, columns)."""
    count, height, width = map(int, (patches.shape[1], *pictures.shape[2:]))  # a trace has tensors in their place
    rows = max(1, round((count * height / width) ** 0.5))
    columns = count // rows
    if rows * columns != count:
        raise StreamError(f"{what} has {count} tokens that are no grid of the picture. Use output: tokens")
    return tokens_to_map(patches, rows, columns)


def find_layer(network: nn.Module, model: str, layer: str) -> nn.Module:
    """Return a layer of a network by its name.

    Raises:
        StreamError: it has none of this name; the message names the nearest ones and the blocks of the network.
    """
    layers: dict[str, nn.Module] = dict(network.named_modules())
    if layer and layer in layers:
        return layers[layer]
    names = [name for name in layers if name]
    blocks = [name for name in names if name.count(".") <= 1]
    listed = ", ".join(blocks[:_LISTED]) + (", ..." if len(blocks) > _LISTED else "")
    hint = did_you_mean(layer, names) or "."
    raise StreamError(f"{model} has no layer {layer!r}{hint} Its blocks: {listed}")


def _prefix_tokens(network: Any) -> int:
    """Return the number of tokens before those of the patches."""
    if isinstance(network, models.VisionTransformer):
        return 1
    return int(getattr(network, "num_prefix_tokens", 0))


def _is_channels_last(network: Any) -> bool:
    """Return whether the blocks of a network give maps as (B, h, w, C)."""
    return isinstance(network, models.SwinTransformer) or str(getattr(network, "output_fmt", "NCHW")) == "NHWC"
