"""Convolutional stems of maps: parallel patches with channel attention, and a small network for small maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.members import Members
from emofuse.heads.stems.layers import MemberConv, MemberGroupNorm, MemberLinear

REDUCTION = 4
"""The first dense layer of the channel attention is so many times narrower than its input."""
CNN_LAYERS, CNN_GRID, MOST_NORM_GROUPS = 3, 3, 8


class Patches(nn.Module):
    """Convolutions of several kernel sizes side by side, then channel attention and the mean over the map.

    The kernels cut patches of several sizes out of the map; the attention weighs their channels by two dense layers on
    their means (Hu et al., CVPR 2018), as the custom MobileNet of the real-time face paper does on its feature maps.
    Since a channel's weight is one number, weighting the map and taking its mean is weighting the mean.

    Args:
        members: that have it.
        channels: of the map.
        width: channels of each convolution.
        kernels: their sizes, odd.
    """

    def __init__(self, members: Members, channels: int, width: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.dim = width * len(kernels)
        narrow = max(1, self.dim // REDUCTION)
        self.convolutions = nn.ModuleList(
            MemberConv(members, channels, width, kernel, shared=True) for kernel in kernels
        )
        self.squeeze = MemberLinear(members, self.dim, narrow, shared=False)
        self.excite = MemberLinear(members, narrow, self.dim, shared=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(n, R, kernels x width) of (F, R, C, H, W)."""
        means = torch.cat([functional.relu(conv(maps)).mean((3, 4)) for conv in self.convolutions], dim=2)
        weights = torch.sigmoid(self.excite(functional.relu(self.squeeze(means))))
        return means * weights


class SmallCNN(nn.Module):
    """Three times convolution 3 x 3, group norm, ReLU, max-pooling by 2; then the means of a 3 x 3 grid.

    For maps of some tens of pixels, such as 48 x 48 grey faces. The grid keeps where in the face something is. A map
    that has become a single row or column is pooled no more, and its grid has no more cells than it has positions.

    Args:
        members: that have it.
        shape: (C, H, W) of a map.
        width: channels of the second layer; the first has half as many, the third twice as many.
    """

    def __init__(self, members: Members, shape: Sequence[int], width: int) -> None:
        super().__init__()
        channels, height, wide = shape
        widths = [max(1, width // 2), width, 2 * width][:CNN_LAYERS]
        self.pooled = []
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for index, out in enumerate(widths):
            self.convolutions.append(MemberConv(members, channels, out, 3, shared=index == 0))
            self.norms.append(MemberGroupNorm(members, math.gcd(out, MOST_NORM_GROUPS), out))
            self.pooled.append(min(height, wide) >= 2)
            if self.pooled[-1]:
                height, wide = height // 2, wide // 2
            channels = out
        self.grid = (min(CNN_GRID, height), min(CNN_GRID, wide))
        self.dim = channels * self.grid[0] * self.grid[1]

    def forward(self, maps: Tensor) -> Tensor:
        """(n, R, D) of (F, R, C, H, W)."""
        for conv, norm, pooled in zip(self.convolutions, self.norms, self.pooled, strict=True):
            maps = functional.relu(norm(conv(maps)))
            if pooled:
                smaller = functional.max_pool2d(maps.flatten(0, 1), 2)
                maps = smaller.view(*maps.shape[:2], *smaller.shape[1:])
        cells = functional.adaptive_avg_pool2d(maps.flatten(0, 1), self.grid)
        return cells.reshape(*maps.shape[:2], self.dim)
