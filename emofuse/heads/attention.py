"""Attention head: streams are tokens of a transformer, and a learned token before them gives the logits."""

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
    """A transformer over one token for each stream and a learned first token, from which the logits are computed.

    The token of a stream is its embedding plus a learned vector that identifies the stream. In a row that lacks the
    stream, the learned vector for missing rows is the embedding. Streams that a member does not have are masked. The
    layers are pre-norm (Vaswani et al., NeurIPS 2017; Xiong et al., ICML 2020) with GELU.

    Args:
        group: the K members, ordered by fold.
        dims: the shape of a row of each stream of any member, D for a vector.
        classes: the number C of classes.
        embed_dim: the width E of a token, a multiple of `attention_heads`.
        depth: the number of transformer layers.
        attention_heads: the number of attention heads of each layer.
        width: the width of the hidden layer inside each layer.
        stems: the stems of streams that are not vectors.
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
        self.members = all_members = Members(group)
        self.members_of = {stream: Members(group, stream) for stream in dims}
        tokens = ["asking", *(f"stream {stream_of(stream)}" for stream in dims)]
        self.embeddings = Embeddings(self.members_of, dims, embed_dim, stems)
        self.asking = Vector(all_members, embed_dim)
        self.names = nn.ModuleDict(
            {key_of(stream): Vector(members, embed_dim) for stream, members in self.members_of.items()}
        )
        self.layers = nn.ModuleList(
            TransformerLayer(
                all_members,
                tokens,
                embed_dim,
                attention_heads=attention_heads,
                width=width,
                place=f"layers.{index}",
                only_first=index == depth - 1,
            )
            for index in range(depth)
        )
        self.norm = LayerNorm(all_members, embed_dim)
        self.output = Linear(all_members, embed_dim, classes)
        present = torch.tensor([[True, *(stream in member.streams for stream in dims)] for member in group])
        self.register_buffer("present", present, persistent=False)

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:
        """Return the logits (K, B, C)."""
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
