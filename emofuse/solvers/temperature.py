"""One number that turns scores into calibrated probabilities (temperature scaling; Guo et al., ICML 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 100
_LIMIT = 1e4


def fit_temperatures(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the factors f above 0 with which softmax(f scores) has the smallest cross-entropy to the targets.

    The cross-entropy is convex in f. Newton's method is kept inside an interval that shrinks around the minimum.

    Args:
        scores: L sets of scores, floating point (L, n, C), of rows that the models were not fitted to.
        targets: the distributions over the classes, (n, C).

    Returns:
        The factors (L,) float64, 1 / temperature. A factor is at most 1e4; scores that separate the classes perfectly
        reach this limit.
    """
    wide, goal = scores.to(torch.float64), targets.to(torch.float64)
    expected = (goal * wide).sum(dim=(1, 2))
    squares = wide.square()
    low, high = torch.zeros_like(expected), torch.full_like(expected, _LIMIT)
    factors, following = torch.ones_like(expected), torch.ones_like(expected)
    for _ in range(_STEPS):
        probs = torch.softmax(factors.view(-1, 1, 1) * wide, dim=2)
        mean = (probs * wide).sum(dim=2)
        slope = mean.sum(dim=1) - expected
        bend = (probs * squares).sum(dim=(1, 2)) - mean.square().sum(dim=1)
        low, high = torch.where(slope > 0, low, factors), torch.where(slope > 0, factors, high)
        following = torch.where(bend > 0, factors - slope / bend, high)
        following = torch.where((following > low) & (following < high), following, (low + high) / 2)
        if bool(((following - factors).abs() <= 1e-12 * factors).all()):
            break
        factors = following
    return factors.clamp(min=1e-6)
