"""The paper's head with a gate for each stream, computed from all embeddings together."""

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
    """Multiply each embedding by its gate, join the embeddings, apply hidden layers with ReLU.

    context = tanh(V [e_1 .. e_S] + c); gate_s = sigmoid(u_s . context + b_s), one number for each row and stream
    (Arevalo et al., ICLR 2017 workshop, with one gate for each modality instead of one for each unit).

    Args:
        group: the K members, ordered by fold.
        dims: the shape of a row of each stream of any member, D for a vector.
        classes: the number C of classes.
        embed_dim: the width E of each stream's embedding.
        gate_dim: the width of the context.
        depth: the number of hidden layers; 0 is a linear classifier on the gated embeddings.
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
        gate_dim: int,
        depth: int,
        width: int,
        stems: StemChoice | None = None,
    ) -> None:
        super().__init__()
        all_members = Members(group)
        self.members_of = {stream: Members(group, stream) for stream in dims}
        widths = [*[width] * depth, classes]
        self.embeddings = Embeddings(self.members_of, dims, embed_dim, stems)
        self.context = Join(all_members, self.members_of, embed_dim, gate_dim)
        self.gates = nn.ModuleDict(
            {key_of(stream): Linear(members, gate_dim, 1) for stream, members in self.members_of.items()}
        )
        self.join = Join(all_members, self.members_of, embed_dim, widths[0])
        self.hidden = HiddenLayers(all_members, widths, "hidden")

    def forward(self, batch: HeadBatch, noise: Noise | None = None) -> Tensor:
        """Return the logits (K, B, C)."""
        embeddings = self.embeddings(batch, noise)
        context = torch.tanh(self.context(embeddings))
        gated = {}
        for stream, embedding in embeddings.items():
            gate = torch.sigmoid(self.gates[key_of(stream)](self.members_of[stream].pick(context)))
            gated[stream] = embedding * gate
        logits: Tensor = self.hidden(self.join(gated), noise)
        return logits
