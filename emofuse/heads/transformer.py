"""Transformer layers of K heads at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.dropout import Dropout, Noise
from emofuse.heads.layers import Linear
from emofuse.heads.members import Members


class LayerNorm(nn.Module):
    """Layer norm (Ba et al., 2016) with weights a member."""

    def __init__(self, members: Members, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.members = members
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(len(members), dim))
        self.bias = nn.Parameter(torch.zeros(len(members), dim))

    def forward(self, values: Tensor) -> Tensor:
        """(n, R, E) of the same."""
        normed = functional.layer_norm(values, values.shape[-1:], eps=self.eps)
        return normed * self.weight.unsqueeze(1) + self.bias.unsqueeze(1)


class TransformerLayer(nn.Module):
    """Self-attention and a two-layer network, each on normed values and added to them (pre-norm).

    Args:
        members: that have it.
        tokens: names of the tokens.
        dim: E.
        attention_heads: that share E.
        width: of the hidden layer.
        place: name of this layer for the dropout.
        only_first: compute the first token's result alone; nothing reads the others after the last layer.
    """

    def __init__(
        self,
        members: Members,
        tokens: Sequence[str],
        dim: int,
        *,
        attention_heads: int,
        width: int,
        place: str,
        only_first: bool,
    ) -> None:
        super().__init__()
        self.attention_heads = attention_heads
        self.asking = 1 if only_first else len(tokens)
        asking = tokens[: self.asking]
        self.norm = LayerNorm(members, dim)
        self.query = Linear(members, dim, dim)
        self.key = Linear(members, dim, dim, bias=False)  # one would add the same to all of a query's scores
        self.value = Linear(members, dim, dim)
        self.mix = Linear(members, dim, dim)
        self.mix_dropout = Dropout(members, [f"{place}.mix.{token}" for token in asking])
        self.hidden_norm = LayerNorm(members, dim)
        self.up = Linear(members, dim, width)
        self.down = Linear(members, width, dim)
        self.down_dropout = Dropout(members, [f"{place}.down.{token}" for token in asking])

    def forward(self, tokens: Tensor, present: Tensor, noise: Noise | None) -> Tensor:
        """Tokens after this layer.

        Args:
            tokens: (K, B, T, E).
            present: (K, T) bool, the tokens that the member has at all, or (K, B, T), those that each row has; the
                others are not attended to.
            noise: in training.

        Returns:
            (K, B, A, E), A = 1 if `only_first`, else T.
        """
        members, rows, count, dim = tokens.shape
        asking = tokens[:, :, : self.asking].reshape(members, rows * self.asking, dim)
        normed = self.norm(tokens.reshape(members, rows * count, dim))
        first = normed.view(members, rows, count, dim)[:, :, : self.asking].reshape(members, rows * self.asking, dim)
        query = self._split(self.query(first), self.asking)
        key, value = (self._split(layer(normed), count) for layer in (self.key, self.value))
        of_rows = (
            present.flatten(0, 1)
            if present.dim() == 3
            else present.repeat_interleave(rows, 0, output_size=members * rows)
        )
        mask = of_rows[:, None, None, :]
        heard = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = self.mix(heard.transpose(1, 2).reshape(members, rows * self.asking, dim))
        asking = asking + self._drop(self.mix_dropout, mixed, noise)
        hidden = self.down(functional.gelu(self.up(self.hidden_norm(asking))))
        asking = asking + self._drop(self.down_dropout, hidden, noise)
        return asking.view(members, rows, self.asking, dim)

    def _split(self, values: Tensor, count: int) -> Tensor:
        """(K x B, attention heads, T, E / attention heads) of (K, B x T, E), T = `count`."""
        members, rows, dim = values.shape
        parts = values.reshape(members * rows // count, count, self.attention_heads, dim // self.attention_heads)
        return parts.transpose(1, 2)

    def _drop(self, dropout: Dropout, values: Tensor, noise: Noise | None) -> Tensor:
        """Dropout of (K, B x A, E): its places are the tokens, side by side."""
        members, count, dim = values.shape
        dropped: Tensor = dropout(values.reshape(members, count // self.asking, self.asking * dim), noise)
        return dropped.reshape(members, count, dim)
