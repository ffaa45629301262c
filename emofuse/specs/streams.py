"""The base of the specs of streams: a name in the cache, a stored dtype, variants, and the method that makes a stream.

A kind of streams is one file with its spec, its extractor, its shape and its variants. The kinds of emofuse are modules
of `emofuse.streams`; others come from entry points `emofuse.streams` and from plugin files.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, SerializeAsAny, model_validator

from emofuse.registry import Family
from emofuse.specs.base import ExtendedSpec
from emofuse.specs.faults import BESIDE, SEPARATOR, note_family
from emofuse.specs.kinds import kind_of_class, parse_by_kind
from emofuse.specs.weights import FileWeights, HubWeights, RandomWeights, RegistryWeights, WeightsSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Value = bool | int | float | str

NEEDS = ("image", "face", "crop", "blendshapes", "faces", "frames", "audio")
"""What a stream may need of a sample; see `StreamSpecBase.needs`."""
NEEDS_IMAGE = frozenset({"image"})
NEEDS_FACE = frozenset({"image", "face"})
NEEDS_CROP = frozenset({"image", "crop"})
NEEDS_BLENDSHAPES = frozenset({"image", "face", "blendshapes"})
NEEDS_FACES = frozenset({"image", "faces"})
NEEDS_AUDIO = frozenset({"audio"})

OF_FACES = frozenset({"face", "crop", "blendshapes", "faces"})
"""The needs for which faces are detected: a stream with one of them looks at faces."""


def looks_at_faces(needs: Iterable[str]) -> bool:
    """Return whether faces are detected for a stream with these needs."""
    return not OF_FACES.isdisjoint(needs)


@dataclass(frozen=True)
class Variant:
    """A choice of what heads see of a stream's stored features. It is derived when they are read and never stored.

    Attributes:
        name: the key, as `bins` in `features: {streams: {lbp: {bins: 256}}}`.
        values: the allowed values.
        default: the value where a run names none.
        factor: the name of the variant as a factor of a sweep and as a key of `features`, where it applies to all
            streams of the kind; `KIND_NAME` unless given.
        place_in_every_run: a number for a variant that every run records, even a run without a stream of the kind;
            such variants are listed by this number. None for all other variants. Runs had these factors before kinds
            could declare variants, and the digests of runs depend on them.
    """

    name: str
    values: tuple[Value, ...]
    default: Value
    factor: str = ""
    place_in_every_run: int | None = None

    def check(self, value: Any) -> str | None:
        """Return what is wrong with a value; None for an allowed one."""
        if any(value == allowed and type(value) is type(allowed) for allowed in self.values):
            return None
        *others, last = map(str, self.values)
        return f"must be {', '.join(others)} or {last}, got {value!r}" if others else f"must be {last}, got {value!r}"


class StreamSpecBase(ExtendedSpec):
    """The base of the specs of all streams.

    A subclass declares its `kind`, its parameters and `make`. The name in the cache is the kind unless given.

    Attributes:
        version: the version of the stream's code, part of the digest. Increase it whenever the code gives other bytes
            for the same spec.
        needs: what the stream uses of a sample, out of `NEEDS`. Only what some stream needs is decoded or detected, and
            is part of the stream's digest. `image` is a picture; on clips, the stream sees every chosen frame as one.
            `face` is the face in it, with its mesh. `crop` is the aligned face as a picture, `blendshapes` are the 52
            expression coefficients and the pose of the face. `faces` are all faces, without meshes. `frames` are
            the chosen frames of a clip at once, `audio` is its sound. A stream sees single pictures or whole clips.
        uses_gpu: whether the stream runs a network. A cluster computes other streams on workers without a GPU.
        variants: the variants of its features.
        stored_shape: the shape of one row of stored features, if all streams of the kind have the same.
        stored_dimensions: the names of the axes of `stored_shape`.
        fixed_columns: the columns that are constant by definition, up to rounding.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = NEEDS_IMAGE
    uses_gpu: ClassVar[bool] = False
    variants: ClassVar[tuple[Variant, ...]] = ()
    stored_shape: ClassVar[tuple[int, ...] | None] = None
    stored_dimensions: ClassVar[tuple[str, ...]] = ("feature",)
    fixed_columns: ClassVar[tuple[int, ...]] = ()

    kind: str
    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", description="a name of letters, digits, `_`, `.` and `-`, a letter first"
    )
    dtype: Literal["float16", "float32"] = "float32"

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        declared = vars(cls)
        if "needs_face" in declared and "needs" not in declared:  # a plugin file of a version that knew faces alone
            cls.needs = NEEDS_FACE if declared["needs_face"] else NEEDS_IMAGE

    @model_validator(mode="before")
    @classmethod
    def _fill_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            return {**data, "name": cls._default_name(data)}
        return data

    @classmethod
    def _default_name(cls, data: Mapping[str, Any]) -> str:  # noqa: ARG003 - some kinds are named by their parameters
        return str(cls.model_fields["kind"].default)

    def make(self, device: str) -> Any:
        """Return the stream, an object with the members of `emofuse.streams.base.Stream`.

        Args:
            device: the device of networks, as torch names it.
        """
        raise NotImplementedError(f"{type(self).__name__}.make(device) must return the stream")

    def weights_wanted(self) -> WeightsSpec | None:
        """Return the weights that the stream runs on; None for a stream without weights."""
        weights = getattr(self, "weights", None)
        return weights if isinstance(weights, RegistryWeights | FileWeights | HubWeights | RandomWeights) else None

    def identity_values(self) -> dict[str, Any]:
        """Return what decides the bytes beside parameters and weights, as plain JSON; {} for most kinds.

        Examples are the preprocessing that a library declares for a model, and the configuration in a file.
        """
        return {}

    @classmethod
    def derive(cls, stored: npt.NDArray[Any], choice: Mapping[str, Value]) -> npt.NDArray[np.floating[Any]]:
        """Return what heads see of stored features: the features themselves for kinds without variants.

        Args:
            stored: the cached or extracted features of n >= 0 rows, (n, *shape).
            choice: name -> value of every variant of the kind.
        """
        if choice:
            raise NotImplementedError(f"{cls.__name__}.derive(stored, choice) must make the variants of the kind")
        return stored


