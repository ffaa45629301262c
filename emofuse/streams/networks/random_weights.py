"""Networks with seeded random weights that behave like networks: for demonstrations and tests.

A batch norm that has seen no data divides by one. Over fifty layers of random convolutions the features then grow or
vanish, depending on the family: MobileNetV2's pooled features are near 1e-8, which is zero in float16. Every batch norm
of a random network therefore receives the second moment of its actual input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_PICTURES = 4


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random numbers on the CPU inside the context, and restore their state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def set_norm_statistics(network: nn.Module, picture_px: int, *, seed: int) -> None:
    """Set mean 0 and one variance for all channels of every batch norm, in place, layer after layer.

    Layer-sequential unit variance (Mishkin and Matas, ICLR 2016): the variance is the second moment of the layer's
    input, over a few synthetic pictures that passed through the layers before it. A layer has one number and no
    centring: the usual mean and variance of each channel would make all channels, and hence all pictures, alike.

    The network runs on one thread, so that the statistics do not depend on the number of cores.
    """

    def measure(norm: nn.Module, args: tuple[Any, ...]) -> None:
        statistics = dict(norm.named_buffers(recurse=False))
        statistics["running_mean"].zero_()
        statistics["running_var"].fill_(args[0].square().mean())

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            network.eval()
            if norms:
                network(_pictures(picture_px, seed))
    finally:
        torch.set_num_threads(threads)
        for hook in hooks:
            hook.remove()


def _pictures(px: int, seed: int) -> torch.Tensor:
    """Make pictures (4, 3, px, px) float32 of variance 1, with equal contrast at every scale as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.zeros(_PICTURES, 3, px, px)
    cells = 2
    while cells <= px:
        noise = torch.randn(_PICTURES, 3, cells, cells, generator=generator)
        pictures += nn.functional.interpolate(noise, size=(px, px), mode="bilinear")
        cells *= 2
    return pictures / pictures.std()
