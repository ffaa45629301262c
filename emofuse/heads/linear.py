"""The probe: one linear map a stream, summed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.lanes import Batch, Lane, Lanes, key_of
from emofuse.heads.layers import Projection, Vector


class StreamLogits(nn.Module):
    """One stream's share of the logits, a linear map of its features; a learned vector where it is missing."""

    def __init__(self, lanes: Lanes, dim: int, classes: int) -> None:
        super().__init__()
        self.lanes = lanes
        self.linear = Projection(lanes, dim, classes)
        self.missing = nn.Parameter(torch.zeros(len(lanes), classes))

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """(n, B, C) of features (F, B, D) and valid (F, B) bool."""
        mine = self.lanes.of_folds(valid).unsqueeze(2)
        return torch.where(mine, self.linear(features), self.missing.unsqueeze(1))


class LinearHead(nn.Module):
    """How much of the labels a linear map of the standardised features reads out.

    Args:
        group: K lanes, ordered by fold.
        dims: stream -> D, the streams of all lanes together.
        classes: C.
    """

    def __init__(self, group: Sequence[Lane], dims: Mapping[str, int], classes: int) -> None:
        super().__init__()
        self.lanes_of = {stream: Lanes(group, stream) for stream in dims}
        self.embeddings = nn.ModuleDict(
            {key_of(stream): StreamLogits(own, dims[stream], classes) for stream, own in self.lanes_of.items()}
        )
        inputs = [sum(dims[stream] for stream in lane.streams) for lane in group]
        self.bias = Vector(Lanes(group), classes, inputs)

    def forward(self, batch: Batch, noise: Noise | None = None) -> Tensor:  # noqa: ARG002  all heads are called alike
        """Logits (K, B, C)."""
        rows = next(iter(batch.valid.values())).shape[1]
        logits: Tensor = self.bias().expand(-1, rows, -1)
        for stream, own in self.lanes_of.items():
            share = self.embeddings[key_of(stream)]
            logits = own.add(logits, share(batch.features[stream], batch.valid[stream]))
        return logits
