"""Streams as tokens: one or two transformer layers, the logits read off a learned token before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.dropout import Dropout, Noise
from emofuse.heads.embedding import Embeddings
from emofuse.heads.lanes import Batch, Lane, Lanes, key_of, stream_of
from emofuse.heads.layers import Linear, Vector


class LayerNorm(nn.Module):
    """Layer norm (Ba et al., 2016) with weights a lane."""

    def __init__(self, lanes: Lanes, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.lanes = lanes
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(len(lanes), dim))
        self.bias = nn.Parameter(torch.zeros(len(lanes), dim))

    def forward(self, values: Tensor) -> Tensor:
        """(n, R, E) of the same."""
        normed = functional.layer_norm(values, values.shape[-1:], eps=self.eps)
        return normed * self.weight.unsqueeze(1) + self.bias.unsqueeze(1)


class TransformerLayer(nn.Module):
    """Self-attention and a two-layer network, each on normed values and added to them (pre-norm).

    Args:
        lanes: that have it.
        tokens: names of the tokens.
        dim: E.
        attention_heads: that share E.
        width: of the hidden layer.
        place: name of this layer for the dropout.
        only_first: compute the first token's result alone; nothing reads the others after the last layer.
    """

    def __init__(
        self,
        lanes: Lanes,
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
        self.norm = LayerNorm(lanes, dim)
        self.query = Linear(lanes, dim, dim)
        self.key = Linear(lanes, dim, dim, bias=False)  # one would add the same to all of a query's scores
        self.value = Linear(lanes, dim, dim)
        self.mix = Linear(lanes, dim, dim)
        self.mix_dropout = Dropout(lanes, [f"{place}.mix.{token}" for token in asking])
        self.hidden_norm = LayerNorm(lanes, dim)
        self.up = Linear(lanes, dim, width)
        self.down = Linear(lanes, width, dim)
        self.down_dropout = Dropout(lanes, [f"{place}.down.{token}" for token in asking])

    def forward(self, tokens: Tensor, present: Tensor, noise: Noise | None) -> Tensor:
        """Tokens after this layer.

        Args:
            tokens: (K, B, T, E).
            present: (K, T) bool, the tokens that the lane has at all; the others are not attended to.
            noise: in training.

        Returns:
            (K, B, A, E), A = 1 if `only_first`, else T.
        """
        lanes, rows, count, dim = tokens.shape
        asking = tokens[:, :, : self.asking].reshape(lanes, rows * self.asking, dim)
        normed = self.norm(tokens.reshape(lanes, rows * count, dim))
        first = normed.view(lanes, rows, count, dim)[:, :, : self.asking].reshape(lanes, rows * self.asking, dim)
        query = self._split(self.query(first), self.asking)
        key, value = (self._split(layer(normed), count) for layer in (self.key, self.value))
        mask = present.repeat_interleave(rows, 0, output_size=lanes * rows)[:, None, None, :]
        heard = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = self.mix(heard.transpose(1, 2).reshape(lanes, rows * self.asking, dim))
        asking = asking + self._drop(self.mix_dropout, mixed, noise)
        hidden = self.down(functional.gelu(self.up(self.hidden_norm(asking))))
        asking = asking + self._drop(self.down_dropout, hidden, noise)
        return asking.view(lanes, rows, self.asking, dim)

    def _split(self, values: Tensor, count: int) -> Tensor:
        """(K x B, attention heads, T, E / attention heads) of (K, B x T, E), T = `count`."""
        lanes, rows, dim = values.shape
        parts = values.reshape(lanes * rows // count, count, self.attention_heads, dim // self.attention_heads)
        return parts.transpose(1, 2)

    def _drop(self, dropout: Dropout, values: Tensor, noise: Noise | None) -> Tensor:
        """Dropout of (K, B x A, E): its places are the tokens, side by side."""
        lanes, count, dim = values.shape
        dropped: Tensor = dropout(values.reshape(lanes, count // self.asking, self.asking * dim), noise)
        return dropped.reshape(lanes, count, dim)


class AttentionHead(nn.Module):
    """A token a stream (its embedding plus a learned vector that says which stream), and one that asks them.

    The token of a missing stream is the learned vector that takes the place of its embedding; streams that a lane does
    not have at all are masked. Pre-norm layers (Vaswani et al., NeurIPS 2017; Xiong et al., ICML 2020), GELU.

    Args:
        group: K lanes, ordered by fold.
        dims: stream -> D, the streams of all lanes together.
        classes: C.
        embed_dim: E, a multiple of `attention_heads`.
        depth: number of transformer layers.
        attention_heads: in each layer.
        width: of the hidden layer inside each.
    """

    present: Tensor

    def __init__(
        self,
        group: Sequence[Lane],
        dims: Mapping[str, int],
        classes: int,
        *,
        embed_dim: int,
        depth: int,
        attention_heads: int,
        width: int,
    ) -> None:
        super().__init__()
        self.lanes = everyone = Lanes(group)
        self.lanes_of = {stream: Lanes(group, stream) for stream in dims}
        tokens = ["asking", *(f"stream {stream_of(stream)}" for stream in dims)]
        self.embeddings = Embeddings(self.lanes_of, dims, embed_dim)
        self.asking = Vector(everyone, embed_dim)
        self.names = nn.ModuleDict({key_of(stream): Vector(own, embed_dim) for stream, own in self.lanes_of.items()})
        self.layers = nn.ModuleList(
            TransformerLayer(
                everyone,
                tokens,
                embed_dim,
                attention_heads=attention_heads,
                width=width,
                place=f"layers.{index}",
                only_first=index == depth - 1,
            )
            for index in range(depth)
        )
        self.norm = LayerNorm(everyone, embed_dim)
        self.output = Linear(everyone, embed_dim, classes)
        present = torch.tensor([[True, *(stream in lane.streams for stream in dims)] for lane in group])
        self.register_buffer("present", present, persistent=False)

    def forward(self, batch: Batch, noise: Noise | None = None) -> Tensor:
        """Logits (K, B, C)."""
        rows = next(iter(batch.valid.values())).shape[1]
        asking = self.asking().expand(-1, rows, -1)
        tokens = [asking]
        for stream, embedding in self.embeddings(batch).items():
            token = embedding + self.names[key_of(stream)]()
            tokens.append(self.lanes_of[stream].add(torch.zeros_like(asking), token))
        values = torch.stack(tokens, dim=2)
        for layer in self.layers:
            values = layer(values, self.present, noise)
        logits: Tensor = self.output(self.norm(values[:, :, 0]))
        return logits
