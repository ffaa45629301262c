"""What the kinds of streams have in common: a name in the cache, a stored type, variants, and how one is made.

A kind is one file: its spec, its extractor, its shape and its variants. Those of emofuse are the modules of
`emofuse.streams`; others come from entry points `emofuse.streams` and from plugin files.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, SerializeAsAny, model_validator

from emofuse.registry import Family
from emofuse.specs.base import Spec
from emofuse.specs.faults import BESIDE, SEPARATOR, note_family
from emofuse.specs.kinds import kind_of_class, parse_by_kind
from emofuse.specs.weights import FileWeights, RandomWeights, RegistryWeights, WeightsSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Value = bool | int | float | str


@dataclass(frozen=True)
class Variant:
    """One way in which the features of a stream may be looked at, derived when they are read and stored nowhere.

    Attributes:
        name: as in `features: {streams: {lbp: {bins: 256}}}`.
        values: all that it may be.
        default: the one that is taken where nothing is said.
        factor: its name as a factor of a sweep and as a key of `features`, for all streams of the kind; `KIND_NAME`
            unless given.
        in_every_run: whether every run records it, even those without a stream of the kind: so it was before kinds had
            variants of their own, and the digests of runs depend on it.
    """

    name: str
    values: tuple[Value, ...]
    default: Value
    factor: str = ""
    in_every_run: bool = False

    def check(self, value: Any) -> str | None:
        """What is wrong with a value; None if it is one of this variant's."""
        if any(value == allowed and type(value) is type(allowed) for allowed in self.values):
            return None
        *others, last = map(str, self.values)
        return f"must be {', '.join(others)} or {last}, got {value!r}" if others else f"must be {last}, got {value!r}"


class StreamSpecBase(Spec):
    """Base of the specs of all streams: a name in the cache (the kind unless given), a stored type, how it is made.

    A subclass gives its `kind`, its parameters and `make`.

    Attributes:
        version: raised whenever the stream's code gives other bytes for the same spec; it is part of the digest.
        needs_face: whether it looks at the face, so that the face detector is part of its digest.
        uses_gpu: whether it runs a network. A cluster computes others where there is no GPU.
        variants: of its features.
        stored_shape: of one row of stored features, if all streams of the kind have the same.
        stored_dimensions: names of the axes of `stored_shape`.
        fixed_columns: columns that are constant by what the stream is, up to rounding.
    """

    version: ClassVar[int] = 1
    needs_face: ClassVar[bool] = False
    uses_gpu: ClassVar[bool] = False
    variants: ClassVar[tuple[Variant, ...]] = ()
    stored_shape: ClassVar[tuple[int, ...] | None] = None
    stored_dimensions: ClassVar[tuple[str, ...]] = ("feature",)
    fixed_columns: ClassVar[tuple[int, ...]] = ()

    kind: str
    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")
    dtype: Literal["float16", "float32"] = "float32"

    @model_validator(mode="before")
    @classmethod
    def _fill_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            return {**data, "name": cls._default_name(data)}
        return data

    @classmethod
    def _default_name(cls, _data: Mapping[str, Any]) -> str:
        return str(cls.model_fields["kind"].default)

    def make(self, device: str) -> Any:
        """The stream itself, an object with the members of `emofuse.streams.base.Stream`.

        Args:
            device: where a network runs, as torch names it.
        """
        raise NotImplementedError(f"{type(self).__name__}.make(device) must return the stream")

    def weights_wanted(self) -> WeightsSpec | None:
        """The weights that the stream runs on; None for one without."""
        asked = getattr(self, "weights", None)
        return asked if isinstance(asked, RegistryWeights | FileWeights | RandomWeights) else None

    @classmethod
    def derive(cls, stored: npt.NDArray[Any], choice: Mapping[str, Value]) -> npt.NDArray[np.floating[Any]]:
        """One variant of stored features (n, *shape): their own, but for kinds with variants.

        Args:
            stored: as cached or extracted, of n >= 0 rows.
            choice: name -> value of every variant of the kind.
        """
        if choice:
            raise NotImplementedError(f"{cls.__name__}.derive(stored, choice) must make the variants of the kind")
        return stored


