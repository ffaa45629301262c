"""Mixed rows: each row of a batch is mixed with another row, separately for each of K heads.

The inputs are not mixed. The heads of a fold share one matrix of features, and with partners and shares of their own
each head would need a matrix of its own: a first product, the largest of a step, K times as large. So the embeddings
of the streams are mixed, as in manifold mixup with one fixed layer (Verma et al., ICML 2019). For a linear map without
batch norm this is the same as mixing the inputs (Zhang et al., ICLR 2018). Batch norm sees the rows before they are
mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from emofuse.heads.members import Members


@dataclass(frozen=True)
class RowMix:
    """The partner of each row and the share of the row itself, for each of K heads.

    A mixed row is share x row + (1 - share) x partner. A row that lacks a stream is mixed with what stands for the
    missing stream.

    Attributes:
        partners: the index of each row's partner in the batch, int64 (K, B).
        shares: the share of the row itself, floating point (K, 1), 1 for heads that do not mix.
    """

    partners: Tensor
    shares: Tensor

    def mixed(self, values: Tensor, members: Members) -> Tensor:
        """Return the mixed rows of values (n, B, E) of these n members; bool values become shares."""
        partners, shares = members.pick(self.partners), members.pick(self.shares).unsqueeze(2)
        count, rows, wide = values.shape
        values = values.to(shares.dtype)
        flat = partners + rows * torch.arange(count, device=partners.device).unsqueeze(1)
        others = values.reshape(count * rows, wide).index_select(0, flat.flatten()).view(count, rows, wide)
        return shares * values + (1 - shares) * others

    def loss(self, of_row: Tensor, of_partner: Tensor) -> Tensor:
        """Return the losses (K,) of mixed rows: share x loss by the rows' targets + (1 - share) x by the partners'."""
        shares = self.shares.squeeze(1)
        return shares * of_row + (1 - shares) * of_partner
