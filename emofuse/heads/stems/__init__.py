"""Stems turn a stream that is not a vector into one vector for each row, for K heads at once. One family per file.

A vector `(D,)` has no stem. A sequence `(T, D)` passes a temporal stem and a map `(C, H, W)` a spatial one. A sequence
of maps `(T, C, H, W)` passes the spatial stem step by step, then the temporal one. Steps that are not there (padding,
no detection) have no influence. The vectors of a stem are embedded like the vectors of a stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Dropout, Noise
from emofuse.heads.members import Members, stream_of
from emofuse.heads.stems.attention import AttentionOfMap, AttentionPool
from emofuse.heads.stems.convolution import Patches, SmallCNN
from emofuse.heads.stems.pooling import MaxOverTime, MeanAndDeviationOverTime, MeanOfMap, MeanOverTime
from emofuse.heads.stems.recurrent import GRU, LSTM
from emofuse.heads.stems.transformer import TransformerOverTime
from emofuse.specs.heads import Spatial, StemNorm, Temporal

Shape = int | tuple[int, ...]
"""The shape of a row of a stream: D or (D,) for a vector, (T, D), (C, H, W), or (T, C, H, W)."""


@dataclass(frozen=True)
class StemChoice:
    """The stems of a head and their sizes.

    Attributes:
        temporal: the kind of the stem of sequences.
        spatial: the kind of the stem of maps.
        width: the hidden size of recurrent, transformer and attention stems, and the channels of convolutions.
        kernels: the kernel sizes of the `patches` convolutions, each odd.
        norm: the kind of norm of the `cnn`.
    """

    temporal: Temporal = "mean"
    spatial: Spatial = "mean"
    width: int = 64
    kernels: tuple[int, ...] = (1, 3, 5)
    norm: StemNorm = "group"


class Stem(nn.Module):
    """The stem of one stream: a spatial part, a temporal part, or both.

    Attributes:
        dim: the width D of its vectors.
        shared: whether the vectors are the same for all members of a fold, because no part has weights.

    The vectors of a stem with weights pass a dropout (`stem_dropout` of the head) before they are embedded.

    Args:
        members: the members that have the stream.
        stream: the name of the stream within the group.
        shape: the shape of a row: (T, D), (C, H, W) or (T, C, H, W).
        choice: the kinds of stems and their sizes.
    """

    def __init__(self, members: Members, stream: str, shape: tuple[int, ...], choice: StemChoice) -> None:
        super().__init__()
        self.members = members
        self.is_sequence, self.has_maps = len(shape) in {2, 4}, len(shape) >= 3
        self.spatial: nn.Module | None = None
        self.temporal: nn.Module | None = None
        self.shared, self.dim = True, shape[-1]
        if self.has_maps:
            self.spatial = _spatial(members, shape[-3:], choice)
            self.shared, self.dim = isinstance(self.spatial, MeanOfMap), _dim_of(self.spatial)
        if self.is_sequence:
            self.temporal = _temporal(members, stream, shape[0], self.dim, choice, shared=self.shared)
            self._shared_steps = self.shared
            self.shared = self.shared and isinstance(
                self.temporal, MeanOverTime | MaxOverTime | MeanAndDeviationOverTime
            )
            self.dim = _dim_of(self.temporal)
        self.dropout = None if self.shared else Dropout(members, [f"{stream_of(stream)}.stem"], "stem_dropout")

    def forward(
        self, features: Tensor, steps: Tensor | None, noise: Noise | None = None, has_stream: Tensor | None = None
    ) -> Tensor:
        """Return one vector for each row, (F, B, dim) if shared, else (n, B, dim).

        Args:
            features: the features (F, B, *shape). Rows and steps that are not there hold finite numbers.
            steps: the steps that are there, bool (F, B, T); None for a stream without steps.
            noise: the noise of the dropout, in training.
            has_stream: whether each row has the stream for each member, bool (n, B); None for all rows.
        """
        rows = features.shape[1]
        if not self.shared and not len(self.members):  # torch refuses a convolution without members
            untouched = torch.stack([weight.sum() for weight in self.parameters()]).sum()
            return features.new_zeros(0, rows, self.dim) + untouched
        values = features
        if self.spatial is not None:
            maps = features.flatten(1, 2) if self.is_sequence else features
            if isinstance(self.spatial, SmallCNN):
                values = self.spatial(maps, self._maps_there(steps, has_stream))
            else:
                values = self.spatial(maps)
            if self.is_sequence:
                values = values.unflatten(1, features.shape[1:3])
        if self.temporal is None:
            return values if self.dropout is None else self.dropout(values, noise)
        if steps is None:
            raise ValueError("a sequence needs its steps, got None")
        if not self._shared_steps:
            steps = self.members.of_folds(steps)
        with_noise = (noise,) if isinstance(self.temporal, TransformerOverTime) else ()
        vectors: Tensor = self.temporal(values, steps, *with_noise)
        return vectors if self.dropout is None else self.dropout(vectors, noise)

    def _maps_there(self, steps: Tensor | None, has_stream: Tensor | None) -> Tensor | None:
        """Return the maps that each member has, bool (n, B) or, of sequences, (n, B x T); None for all."""
        if steps is None or not self.is_sequence:
            return has_stream
        there = self.members.of_folds(steps)
        return (there if has_stream is None else there & has_stream.unsqueeze(2)).flatten(1, 2)


def make_stem(members: Members, stream: str, shape: Shape, choice: StemChoice) -> Stem | None:
    """Build the stem of a stream, or return None for a vector.

    Raises:
        ValueError: the shape is not that of a vector, sequence, map or sequence of maps.
    """
    if isinstance(shape, int) or len(shape) == 1:
        return None
    if len(shape) > 4:
        raise ValueError(f"stream {stream!r}: expected (D,), (T, D), (C, H, W) or (T, C, H, W), got {shape}")
    return Stem(members, stream, tuple(shape), choice)


def dim_of(shape: Shape) -> int:
    """Return the width D of a vector's shape."""
    if isinstance(shape, int):
        return shape
    (dim,) = shape
    return dim


def shape_of(shape: Shape) -> tuple[int, ...]:
    """Return the shape as a tuple."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _spatial(members: Members, shape: tuple[int, ...], choice: StemChoice) -> nn.Module:
    match choice.spatial:
        case "mean":
            return MeanOfMap(shape[0])
        case "attention":
            return AttentionOfMap(members, shape[0], choice.width)
        case "patches":
            return Patches(members, shape[0], choice.width, choice.kernels)
        case "cnn":
            return SmallCNN(members, shape, choice.width, choice.norm)


def _temporal(members: Members, stream: str, length: int, dim: int, choice: StemChoice, *, shared: bool) -> nn.Module:
    if choice.temporal == "transformer":
        return TransformerOverTime(members, dim, length, choice.width, shared=shared, place=stream_of(stream))
    with_weights: dict[str, type[AttentionPool | LSTM]] = {"attention": AttentionPool, "lstm": LSTM, "gru": GRU}
    if choice.temporal in with_weights:
        return with_weights[choice.temporal](members, dim, choice.width, shared=shared)
    return {"mean": MeanOverTime, "max": MaxOverTime, "mean_std": MeanAndDeviationOverTime}[choice.temporal](dim)


def _dim_of(part: Any) -> int:
    return int(part.dim)
