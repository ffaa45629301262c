"""Stems without weights: the mean, the maximum, or the mean and deviation of a sequence; the mean of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST_VARIANCE = 1e-12
"""A variance below this counts as 0, because the derivative of its square root would be infinite."""


class MeanOverTime(nn.Module):
    """The mean of the steps that are there."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Return (G, B, D) of values (G, B, T, D) and steps (G, B, T) bool; zeros where no step is there."""
        return mean_of_steps(values, steps)


class MaxOverTime(nn.Module):
    """The maximum of each feature over the steps that are there."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Return (G, B, D) of values (G, B, T, D) and steps (G, B, T) bool; zeros where no step is there."""
        there = values.masked_fill(~steps.unsqueeze(3), -torch.inf)
        return torch.where(steps.any(2, keepdim=True), there.amax(2), 0.0)


class MeanAndDeviationOverTime(nn.Module):
    """The mean and the population deviation of the steps that are there, side by side."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = 2 * dim

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Return (G, B, 2 D) of values (G, B, T, D) and steps (G, B, T) bool; zeros where no step is there."""
        mean = mean_of_steps(values, steps)
        variance = mean_of_steps((values - mean.unsqueeze(2)).square(), steps)
        varies = variance > _LEAST_VARIANCE
        deviation = torch.where(varies, torch.where(varies, variance, 1.0).sqrt(), 0.0)
        return torch.cat([mean, deviation], dim=2)


class MeanOfMap(nn.Module):
    """The mean of each channel over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dim = channels

    def forward(self, maps: Tensor) -> Tensor:
        """Return the means (G, R, C) of maps (G, R, C, H, W)."""
        return maps.mean((3, 4))


def mean_of_steps(values: Tensor, steps: Tensor) -> Tensor:
    """Return the means (G, B, D) of values (G, B, T, D) over the steps (G, B, T) that are there; zeros without any."""
    total = torch.where(steps.unsqueeze(3), values, 0.0).sum(2)
    return total / steps.sum(2, keepdim=True).clamp(min=1)
