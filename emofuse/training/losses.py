"""The loss of each row for K heads, where each member has its own smoothing and its own options for rare classes.

For a row of label y with logits z, training minimises

    w_y (1 - p_y)^gamma CE(z + tau log(share), y)        p = softmax(z + tau log(share))

where CE is the cross-entropy with label smoothing and, with n_c training rows of class c in the member's fold:

    class_weights     w_c is proportional to 1 / n_c (`balanced`, as in scikit-learn), 1 / sqrt(n_c) (`sqrt`) or
                      (1 - b) / (1 - b^n_c) with b = .999 (`effective`: Cui et al., CVPR 2019). Over the training rows
                      of the fold the mean weight is 1, so that the learning rate keeps its meaning.
    focal_gamma       gamma (Lin et al., ICCV 2017). Rows that the head is sure of count less.
    logit_adjustment  tau (Menon et al., ICLR 2021); share is n_c over the number of training rows. Only the loss adds
                      it, so a head predicts as if all classes were equally frequent (tau = 1).

The mean over the rows of a batch is divided by their number, and not by the sum of their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from emofuse.specs import TrainSpec

EFFECTIVE_BETA = 0.999
_SMALLEST = 1e-12


class MemberLosses:
    """The loss of K members. An option that no member uses costs nothing.

    Args:
        trains: the optimisation of each member.
        counts: for each member the training rows of each class in its fold, int64 (K, C).
        device: the device of the heads.
        dtype: the type of the losses.
    """

    def __init__(
        self,
        trains: Sequence[TrainSpec],
        counts: npt.NDArray[np.int64],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        def tensor(values: Any) -> Tensor:
            return torch.as_tensor(np.asarray(values), dtype=dtype, device=device)

        self._smoothing = tensor([[train.label_smoothing] for train in trains])  # (K, 1)
        self._weights = self._gamma = self._shift = None
        if any(train.class_weights != "none" for train in trains):
            of_members = zip(trains, counts, strict=True)
            self._weights = tensor([class_weights(train.class_weights, each) for train, each in of_members])  # (K, C)
        if any(train.focal_gamma for train in trains):
            self._gamma = tensor([[train.focal_gamma] for train in trains])  # (K, 1)
        if any(train.logit_adjustment for train in trains):
            taus = np.array([[train.logit_adjustment] for train in trains])
            shares = np.maximum(counts, 1) / counts.sum(axis=1, keepdims=True)
            self._shift = tensor(taus * np.log(shares)).unsqueeze(1)  # (K, 1, C)

    def of_rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of every row, (K, B), of logits (K, B, C) and labels (K, B) int64."""
        logits = logits.to(self._smoothing.dtype)
        if self._shift is not None:
            logits = logits + self._shift
        log_probs = functional.log_softmax(logits, dim=2)
        losses = row_losses(log_probs, labels, self._smoothing)
        if self._gamma is not None:
            prob = log_probs.gather(2, labels.unsqueeze(2)).squeeze(2).exp()
            losses = losses * (1 - prob).clamp(min=_SMALLEST).pow(self._gamma)
        if self._weights is not None:
            losses = losses * self._weights.gather(1, labels)
        return losses


def row_losses(log_probs: Tensor, labels: Tensor, smoothing: Tensor) -> Tensor:
    """Return the cross-entropy of every row, (K, B), where each member has its own label smoothing.

    The smoothed target puts 1 - smoothing on the label and smoothing / C on every class (Szegedy et al., CVPR 2016), as
    in `torch.nn.functional.cross_entropy`.

    Args:
        log_probs: the logarithms of the probabilities, (K, B, C).
        labels: (K, B) int64.
        smoothing: (K, 1).
    """
    of_label = -log_probs.gather(2, labels.unsqueeze(2)).squeeze(2)
    return (1 - smoothing) * of_label - smoothing * log_probs.mean(2)


def class_weights(kind: str, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the weight of each class, float64 (C,), whose mean over the rows is 1.

    Args:
        kind: `none`, `balanced`, `sqrt` or `effective`.
        counts: the training rows of each class, int64 (C,). A class without rows gets weight 1, which nothing uses.
    """
    weights = np.ones(len(counts))
    if kind == "none":
        return weights
    has_rows = counts > 0
    rows = counts[has_rows].astype(np.float64)
    match kind:
        case "balanced":
            raw = 1 / rows
        case "sqrt":
            raw = 1 / np.sqrt(rows)
        case _:
            raw = (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**rows)
    weights[has_rows] = raw * (rows.sum() / (raw * rows).sum())
    return weights
