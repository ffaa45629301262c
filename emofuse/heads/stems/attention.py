"""Attention pooling: a learned weight for each step of a sequence, or for each position of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.layers import slices
from emofuse.heads.members import Members
from emofuse.heads.stems.layers import MemberLinear


class AttentionPool(nn.Module):
    """The mean of tokens x_t weighted by softmax(u . tanh(W x_t + b)) over those that are there.

    (Bahdanau et al., ICLR 2015; Yang et al., NAACL 2016.)

    Args:
        members: that have it.
        dim: D of a token.
        width: of the layer that scores the tokens.
        shared: whether its inputs are those of the folds.
    """

    def __init__(self, members: Members, dim: int, width: int, *, shared: bool) -> None:
        super().__init__()
        self.members = members
        self.dim = dim
        self.shared = shared
        self.hidden = MemberLinear(members, dim, width, shared=shared)
        self.score = MemberLinear(members, width, 1, shared=False)

    def forward(self, values: Tensor, steps: Tensor | None = None) -> Tensor:
        """(n, B, D): one vector a row.

        Args:
            values: (F or n, B, T, D) tokens.
            steps: (F or n, B, T) bool, the tokens that are there; None for all. A row without any gets zeros.
        """
        scores = self.score(torch.tanh(self.hidden(values))).squeeze(3)
        if steps is not None:
            there = self.members.of_folds(steps) if self.shared else steps
            lowest = torch.finfo(scores.dtype).min
            scores = scores.masked_fill(~there, lowest)
            weights = functional.softmax(scores, dim=2) * there
        else:
            weights = functional.softmax(scores, dim=2)
        if not self.shared:
            return torch.einsum("nbt,nbtd->nbd", weights.to(values.dtype), values)
        pooled = [
            torch.bmm(weights[own].transpose(0, 1).to(values.dtype), values[fold])
            for fold, own in slices(self.members.per_fold)
        ]
        return torch.cat(pooled, dim=1).transpose(0, 1)


class AttentionOfMap(nn.Module):
    """Attention pooling over the positions of a map, whose tokens are the values of all channels there."""

    def __init__(self, members: Members, channels: int, width: int) -> None:
        super().__init__()
        self.dim = channels
        self.pool = AttentionPool(members, channels, width, shared=True)

    def forward(self, maps: Tensor) -> Tensor:
        """(n, R, C) of (F, R, C, H, W)."""
        pooled: Tensor = self.pool(maps.flatten(3).transpose(2, 3))
        return pooled
