"""K heads side by side: which of them have which layer, and how their weights lie in memory.

A group of K heads is one module. Every parameter has a first axis of members, one member a head, so that a layer of all
heads is one batched operation. A layer that belongs to a stream has members only for the heads that have the stream: a
head without it holds no weight of it, computes nothing for it and gets no gradient from it, exactly as the smaller head
trained alone. One head is a group of one.

Heads of a group may see other *variants* of a stream: LBP with 128 bins here, with 512 there. Within the group a
variant is a stream of its own, named `lbp@128`, with layers of its own width. Whatever outlives the group or decides
how a head begins (random numbers, names of saved weights) goes by the stream's name alone, so that a head is the same
beside other variants as on its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

_VARIANT = "@"  # no name of a stream has one


@dataclass(frozen=True)
class HeadMember:
    """What the layers need to know of one head.

    Attributes:
        streams: that it sees, each in one variant at most.
        seed: of its initial weights and its dropout.
        fold: index of the fold whose rows it sees; members of one fold stand together.
        dropout: share of hidden values zeroed in training.
    """

    streams: tuple[str, ...]
    seed: int = 0
    fold: int = 0
    dropout: float = 0.0


@dataclass(frozen=True)
class HeadBatch:
    """Rows as heads see them, for each of F folds its own: other rows of the table, or other standardisation.

    Attributes:
        features: stream -> (F, B, *shape) floating point, standardised by the fold's scaling, zeros in rows that are
            not valid and in steps that are not there. A vector's shape is (D,).
        valid: stream -> (F, B) bool, whether the row has the stream. Rows that only fill the batch have none.
        steps: stream -> (F, B, T) bool, which steps of a sequence are there; streams without steps are not named.
    """

    features: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    steps: Mapping[str, Tensor] = field(default_factory=dict)

    def rows(self, rows: slice) -> HeadBatch:
        """Some of its rows."""
        parts = (self.features, self.valid, self.steps)
        return HeadBatch(*({name: tensor[:, rows] for name, tensor in part.items()} for part in parts))


class Members(nn.Module):
    """The members of one layer: all K heads of a group, or those that have a stream. Has no weights of its own."""

    positions: Tensor
    folds: Tensor

    def __init__(self, group: Sequence[HeadMember], stream: str | None = None) -> None:
        super().__init__()
        own = [k for k, member in enumerate(group) if stream is None or stream in member.streams]
        self._set([group[k] for k in own], own, len(group))

    def _set(self, members: Sequence[HeadMember], own: Sequence[int], total: int) -> None:
        folds = [member.fold for member in members]
        if folds != sorted(folds):
            raise ValueError(f"members must be ordered by fold, got folds {folds}")
        self.group = tuple(members)
        self.own = tuple(own)
        self.complete = len(own) == total
        self.per_fold = tuple(folds.count(fold) for fold in range(max(folds, default=-1) + 1))
        self.register_buffer("positions", torch.tensor(own, dtype=torch.int64), persistent=False)
        self.register_buffer("folds", torch.tensor(folds, dtype=torch.int64), persistent=False)

    def rows_of(self, members: Sequence[int]) -> list[int]:
        """Where these of the K members stand in tensors of this layer; those that do not have it are left out."""
        place = {member: row for row, member in enumerate(self.own)}
        return [place[member] for member in members if member in place]

    def shrink(self, members: Sequence[int]) -> None:
        """Forgets all but these of the K members, which are counted anew from 0."""
        rows, device = self.rows_of(members), self.positions.device
        own = [new for new, old in enumerate(members) if old in self.own]
        self._set([self.group[row] for row in rows], own, len(members))
        self.to(device)

    def __len__(self) -> int:
        return len(self.own)

    def of_folds(self, values: Tensor) -> Tensor:
        """(n, ...) of (F, ...): each member's fold's."""
        return values.index_select(0, self.folds)

    def pick(self, values: Tensor) -> Tensor:
        """(n, ...) of (K, ...): the values of these members."""
        return values if self.complete else values.index_select(0, self.positions)

    def add(self, total: Tensor, part: Tensor) -> Tensor:
        """(K, ...): `total` (K, ...) plus `part` (n, ...) in these members."""
        part = part.to(total.dtype)
        return total + part if self.complete else total.index_add(0, self.positions, part)


def owners(head: nn.Module) -> dict[str, Members]:
    """Name of every parameter and saved buffer -> the members of its first axis."""
    found = {}
    for path, layer in head.named_modules():
        tensors = [name for name, _ in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))]
        members = getattr(layer, "members", None)
        if isinstance(members, Members):
            found.update({f"{path}.{name}" if path else name: members for name in tensors})
    return {name: found[name] for name in head.state_dict()}


@torch.no_grad()
def shrink(head: nn.Module, members: Sequence[int]) -> None:
    """Reduce a head to these of its members, in place, one tensor after another: one of them is copied at a time.

    The layers of a stream that no remaining member has stay, without members.
    """
    found = [(layer, getattr(layer, "members", None)) for layer in head.modules()]
    layers = [(layer, own) for layer, own in found if isinstance(own, Members)]
    for layer, own in layers:
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            tensor.data = tensor.data[own.rows_of(members)]
    for own in {id(own): own for _, own in layers}.values():
        own.shrink(members)


def variant_of(stream: str, *variant: object) -> str:
    """The name within a group of one variant of a stream."""
    return _VARIANT.join((stream, *map(str, variant)))


def stream_of(variant: str) -> str:
    """The stream of a variant's name, or the stream itself."""
    return variant.partition(_VARIANT)[0]


def plain_name(tensor: str) -> str:
    """The name that a tensor of a group has in a head on its own: without variants."""
    return ".".join(part.partition(_VARIANT)[0] for part in tensor.split("."))


def key_of(stream: str) -> str:
    """A stream's key among modules: torch allows no dots there, nor names of its attributes (`type`, `items`)."""
    return "of_" + stream.replace(".", ":")
