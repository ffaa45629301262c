"""Late fusion: a separate head for each stream, whose outputs are averaged with learned weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.embedding import Embeddings
from emofuse.heads.layers import HiddenLayers, Linear, Vector
from emofuse.heads.links import Link, apply_link, invert_link
from emofuse.heads.members import HeadBatch, HeadMember, Members, key_of, stream_of
from emofuse.heads.stems import Shape, StemChoice


class StreamHead(nn.Module):
    """The outputs of one stream, and their weight in the average."""

    def __init__(self, members: Members, stream: str, embed_dim: int, widths: Sequence[int], link: Link) -> None:
        super().__init__()
        self.members = members
        self.link = link
        self.first = Linear(members, embed_dim, widths[0])
        self.hidden = HiddenLayers(members, widths, f"{stream_of(stream)}.hidden")
        self.log_weight = nn.Parameter(torch.zeros(len(members)))

    def forward(self, embedding: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return the outputs (n, B, C) of an embedding (n, B, E), and their weight (n, 1, 1) in the average."""
        logits = self.hidden(self.first(embedding), noise)
        weight = self.log_weight.exp().reshape(-1, 1, 1)
        return apply_link(self.link, logits.to(weight.dtype)), weight


class LateHead(nn.Module):
    """The weighted average of the streams' outputs, with weights w_s = exp(log_weight_s).

    p = sum(w_s p_s) / sum(w_s) over the streams that the row has. A row without any stream gets learned outputs, which
    stay uniform probabilities, or the mean of the training rows, if no training row lacks all streams. With mixed rows,
    a stream counts by the share of the mixture that has it.

    Args:
        group: the K members, ordered by fold.
        dims: the shape of a row of each stream of any member, D for a vector.
        classes: the number C of classes.
        embed_dim: the width E of each stream's embedding.
        depth: the number of hidden layers of each stream's head.
        width: the width of each hidden layer.
        stems: the stems of streams that are not vectors.
        link: what turns the logits of a stream into outputs.
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
        link: Link = "softmax",
    ) -> None:
        super().__init__()
        self.link = link
        self.members_of = {stream: Members(group, stream) for stream in dims}
        widths = [*[width] * depth, classes]
        self.embeddings = Embeddings(self.members_of, dims, embed_dim, stems)
        self.heads = nn.ModuleDict(
            {
                key_of(stream): StreamHead(members, stream, embed_dim, widths, link)
                for stream, members in self.members_of.items()
            }
        )
        self.nothing = Vector(Members(group), classes, zero=True)

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:
        """Return logits (K, B, C) whose outputs are the average; of classes the logarithms of their probabilities."""
        nothing = apply_link(self.link, self.nothing())
        rows = next(iter(batch.valid.values())).shape[1]
        above = torch.zeros_like(nothing).expand(-1, rows, -1)
        below = above[:, :, :1]
        for stream, embedding in self.embeddings(batch, noise).items():
            members = self.members_of[stream]
            outputs, weight = self.heads[key_of(stream)](embedding, noise)
            weight = weight * batch.mixed(batch.has_stream(stream, members).unsqueeze(2), members)
            above = members.add(above, weight * outputs)
            below = members.add(below, weight)
        some = below > 0
        return invert_link(self.link, torch.where(some, above / torch.where(some, below, 1.0), nothing))
