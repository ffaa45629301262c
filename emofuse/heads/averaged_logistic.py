"""Averaged logistic regressions: a linear classifier for each stream, whose probabilities are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.layers import Projection, Vector
from emofuse.heads.links import Link, apply_link, invert_link
from emofuse.heads.members import HeadBatch, HeadMember, Members, key_of
from emofuse.heads.stems import Shape, StemChoice, dim_of


class StreamRegression(nn.Module):
    """The logistic regression of one stream."""

    def __init__(self, members: Members, dim: int, classes: int, link: Link) -> None:
        super().__init__()
        self.members = members
        self.link = link
        self.linear = Projection(members, dim, classes)
        self.bias = Vector(members, classes, [dim] * len(members))

    def forward(self, features: Tensor) -> Tensor:
        """Return the probabilities (n, B, C) of features (F, B, D)."""
        return apply_link(self.link, self.linear(features) + self.bias())


class AveragedLogisticHead(nn.Module):
    """The mean of the probabilities of the streams that a row has.

    A row without any stream has the probabilities of the logits `nothing`.

    Args:
        group: the K members, ordered by fold.
        dims: the width D of each stream of any member.
        classes: the number C of classes.
        stems: not used, because all streams are vectors; all heads of the package are made alike.
        link: what turns the logits of a stream into probabilities.
    """

    def __init__(
        self,
        group: Sequence[HeadMember],
        dims: Mapping[str, Shape],
        classes: int,
        stems: StemChoice | None = None,  # noqa: ARG002
        link: Link = "softmax",
    ) -> None:
        super().__init__()
        self.link = link
        self.members_of = {stream: Members(group, stream) for stream in dims}
        self.embeddings = nn.ModuleDict(
            {
                key_of(stream): StreamRegression(members, dim_of(dims[stream]), classes, link)
                for stream, members in self.members_of.items()
            }
        )
        self.nothing = Vector(Members(group), classes, zero=True)

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:  # noqa: ARG002  all heads are called alike
        """Return logits (K, B, C) of the mean probabilities; of classes the logarithms of their probabilities."""
        rows = next(iter(batch.valid.values())).shape[1]
        nothing = apply_link(self.link, self.nothing())
        total = torch.zeros_like(nothing).expand(-1, rows, -1)
        count = total[:, :, :1]
        for stream, members in self.members_of.items():
            has_stream = members.of_folds(batch.valid[stream]).unsqueeze(2).to(total.dtype)
            total = members.add(total, has_stream * self.embeddings[key_of(stream)](batch.features[stream]))
            count = members.add(count, has_stream)
        return invert_link(self.link, torch.where(count > 0, total / count.clamp(min=1), nothing))
