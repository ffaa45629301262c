"""The paper's head with a gate a stream: all embeddings together decide how much of each goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.embedding import Embeddings
from emofuse.heads.lanes import Batch, Lane, Lanes, key_of
from emofuse.heads.layers import HiddenLayers, Join, Linear
from emofuse.heads.stems import Shape, StemChoice


class GatedHead(nn.Module):
    """Embeddings times gates, joined, hidden layers with ReLU, one logit a class.

    context = tanh(V [e_1 .. e_S] + c); gate_s = sigmoid(u_s . context + b_s), one number a row and stream (Arevalo et
    al., ICLR 2017 workshop, with one gate a modality in place of one a unit).

    Args:
        group: K lanes, ordered by fold.
        dims: stream -> shape of a row, D for a vector; the streams of all lanes together.
        classes: C.
        embed_dim: width of each stream's embedding.
        gate_dim: width of the context.
        depth: number of hidden layers; 0 is a linear classifier on the gated embeddings.
        width: of each hidden layer.
        stems: of streams that are no vectors.
    """

    def __init__(
        self,
        group: Sequence[Lane],
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
        everyone = Lanes(group)
        self.lanes_of = {stream: Lanes(group, stream) for stream in dims}
        widths = [*[width] * depth, classes]
        self.embeddings = Embeddings(self.lanes_of, dims, embed_dim, stems)
        self.context = Join(everyone, self.lanes_of, embed_dim, gate_dim)
        self.gates = nn.ModuleDict({key_of(stream): Linear(own, gate_dim, 1) for stream, own in self.lanes_of.items()})
        self.join = Join(everyone, self.lanes_of, embed_dim, widths[0])
        self.hidden = HiddenLayers(everyone, widths, "hidden")

    def forward(self, batch: Batch, noise: Noise | None = None) -> Tensor:
        """Logits (K, B, C)."""
        embeddings = self.embeddings(batch, noise)
        context = torch.tanh(self.context(embeddings))
        gated = {}
        for stream, embedding in embeddings.items():
            gate = torch.sigmoid(self.gates[key_of(stream)](self.lanes_of[stream].pick(context)))
            gated[stream] = embedding * gate
        logits: Tensor = self.hidden(self.join(gated), noise)
        return logits
