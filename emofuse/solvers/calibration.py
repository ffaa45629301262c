"""Calibrate the leave-one-out predictions of ridge regressions into logits, and measure their loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from emofuse.solvers.temperature import fit_sigmoids, fit_temperatures


@dataclass(frozen=True)
class Calibration:
    """The calibration of the predictions of each of L penalties: logits = factor (slopes scores + offsets).

    Attributes:
        losses: the loss of each penalty on rows that were left out.
        factors: the factor of each penalty.
        slopes: further factors of the columns, (L, C).
        offsets: what is added to the columns, (L, C).
    """

    losses: list[float]
    factors: list[float]
    slopes: Tensor
    offsets: Tensor


def calibrate(kind: str, left_out: Tensor, targets: Tensor, weights: Tensor | None = None) -> Calibration:
    """Calibrate predictions of rows that were left out.

    Classes and distributions have one factor and the cross-entropy, several labels a slope and an offset each and the
    binary cross-entropy, and numbers stay as they are, with the squared error.

    Args:
        kind: the kind of target.
        left_out: the predictions, float64 (L, n, C).
        targets: what the rows teach, float64 (n, C).
        weights: the weights of the rows, (n,); all 1 by default.
    """
    ones, zeros = left_out.new_ones(left_out[:, 0].shape), left_out.new_zeros(left_out[:, 0].shape)
    factors = [1.0] * len(left_out)
    if kind == "regression":
        losses = (left_out - targets).square().mean(dim=2)
    elif kind == "multilabel":
        ones, zeros = fit_sigmoids(left_out, targets, weights)
        logits = ones.unsqueeze(1) * left_out + zeros.unsqueeze(1)
        losses = (functional.softplus(logits) - targets * logits).mean(dim=2)
    else:
        fitted = fit_temperatures(left_out, targets, weights)
        log_probs = torch.log_softmax(fitted.view(-1, 1, 1) * left_out, dim=2)
        factors = fitted.tolist()
        if weights is None:  # the sum over rows and classes at once, whose last bits runs of former versions have
            total = -(targets * log_probs).sum(dim=(1, 2)) / len(targets)
            return Calibration(total.tolist(), factors, ones, zeros)
        losses = -(targets * log_probs).sum(dim=2)
    means = losses.mean(dim=1) if weights is None else losses @ weights / weights.sum()
    return Calibration(means.tolist(), factors, ones, zeros)
