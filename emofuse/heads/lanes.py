"""K heads side by side: which of them have which layer, and how their weights lie in memory.

A group of K heads is one module. Every parameter has a first axis of lanes, one lane a head, so that a layer of all
heads is one batched operation. A layer that belongs to a stream has lanes only for the heads that have the stream: a
head without it holds no weight of it, computes nothing for it and gets no gradient from it, exactly as the smaller head
trained alone. One head is a group of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Lane:
    """What the layers need to know of one head.

    Attributes:
        streams: that it sees.
        seed: of its initial weights and its dropout.
        fold: index of the fold whose rows it sees; lanes of one fold stand together.
        dropout: share of hidden values zeroed in training.
    """

    streams: tuple[str, ...]
    seed: int = 0
    fold: int = 0
    dropout: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Rows as heads see them, for each of F folds its own: other rows of the table, or other standardisation.

    Attributes:
        features: stream -> (F, B, D) floating point, standardised by the fold's scaling, zeros where not valid.
        valid: stream -> (F, B) bool, whether the row has the stream. Rows that only fill the batch have none.
    """

    features: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]


class Lanes(nn.Module):
    """The lanes of one layer: all K heads of a group, or those that have a stream. Has no weights of its own."""

    positions: Tensor
    folds: Tensor

    def __init__(self, group: Sequence[Lane], stream: str | None = None) -> None:
        super().__init__()
        own = [k for k, lane in enumerate(group) if stream is None or stream in lane.streams]
        folds = [group[k].fold for k in own]
        if folds != sorted(folds):
            raise ValueError(f"lanes must be ordered by fold, got folds {folds}")
        self.group = tuple(group[k] for k in own)
        self.complete = len(own) == len(group)
        self.per_fold = tuple(folds.count(fold) for fold in range(max(lane.fold for lane in group) + 1))
        self.own = tuple(own)
        self.register_buffer("positions", torch.tensor(own, dtype=torch.int64), persistent=False)
        self.register_buffer("folds", torch.tensor(folds, dtype=torch.int64), persistent=False)

    def __len__(self) -> int:
        return len(self.own)

    def of_folds(self, values: Tensor) -> Tensor:
        """(n, ...) of (F, ...): each lane's fold's."""
        return values.index_select(0, self.folds)

    def pick(self, values: Tensor) -> Tensor:
        """(n, ...) of (K, ...): the values of these lanes."""
        return values if self.complete else values.index_select(0, self.positions)

    def add(self, total: Tensor, part: Tensor) -> Tensor:
        """(K, ...): `total` (K, ...) plus `part` (n, ...) in these lanes."""
        part = part.to(total.dtype)
        return total + part if self.complete else total.index_add(0, self.positions, part)


def owners(head: nn.Module) -> dict[str, Lanes]:
    """Name of every parameter and saved buffer -> the lanes of its first axis."""
    found = {}
    for path, layer in head.named_modules():
        tensors = [name for name, _ in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))]
        lanes = getattr(layer, "lanes", None)
        if isinstance(lanes, Lanes):
            found.update({f"{path}.{name}" if path else name: lanes for name in tensors})
    return {name: found[name] for name in head.state_dict()}


def key_of(stream: str) -> str:
    """A stream's key among modules: torch allows no dots there, nor names of its attributes (`type`, `items`)."""
    return "of_" + stream.replace(".", ":")
