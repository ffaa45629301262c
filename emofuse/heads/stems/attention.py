"""Attention pooling: learned weights of the steps of a sequence or of the positions of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.members import Members
from emofuse.heads.stems.layers import MemberLinear, per_fold


class AttentionPool(nn.Module):
    """The mean of the tokens x_t that are there, weighted by softmax(u . tanh(W x_t + b)).

    (Bahdanau et al., ICLR 2015; Yang et al., NAACL 2016.)

    Args:
        members: the members that have the layer.
        dim: the width D of a token.
        width: the width of the layer that scores the tokens.
        shared: whether the inputs have an axis of folds instead of members.
    """

    def __init__(self, members: Members, dim: int, width: int, *, shared: bool) -> None:
        super().__init__()
        self.members = members
        self.dim = dim
        self.shared = shared
        self.hidden = MemberLinear(members, dim, width, shared=shared)
        self.score = MemberLinear(members, width, 1, shared=False)

    def forward(self, values: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return one vector for each row, (n, B, D).

        Args:
            values: the tokens, (F or n, B, T, D).
            steps: the tokens that are there, bool (F or n, B, T); None for all. A row without tokens gets zeros.
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
            torch.bmm(of_fold.transpose(0, 1).to(values.dtype), values[fold])
            for fold, of_fold in per_fold(weights, self.members)
        ]
        return torch.cat(pooled, dim=1).transpose(0, 1)


class AttentionOfMap(nn.Module):
    """Attention pooling over the positions of a map. A token holds the values of all channels at one position."""

    def __init__(self, members: Members, channels: int, width: int) -> None:
        super().__init__()
        self.dim = channels
        self.pool = AttentionPool(members, channels, width, shared=True)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the vectors (n, R, C) of maps (F, R, C, H, W)."""
        pooled: Tensor = self.pool(maps.flatten(3).transpose(2, 3))
        return pooled
