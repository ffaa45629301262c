"""The linear probe: the sum of one linear map for each stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.layers import Projection, Vector
from emofuse.heads.members import HeadBatch, HeadMember, Members, key_of
from emofuse.heads.stems import Shape, Stem, StemChoice, dim_of, make_stem
from emofuse.heads.stems.layers import MemberLinear


class StreamLogits(nn.Module):
    """One stream's part of the logits: a linear map of its features, or a learned vector in rows that lack it."""

    def __init__(self, members: Members, stream: str, shape: Shape, classes: int, stems: StemChoice) -> None:
        super().__init__()
        self.members = members
        self.stem: Stem | None = make_stem(members, stream, shape, stems)
        self.dim = dim_of(shape) if self.stem is None else self.stem.dim
        self.linear = (
            Projection(members, self.dim, classes)
            if self.stem is None or self.stem.shared
            else MemberLinear(members, self.dim, classes, shared=False, bias=False)
        )
        self.missing = nn.Parameter(torch.zeros(len(members), classes))

    def forward(
        self, features: Tensor, has_stream: Tensor, steps: Tensor | None = None, noise: Noise | None = None
    ) -> Tensor:
        """Return one stream's part of the logits, (n, B, C).

        Args:
            features: the features (F, B, *shape).
            has_stream: whether each row has the stream for each member, bool (n, B).
            steps: the steps of a sequence that are there, bool (F, B, T).
            noise: the noise of the dropout, in training.
        """
        vectors = features if self.stem is None else self.stem(features, steps, noise, has_stream)
        return torch.where(has_stream.unsqueeze(2), self.linear(vectors), self.missing.unsqueeze(1))


class LinearHead(nn.Module):
    """A linear classifier on the standardised features: a probe of what they encode.

    Args:
        group: the K members, ordered by fold.
        dims: the shape of a row of each stream of any member, D for a vector.
        classes: the number C of classes.
        stems: the stems of streams that are not vectors.
    """

    def __init__(
        self, group: Sequence[HeadMember], dims: Mapping[str, Shape], classes: int, stems: StemChoice | None = None
    ) -> None:
        super().__init__()
        self.members_of = {stream: Members(group, stream) for stream in dims}
        self.embeddings = nn.ModuleDict(
            {
                key_of(stream): StreamLogits(members, stream, dims[stream], classes, stems or StemChoice())
                for stream, members in self.members_of.items()
            }
        )
        widths = {stream: int(getattr(self.embeddings[key_of(stream)], "dim")) for stream in dims}  # noqa: B009
        inputs = [sum(widths[stream] for stream in member.streams) for member in group]
        self.bias = Vector(Members(group), classes, inputs)

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:
        """Return the logits (K, B, C)."""
        rows = next(iter(batch.valid.values())).shape[1]
        logits: Tensor = self.bias().expand(-1, rows, -1)
        for stream, members in self.members_of.items():
            part = self.embeddings[key_of(stream)](
                batch.features[stream], batch.has_stream(stream, members), batch.steps.get(stream), noise
            )
            logits = members.add(logits, batch.mixed(part, members))
        return logits
