"""Layers of stems for K heads at once.

A layer may be used many times in one forward pass, unlike `emofuse.heads.layers.Linear` with its one gradient memory.

Before the first layer with weights, values are the same for all members of a fold. Such values are *shared*: their
first axis is that of the F folds. After it the first axis is that of the n members.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.members import Members
from emofuse.heads.norm import EPS, MaskedBatchNorm, masked_batch_norm


class MemberLinear(nn.Module):
    """A linear layer for each member, like `torch.nn.Linear`.

    Args:
        members: the members that have the layer.
        wide_in: the number of inputs.
        wide_out: the number of outputs.
        shared: whether the inputs have an axis of folds instead of members.
        fan_in: the number of inputs that scales the initial weights; `wide_in` by default.
        bias: whether the layer has a bias.
    """

    def __init__(
        self,
        members: Members,
        wide_in: int,
        wide_out: int,
        *,
        shared: bool,
        fan_in: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.members = members
        self.shared = shared
        self.fan_in = (fan_in or wide_in,) * len(members)
        self.weight = nn.Parameter(torch.empty(len(members), wide_out, wide_in))
        self.bias = nn.Parameter(torch.empty(len(members), wide_out)) if bias else None

    def forward(self, values: Tensor) -> Tensor:
        """Return (n, ..., wide_out) of values (F, ..., wide_in) if shared, else of values (n, ..., wide_in)."""
        flat = values.flatten(1, -2)
        if self.shared:
            weights = per_fold(self.weight, self.members)
            product = torch.cat([_product_of_fold(flat[fold], weight) for fold, weight in weights])
        else:
            product = torch.bmm(flat, self.weight.mT)
        out = product if self.bias is None else product + self.bias.unsqueeze(1)
        return out.reshape(len(self.members), *values.shape[1:-1], self.weight.shape[1])


class MemberConv(nn.Module):
    """A convolution for each member that keeps the size of the map: `torch.nn.Conv2d` with `padding="same"`.

    Args:
        members: the members that have the layer.
        channels_in: the number of channels of the map.
        channels_out: the number of channels of the result.
        kernel: the side of the kernel in positions, odd.
        shared: whether the inputs have an axis of folds instead of members.
    """

    def __init__(self, members: Members, channels_in: int, channels_out: int, kernel: int, *, shared: bool) -> None:
        super().__init__()
        self.members = members
        self.shared = shared
        self.fan_in = (channels_in * kernel * kernel,) * len(members)
        self.weight = nn.Parameter(torch.empty(len(members), channels_out, channels_in, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(len(members), channels_out))
        self._padding = kernel // 2

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (n, R, out, H, W) of maps (F, R, in, H, W) if shared, else of maps (n, R, in, H, W)."""
        if self.shared:
            weights, biases = per_fold(self.weight, self.members), per_fold(self.bias, self.members)
            convolved = [
                self._convolved(maps[fold], weight, bias, groups=1)
                for (fold, weight), (_, bias) in zip(weights, biases, strict=True)
            ]
            return torch.cat(convolved)
        rows_first = maps.transpose(0, 1).flatten(1, 2)
        return self._convolved(rows_first, self.weight, self.bias, groups=len(self.members))

    def _convolved(self, maps: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
        """Convolve maps (R, groups x in, H, W) with filters (members, out, in, k, k) into (members, R, out, H, W)."""
        out = functional.conv2d(maps, weight.flatten(0, 1), bias.flatten(), padding=self._padding, groups=groups)
        return out.view(len(out), *weight.shape[:2], *out.shape[2:]).transpose(0, 1)


class MemberGroupNorm(nn.Module):
    """A group norm for each member (Wu & He, ECCV 2018), like `torch.nn.GroupNorm`: rows are independent."""

    def __init__(self, members: Members, groups: int, channels: int) -> None:
        super().__init__()
        self.members = members
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(len(members), channels))
        self.bias = nn.Parameter(torch.zeros(len(members), channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Return normalised maps (n, R, C, H, W)."""
        normed = functional.group_norm(maps.flatten(0, 1), self.groups).view_as(maps)
        shape = (len(self.members), 1, -1, 1, 1)
        return normed * self.weight.view(shape) + self.bias.view(shape)


class MemberBatchNorm(MaskedBatchNorm):
    """A batch norm of maps for each member, like `torch.nn.BatchNorm2d` over the maps that the member has."""

    def forward(self, maps: Tensor, there: Tensor | None = None) -> Tensor:
        """Return normalised maps (n, R, C, H, W); in training the maps where `there` (n, R) is false do not count."""
        if not self.training:
            scale = self.weight * torch.rsqrt(self.running_var + EPS)
            shift = self.bias - self.running_mean * scale
            return maps * scale[:, None, :, None, None] + shift[:, None, :, None, None]
        count, rows, _, height, wide = maps.shape
        positions = maps.permute(0, 1, 3, 4, 2).flatten(1, 3)  # (n, R x H x W, C)
        if there is None:
            there = torch.ones(count, rows, dtype=torch.bool, device=maps.device)
        valid = there.unsqueeze(2).expand(-1, -1, height * wide).flatten(1)
        nothing = torch.zeros_like(self.weight)
        normed = masked_batch_norm(positions, valid, self, nothing, training=True)
        return normed.reshape(count, rows, height, wide, -1).permute(0, 1, 4, 2, 3)


def per_fold(tensor: Tensor, members: Members) -> list[tuple[int, Tensor]]:
    """Return the folds that have members, each with its part of a tensor (n, ...).

    The derivative of a split is one concatenation; that of slices would fill a tensor (n, ...) for each fold.
    """
    parts = torch.split(tensor, list(members.per_fold)) if len(members.per_fold) > 1 else (tensor,)
    return [(fold, part) for fold, part in enumerate(parts) if len(part)]


def _product_of_fold(values: Tensor, weight: Tensor) -> Tensor:
    """Return (members, M, out) of one fold's values (M, in), by one matrix product for all its members."""
    product = functional.linear(values, weight.flatten(0, 1))
    return product.view(len(values), *weight.shape[:2]).transpose(0, 1)
