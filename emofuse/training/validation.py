"""Score K heads on validation rows at once, and compute their probabilities on any rows."""

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
"""The number of rows that are evaluated at once, of all heads together."""

_SUMMED_ROWS = 64


def eval_rows(heads: int) -> int:
    """Return how many rows each of K heads gets at once, a multiple of the rows that losses are summed by."""
    return max(1, EVAL_ROWS // heads // _SUMMED_ROWS) * _SUMMED_ROWS


class Validation:
    """The validation rows of every fold.

    Args:
        rows: the table.
        folds: the F folds that are used.
        classes: C.
        device: the device of the heads.
        products: the type of the operands of matrix products; None for the type of the weights.
        window: the blocks by which the table is read; None where it lies whole on the device.
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
        """Return {val_loss, val_accuracy, val_macro_f1} of each member on the validation rows of its fold.

        The scores are those of `classification_metrics`; `val_loss` is NaN if any probability of the member is NaN.
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
            losses.append(_partial_sums(torch.where(counted, -true.log(), 0.0)))
        loss = torch.cat(losses, dim=1).sum(1) / confusion.sum(1)
        return _scores(confusion.view(-1, self._classes, self._classes).cpu().numpy(), loss.tolist())

    def _parts(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows and present (F, up to `size`) until every fold has had all its rows."""
        source = self._rows.source
        source.follow([blocks for blocks, _, _ in self._windows])
        for number, (_, rows, present) in enumerate(self._windows):
            source.reach(number)
            for start in range(0, rows.shape[1], size):
                yield rows[:, start : start + size], present[:, start : start + size]


def _windows(
    rows: Sequence[Tensor], window: Window | None, device: torch.device
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield (blocks, rows (F, n) of every fold in them, present (F, n)), in ascending order of blocks."""
    if window is None:
        yield [], *_padded(rows, device)
        return
    blocks_used = torch.unique(torch.cat([of_fold // window.block_rows for of_fold in rows]))
    for blocks in torch.split(blocks_used, window.blocks):
        inside = [of_fold[torch.isin(of_fold // window.block_rows, blocks)] for of_fold in rows]
        yield blocks.tolist(), *_padded(inside, device)


def _padded(rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the rows of F folds, filled up with an existing row, and where they are not filled up: (F, n) both."""
    filler = next(int(of_fold[0]) for of_fold in rows if len(of_fold))
    padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=filler)
    counts = torch.tensor([len(of_fold) for of_fold in rows])
    return padded.to(device), (torch.arange(padded.shape[1]) < counts.unsqueeze(1)).to(device)


@torch.no_grad()
def predict_probs(head: nn.Module, batch: HeadBatch) -> npt.NDArray[np.float32]:
    """Return the probabilities of K heads, (K, n, C) float32. The head is left in evaluation mode.

    Args:
        head: the heads, as `make_head` returns them.
        batch: n rows for each of the heads' folds, standardised.
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


def mean_probs(parts: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Return the mean (n, C) of the probabilities of heads; those of a single head stay bit for bit."""
    if len(parts) == 1:
        return parts[0]
    mean: npt.NDArray[np.float32] = np.mean(np.stack(parts), axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _partial_sums(values: Tensor) -> Tensor:
    """Return sums of 64 values at a time, (K, m) of (K, n): no bit of a mean depends on the number of heads."""
    padded = functional.pad(values, (0, -values.shape[1] % _SUMMED_ROWS))
    return padded.view(len(values), -1, _SUMMED_ROWS).sum(2)


def _softmax(logits: Tensor) -> Tensor:
    return functional.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=2)


def _scores(confusion: npt.NDArray[np.int64], losses: Sequence[float]) -> list[dict[str, float]]:
    """Return the scores of K confusion matrices (K, C, C); macro F1 is the mean over the classes that occur."""
    scores = zip(losses, accuracy(confusion).tolist(), macro_f1(confusion).tolist(), strict=True)
    return [{"val_loss": loss, "val_accuracy": share, "val_macro_f1": f1} for loss, share, f1 in scores]
