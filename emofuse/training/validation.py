"""Score K heads on validation rows at once, and compute their outputs on any rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from emofuse.heads.arithmetic import fast_arithmetic
from emofuse.heads.layers import products_in
from emofuse.heads.links import Link
from emofuse.heads.members import HeadBatch, Members
from emofuse.training.batches import Standardised
from emofuse.training.members import FeatureTable, Fold
from emofuse.training.streaming import Window
from emofuse.training.validation_scores import SUMMED_ROWS, make_sums, wide_outputs

EVAL_ROWS = 4096
"""The number of rows that are evaluated at once, of all heads together."""


def eval_rows(heads: int) -> int:
    """Return how many rows each of K heads gets at once, a multiple of the rows that losses are summed by."""
    return max(1, EVAL_ROWS // heads // SUMMED_ROWS) * SUMMED_ROWS


class Validation:
    """The validation rows of every fold.

    Args:
        rows: the table.
        folds: the F folds that are used.
        table: the table's kind of target, its loss and the number of its outputs.
        device: the device of the heads.
        products: the type of the operands of matrix products; None for the type of the weights.
        window: the blocks by which the table is read; None where it lies whole on the device.
    """

    def __init__(
        self,
        rows: Standardised,
        folds: Sequence[Fold],
        table: FeatureTable,
        *,
        device: torch.device,
        products: torch.dtype | None,
        window: Window | None,
    ) -> None:
        self._rows = rows
        self._products = products
        self._target, self._classes = table.target, table.classes
        self._scales = [table.target_scale(fold) for fold in folds]
        self._device = device
        self._windows = list(_windows([torch.from_numpy(fold.val) for fold in folds], window, device))

    @torch.no_grad()
    def scores(self, head: nn.Module, members: Members) -> list[dict[str, float]]:
        """Return the scores of each member on the validation rows of its fold (`emofuse.training.validation_scores`).

        `val_loss` is not finite if any output of the member is not.
        """
        head.eval()
        scales = [self._scales[member.fold] for member in members.group]
        sums = make_sums(self._target, len(members), self._classes, scales, self._device)
        for rows, present in self._parts(eval_rows(len(members))):
            batch, targets = self._rows.read(rows, present)
            with products_in(self._products, rows.device):
                logits = head(batch)
            sums.add(logits, targets.of_members(members), members.of_folds(present))
        return sums.scores()

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
def predict_outputs(head: nn.Module, batch: HeadBatch, link: Link = "softmax") -> npt.NDArray[np.float32]:
    """Return the outputs of K heads, (K, n, C) float32. The head is left in evaluation mode.

    Products are those of training, also while no group trains: their setting holds for the whole process.

    Args:
        head: the heads, as `make_head` returns them.
        batch: n rows for each of the heads' folds, standardised.
        link: what turns logits into outputs; those of a regression stay standardised.
    """
    head.eval()
    rows = next(iter(batch.valid.values())).shape[1]
    parts = []
    with fast_arithmetic(next(head.parameters()).device):
        for start in range(0, rows, EVAL_ROWS):
            logits = head(batch.rows(slice(start, start + EVAL_ROWS)))
            parts.append(wide_outputs(link, logits).float().cpu())
    result: npt.NDArray[np.float32] = torch.cat(parts, dim=1).numpy()
    return result


def mean_outputs(parts: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Return the mean (n, C) of the outputs of heads; those of a single head stay bit for bit."""
    if len(parts) == 1:
        return parts[0]
    mean: npt.NDArray[np.float32] = np.mean(np.stack(parts), axis=0, dtype=np.float64).astype(np.float32)
    return mean
