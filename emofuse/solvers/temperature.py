"""One number that turns scores into calibrated probabilities (temperature scaling; Guo et al., ICML 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 100
_LIMIT = 1e4


def fit_temperature(scores: Tensor, targets: Tensor) -> float:
    """Return the factor f above 0 with which softmax(f scores) has the smallest cross-entropy to the targets.

    The cross-entropy is convex in f. Newton's method is kept inside an interval that shrinks around the minimum.

    Args:
        scores: the scores, floating point (n, C), of rows that the model was not fitted to.
        targets: the distributions over the classes, (n, C).

    Returns:
        The factor, 1 / temperature. It is at most 1e4; scores that separate the classes perfectly reach this limit.
    """
    wide, goal = scores.to(torch.float64), targets.to(torch.float64)
    expected = (goal * wide).sum(dim=1)
    low, high, factor = 0.0, _LIMIT, 1.0
    for _ in range(_STEPS):
        probs = torch.softmax(factor * wide, dim=1)
        mean = (probs * wide).sum(dim=1)
        slope = float((mean - expected).sum())
        bend = float(((probs * wide.square()).sum(dim=1) - mean.square()).sum())
        if slope > 0:
            high = factor
        else:
            low = factor
        following = factor - slope / bend if bend > 0 else high
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - factor) <= 1e-12 * factor:
            break
        factor = following
    return max(factor, 1e-6)
