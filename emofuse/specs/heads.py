"""The base of the specs of heads, and the parameters that all trained heads share.

The specs of emofuse's own heads are in `emofuse.specs.head_kinds`; others come from entry points `emofuse.heads` and
from plugin files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from emofuse.registry import Family
from emofuse.specs.base import Spec
from emofuse.specs.faults import note_family
from emofuse.specs.kinds import kind_of_class, parse_by_kind

if TYPE_CHECKING:
    from torch import nn

    from emofuse.heads.members import HeadMember


class HeadSpecBase(Spec):
    """The base of the specs of all heads: a `kind`, its parameters, and `make`.

    A head whose spec has a field `dropout` receives noise for its hidden values.

    Attributes:
        module_class: the class of the module below `emofuse.heads`, for emofuse's own heads; others declare `make`.
    """

    module_class: ClassVar[str] = ""

    kind: str

    def sizes(self) -> dict[str, Any]:
        """Return the keyword arguments of `module_class`: all parameters but the dropout and those of the stems."""
        return self.model_dump(exclude={"kind", "dropout", *NetworkHeadSpec.model_fields})

    def make(self, group: Sequence[HeadMember], dims: Mapping[str, Any], classes: int) -> nn.Module:
        """Return K heads of this kind as one module: `head(batch, noise) -> logits (K, B, C)`.

        The layers of `emofuse.heads.layers` and `emofuse.heads.embedding` keep the K heads separate.

        Args:
            group: the K members, ordered by fold.
            dims: stream -> D, for all streams of the members. A head with stems (`NetworkHeadSpec`) receives the shape
                of a row for sequences and maps.
            classes: the number of classes C.
        """
        raise NotImplementedError(f"{type(self).__name__}.make(group, dims, classes) must return the module")


Temporal = Literal["mean", "max", "mean_std", "attention", "lstm", "gru", "transformer"]
ORDERED: frozenset[Temporal] = frozenset({"lstm", "gru", "transformer"})
"""The stems over time that know the order of the steps; all others give the same for any order."""

Spatial = Literal["mean", "attention", "patches", "cnn"]
StemNorm = Literal["group", "batch"]


class NetworkHeadSpec(HeadSpecBase):
    """A head that is trained by gradient descent, with a stem for each sequence and map.

    `temporal` reduces a sequence to one vector a row, `spatial` reduces a map; a sequence of maps passes both. A vector
    has no stem. `stem_width` is the hidden size of attention, lstm, gru and transformer, and the number of channels of
    patches and cnn. `stem_dropout` is the share of the values of stems with weights that are set to zero in training;
    it has no effect on stems without. Default values are not written: the digest of a head on vectors stays as it was
    before stems.
    """

    temporal: Temporal = "mean"
    spatial: Spatial = "mean"
    stem_width: int = Field(64, ge=1)
    patch_kernels: tuple[int, ...] = Field((1, 3, 5), min_length=1, description="the sizes of the patches, each odd")
    stem_dropout: float = Field(0.0, ge=0, lt=1)
    stem_norm: StemNorm = Field("group", description="the norm of the `cnn` stem")

    @field_validator("patch_kernels")
    @classmethod
    def _kernels_are_odd(cls, kernels: tuple[int, ...]) -> tuple[int, ...]:
        even = [kernel for kernel in kernels if kernel < 1 or kernel % 2 == 0]
        if even:
            raise ValueError(f"kernel sizes must be odd and at least 1, got {even[0]}")
        return kernels

    @model_serializer(mode="wrap")
    def _write_without_default_stems(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        fields = NetworkHeadSpec.model_fields.keys() - HeadSpecBase.model_fields.keys()
        return {
            name: value
            for name, value in written.items()
            if name not in fields or getattr(self, name) != NetworkHeadSpec.model_fields[name].default
        }


class CustomHeadSpec(HeadSpecBase):
    """The base class of the spec of a user's head on vectors, in a plugin file: a `kind`, its parameters, and `make`.

    A head that also takes sequences and maps derives from `NetworkHeadSpec` and builds its `Embeddings` with
    `emofuse.heads.stems_of(self)`.
    """

    dropout: float = Field(0.0, ge=0, lt=1)


def _own_heads() -> Iterable[type[HeadSpecBase]]:
    return HEADS.declared_in(import_module("emofuse.specs.head_kinds"))


HEADS: Family[type[HeadSpecBase]] = Family(
    noun="head",
    group="emofuse.heads",
    name_of=lambda value: kind_of_class(value, HeadSpecBase),
    load_own=_own_heads,
)
note_family(HeadSpecBase, HEADS)


def _head_by_its_kind(value: Any) -> Any:
    """Read `head: linear` as the head of this kind with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


HeadSpec = Annotated[
    SerializeAsAny[HeadSpecBase],
    PlainValidator(lambda value: parse_by_kind(HEADS, HeadSpecBase, value, default="concat")),
    BeforeValidator(_head_by_its_kind),
]
