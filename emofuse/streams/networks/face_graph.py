"""RetinaFace with the normalisation of its picture, as PyTorch runs it and as it is compiled."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_MEAN = (104.0, 117.0, 123.0)  # of blue, green and red: the networks were trained on pictures as OpenCV reads them


class FaceGraph(nn.Module):
    """The network with the normalisation of its picture: (1, h, w, 3) uint8 BGR -> offsets, scores and points."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the offsets (1, n, 4), scores (1, n, 2) and points (1, n, 10) of n anchors."""
        mean = torch.tensor(_MEAN, device=picture.device).view(1, 3, 1, 1)
        batch = picture.permute(0, 3, 1, 2).float() - mean
        return tuple(self.network(batch.contiguous(memory_format=torch.channels_last)))
