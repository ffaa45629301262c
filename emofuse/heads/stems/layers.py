"""Layers that stems are made of, for K heads at once. Plain autograd: a layer may be used many times in one pass.

Values that no layer with weights has touched are the same for all lanes of a fold and have a first axis of F folds;
such values are *shared*. After the first layer with weights the first axis is that of the n lanes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.lanes import Lanes
from emofuse.heads.layers import slices


class LaneLinear(nn.Module):
    """A linear layer a lane, like `torch.nn.Linear`.

    Args:
        lanes: that have it.
        wide_in: inputs.
        wide_out: outputs.
        shared: whether its inputs are those of the folds.
        fan_in: inputs by which the weights start; `wide_in` unless given.
        bias: whether it has one.
    """

    def __init__(
        self,
        lanes: Lanes,
        wide_in: int,
        wide_out: int,
        *,
        shared: bool,
        fan_in: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.lanes = lanes
        self.shared = shared
        self.fan_in = (fan_in or wide_in,) * len(lanes)
        self.weight = nn.Parameter(torch.empty(len(lanes), wide_out, wide_in))
        self.bias = nn.Parameter(torch.empty(len(lanes), wide_out)) if bias else None

    def forward(self, values: Tensor) -> Tensor:
        """(n, ..., wide_out) of (F, ..., wide_in) if shared, else of (n, ..., wide_in)."""
        flat = values.flatten(1, -2)
        if self.shared:
            product = torch.cat([self._of_fold(flat[fold], own) for fold, own in slices(self.lanes.per_fold)])
        else:
            product = torch.bmm(flat, self.weight.mT)
        out = product if self.bias is None else product + self.bias.unsqueeze(1)
        return out.reshape(len(self.lanes), *values.shape[1:-1], self.weight.shape[1])

    def _of_fold(self, values: Tensor, own: slice) -> Tensor:
        """(lanes, M, out) of one fold's values (M, in): one matrix product for all its lanes."""
        weight = self.weight[own]
        product = values @ weight.flatten(0, 1).T
        return product.view(len(values), *weight.shape[:2]).transpose(0, 1)


class LaneConv(nn.Module):
    """A convolution a lane that keeps the size of the map, like `torch.nn.Conv2d` with `padding="same"`.

    Args:
        lanes: that have it.
        channels_in: of the map.
        channels_out: of the result.
        kernel: side of the kernel, odd.
        shared: whether its inputs are those of the folds.
    """

    def __init__(self, lanes: Lanes, channels_in: int, channels_out: int, kernel: int, *, shared: bool) -> None:
        super().__init__()
        self.lanes = lanes
        self.shared = shared
        self.fan_in = (channels_in * kernel * kernel,) * len(lanes)
        self.weight = nn.Parameter(torch.empty(len(lanes), channels_out, channels_in, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(len(lanes), channels_out))
        self._padding = kernel // 2

    def forward(self, maps: Tensor) -> Tensor:
        """(n, R, out, H, W) of (F, R, in, H, W) if shared, else of (n, R, in, H, W)."""
        if self.shared:
            return torch.cat([self._of_fold(maps[fold], own) for fold, own in slices(self.lanes.per_fold)])
        return self._convolved(maps.transpose(0, 1).flatten(1, 2), slice(None), groups=len(self.lanes))

    def _of_fold(self, maps: Tensor, own: slice) -> Tensor:
        """(lanes, R, out, H, W) of one fold's maps (R, in, H, W): one convolution with the filters of all its lanes."""
        return self._convolved(maps, own, groups=1)

    def _convolved(self, maps: Tensor, own: slice, groups: int) -> Tensor:
        weight, bias = self.weight[own], self.bias[own]
        out = functional.conv2d(maps, weight.flatten(0, 1), bias.flatten(), padding=self._padding, groups=groups)
        return out.view(len(out), *weight.shape[:2], *out.shape[2:]).transpose(0, 1)


class LaneGroupNorm(nn.Module):
    """Group norm a lane (Wu & He, ECCV 2018), like `torch.nn.GroupNorm`: no row has a say in another's values."""

    def __init__(self, lanes: Lanes, groups: int, channels: int) -> None:
        super().__init__()
        self.lanes = lanes
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(len(lanes), channels))
        self.bias = nn.Parameter(torch.zeros(len(lanes), channels))

    def forward(self, maps: Tensor) -> Tensor:
        """(n, R, C, H, W) of the same."""
        normed = functional.group_norm(maps.flatten(0, 1), self.groups).view_as(maps)
        shape = (len(self.lanes), 1, -1, 1, 1)
        return normed * self.weight.view(shape) + self.bias.view(shape)
