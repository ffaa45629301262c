"""Convolutional stems of maps: parallel convolutions with channel attention, and a small network for small maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.members import Members
from emofuse.heads.stems.layers import MemberBatchNorm, MemberConv, MemberGroupNorm, MemberLinear

REDUCTION = 4
"""The input of the channel attention is wider than its first dense layer by this factor."""
CNN_LAYERS, CNN_GRID, MOST_NORM_GROUPS = 3, 3, 8


class Patches(nn.Module):
    """Convolutions of several kernel sizes side by side, then channel attention and the mean over the map.

    The attention weighs the channels by two dense layers on their means (Hu et al., CVPR 2018), as the custom MobileNet
    of the real-time face paper does. A channel's weight is one number, so the mean of the weighted map is the weighted
    mean of the map.

    Args:
        members: the members that have the stem.
        channels: the number of channels of the map.
        width: the number of channels of each convolution.
        kernels: the kernel sizes, each odd.
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
        """Return the vectors (n, R, kernels x width) of maps (F, R, C, H, W)."""
        means = torch.cat([functional.relu(conv(maps)).mean((3, 4)) for conv in self.convolutions], dim=2)
        weights = torch.sigmoid(self.excite(functional.relu(self.squeeze(means))))
        return means * weights


class SmallCNN(nn.Module):
    """Three blocks of 3 x 3 convolution, norm, ReLU and max-pooling by 2, then the means of a 3 x 3 grid.

    The stem is meant for maps of some tens of pixels, such as 48 x 48 grey faces. The grid keeps coarse positions. A
    map with a single row or column is not pooled further, and its grid has at most one cell for each position. Group
    norm treats each row alone. Batch norm is that of the paper on real-time face emotion, over the rows and steps that
    are there; its dropouts are `stem_dropout` and `dropout`, its optimizer is `rmsprop`.

    Args:
        members: the members that have the stem.
        shape: the shape (C, H, W) of a map.
        width: the number of channels of the second layer; the first has half as many, the third twice as many.
        norm: the kind of norm behind each convolution.
    """

    def __init__(
        self, members: Members, shape: Sequence[int], width: int, norm: Literal["group", "batch"] = "group"
    ) -> None:
        super().__init__()
        channels, height, wide = shape
        widths = [max(1, width // 2), width, 2 * width][:CNN_LAYERS]
        self.pooled = []
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for index, out in enumerate(widths):
            self.convolutions.append(MemberConv(members, channels, out, 3, shared=index == 0))
            self.norms.append(
                MemberBatchNorm(members, out)
                if norm == "batch"
                else MemberGroupNorm(members, math.gcd(out, MOST_NORM_GROUPS), out)
            )
            self.pooled.append(min(height, wide) >= 2)
            if self.pooled[-1]:
                height, wide = height // 2, wide // 2
            channels = out
        self.grid = (min(CNN_GRID, height), min(CNN_GRID, wide))
        self.dim = channels * self.grid[0] * self.grid[1]

    def forward(self, maps: Tensor, there: Tensor | None = None) -> Tensor:
        """Return the vectors (n, R, D) of maps (F, R, C, H, W).

        Args:
            maps: the maps.
            there: the maps that each member has, bool (n, R); None for all. Others have no influence on a batch norm.
        """
        for conv, norm, pooled in zip(self.convolutions, self.norms, self.pooled, strict=True):
            convolved = conv(maps)
            normed = norm(convolved, there) if isinstance(norm, MemberBatchNorm) else norm(convolved)
            maps = functional.relu(normed)
            if pooled:
                smaller = functional.max_pool2d(maps.flatten(0, 1), 2)
                maps = smaller.view(*maps.shape[:2], *smaller.shape[1:])
        cells = functional.adaptive_avg_pool2d(maps.flatten(0, 1), self.grid)
        return cells.reshape(*maps.shape[:2], self.dim)
