"""What the kinds of heads have in common.

Those of emofuse have their specs in `emofuse.specs.runs`, which loads no torch; others come from entry points
`emofuse.heads` and from plugin files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, SerializeAsAny

from emofuse.registry import Family
from emofuse.specs.base import Spec
from emofuse.specs.faults import note_family
from emofuse.specs.kinds import kind_of_class, parse_by_kind

if TYPE_CHECKING:
    from torch import nn

    from emofuse.heads.lanes import Lane


class HeadSpecBase(Spec):
    """Base of the specs of all heads: a `kind`, its parameters, and `make`.

    A head with a field `dropout` is given noise for its hidden values.
    """

    kind: str

    def make(self, group: Sequence[Lane], dims: Mapping[str, int], classes: int) -> nn.Module:
        """K heads of this kind as one module: `head(batch, noise) -> logits (K, B, C)`.

        Built of the layers of `emofuse.heads.layers` and `emofuse.heads.embedding`, which keep K heads apart.

        Args:
            group: K lanes, ordered by fold.
            dims: stream -> D, the streams of all lanes together.
            classes: C.
        """
        raise NotImplementedError(f"{type(self).__name__}.make(group, dims, classes) must return the module")


class CustomHeadSpec(HeadSpecBase):
    """Base class of the spec of a head of one's own, in a plugin file: a `kind`, its parameters, and `make`."""

    dropout: float = Field(0.0, ge=0, lt=1)


def _own_heads() -> Iterable[type[HeadSpecBase]]:
    return HEADS.declared_in(import_module("emofuse.specs.runs"))


HEADS: Family[type[HeadSpecBase]] = Family(
    noun="head",
    group="emofuse.heads",
    name_of=lambda value: kind_of_class(value, HeadSpecBase),
    load_own=_own_heads,
)
note_family(HeadSpecBase, HEADS)


def _head_by_its_kind(value: Any) -> Any:
    """`head: linear` is the head of this kind with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


HeadSpec = Annotated[
    SerializeAsAny[HeadSpecBase],
    PlainValidator(lambda value: parse_by_kind(HEADS, HeadSpecBase, value, default="concat")),
    BeforeValidator(_head_by_its_kind),
]