class CustomStreamSpec(StreamSpecBase):
    """Base class of the spec of a stream of one's own, in a plugin file or in Python.

    Subclass it with a `kind`, its parameters, and `make(device)`; raise `version` whenever the code gives other bytes.
    Set `uses_gpu` to False if it never does: a cluster then computes it where there is no GPU.
    """

    uses_gpu: ClassVar[bool] = True


class ImportedSpec(StreamSpecBase):
    """Features of another tool, put into the cache by `emofuse cache import`: a build leaves them as they are.

    In a cache spec it stands for a stream that must be there. `sha256`, when given, is that of its content and is
    checked.
    """

    kind: Literal["imported"] = "imported"
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    source: str = Field("", description="name of the file that it came from, for people")
    dataset: str = Field("", description="name of the array in that file, for people")


# Modules of emofuse.streams that declare no kind; some of them load torch or OpenCV, which reading a spec must not.
_WITHOUT_KINDS = frozenset(
    {
        "backbones",
        "base",
        "extractor",
        "faces",
        "objects",
        "outcome",
        "presets",
        "random_weights",
        "ultralytics_networks",
    }
)


def _own_streams() -> Iterable[type[StreamSpecBase]]:
    yield ImportedSpec
    package = importlib.import_module("emofuse.streams")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in _WITHOUT_KINDS:
            yield from STREAMS.declared_in(importlib.import_module(f"emofuse.streams.{module.name}"))


STREAMS: Family[type[StreamSpecBase]] = Family(
    noun="stream",
    group="emofuse.streams",
    name_of=lambda value: kind_of_class(value, StreamSpecBase),
    load_own=_own_streams,
)
note_family(StreamSpecBase, STREAMS)

StreamSpec = Annotated[
    SerializeAsAny[StreamSpecBase], PlainValidator(lambda value: parse_by_kind(STREAMS, StreamSpecBase, value))
]


def variants_of(kind: str) -> tuple[Variant, ...]:
    """The variants of a kind, with the names of their factors; () for a kind that is not known here."""
    spec = STREAMS.find(kind)
    return () if spec is None else tuple(variants_with_factors(spec))


def variants_with_factors(spec: type[StreamSpecBase]) -> Iterable[Variant]:
    """The variants of a kind's spec, the names of their factors filled in."""
    for variant in spec.variants:
        factor = variant.factor or f"{kind_of_class(spec, StreamSpecBase)}_{variant.name}"
        yield Variant(variant.name, variant.values, variant.default, factor, variant.in_every_run)


def variant_factors() -> dict[str, tuple[str, Variant]]:
    """Factor -> kind and variant, of every kind that is known: emofuse's first, then others in alphabetical order."""
    found = [(kind, variant) for kind, spec in STREAMS.all().items() for variant in variants_with_factors(spec)]
    found.sort(key=lambda pair: (not pair[1].in_every_run, pair[1].factor != "lbp_bins", pair[1].factor))
    return {variant.factor: (kind, variant) for kind, variant in found}


def take_factors(data: Any, field: str) -> Any:
    """Plain data with the factors of variants that stand among its keys moved into one field."""
    if not isinstance(data, Mapping):
        return data
    given = {name: data[name] for name in variant_factors() if name in data}
    rest = {name: value for name, value in data.items() if name not in given}
    inner = rest.get(field)
    return {**rest, field: {**(inner if isinstance(inner, Mapping) else {}), **given}}


def check_factors(factors: Mapping[str, Any]) -> None:
    """Raises a `ValueError` for values of factors that no variant has.

    Args:
        factors: factor -> value, or the tuple of its values.
    """
    known = variant_factors()
    problems = [f"{BESIDE}{name}: no variant of any kind of stream" for name in factors if name not in known]
    for name, given in factors.items():
        values = {f"[{index}]": value for index, value in enumerate(given)} if isinstance(given, tuple) else {"": given}
        faults = {place: known[name][1].check(value) for place, value in values.items()} if name in known else {}
        problems += [f"{BESIDE}{name}{place}: {fault}" for place, fault in faults.items() if fault]
    if problems:
        raise ValueError(SEPARATOR.join(problems))


def factor_defaults() -> dict[str, Value]:
    """The factors that every run records, at their defaults."""
    return {name: variant.default for name, (_, variant) in variant_factors().items() if variant.in_every_run}
