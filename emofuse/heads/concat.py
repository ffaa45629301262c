"""The paper's head: embed each stream, join the embeddings, hidden layers, logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.embedding import Embeddings
from emofuse.heads.layers import HiddenLayers, Join
from emofuse.heads.members import HeadBatch, HeadMember, Members
from emofuse.heads.stems import Shape, StemChoice


class ConcatHead(nn.Module):
    """Each stream projected and batch-normalised, joined, hidden layers with ReLU, one logit a class.

    Args:
        group: K members, ordered by fold.
        dims: stream -> shape of a row, D for a vector; the streams of all members together.
        classes: C.
        embed_dim: width of each stream's embedding.
        depth: number of hidden layers; 0 is a linear classifier on the embeddings.
        width: of each hidden layer.
        stems: of streams that are no vectors.
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
        everyone, members = Members(group), {stream: Members(group, stream) for stream in dims}
        widths = [*[width] * depth, classes]
        self.embeddings = Embeddings(members, dims, embed_dim, stems)
        self.join = Join(everyone, members, embed_dim, widths[0])
        self.hidden = HiddenLayers(everyone, widths, "hidden")

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:
        """Logits (K, B, C); the softmax belongs to the loss."""
        logits: Tensor = self.hidden(self.join(self.embeddings(batch, noise)), noise)
        return logits
