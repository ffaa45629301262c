"""Streams as tokens: one or two transformer layers, the logits read off a learned token before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.embedding import Embeddings
from emofuse.heads.lanes import Batch, Lane, Lanes, key_of, stream_of
from emofuse.heads.layers import Linear, Vector
from emofuse.heads.stems import Shape, StemChoice
from emofuse.heads.transformer import LayerNorm, TransformerLayer


class AttentionHead(nn.Module):
    """A token a stream (its embedding plus a learned vector that says which stream), and one that asks them.

    The token of a missing stream is the learned vector that takes the place of its embedding; streams that a lane does
    not have at all are masked. Pre-norm layers (Vaswani et al., NeurIPS 2017; Xiong et al., ICML 2020), GELU.

    Args:
        group: K lanes, ordered by fold.
        dims: stream -> shape of a row, D for a vector; the streams of all lanes together.
        classes: C.
        embed_dim: E, a multiple of `attention_heads`.
        depth: number of transformer layers.
        attention_heads: in each layer.
        width: of the hidden layer inside each.
        stems: of streams that are no vectors.
    """

    present: Tensor

    def __init__(
        self,
        group: Sequence[Lane],
        dims: Mapping[str, Shape],
        classes: int,
        *,
        embed_dim: int,
        depth: int,
        attention_heads: int,
        width: int,
        stems: StemChoice | None = None,
    ) -> None:
        super().__init__()
        self.lanes = everyone = Lanes(group)
        self.lanes_of = {stream: Lanes(group, stream) for stream in dims}
        tokens = ["asking", *(f"stream {stream_of(stream)}" for stream in dims)]
        self.embeddings = Embeddings(self.lanes_of, dims, embed_dim, stems)
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
        for stream, embedding in self.embeddings(batch, noise).items():
            token = embedding + self.names[key_of(stream)]()
            tokens.append(self.lanes_of[stream].add(torch.zeros_like(asking), token))
        values = torch.stack(tokens, dim=2)
        for layer in self.layers:
            values = layer(values, self.present, noise)
        logits: Tensor = self.output(self.norm(values[:, :, 0]))
        return logits
