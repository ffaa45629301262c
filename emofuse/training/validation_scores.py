"""The scores of K heads on validation rows, added up part by part, for each kind of target.

    class         val_loss, the cross-entropy; val_accuracy; val_macro_f1
    distribution  val_loss, the cross-entropy to the distribution or the divergence from it (`target.loss`); the other
                  two against the majority
    regression    val_loss, the squared error of standardised values or one minus the coefficient (`target.loss`);
                  val_ccc, the mean concordance correlation coefficient of the columns; val_rmse, the mean over the
                  columns of the root of the mean squared error, in their units
    multilabel    val_loss, the binary cross-entropy; val_map, the mean average precision of the labels that occur

Weights of rows, class weights and label smoothing do not count here. No score of a head depends on how many heads are
scored beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from emofuse.heads.links import Link, apply_link
from emofuse.metrics.confusion import accuracy, macro_f1
from emofuse.metrics.probability_metrics import SMALLEST_PROB
from emofuse.specs import TargetSpec
from emofuse.training.targets import RowTargets, TargetScale

SUMMED_ROWS = 64
"""The number of rows that losses are summed by."""
_SMALLEST_SPREAD = 1e-12


class ScoreSums(Protocol):
    """Scores of K members that are added up over parts of their rows."""

    def add(self, logits: Tensor, targets: RowTargets, counted: Tensor) -> None:
        """Add rows: logits (K, B, C), the targets of the members' rows, and which of the rows count, bool (K, B)."""

    def scores(self) -> list[dict[str, float]]:
        """Return the scores of each member; `val_loss` is NaN if any output of the member is not finite."""


def make_sums(
    target: TargetSpec, members: int, classes: int, scales: Sequence[TargetScale | None], device: torch.device
) -> ScoreSums:
    """Return empty sums for K members.

    Args:
        target: the kind of target and its loss.
        members: K.
        classes: the number C of outputs.
        scales: the standardisation of a regression's targets for each member.
        device: the device of the heads.
    """
    match target.kind:
        case "class":
            return ClassSums(members, classes, device)
        case "distribution":
            return DistributionSums(members, classes, device, is_kl=target.loss == "kl")
        case "regression":
            fitted = [np.ones(classes, np.float32) if each is None else each.scale for each in scales]
            return RegressionSums(np.stack(fitted), is_ccc=target.loss == "ccc")
        case _:
            return LabelSums()


class ClassSums:
    """Cross-entropy, accuracy and macro F1, as of `classification_metrics`."""

    def __init__(self, members: int, classes: int, device: torch.device) -> None:
        self._classes = classes
        self._confusion = torch.zeros(members, classes**2, dtype=torch.int64, device=device)
        self._losses: list[Tensor] = []

    def add(self, logits: Tensor, targets: RowTargets, counted: Tensor) -> None:
        """Add rows, see `ScoreSums`."""
        probs = wide_outputs("softmax", logits)
        cell = targets.labels * self._classes + probs.argmax(2)
        self._confusion.scatter_add_(1, cell, counted.to(torch.int64))
        losses = torch.where(probs.isfinite().all(2), self._row_losses(probs, targets), torch.nan)
        self._losses.append(partial_sums(torch.where(counted, losses, 0.0)))

    def scores(self) -> list[dict[str, float]]:
        """Return {val_loss, val_accuracy, val_macro_f1} of each member; macro F1 is over the classes that occur."""
        losses = (torch.cat(self._losses, dim=1).sum(1) / self._confusion.sum(1)).tolist()
        confusion = self._confusion.view(-1, self._classes, self._classes).cpu().numpy()
        shares, f1 = accuracy(confusion).tolist(), macro_f1(confusion).tolist()
        keys = ("val_loss", "val_accuracy", "val_macro_f1")
        return [dict(zip(keys, values, strict=True)) for values in zip(losses, shares, f1, strict=True)]

    def _row_losses(self, probs: Tensor, targets: RowTargets) -> Tensor:
        true = probs.gather(2, targets.labels.unsqueeze(2)).squeeze(2).double().clamp(min=SMALLEST_PROB)
        return -true.log()


class DistributionSums(ClassSums):
    """The cross-entropy to a distribution or the divergence from it, and accuracy and macro F1 against the majority."""

    def __init__(self, members: int, classes: int, device: torch.device, *, is_kl: bool) -> None:
        super().__init__(members, classes, device)
        self._is_kl = is_kl

    def _row_losses(self, probs: Tensor, targets: RowTargets) -> Tensor:
        values = targets.true_values().double()
        losses = -(values * probs.double().clamp(min=SMALLEST_PROB).log()).sum(2)
        return losses + torch.xlogy(values, values).sum(2) if self._is_kl else losses


