"""Scores of K heads on validation rows at once, and probabilities of heads on any rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.layers import products_in
from emofuse.heads.members import HeadBatch, Members
from emofuse.metrics.confusion import accuracy, macro_f1
from emofuse.metrics.probability_metrics import SMALLEST_PROB
from emofuse.training.batches import Standardised
from emofuse.training.members import Fold
from emofuse.training.streaming import Window

EVAL_ROWS = 4096
"""Rows that are evaluated at once, of all heads together."""

_SUMMED_ROWS = 64


def eval_rows(heads: int) -> int:
    """Rows that each of so many heads is given at once: as many as losses are first summed over, or some times that."""
    return max(1, EVAL_ROWS // heads // _SUMMED_ROWS) * _SUMMED_ROWS


class Validation:
    """The validation rows of every fold.

    Args:
        rows: the table.
        folds: the F folds that are used.
        classes: C.
        device: where the heads are.
        products: type of the operands of matrix products where it is not the weights' own.
        window: blocks that the table is read by; None where it lies whole on the device.
    """

    def __init__(
        self,
        rows: Standardised,
        folds: Sequence[Fold],
        classes: int,
        *,
        device: torch.device,
        products: torch.dtype | None,
        window: Window | None,
    ) -> None:
        self._rows = rows
        self._products = products
        self._classes = classes
        self._device = device
        self._windows = list(_windows([torch.from_numpy(fold.val) for fold in folds], window, device))

    @torch.no_grad()
    def scores(self, head: nn.Module, members: Members) -> list[dict[str, float]]:
        """Of each member on its fold's rows {val_loss, val_accuracy, val_macro_f1}, as `classification_metrics` does.

        `val_loss` is NaN for a member with a probability that is not a number.
        """
        head.eval()
        confusion = torch.zeros(len(members), self._classes**2, dtype=torch.int64, device=self._device)
        losses = []
        for rows, present in self._parts(eval_rows(len(members))):
            batch, labels = self._rows.read(rows, present)
            with products_in(self._products, rows.device):
                probs = _softmax(head(batch))
            labels, counted = members.of_folds(labels), members.of_folds(present)
            cell = labels * self._classes + probs.argmax(2)
            confusion.scatter_add_(1, cell, counted.to(torch.int64))
            true = probs.gather(2, labels.unsqueeze(2)).squeeze(2).double().clamp(min=SMALLEST_PROB)
            true = torch.where(probs.isfinite().all(2), true, torch.nan)
            losses.append(_sums_of_some(torch.where(counted, -true.log(), 0.0)))
        loss = torch.cat(losses, dim=1).sum(1) / confusion.sum(1)
        return _scores(confusion.view(-1, self._classes, self._classes).cpu().numpy(), loss.tolist())

    def _parts(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows and present (F, up to `size`), until every fold has had its own."""
        source = self._rows.source
        source.follow([blocks for blocks, _, _ in self._windows])
        for number, (_, rows, present) in enumerate(self._windows):
            source.reach(number)
            for start in range(0, rows.shape[1], size):
                yield rows[:, start : start + size], present[:, start : start + size]


def _windows(
    rows: Sequence[Tensor], window: Window | None, device: torch.device
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """(blocks, rows (F, n) of every fold in them, present (F, n)), in ascending order of blocks."""
    if window is None:
        yield [], *_padded(rows, device)
        return
    blocks_used = torch.unique(torch.cat([of_fold // window.block_rows for of_fold in rows]))
    for blocks in torch.split(blocks_used, window.blocks):
        inside = [of_fold[torch.isin(of_fold // window.block_rows, blocks)] for of_fold in rows]
        yield blocks.tolist(), *_padded(inside, device)


def _padded(rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of F folds side by side, filled up with one that is there, and which are not filling: (F, n) both."""
    anyone = next(int(of_fold[0]) for of_fold in rows if len(of_fold))
    padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=anyone)
    counts = torch.tensor([len(of_fold) for of_fold in rows])
    return padded.to(device), (torch.arange(padded.shape[1]) < counts.unsqueeze(1)).to(device)


@torch.no_grad()
def predict_probs(head: nn.Module, batch: HeadBatch) -> npt.NDArray[np.float32]:
    """Softmax of K heads in evaluation mode, (K, n, C) float32; the head is left in that mode.

    Args:
        head: as `make_head` gives it.
        batch: n rows, standardised, for each of the heads' folds.
    """
    head.eval()
    rows = next(iter(batch.valid.values())).shape[1]
    parts = []
    for start in range(0, rows, EVAL_ROWS):
        part = slice(start, start + EVAL_ROWS)
        logits = head(batch.rows(part))
        parts.append(_softmax(logits).float().cpu())
    result: npt.NDArray[np.float32] = torch.cat(parts, dim=1).numpy()
    return result


def _sums_of_some(values: Tensor) -> Tensor:
    """(K, m) of (K, n): sums of 64 at a time. So the last bit of a mean does not depend on how many heads there are."""
    padded = functional.pad(values, (0, -values.shape[1] % _SUMMED_ROWS))
    return padded.view(len(values), -1, _SUMMED_ROWS).sum(2)


def _softmax(logits: Tensor) -> Tensor:
    return functional.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=2)


def _scores(confusion: npt.NDArray[np.int64], losses: Sequence[float]) -> list[dict[str, float]]:
    """From K confusion matrices (K, C, C), true class by predicted class; macro F1 is over the classes that occur."""
    pairs = zip(losses, accuracy(confusion).tolist(), macro_f1(confusion).tolist(), strict=True)
    return [{"val_loss": loss, "val_accuracy": right, "val_macro_f1": macro} for loss, right, macro in pairs]