class CustomStreamSpec(StreamSpecBase):
    """The base class of the spec of a user's stream, in a plugin file or in Python.

    A subclass declares its `kind`, its parameters and `make(device)`. Increase `version` whenever the code gives other
    bytes. Set `uses_gpu` to False for a stream without a network: a cluster then computes it on workers without a GPU.
    """

    uses_gpu: ClassVar[bool] = True


class ImportedSpec(StreamSpecBase):
    """Features of another tool, stored in the cache by `emofuse cache import`. A build does not change them.

    In a cache spec it names a stream that must be in the cache already. A `sha256`, if given, is checked against the
    content.
    """

    kind: Literal["imported"] = "imported"
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="64 digits of 0-9 and a-f")
    source: str = Field("", description="name of the file that it came from, for people")
    dataset: str = Field("", description="name of the array in that file, for people")


# The modules of emofuse.streams that run streams and declare none. Reading a spec must not load their libraries.
_WITHOUT_KINDS = frozenset(
    {
        "base",
        "batches",
        "block_extraction",
        "extractor",
        "over_time",
        "reading",
        "regions",
        "shared_networks",
        "tracking",
    }
)


def _own_streams() -> Iterable[type[StreamSpecBase]]:
    yield ImportedSpec
    package = importlib.import_module("emofuse.streams")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg and module.name not in _WITHOUT_KINDS:
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
    """Return the variants of a kind, with the names of their factors; () for an unknown kind."""
    spec = STREAMS.find(kind)
    return () if spec is None else tuple(variants_with_factors(spec))


def variants_with_factors(spec: type[StreamSpecBase]) -> Iterable[Variant]:
    """Yield the variants of a kind's spec, with the names of their factors filled in."""
    for variant in spec.variants:
        factor = variant.factor or f"{kind_of_class(spec, StreamSpecBase)}_{variant.name}"
        yield replace(variant, factor=factor)


def variant_factors() -> dict[str, tuple[str, Variant]]:
    """Return factor -> kind and variant, for all known kinds.

    Those of every run come first, in their order, then the others in alphabetical order.
    """

    def position(pair: tuple[str, Variant]) -> tuple[bool, int, str]:
        place = pair[1].place_in_every_run
        return (True, 0, pair[1].factor) if place is None else (False, place, "")

    pairs = [(kind, variant) for kind, spec in STREAMS.all().items() for variant in variants_with_factors(spec)]
    return {variant.factor: (kind, variant) for kind, variant in sorted(pairs, key=position)}


def take_factors(data: Any, field: str) -> Any:
    """Return plain data in which the factors of variants, written as keys, are moved into one field."""
    if not isinstance(data, Mapping):
        return data
    factors = {name: data[name] for name in variant_factors() if name in data}
    rest = {name: value for name, value in data.items() if name not in factors}
    inner = rest.get(field)
    return {**rest, field: {**(inner if isinstance(inner, Mapping) else {}), **factors}}


def check_factors(factors: Mapping[str, Any]) -> None:
    """Check that every factor is that of a variant, and that its values are allowed.

    Args:
        factors: factor -> value, or the tuple of its values.

    Raises:
        ValueError: unknown factors and values, all of them.
    """
    known = variant_factors()
    problems = [f"{BESIDE}{name}: no variant of any kind of stream" for name in factors if name not in known]
    for name, written in factors.items():
        several = isinstance(written, tuple)
        places = {f"[{index}]": value for index, value in enumerate(written)} if several else {"": written}
        faults = {place: known[name][1].check(value) for place, value in places.items()} if name in known else {}
        problems += [f"{BESIDE}{name}{place}: {fault}" for place, fault in faults.items() if fault]
    if problems:
        raise ValueError(SEPARATOR.join(problems))


def factor_defaults() -> dict[str, Value]:
    """Return the factors that every run records, with their defaults."""
    recorded = {
        name: variant for name, (_, variant) in variant_factors().items() if variant.place_in_every_run is not None
    }
    return {name: variant.default for name, variant in recorded.items()}
