"""Groups of K heads: which members have which layer, and how their weights lie in memory.

A group of K heads is one module. Every parameter has a first axis of members, one for each head, so that a layer of all
heads is one batched operation. A layer that belongs to a stream has only the members that have the stream. A head
without the stream has no weights for it and computes nothing for it, like the smaller head that is trained alone. One
head is a group of one.

Heads of a group may see different *variants* of a stream, such as LBP with 128 or with 512 bins. Within the group a
variant is a separate stream, named `lbp@128`, with layers of its width. Initial weights and names of saved weights use
the stream's name alone, so that a head is the same beside other variants as alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from emofuse.heads.mixing import RowMix

_VARIANT = "@"  # no name of a stream has one


@dataclass(frozen=True)
class HeadMember:
    """One head of a group, as its layers need it.

    Attributes:
        streams: the streams that the head sees, each in at most one variant.
        seed: the seed of the initial weights and the dropout.
        fold: the index of the fold whose rows the head sees. Members of one fold are neighbours.
        dropout: the share of hidden values that are set to zero in training.
        stem_dropout: the share of the values of stems with weights that are set to zero in training.
    """

    streams: tuple[str, ...]
    seed: int = 0
    fold: int = 0
    dropout: float = 0.0
    stem_dropout: float = 0.0


@dataclass(frozen=True)
class HeadBatch:
    """The rows of one step for each of F folds, which differ in rows and standardisation.

    Attributes:
        features: the features of each stream, floating point (F, B, *shape), standardised by the fold's scaling. They
            are zero in rows that are not valid and in steps that are not there. A vector has shape (D,).
        valid: whether each row has the stream, bool (F, B) for each stream. Rows that only fill the batch have none.
        steps: the steps that are there, bool (F, B, T), for each stream that is a sequence.
        seen: whether each row shows the stream to each of its n members, bool (n, B) for each stream. Empty where every
            member sees what is valid. Features of rows that a member does not see are not zero.
        mix: how rows are mixed in training; None if no head mixes any.
    """

    features: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    steps: Mapping[str, Tensor] = field(default_factory=dict)
    seen: Mapping[str, Tensor] = field(default_factory=dict)
    mix: RowMix | None = None

    def has_stream(self, stream: str, members: Members) -> Tensor:
        """Return whether each row has the stream for each member of the stream, bool (n, B)."""
        return self.seen[stream] if self.seen else members.of_folds(self.valid[stream])

    def mixed(self, values: Tensor, members: Members) -> Tensor:
        """Return the values (n, B, E) of rows for the n members, mixed if rows are."""
        return values if self.mix is None else self.mix.mixed(values, members)

    def rows(self, rows: slice) -> HeadBatch:
        """Return a slice of the rows, which are not mixed."""

        def sliced(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor[:, rows] for name, tensor in part.items()}

        return HeadBatch(sliced(self.features), sliced(self.valid), sliced(self.steps), sliced(self.seen))


class Members(nn.Module):
    """The members of one layer: all K heads of a group, or those that have a stream. It has no weights.

    Attributes:
        group: the n members of the layer.
        indices: their indices among the K heads; `positions` is the same as int64 (n,).
        folds: their folds, int64 (n,).
        per_fold: the number of members of each fold.
        complete: whether the layer has all K members.
    """

    positions: Tensor
    folds: Tensor

    def __init__(self, group: Sequence[HeadMember], stream: str | None = None) -> None:
        super().__init__()
        indices = [k for k, member in enumerate(group) if stream is None or stream in member.streams]
        self._set([group[k] for k in indices], indices, len(group))

    def _set(self, members: Sequence[HeadMember], indices: Sequence[int], total: int) -> None:
        folds = [member.fold for member in members]
        if folds != sorted(folds):
            raise ValueError(f"members must be ordered by fold, got folds {folds}")
        self.group = tuple(members)
        self.indices = tuple(indices)
        self.complete = len(indices) == total
        self.per_fold = tuple(folds.count(fold) for fold in range(max(folds, default=-1) + 1))
        self.register_buffer("positions", torch.tensor(indices, dtype=torch.int64), persistent=False)
        self.register_buffer("folds", torch.tensor(folds, dtype=torch.int64), persistent=False)

    def rows_of(self, members: Sequence[int]) -> list[int]:
        """Return the rows of these members in tensors of this layer. Members without the layer are left out."""
        row_of = {member: row for row, member in enumerate(self.indices)}
        return [row_of[member] for member in members if member in row_of]

    def shrink(self, members: Sequence[int]) -> None:
        """Keep only these of the K members, which are numbered from 0 again."""
        rows, device = self.rows_of(members), self.positions.device
        indices = [new for new, old in enumerate(members) if old in self.indices]
        self._set([self.group[row] for row in rows], indices, len(members))
        self.to(device)

    def __len__(self) -> int:
        return len(self.indices)

    def of_folds(self, values: Tensor) -> Tensor:
        """Return for each member the values of its fold, (n, ...) of (F, ...)."""
        return values.index_select(0, self.folds)

    def pick(self, values: Tensor) -> Tensor:
        """Return the values of these members, (n, ...) of (K, ...)."""
        return values if self.complete else values.index_select(0, self.positions)

    def add(self, total: Tensor, part: Tensor) -> Tensor:
        """Return `total` (K, ...) with `part` (n, ...) added to these members."""
        part = part.to(total.dtype)
        return total + part if self.complete else total.index_add(0, self.positions, part)


def owners(head: nn.Module) -> dict[str, Members]:
    """Return for each parameter and saved buffer of a head the members of its first axis."""
    members_of = {}
    for path, layer in head.named_modules():
        tensors = [name for name, _ in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))]
        members = getattr(layer, "members", None)
        if isinstance(members, Members):
            members_of.update({f"{path}.{name}" if path else name: members for name in tensors})
    return {name: members_of[name] for name in head.state_dict()}


@torch.no_grad()
def shrink(head: nn.Module, members: Sequence[int]) -> None:
    """Reduce a head to these of its members, in place. Only one tensor is copied at a time.

    The layers of a stream that no remaining member has stay, without members.
    """
    layers = [(layer, getattr(layer, "members", None)) for layer in head.modules()]
    with_members = [(layer, of_layer) for layer, of_layer in layers if isinstance(of_layer, Members)]
    for layer, of_layer in with_members:
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            tensor.data = tensor.data[of_layer.rows_of(members)]
    for of_layer in {id(of_layer): of_layer for _, of_layer in with_members}.values():
        of_layer.shrink(members)


def variant_of(stream: str, *variant: object) -> str:
    """Return the name of one variant of a stream within a group."""
    return _VARIANT.join((stream, *map(str, variant)))


def stream_of(variant: str) -> str:
    """Return the stream of a variant's name, or the stream itself."""
    return variant.partition(_VARIANT)[0]


def plain_name(tensor: str) -> str:
    """Return the name of a group's tensor in a single head, which has no variants."""
    return ".".join(part.partition(_VARIANT)[0] for part in tensor.split("."))


def key_of(stream: str) -> str:
    """Return a stream's key among modules. Torch forbids dots there, and names of its attributes (`type`, `items`)."""
    return "of_" + stream.replace(".", ":")
