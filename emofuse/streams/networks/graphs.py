"""Networks of pictures with the normalisation of their pictures, as graphs to convert."""

from __future__ import annotations

import torch
from torch import nn

from emofuse.streams.networks.outputs import Output, PictureNetwork


class PictureGraph(nn.Module):
    """A network with the normalisation of its pictures: (B, 3, H, W) uint8 -> its outputs, float32."""

    def __init__(
        self, made: PictureNetwork, network: nn.Module, wanted: list[Output], *, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.network = network
        self._made, self._wanted, self._dtype = made, wanted, dtype

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs in their order, pooled ones as vectors."""
        normalised = self._made.preset.normalise(pictures).to(self._dtype)
        outputs = self._made.outputs(self.network, normalised, self._wanted)
        return tuple(outputs[name].flatten(1) if name == "pooled" else outputs[name] for name in self._wanted)
