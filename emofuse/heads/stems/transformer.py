"""A small transformer over the steps of a sequence. Its result is that of a learned token that attends to them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.layers import Vector
from emofuse.heads.members import Members
from emofuse.heads.stems.layers import MemberLinear
from emofuse.heads.transformer import LayerNorm, TransformerLayer

LAYERS = 2
MOST_ATTENTION_HEADS = 4


class TransformerOverTime(nn.Module):
    """Pre-norm transformer layers over projected steps with learned positions.

    Args:
        members: the members that have the layer.
        dim: the width D of a step.
        length: the number T of steps.
        width: the width E of a token. The hidden layer inside each transformer layer is twice as wide.
        shared: whether the inputs have an axis of folds instead of members.
        place: the name of the stream for the dropout.
    """

    def __init__(self, members: Members, dim: int, length: int, width: int, *, shared: bool, place: str) -> None:
        super().__init__()
        self.members = members
        self.dim = width
        self.shared = shared
        self.input = MemberLinear(members, dim, width, shared=shared)
        self.asking = Vector(members, width)
        self.positions = Vector(members, length * width, [width] * len(members))
        tokens = ["asking", *(f"step {step}" for step in range(length))]
        self.layers = nn.ModuleList(
            TransformerLayer(
                members,
                tokens,
                width,
                attention_heads=math.gcd(width, MOST_ATTENTION_HEADS),
                width=2 * width,
                place=f"{place}.temporal.{index}",
                only_first=index == LAYERS - 1,
            )
            for index in range(LAYERS)
        )
        self.norm = LayerNorm(members, width)

    def forward(self, values: Tensor, steps: Tensor, noise: Noise | None) -> Tensor:
        """Return (n, B, E) of values (F or n, B, T, D) and steps (F or n, B, T) bool."""
        there = self.members.of_folds(steps) if self.shared else steps
        tokens = self.input(values)
        tokens = tokens + self.positions().view(len(self.members), 1, -1, self.dim)
        asking = self.asking().unsqueeze(1).expand(-1, tokens.shape[1], -1, -1)
        tokens = torch.cat([asking.to(tokens.dtype), tokens], dim=2)
        present = torch.cat([torch.ones_like(there[:, :, :1]), there], dim=2)
        for layer in self.layers:
            tokens = layer(tokens, present, noise)
        normed: Tensor = self.norm(tokens[:, :, 0])
        return normed