class RegressionSums:
    """Squared error, concordance correlation and root mean squared error, from moments in float64.

    Args:
        scales: the standardisation of the targets, (K, C).
        is_ccc: whether the loss is one minus the coefficient.
    """

    def __init__(self, scales: npt.NDArray[np.float32], *, is_ccc: bool) -> None:
        self._scales = scales.astype(np.float64)
        self._is_ccc = is_ccc
        self._parts: list[Tensor] = []

    def add(self, logits: Tensor, targets: RowTargets, counted: Tensor) -> None:
        """Add rows, see `ScoreSums`."""
        out, true = logits.double(), targets.true_values().double()
        moments = torch.stack((torch.ones_like(out), out, true, out.square(), true.square(), (out - true).square()))
        self._parts.append(partial_sums(torch.where(counted.unsqueeze(2), moments, 0.0).movedim(2, 3)))

    def scores(self) -> list[dict[str, float]]:
        """Return {val_loss, val_ccc, val_rmse} of each member."""
        count, *sums = torch.cat(self._parts, dim=3).sum(3).cpu().numpy()  # (K, C) each
        out, true, out_square, true_square, error = (of_rows / count for of_rows in sums)
        spread = (out_square - out**2) + (true_square - true**2) + (out - true) ** 2
        # E (x - y)^2 = var_x + var_y - 2 cov + (mean_x - mean_y)^2
        ccc = np.where(spread > _SMALLEST_SPREAD, 1 - error / np.maximum(spread, _SMALLEST_SPREAD), 0.0)
        ccc = np.where(np.isfinite(spread), ccc, np.nan).mean(axis=1)
        loss = 1 - ccc if self._is_ccc else error.mean(axis=1)
        rmse = (np.sqrt(error) * self._scales).mean(axis=1)
        values = zip(loss.tolist(), ccc.tolist(), rmse.tolist(), strict=True)
        return [dict(zip(("val_loss", "val_ccc", "val_rmse"), of_member, strict=True)) for of_member in values]


class LabelSums:
    """The binary cross-entropy and the mean average precision. The probabilities of all rows are kept until the end."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, logits: Tensor, targets: RowTargets, counted: Tensor) -> None:
        """Add rows, see `ScoreSums`."""
        wide, true = logits.double(), targets.true_values()
        losses = functional.binary_cross_entropy_with_logits(wide, true.double(), reduction="none").mean(2)
        losses = torch.where(wide.isfinite().all(2), losses, torch.nan)
        self._losses.append(partial_sums(torch.where(counted, losses, 0.0)))
        # In float32, as outputs are saved: rows that differ by rounding alone are equally probable.
        self._parts.append((wide_outputs("sigmoid", logits).float(), true > 0, counted))

    def scores(self) -> list[dict[str, float]]:
        """Return {val_loss, val_map} of each member."""
        probs, true, counted = (torch.cat(part, dim=1) for part in zip(*self._parts, strict=True))
        losses = torch.cat(self._losses, dim=1).sum(1) / counted.sum(1)
        means = [
            _mean_average_precision(of_member[there], labels[there])
            for of_member, labels, there in zip(probs, true, counted, strict=True)
        ]
        return [{"val_loss": loss, "val_map": mean} for loss, mean in zip(losses.tolist(), means, strict=True)]


def average_precisions(probs: Tensor, true: Tensor) -> Tensor:
    """Return the average precision of each label, float64 (C,); NaN for a label without a row.

    The mean, over the rows with the label, of the share of such rows among all that are as probable or more, as in
    scikit-learn's `average_precision_score`.

    Args:
        probs: (n, C).
        true: bool (n, C).
    """
    columns, positives = probs.T.contiguous(), true.T.to(torch.float64)
    ordered, order = columns.sort(dim=1)
    below = torch.searchsorted(ordered, columns)  # (C, n) the rows that are less probable
    cumulated = functional.pad(positives.gather(1, order).cumsum(1), (1, 0))
    above = positives.sum(1, keepdim=True) - cumulated.gather(1, below)
    precision = above / (columns.shape[1] - below)
    return (precision * positives).sum(1) / positives.sum(1)


def scores_of_rows(
    target: TargetSpec, outputs: Tensor, targets: RowTargets, scale: TargetScale | None
) -> dict[str, float]:
    """Return the validation scores of one set of rows.

    Args:
        target: the kind of target and its loss; not `class`.
        outputs: the logits (n, C).
        targets: the targets of these rows, without an axis of members.
        scale: the standardisation of a regression's targets.
    """
    sums = make_sums(target, 1, outputs.shape[1], [scale], outputs.device)
    values = None if targets.values is None else targets.values.unsqueeze(0)
    counted = torch.ones(1, len(outputs), dtype=torch.bool, device=outputs.device)
    sums.add(outputs.unsqueeze(0), RowTargets(targets.labels.unsqueeze(0), values), counted)
    return sums.scores()[0]


def wide_outputs(link: Link, logits: Tensor) -> Tensor:
    """Return the outputs of logits, at least in float32."""
    return apply_link(link, logits.to(torch.promote_types(logits.dtype, torch.float32)))


def _mean_average_precision(probs: Tensor, true: Tensor) -> float:
    """Return the mean over the labels that occur; 0 if none does, or if a probability is not finite."""
    occurring = true.any(0)
    if not bool(occurring.any()) or not bool(probs.isfinite().all()):
        return 0.0
    return float(average_precisions(probs[:, occurring], true[:, occurring]).mean())


def partial_sums(values: Tensor) -> Tensor:
    """Return sums of 64 values at a time, (..., m) of (..., n): no bit of a mean depends on the number of heads."""
    padded = functional.pad(values, (0, -values.shape[-1] % SUMMED_ROWS))
    return padded.view(*values.shape[:-1], -1, SUMMED_ROWS).sum(-1)
