"""The paper's head with a gate a stream: all embeddings together decide how much of each goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.embedding import Embeddings
from emofuse.heads.layers import HiddenLayers, Join, Linear
from emofuse.heads.members import HeadBatch, HeadMember, Members, key_of
from emofuse.heads.stems import Shape, StemChoice


class GatedHead(nn.Module):
    """Embeddings times gates, joined, hidden layers with ReLU, one logit a class.

    context = tanh(V [e_1 .. e_S] + c); gate_s = sigmoid(u_s . context + b_s), one number a row and stream (Arevalo et
    al., ICLR 2017 workshop, with one gate a modality in place of one a unit).

    Args:
        group: K members, ordered by fold.
        dims: stream -> shape of a row, D for a vector; the streams of all members together.
        classes: C.
        embed_dim: width of each stream's embedding.
        gate_dim: width of the context.
        depth: number of hidden layers; 0 is a linear classifier on the gated embeddings.
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
        gate_dim: int,
        depth: int,
        width: int,
        stems: StemChoice | None = None,
    ) -> None:
        super().__init__()
        everyone = Members(group)
        self.members_of = {stream: Members(group, stream) for stream in dims}
        widths = [*[width] * depth, classes]
        self.embeddings = Embeddings(self.members_of, dims, embed_dim, stems)
        self.context = Join(everyone, self.members_of, embed_dim, gate_dim)
        self.gates = nn.ModuleDict(
            {key_of(stream): Linear(own, gate_dim, 1) for stream, own in self.members_of.items()}
        )
        self.join = Join(everyone, self.members_of, embed_dim, widths[0])
        self.hidden = HiddenLayers(everyone, widths, "hidden")

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:
        """Logits (K, B, C)."""
        embeddings = self.embeddings(batch, noise)
        context = torch.tanh(self.context(embeddings))
        gated = {}
        for stream, embedding in embeddings.items():
            gate = torch.sigmoid(self.gates[key_of(stream)](self.members_of[stream].pick(context)))
            gated[stream] = embedding * gate
        logits: Tensor = self.hidden(self.join(gated), noise)
        return logits
