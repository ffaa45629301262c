"""Matrix scaling: calibrated logits of C classes as a linear function of uncalibrated ones.

Ridge regressions on one-hot targets score each class on its own. Where classes share cues (four of eight classes
smile), a part of the differences between their scores is noise that no cue supports. A matrix that is fitted on
predictions of rows that were left out shrinks these directions, and enlarges those that tell classes apart.

    logits = scores (1 + D) + b,  minimising the sum of the cross-entropies + |D|^2 / (2 spread^2)

The penalty is a normal prior of D around 0, so few rows leave the scores as they are, and many fit a free matrix.

Sources: Guo et al., *On calibration of modern neural networks*, ICML 2017 (matrix scaling); Kull et al., *Beyond
temperature scaling*, NeurIPS 2019 (the penalty); Breiman and Friedman, *Predicting multivariate responses in multiple
linear regression*, JRSS B 1997 (the same idea for least squares).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SPREAD = 0.3
"""The standard deviation of the prior of each entry of D, where the scores are calibrated logits."""
_STEPS = 100


@dataclass(frozen=True)
class MatrixScaling:
    """A fitted matrix with its offsets.

    Attributes:
        matrix: 1 + D, float64 (C, C).
        offsets: b, float64 (C,), with mean 0.
    """

    matrix: Tensor
    offsets: Tensor

    def __call__(self, scores: Tensor) -> Tensor:
        """Return the logits (n, C) of scores (n, C)."""
        return scores @ self.matrix + self.offsets


def fit_matrix_scaling(scores: Tensor, targets: Tensor, *, spread: float = SPREAD) -> MatrixScaling:
    """Fit the matrix to rows that the scores have not learned from.

    Args:
        scores: logits that are calibrated by a temperature, float64 (n, C).
        targets: each row is a distribution over the classes, float64 (n, C).
        spread: the standard deviation of the prior of each entry of D.
    """
    classes = scores.shape[1]
    change = scores.new_zeros(classes + 1, classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([change], max_iter=_STEPS, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = scores + scores @ change[:-1] + change[-1]
        fit = -(targets * torch.log_softmax(logits, dim=1)).sum()
        # The offsets are not penalised; a part that all of them share changes no probability.
        total: Tensor = fit + change[:-1].square().sum() / (2 * spread**2)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    fitted = change.detach()
    eye = torch.eye(classes, dtype=scores.dtype, device=scores.device)
    return MatrixScaling(eye + fitted[:-1], fitted[-1] - fitted[-1].mean())
