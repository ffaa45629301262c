"""Stems: what turns a stream that is no vector into one vector a row, for K heads at once. One family a file.

A vector `(D,)` has no stem. A sequence `(T, D)` passes a temporal stem, a map `(C, H, W)` a spatial one, and a sequence
of maps `(T, C, H, W)` both: the spatial one step by step, then the temporal one. Steps that are not there (padding, no
detection) influence nothing. What a stem gives is embedded as a vector is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emofuse.heads.dropout import Noise
from emofuse.heads.members import Members, stream_of
from emofuse.heads.stems.attention import AttentionOfMap, AttentionPool
from emofuse.heads.stems.convolution import Patches, SmallCNN
from emofuse.heads.stems.pooling import MaxOverTime, MeanAndDeviationOverTime, MeanOfMap, MeanOverTime
from emofuse.heads.stems.recurrent import GRU, LSTM
from emofuse.heads.stems.transformer import TransformerOverTime
from emofuse.specs.heads import Spatial, Temporal

Shape = int | tuple[int, ...]
"""Of a row of a stream: D or (D,) of a vector, (T, D), (C, H, W), or (T, C, H, W)."""


@dataclass(frozen=True)
class StemChoice:
    """Which stems a head has, and their sizes.

    Attributes:
        temporal: of sequences.
        spatial: of maps.
        width: hidden size of recurrent and transformer stems and of attention's score; channels of convolutions.
        kernels: sizes of the `patches` convolutions, odd.
    """

    temporal: Temporal = "mean"
    spatial: Spatial = "mean"
    width: int = 64
    kernels: tuple[int, ...] = (1, 3, 5)


class Stem(nn.Module):
    """One vector a row of a stream of some shape.

    Attributes:
        dim: D of the vector.
        shared: whether the vectors are the same for all members of a fold: no part has weights.

    Args:
        members: that have the stream.
        stream: its name within the group.
        shape: of a row: (T, D), (C, H, W) or (T, C, H, W).
        choice: which stems.
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

    def forward(self, features: Tensor, steps: Tensor | None, noise: Noise | None = None) -> Tensor:
        """One vector a row.

        Args:
            features: (F, B, *shape); rows and steps that are not there hold finite numbers.
            steps: (F, B, T) bool, the steps that are there; None for a stream without steps.
            noise: in training.

        Returns:
            (F, B, dim) if shared, else (n, B, dim).
        """
        rows = features.shape[1]
        if not self.shared and not len(self.members):  # a convolution of no member is refused by torch
            untouched = torch.stack([weight.sum() for weight in self.parameters()]).sum()
            return features.new_zeros(0, rows, self.dim) + untouched
        values = features
        if self.spatial is not None:
            maps = features.flatten(1, 2) if self.is_sequence else features
            values = self.spatial(maps)
            if self.is_sequence:
                values = values.unflatten(1, features.shape[1:3])
        if self.temporal is None:
            return values
        if steps is None:
            raise ValueError("a sequence needs to be told its steps")
        if not self._shared_steps:
            steps = self.members.of_folds(steps)
        with_noise = (noise,) if isinstance(self.temporal, TransformerOverTime) else ()
        vectors: Tensor = self.temporal(values, steps, *with_noise)
        return vectors


def make_stem(members: Members, stream: str, shape: Shape, choice: StemChoice) -> Stem | None:
    """The stem of a stream, None for a vector.

    Raises:
        ValueError: a shape that is none of a vector, sequence, map or sequence of maps.
    """
    if isinstance(shape, int) or len(shape) == 1:
        return None
    if len(shape) > 4:
        raise ValueError(f"stream {stream!r}: expected (D,), (T, D), (C, H, W) or (T, C, H, W), got {shape}")
    return Stem(members, stream, tuple(shape), choice)


def dim_of(shape: Shape) -> int:
    """D of a vector's shape."""
    if isinstance(shape, int):
        return shape
    (dim,) = shape
    return dim


def shape_of(shape: Shape) -> tuple[int, ...]:
    """The shape as a tuple."""
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
            return SmallCNN(members, shape, choice.width)


def _temporal(members: Members, stream: str, length: int, dim: int, choice: StemChoice, *, shared: bool) -> nn.Module:
    if choice.temporal == "transformer":
        return TransformerOverTime(members, dim, length, choice.width, shared=shared, place=stream_of(stream))
    with_weights: dict[str, type[AttentionPool | LSTM]] = {"attention": AttentionPool, "lstm": LSTM, "gru": GRU}
    if choice.temporal in with_weights:
        return with_weights[choice.temporal](members, dim, choice.width, shared=shared)
    return {"mean": MeanOverTime, "max": MaxOverTime, "mean_std": MeanAndDeviationOverTime}[choice.temporal](dim)


def _dim_of(part: Any) -> int:
    return int(part.dim)
