"""Transformer layers for K heads at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.dropout import Dropout, Noise
from emofuse.heads.layers import Linear
from emofuse.heads.members import Members


class LayerNorm(nn.Module):
    """Layer norm (Ba et al., 2016) with separate weights for each member."""

    def __init__(self, members: Members, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.members = members
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(len(members), dim))
        self.bias = nn.Parameter(torch.zeros(len(members), dim))

    def forward(self, values: Tensor) -> Tensor:
        """Return normalised values (n, R, E)."""
        normed = functional.layer_norm(values, (self.dim,), eps=self.eps)
        return normed * self.weight.unsqueeze(1) + self.bias.unsqueeze(1)


class TransformerLayer(nn.Module):
    """Self-attention and a two-layer network, each applied to normalised values and added to its input (pre-norm).

    Args:
        members: the members that have the layer.
        tokens: the names of the tokens.
        dim: the width E of a token.
        attention_heads: the number of attention heads; each has an equal part of E.
        width: the width of the hidden layer.
        place: the name of this layer for the dropout.
        only_first: whether to compute only the first token, because nothing reads the others after the last layer.
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
        self.key = Linear(members, dim, dim, bias=False)  # a bias would add the same number to all scores of a query
        self.value = Linear(members, dim, dim)
        self.mix = Linear(members, dim, dim)
        self.mix_dropout = Dropout(members, [f"{place}.mix.{token}" for token in asking])
        self.hidden_norm = LayerNorm(members, dim)
        self.up = Linear(members, dim, width)
        self.down = Linear(members, width, dim)
        self.down_dropout = Dropout(members, [f"{place}.down.{token}" for token in asking])

    def forward(self, tokens: Tensor, present: Tensor, noise: Noise | None) -> Tensor:
        """Return the tokens after this layer, (K, B, A, E), where A is 1 if `only_first`, else T.

        Args:
            tokens: the tokens, (K, B, T, E).
            present: the tokens that each member has, bool (K, T), or that each row has, bool (K, B, T). The others get
                no attention.
            noise: the noise of the dropout, in training.
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
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = self.mix(attended.transpose(1, 2).reshape(members, rows * self.asking, dim))
        asking = asking + self._drop(self.mix_dropout, mixed, noise)
        hidden = self.down(functional.gelu(self.up(self.hidden_norm(asking))))
        asking = asking + self._drop(self.down_dropout, hidden, noise)
        return asking.view(members, rows, self.asking, dim)

    def _split(self, values: Tensor, count: int) -> Tensor:
        """Split values (K, B x T, E), T = `count`, into (K x B, attention heads, T, E / attention heads)."""
        members, rows, dim = values.shape
        parts = values.reshape(members * rows // count, count, self.attention_heads, dim // self.attention_heads)
        return parts.transpose(1, 2)

    def _drop(self, dropout: Dropout, values: Tensor, noise: Noise | None) -> Tensor:
        """Apply dropout to values (K, B x A, E), whose places are the tokens side by side."""
        members, count, dim = values.shape
        dropped: Tensor = dropout(values.reshape(members, count // self.asking, self.asking * dim), noise)
        return dropped.reshape(members, count, dim)
