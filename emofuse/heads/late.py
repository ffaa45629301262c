"""Late fusion: a separate head for each stream, whose probabilities are averaged with learned weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emofuse.heads.dropout import Noise
from emofuse.heads.embedding import Embeddings
from emofuse.heads.layers import HiddenLayers, Linear, Vector
from emofuse.heads.members import HeadBatch, HeadMember, Members, key_of, stream_of
from emofuse.heads.stems import Shape, StemChoice


class StreamHead(nn.Module):
    """The probabilities of one stream, and their weight in the average."""

    def __init__(self, members: Members, stream: str, embed_dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.members = members
        self.first = Linear(members, embed_dim, widths[0])
        self.hidden = HiddenLayers(members, widths, f"{stream_of(stream)}.hidden")
        self.log_weight = nn.Parameter(torch.zeros(len(members)))

    def forward(self, embedding: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return the probabilities (n, B, C) of an embedding (n, B, E), and their weight (n, 1, 1) in the average."""
        logits = self.hidden(self.first(embedding), noise)
        weight = self.log_weight.exp().reshape(-1, 1, 1)
        return functional.softmax(logits.to(weight.dtype), dim=2), weight


class LateHead(nn.Module):
    """The weighted average of the streams' probabilities, with weights w_s = exp(log_weight_s).

    p = sum(w_s p_s) / sum(w_s) over the streams that the row has. A row without any stream gets learned probabilities,
    which stay uniform if no training row lacks all streams.

    Args:
        group: the K members, ordered by fold.
        dims: the shape of a row of each stream of any member, D for a vector.
        classes: the number C of classes.
        embed_dim: the width E of each stream's embedding.
        depth: the number of hidden layers of each stream's head.
        width: the width of each hidden layer.
        stems: the stems of streams that are not vectors.
    """

    def __init__(
        self,
        group: Sequence[HeadMember],
        dims: Mapping[str, Shape],
        classes: int,
        *,
        embed_dim: int,
        depth: int,
        width: int,
        stems: StemChoice | None = None,
    ) -> None:
        super().__init__()
        self.members_of = {stream: Members(group, stream) for stream in dims}
        widths = [*[width] * depth, classes]
        self.embeddings = Embeddings(self.members_of, dims, embed_dim, stems)
        self.heads = nn.ModuleDict(
            {
                key_of(stream): StreamHead(members, stream, embed_dim, widths)
                for stream, members in self.members_of.items()
            }
        )
        self.nothing = Vector(Members(group), classes, zero=True)

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:
        """Return log probabilities (K, B, C), which serve as logits: their softmax is the probabilities."""
        nothing = functional.softmax(self.nothing(), dim=2)
        rows = next(iter(batch.valid.values())).shape[1]
        above = torch.zeros_like(nothing).expand(-1, rows, -1)
        below = above[:, :, :1]
        for stream, embedding in self.embeddings(batch, noise).items():
            members = self.members_of[stream]
            probs, weight = self.heads[key_of(stream)](embedding, noise)
            weight = weight * batch.has_stream(stream, members).unsqueeze(2)
            above = members.add(above, weight * probs)
            below = members.add(below, weight)
        some = below > 0
        probs = torch.where(some, above / torch.where(some, below, 1.0), nothing)
        return probs.clamp(min=torch.finfo(probs.dtype).tiny).log()
