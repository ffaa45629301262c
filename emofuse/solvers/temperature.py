"""Calibrate scores into probabilities by a few numbers.

Classes have one factor (temperature scaling; Guo et al., ICML 2017), labels a factor and an offset each (Platt 1999).
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 100
_LIMIT = 1e4
_HALVINGS = 40
_RIDGE = 1e-12
_CONVERGED = 1e-12
"""The relative change of a factor that ends its search."""


def fit_temperatures(scores: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the factors f above 0 with which softmax(f scores) has the smallest cross-entropy to the targets.

    The cross-entropy is convex in f. Newton's method is kept inside an interval that shrinks around the minimum.

    Args:
        scores: L sets of scores, floating point (L, n, C), of rows that the models were not fitted to.
        targets: the distributions over the classes, (n, C).
        weights: the weights of the rows, (n,); all 1 by default.

    Returns:
        The factors (L,) float64, 1 / temperature. A factor is at most 1e4; scores that separate the classes perfectly
        reach this limit.
    """
    wide, goal = scores.to(torch.float64), targets.to(torch.float64)
    rows = None if weights is None else weights.to(torch.float64)
    if rows is not None:  # a row of a weight counts as that many rows
        goal = goal * rows.unsqueeze(1)
    expected = (goal * wide).sum(dim=(1, 2))
    squares = wide.square()
    result = torch.ones_like(expected)
    sets = torch.arange(len(expected), device=expected.device)  # those that have not reached their minimum
    factors, low, high = result.clone(), torch.zeros_like(expected), torch.full_like(expected, _LIMIT)
    for _ in range(_STEPS):
        probs = torch.softmax(factors.view(-1, 1, 1) * wide, dim=2)
        mean = (probs * wide).sum(dim=2)
        if rows is None:
            slope = mean.sum(dim=1) - expected
            second = (probs * squares).sum(dim=(1, 2))
            bend = second - mean.square().sum(dim=1)
        else:
            slope = mean @ rows - expected
            second = (probs * squares).sum(dim=2) @ rows
            bend = second - mean.square() @ rows
        low, high = torch.where(slope > 0, low, factors), torch.where(slope > 0, factors, high)
        following = torch.where(bend > 0, factors - slope / bend, high)
        # At a minimum the slope is rounding: a step of Newton's that leaves the interval by it is no reason to halve.
        # Where the classes are separated the curve is flat, and slope and bend are both rounding.
        moving = ((following - factors).abs() > _CONVERGED * factors) | (bend <= _CONVERGED * second)
        following = torch.where(((following > low) & (following < high)) | ~moving, following, (low + high) / 2)
        moving &= (following - factors).abs() > _CONVERGED * factors
        result[sets] = factors
        if not bool(moving.any()):
            break
        sets, factors, low, high = sets[moving], following[moving], low[moving], high[moving]
        if not bool(moving.all()):
            wide, squares, expected = wide[moving], squares[moving], expected[moving]
        result[sets] = factors
    return result.clamp(min=1e-6)


def fit_sigmoids(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the factors a and offsets b with which sigmoid(a scores + b) has the smallest binary cross-entropy.

    The goal of a row is not 0 or 1 but 1 / (n_0 + 2) or (n_1 + 1) / (n_1 + 2), so that scores that separate the rows
    have finite numbers (Platt 1999). Newton's method halves its steps until the loss falls (Lin, Lin and Weng, Machine
    Learning 2007).

    Args:
        scores: L sets of scores, floating point (L, n, C), of rows that the models were not fitted to.
        labels: 0 or 1, (n, C).
        weights: the weights of the rows, (n,); all 1 by default.

    Returns:
        a and b, float64 (L, C).
    """
    wide, true = scores.to(torch.float64), labels.to(torch.float64)
    rows = torch.ones(len(true), dtype=torch.float64, device=true.device) if weights is None else weights.double()
    positive = true.sum(0)
    goal = torch.where(true > 0, (positive + 1) / (positive + 2), 1 / (len(true) - positive + 2))
    share = rows.unsqueeze(1)
    slope = torch.zeros(len(wide), true.shape[1], dtype=torch.float64, device=true.device)
    offset = torch.zeros_like(slope)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        logits = a.unsqueeze(1) * wide + b.unsqueeze(1)
        return (share * (torch.nn.functional.softplus(logits) - goal * logits)).sum(1)

    current = loss(slope, offset)
    for _ in range(_STEPS):
        probs = torch.sigmoid(slope.unsqueeze(1) * wide + offset.unsqueeze(1))
        error, bend = share * (probs - goal), share * probs * (1 - probs)
        gradient = (error * wide).sum(1), error.sum(1)
        aa, ab, bb = (bend * wide.square()).sum(1) + _RIDGE, (bend * wide).sum(1), bend.sum(1) + _RIDGE
        determinant = aa * bb - ab.square()
        step_a = -(bb * gradient[0] - ab * gradient[1]) / determinant
        step_b = -(aa * gradient[1] - ab * gradient[0]) / determinant
        length = torch.ones_like(slope)
        for _ in range(_HALVINGS):
            after = loss(slope + length * step_a, offset + length * step_b)
            worse = after > current
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 2, length)
        length = torch.where(after > current, 0.0, length)
        slope, offset = slope + length * step_a, offset + length * step_b
        moved = (length * step_a).abs() + (length * step_b).abs()
        current = loss(slope, offset)
        if bool((moved <= 1e-12 * (1 + slope.abs() + offset.abs())).all()):
            break
    return slope, offset
