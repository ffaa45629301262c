"""The paper's head: embeddings of the streams, joined, then hidden layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.embedding import Embeddings
from emofuse.heads.layers import HiddenLayers, Join
from emofuse.heads.members import HeadBatch, HeadMember, Members
from emofuse.heads.stems import Shape, StemChoice


class ConcatHead(nn.Module):
    """Project and batch-normalise each stream, join the embeddings, apply hidden layers with ReLU.

    Args:
        group: the K members, ordered by fold.
        dims: the shape of a row of each stream of any member, D for a vector.
        classes: the number C of classes.
        embed_dim: the width E of each stream's embedding.
        depth: the number of hidden layers; 0 is a linear classifier on the embeddings.
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
        all_members, members_of = Members(group), {stream: Members(group, stream) for stream in dims}
        widths = [*[width] * depth, classes]
        self.embeddings = Embeddings(members_of, dims, embed_dim, stems)
        self.join = Join(all_members, members_of, embed_dim, widths[0])
        self.hidden = HiddenLayers(all_members, widths, "hidden")

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:
        """Return the logits (K, B, C); the softmax is part of the loss."""
        logits: Tensor = self.hidden(self.join(self.embeddings(batch, noise)), noise)
        return logits
