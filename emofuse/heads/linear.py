"""The probe: one linear map a stream, summed."""

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
    """One stream's share of the logits, a linear map of its features; a learned vector where it is missing."""

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
        self, features: Tensor, valid: Tensor, steps: Tensor | None = None, noise: Noise | None = None
    ) -> Tensor:
        """(n, B, C) of features (F, B, *shape), valid (F, B) bool and, for a sequence, steps (F, B, T) bool."""
        mine = self.members.of_folds(valid).unsqueeze(2)
        vectors = features if self.stem is None else self.stem(features, steps, noise)
        return torch.where(mine, self.linear(vectors), self.missing.unsqueeze(1))


class LinearHead(nn.Module):
    """How much of the labels a linear map of the standardised features reads out.

    Args:
        group: K members, ordered by fold.
        dims: stream -> shape of a row, D for a vector; the streams of all members together.
        classes: C.
        stems: of streams that are no vectors.
    """

    def __init__(
        self, group: Sequence[HeadMember], dims: Mapping[str, Shape], classes: int, stems: StemChoice | None = None
    ) -> None:
        super().__init__()
        self.members_of = {stream: Members(group, stream) for stream in dims}
        self.embeddings = nn.ModuleDict(
            {
                key_of(stream): StreamLogits(own, stream, dims[stream], classes, stems or StemChoice())
                for stream, own in self.members_of.items()
            }
        )
        widths = {stream: int(getattr(self.embeddings[key_of(stream)], "dim")) for stream in dims}  # noqa: B009
        inputs = [sum(widths[stream] for stream in member.streams) for member in group]
        self.bias = Vector(Members(group), classes, inputs)

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:
        """Logits (K, B, C)."""
        rows = next(iter(batch.valid.values())).shape[1]
        logits: Tensor = self.bias().expand(-1, rows, -1)
        for stream, own in self.members_of.items():
            share = self.embeddings[key_of(stream)]
            logits = own.add(logits, share(batch.features[stream], batch.valid[stream], batch.steps.get(stream), noise))
        return logits
