"""Streams made from their specs, with their identities and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emofuse.errors import StreamError, did_you_mean
from emofuse.specs import (
    CacheSpec,
    FileWeights,
    HubWeights,
    ImportedSpec,
    RandomWeights,
    RegistryWeights,
    StreamSpec,
)
from emofuse.specs.streams import NEEDS, looks_at_faces
from emofuse.streams.base import Stream, needs_of


def make_stream(spec: StreamSpec, *, device: str = "cpu") -> Stream:
    """Make the stream of a spec and load its weights.

    Args:
        spec: the spec of the stream.
        device: the device of networks, as torch names it (`cpu`, `cuda`, `cuda:1`). Other streams run on the CPU.

    Raises:
        StreamError: the stream cannot run on this machine, lacks a member of `Stream`, or contradicts its spec.
        WeightsError: its weights are missing or damaged.
    """
    if isinstance(spec, ImportedSpec):
        raise StreamError(_not_extracted(spec))
    stream = spec.make(device)
    lacking = [member for member in _MEMBERS if not hasattr(stream, member)]
    if "needs" in lacking and hasattr(stream, "needs_face"):  # see `needs_of`
        lacking.remove("needs")
    if lacking:
        vector = " A vector of D values has shape = (D,) and dimensions = ('feature',)" if "shape" in lacking else ""
        raise StreamError(
            f"{type(spec).__name__}.make returned a {type(stream).__name__} without {', '.join(lacking)}: "
            f"a stream has the members of emofuse.streams.base.Stream.{vector}"
        )
    unknown = sorted(needs_of(stream) - set(NEEDS))
    if unknown or not needs_of(stream):
        what = ", ".join(map(repr, unknown)) or "nothing"
        raise StreamError(
            f"{type(spec).__name__}: its stream needs {what}{did_you_mean(unknown[0], NEEDS) if unknown else ''}; "
            f"`needs` is a set out of {', '.join(NEEDS)}"
        )
    if needs_of(stream) != spec.needs:
        asked, used = (", ".join(sorted(needs)) or "nothing" for needs in (spec.needs, needs_of(stream)))
        raise StreamError(
            f"{type(spec).__name__}.needs is {asked} and its stream's is {used}: they must agree, because the spec's "
            "value decides whether the face detector is part of the digest"
        )
    made: Stream = stream
    return made


def stream_identity(spec: StreamSpec, cache_spec: CacheSpec) -> dict[str, Any]:
    """Return everything that decides the bytes of a stream's rows, as plain JSON. The stream's digest is its hash.

    It holds the kind, version and parameters of the stream (but not its name), the decoding of pictures, the face
    detector if the stream looks at faces, and the SHA-256 or random seed of its weights. Views are not part of it,
    because they can be added to a cache (see `augment_identity`).

    Raises:
        StreamError: the face detector cannot run on this machine, or the stream was imported.
        WeightsError: the weights, or the face landmarker's model, are missing or damaged.
    """
    if isinstance(spec, ImportedSpec):
        raise StreamError(_not_extracted(spec))
    from emofuse.media.decode import VERSION as DECODE_VERSION

    weights = spec.weights_wanted()
    parameters = spec.model_dump(mode="json", exclude={"kind", "name"} | ({"weights"} if weights else set()))
    identity: dict[str, Any] = {
        "kind": spec.kind,
        "version": spec.version,
        "parameters": parameters,
        "decode": {"version": DECODE_VERSION, **cache_spec.decode.model_dump(mode="json")},
    }
    if looks_at_faces(spec.needs):
        from emofuse.streams.faces import face_identity

        identity["face"] = face_identity(cache_spec.face, spec.needs)
    values = spec.identity_values()
    if values:
        identity["values"] = values
    identity |= _media_identity(spec, cache_spec)
    match weights:
        case RandomWeights():
            identity["weights"] = {"random_seed": weights.seed}
        case HubWeights():
            identity["weights"] = {"sha256": weights.sha256}
        case RegistryWeights() | FileWeights():
            from emofuse.weights import resolve_weights

            identity["weights"] = {"sha256": resolve_weights(weights).sha256}
    return identity


def _media_identity(spec: StreamSpec, cache_spec: CacheSpec) -> dict[str, Any]:
    """Return what decides the frames and the sound that a stream receives; nothing for pictures."""
    identity: dict[str, Any] = {}
    if cache_spec.clip is not None and spec.needs - {"audio"}:
        from emofuse.media.video import VERSION as VIDEO_VERSION
        from emofuse.streams.over_time import VERSION as FOLD_VERSION

        version: dict[str, int] = {"version": VIDEO_VERSION, "fold": FOLD_VERSION}
        if looks_at_faces(spec.needs):
            from emofuse.streams.tracking import tracking_version

            version["tracking"] = tracking_version(cache_spec.face)
        identity["clip"] = version | cache_spec.clip.model_dump(mode="json")
    if "audio" in spec.needs:
        from emofuse.media.sound import VERSION as SOUND_VERSION

        identity["sound"] = {"version": SOUND_VERSION}
    return identity


def augment_identity(cache_spec: CacheSpec) -> dict[str, Any] | None:
    """Return everything that decides the augmented views of a cache, as plain JSON; None for a spec without views."""
    if cache_spec.views == 1:
        return None
    from emofuse.media.sound_views import VERSION as SOUND_VERSION
    from emofuse.media.views import VERSION

    # Views of pictures were recorded before there were views of sounds, whose first version is not written out.
    sound = {} if SOUND_VERSION == 1 else {"sound_version": SOUND_VERSION}
    return {"version": VERSION, **sound, **cache_spec.augment.model_dump(mode="json")}


def stream_weights(spec: StreamSpec) -> dict[str, Any] | None:
    """Describe the weights of a stream for the readers of a report; None for a stream without weights.

    Returns:
        `kind` (registry, file, hub, random), `name`, `sha256` and `seed`; None where the last three do not apply.

    Raises:
        WeightsError: the weights are missing or damaged.
    """
    weights = spec.weights_wanted()
    if weights is None:
        return None
    from emofuse.weights import resolve_weights

    resolved = resolve_weights(weights)
    return {"kind": resolved.kind, "name": resolved.name, "sha256": resolved.sha256, "seed": resolved.seed}


def with_located_weights(
    spec: CacheSpec, known: Mapping[str, Mapping[str, Any] | None] | None = None, *, beside: Sequence[Path] = ()
) -> CacheSpec:
    """Return a cache spec that names its weight files by absolute path and hash, at their present places.

    Args:
        spec: the spec as written, or as recorded by a cache or a run.
        known: stream -> its weights as recorded (see `stream_weights`), whose hash the file must have.
        beside: the folders to search for a file that has moved.

    Raises:
        WeightsError: a file of weights is missing.
    """
    streams = tuple(_with_located(each, (known or {}).get(each.name), beside) for each in spec.streams)
    face = spec.face
    if isinstance(face.weights, FileWeights):
        from emofuse.weights import locate_file

        face = face.model_copy(update={"weights": locate_file(face.weights, beside)})
    if (streams, face) == (spec.streams, spec.face):
        return spec
    return spec.model_copy(update={"streams": streams, "face": face})


def _with_located(spec: StreamSpec, known: Mapping[str, Any] | None, beside: Sequence[Path]) -> StreamSpec:
    weights = getattr(spec, "weights", None)
    if not isinstance(weights, FileWeights):
        return spec
    from emofuse.weights import locate_file

    recorded = weights if weights.sha256 or not known else weights.model_copy(update={"sha256": known["sha256"]})
    return spec.model_copy(update={"weights": locate_file(recorded, beside)})


def may_use_gpu(spec: StreamSpec) -> bool:
    """Return whether a stream may run a network: a user's stream does unless it declares `uses_gpu = False`."""
    return spec.uses_gpu


def _not_extracted(spec: ImportedSpec) -> str:
    origin = f" from {spec.source}" if spec.source else ""
    return f"stream {spec.name!r} was imported{origin}: emofuse cannot extract it from an image. Leave it out"


_MEMBERS = ("shape", "dimensions", "dtype", "needs", "flag_names", "columns", "extract", "close")
