"""Streams as tokens: one or two transformer layers, the logits read off a learned token before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.embedding import Embeddings
from emofuse.heads.layers import Linear, Vector
from emofuse.heads.members import HeadBatch, HeadMember, Members, key_of, stream_of
from emofuse.heads.stems import Shape, StemChoice
from emofuse.heads.transformer import LayerNorm, TransformerLayer


class AttentionHead(nn.Module):
    """A token a stream (its embedding plus a learned vector that says which stream), and one that asks them.

    The token of a missing stream is the learned vector that takes the place of its embedding; streams that a member
    does not have at all are masked. Pre-norm layers (Vaswani et al., NeurIPS 2017; Xiong et al., ICML 2020), GELU.

    Args:
        group: K members, ordered by fold.
        dims: stream -> shape of a row, D for a vector; the streams of all members together.
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
        group: Sequence[HeadMember],
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
        self.members = everyone = Members(group)
        self.members_of = {stream: Members(group, stream) for stream in dims}
        tokens = ["asking", *(f"stream {stream_of(stream)}" for stream in dims)]
        self.embeddings = Embeddings(self.members_of, dims, embed_dim, stems)
        self.asking = Vector(everyone, embed_dim)
        self.names = nn.ModuleDict({key_of(stream): Vector(own, embed_dim) for stream, own in self.members_of.items()})
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
        present = torch.tensor([[True, *(stream in member.streams for stream in dims)] for member in group])
        self.register_buffer("present", present, persistent=False)

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:
        """Logits (K, B, C)."""
        rows = next(iter(batch.valid.values())).shape[1]
        asking = self.asking().expand(-1, rows, -1)
        tokens = [asking]
        for stream, embedding in self.embeddings(batch, noise).items():
            token = embedding + self.names[key_of(stream)]()
            tokens.append(self.members_of[stream].add(torch.zeros_like(asking), token))
        values = torch.stack(tokens, dim=2)
        for layer in self.layers:
            values = layer(values, self.present, noise)
        logits: Tensor = self.output(self.norm(values[:, :, 0]))
        return logits
