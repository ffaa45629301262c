"""The loss of each row for K heads, where each member has its own smoothing and its own options for rare classes.

For a row of class y with logits z, training minimises

    w_y (1 - p_y)^gamma CE(z + tau log(share), y)        p = softmax(z + tau log(share))

where CE is the cross-entropy with label smoothing and, with n_c training rows of class c in the member's fold:

    class_weights     w_c is proportional to 1 / n_c (`balanced`, as in scikit-learn), 1 / sqrt(n_c) (`sqrt`) or
                      (1 - b) / (1 - b^n_c) with b = .999 (`effective`: Cui et al., CVPR 2019). Over the training rows
                      of the fold the mean weight is 1, so that the learning rate keeps its meaning.
    focal_gamma       gamma (Lin et al., ICCV 2017). Rows that the head is sure of count less.
    logit_adjustment  tau (Menon et al., ICLR 2021); share is n_c over the number of training rows. Only the loss adds
                      it, so a head predicts as if all classes were equally frequent (tau = 1).

The loss of other targets:

    distribution q    w_y CE(z, q), the cross-entropy to the distribution, with label smoothing and the class weight of
                      the majority y; with `loss: kl` less the entropy of q, which has the same gradient.
    regression t      the squared error of the standardised outputs, the mean over the columns; with `loss: ccc` one
                      minus the concordance correlation coefficient of the batch (Lin, Biometrics 1989), likewise.
    multilabel t      the binary cross-entropy, the mean over the labels. Class weights multiply it where the label is
                      1: by the weight of rows with the label over that of rows without it.

Of these options, the validation loss that chooses the epoch has none: it is the plain loss. Measured on the faces of
FER2013 (10,180 training rows, eight labels, draws of 1,131 validation rows, 2026-11-29), macro F1 of the test rows is
.557 with `balanced` if the plain loss chooses, .505 if the weighted loss does, and .564 if macro F1 does (four draws;
the last is better by .007, standard error .005); with `logit_adjustment: 1` it is .437, .424 and .436 (three draws).

The mean over the rows of a batch is divided by their number, and not by the sum of their weights. The weights of rows
(`weight_column`) multiply their losses, and are those of the moments of a coefficient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from emofuse.specs import TargetSpec, TrainSpec
from emofuse.training.targets import THE_LABEL, RowTargets

EFFECTIVE_BETA = 0.999
_SMALLEST = 1e-12


class MemberLosses:
    """The loss of K members. An option that no member uses costs nothing.

    Args:
        trains: the optimisation of each member.
        counts: for each member the training rows of each class in its fold, or of each label with 1, int64 (K, C).
        rows: for each member the number of training rows in its fold, int64 (K,).
        device: the device of the heads.
        dtype: the type of the losses.
        target: the kind of target and its loss.
    """

    def __init__(
        self,
        trains: Sequence[TrainSpec],
        counts: npt.NDArray[np.int64],
        *,
        device: torch.device,
        dtype: torch.dtype,
        target: TargetSpec = THE_LABEL,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        def tensor(values: Any) -> Tensor:
            return torch.as_tensor(np.asarray(values), dtype=dtype, device=device)

        self._kind, self._loss = target.kind, getattr(target, "loss", "")
        self._smoothing = tensor([[train.label_smoothing] for train in trains])  # (K, 1)
        self._weights = self._gamma = self._shift = None
        if any(train.class_weights != "none" for train in trains):
            if self._kind == "multilabel":
                totals = counts.sum(axis=1) if rows is None else rows
                of_labels = zip(trains, counts, totals, strict=True)
                weights = [positive_weights(train.class_weights, each, int(total)) for train, each, total in of_labels]
            else:
                of_members = zip(trains, counts, strict=True)
                weights = [class_weights(train.class_weights, each) for train, each in of_members]
            self._weights = tensor(weights)  # (K, C)
        if any(train.focal_gamma for train in trains):
            self._gamma = tensor([[train.focal_gamma] for train in trains])  # (K, 1)
        if any(train.logit_adjustment for train in trains):
            taus = np.array([[train.logit_adjustment] for train in trains])
            shares = np.maximum(counts, 1) / counts.sum(axis=1, keepdims=True)
            self._shift = tensor(taus * np.log(shares)).unsqueeze(1)  # (K, 1, C)

    def sums(self, logits: Tensor, targets: RowTargets, present: Tensor) -> Tensor:
        """Return the loss of every member, summed over its rows, (K,).

        Args:
            logits: (K, B, C).
            targets: the targets of the members' rows.
            present: the rows that count, bool (K, B).
        """
        if self._loss == "ccc":
            return self._concordance_loss(logits, targets, present)
        losses = self.of_rows(logits, targets)
        if targets.weights is not None:
            losses = losses * targets.weights
        return torch.where(present, losses, 0.0).sum(1)

    def of_rows(self, logits: Tensor, targets: RowTargets) -> Tensor:
        """Return the loss of every row, (K, B), of logits (K, B, C), without the weights of the rows."""
        logits = logits.to(self._smoothing.dtype)
        match self._kind:
            case "class":
                return self._of_classes(logits, targets.labels)
            case "distribution":
                return self._of_distributions(logits, targets)
            case "multilabel":
                weights = None if self._weights is None else self._weights.unsqueeze(1)
                return functional.binary_cross_entropy_with_logits(
                    logits, targets.true_values(), pos_weight=weights, reduction="none"
                ).mean(2)
            case _:
                return (logits - targets.true_values()).square().mean(2)

    def _of_classes(self, logits: Tensor, labels: Tensor) -> Tensor:
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

    def _of_distributions(self, logits: Tensor, targets: RowTargets) -> Tensor:
        smoothing, values = self._smoothing.unsqueeze(2), targets.true_values()
        smoothed = (1 - smoothing) * values + smoothing / values.shape[2]
        losses = -(smoothed * functional.log_softmax(logits, dim=2)).sum(2)
        if self._loss == "kl":
            losses = losses + torch.xlogy(smoothed, smoothed).sum(2)
        if self._weights is not None:
            losses = losses * self._weights.gather(1, targets.labels)
        return losses

    def _concordance_loss(self, logits: Tensor, targets: RowTargets, present: Tensor) -> Tensor:
        """Return one minus the coefficient of the batch, the mean over the columns, times the number of its rows."""
        logits = logits.to(self._smoothing.dtype)
        weights = present.to(logits.dtype) if targets.weights is None else torch.where(present, targets.weights, 0.0)
        return (1 - concordance(logits, targets.true_values(), weights).mean(1)) * present.sum(1)


def concordance(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the concordance correlation coefficients (K, C) of K sets of weighted rows; 0 where all rows are equal.

    2 cov / (var_x + var_y + (mean_x - mean_y)^2) by population moments (Lin, Biometrics 1989).

    Args:
        outputs: (K, B, C).
        targets: (K, B, C).
        weights: the weights of the rows, (K, B), none negative; rows of weight 0 do not count.
    """
    shares = (weights / weights.sum(1, keepdim=True).clamp(min=_SMALLEST)).unsqueeze(2)
    # A row that does not count may hold anything: 0 times its square must stay 0.
    outputs, targets = torch.where(shares > 0, outputs, 0.0), torch.where(shares > 0, targets, 0.0)
    means = (shares * outputs).sum(1, keepdim=True), (shares * targets).sum(1, keepdim=True)
    off, away = outputs - means[0], targets - means[1]
    spread = (shares * (off.square() + away.square())).sum(1) + (means[0] - means[1]).squeeze(1).square()
    return 2 * (shares * off * away).sum(1) / spread.clamp(min=_SMALLEST)


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


def positive_weights(kind: str, positives: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.float64]:
    """Return what the loss of a row with a label is multiplied by, float64 (C,), one for each label.

    It is the class weight of rows with the label over that of rows without it.

    Args:
        kind: `none`, `balanced`, `sqrt` or `effective`.
        positives: the training rows with each label, int64 (C,).
        rows: the number of training rows.
    """
    pairs = [class_weights(kind, np.array([rows - count, count])) for count in positives.tolist()]
    return np.array([of_label[1] / of_label[0] for of_label in pairs])
