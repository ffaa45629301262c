"""From a stream's spec to the stream, its identity and its weights."""

from __future__ import annotations

from typing import Any

from emofuse.errors import StreamError
from emofuse.media.decode import VERSION as DECODE_VERSION
from emofuse.specs import (
    ActionUnitsSpec,
    BackboneSpec,
    CacheSpec,
    CustomStreamSpec,
    FileWeights,
    ImportedSpec,
    LandmarksSpec,
    LbpSpec,
    ObjectsSpec,
    Places365Spec,
    RandomWeights,
    RegistryWeights,
    StreamSpec,
    WeightsSpec,
)
from emofuse.streams.base import Stream


def make_stream(spec: StreamSpec, *, device: str = "cpu") -> Stream:  # noqa: PLR0911 - one return a kind, one visible match
    """The stream of a spec, its weights loaded.

    Args:
        spec: what to extract.
        device: where networks run, as torch names it (`cpu`, `cuda`, `cuda:1`); geometry and texture run on the CPU.

    Raises:
        StreamError: it cannot run here, or a stream of one's own is not what its spec says.
        WeightsError: its weights are missing or damaged.
    """
    match spec:
        case LbpSpec():
            from emofuse.streams.texture import LbpStream

            return LbpStream(region_px=spec.region_px, without_face=spec.without_face)
        case LandmarksSpec():
            from emofuse.streams.landmarks import LandmarksStream

            return LandmarksStream()
        case ActionUnitsSpec():
            from emofuse.streams.action_units import ActionUnitsStream

            return ActionUnitsStream()
        case BackboneSpec():
            from emofuse.streams.backbones import make_backbone

            return make_backbone(spec, device)
        case Places365Spec():
            from emofuse.streams.backbones import make_places365

            return make_places365(spec, device)
        case ObjectsSpec():
            from emofuse.streams.objects import make_objects

            return make_objects(spec, device)
        case ImportedSpec():
            raise StreamError(_not_extracted(spec))
        case CustomStreamSpec():
            return _make_custom(spec, device)


def stream_identity(spec: StreamSpec, cache_spec: CacheSpec) -> dict[str, Any]:
    """Everything that decides the bytes of a stream's rows, as plain JSON: what its digest is taken of.

    Kind, version and parameters of the stream (its name is free), how pictures are decoded, how faces are found if
    it looks at them, and its weights by their SHA-256 or their random seed, wherever they come from. Views are no part
    of it: they may be added to a cache (see `augment_identity`).

    Raises:
        StreamError: the face detector cannot run here, or the stream is an imported one.
        WeightsError: the weights, or the face landmarker's model, are missing or damaged.
    """
    if isinstance(spec, ImportedSpec):
        raise StreamError(_not_extracted(spec))
    from emofuse.streams.faces import face_identity

    weights = _weights_spec(spec)
    parameters = spec.model_dump(mode="json", exclude={"kind", "name"} | ({"weights"} if weights else set()))
    identity: dict[str, Any] = {
        "kind": spec.kind,
        "version": spec.version,
        "parameters": parameters,
        "decode": {"version": DECODE_VERSION, **cache_spec.decode.model_dump(mode="json")},
    }
    if spec.needs_face:
        identity["face"] = face_identity(cache_spec.face)
    match weights:
        case RandomWeights():
            identity["weights"] = {"random_seed": weights.seed}
        case RegistryWeights() | FileWeights():
            from emofuse.weights import resolve_weights

            identity["weights"] = {"sha256": resolve_weights(weights).sha256}
    return identity


def augment_identity(cache_spec: CacheSpec) -> dict[str, Any] | None:
    """What decides the augmented views of a cache, as plain JSON; None for a spec without any."""
    if cache_spec.views == 1:
        return None
    from emofuse.media.views import VERSION

    return {"version": VERSION, **cache_spec.augment.model_dump(mode="json")}


def stream_weights(spec: StreamSpec) -> dict[str, Any] | None:
    """Which weights a stream runs on, for people who read a report; None for a stream without weights of its own.

    Returns:
        `kind` (registry, file, random), `name`, `sha256` and `seed`; the last three are None where they do not apply.

    Raises:
        WeightsError: they are missing or damaged.
    """
    weights = _weights_spec(spec)
    if weights is None:
        return None
    from emofuse.weights import resolve_weights

    found = resolve_weights(weights)
    return {"kind": found.kind, "name": found.name, "sha256": found.sha256, "seed": found.seed}


def may_use_gpu(spec: StreamSpec) -> bool:
    """Whether a stream runs a network, or is one of the user's own that does not say that it does not."""
    if isinstance(spec, CustomStreamSpec):
        return spec.uses_gpu
    return isinstance(spec, BackboneSpec | Places365Spec | ObjectsSpec)


def _not_extracted(spec: ImportedSpec) -> str:
    origin = f" from {spec.source}" if spec.source else ""
    return f"stream {spec.name!r} was imported{origin}: emofuse cannot extract it from an image. Leave it out"


def _weights_spec(spec: StreamSpec) -> WeightsSpec | None:
    """The weights a spec asks for, the model's own of the registry where it leaves them out."""
    match spec:
        case BackboneSpec() | ObjectsSpec() if spec.weights is None:
            from emofuse.weights import default_weights

            return default_weights(spec.model)
        case _:
            asked = getattr(spec, "weights", None)
            return asked if isinstance(asked, RegistryWeights | FileWeights | RandomWeights) else None


def _make_custom(spec: CustomStreamSpec, device: str) -> Stream:
    stream = spec.make(device)
    lacking = [member for member in _MEMBERS if not hasattr(stream, member)]
    if lacking:
        raise StreamError(
            f"{type(spec).__name__}.make returned a {type(stream).__name__} without {', '.join(lacking)}: "
            "a stream has the members of emofuse.streams.base.Stream"
        )
    if bool(stream.needs_face) != spec.needs_face:
        raise StreamError(
            f"{type(spec).__name__}.needs_face is {spec.needs_face} and its stream's is {stream.needs_face}: they must "
            "agree, because the spec's decides whether the face detector is part of the digest"
        )
    made: Stream = stream
    return made


_MEMBERS = ("dim", "dtype", "needs_face", "flag_names", "columns", "extract", "close")
