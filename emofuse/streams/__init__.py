"""From a stream's spec to the stream, its identity and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emofuse.errors import StreamError
from emofuse.specs import (
    CacheSpec,
    FileWeights,
    ImportedSpec,
    RandomWeights,
    RegistryWeights,
    StreamSpec,
)
from emofuse.streams.base import Stream


def make_stream(spec: StreamSpec, *, device: str = "cpu") -> Stream:
    """The stream of a spec, its weights loaded.

    Args:
        spec: what to extract.
        device: where networks run, as torch names it (`cpu`, `cuda`, `cuda:1`); geometry and texture run on the CPU.

    Raises:
        StreamError: it cannot run here, or a stream of one's own is not what its spec says.
        WeightsError: its weights are missing or damaged.
    """
    if isinstance(spec, ImportedSpec):
        raise StreamError(_not_extracted(spec))
    stream = spec.make(device)
    lacking = [member for member in _MEMBERS if not hasattr(stream, member)]
    if hasattr(stream, "dim"):  # how streams of former versions declare a vector
        lacking = [member for member in lacking if member != "shape"]
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
    from emofuse.media.decode import VERSION as DECODE_VERSION

    weights = spec.weights_wanted()
    parameters = spec.model_dump(mode="json", exclude={"kind", "name"} | ({"weights"} if weights else set()))
    identity: dict[str, Any] = {
        "kind": spec.kind,
        "version": spec.version,
        "parameters": parameters,
        "decode": {"version": DECODE_VERSION, **cache_spec.decode.model_dump(mode="json")},
    }
    if spec.needs_face:
        from emofuse.streams.faces import face_identity

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
    weights = spec.weights_wanted()
    if weights is None:
        return None
    from emofuse.weights import resolve_weights

    found = resolve_weights(weights)
    return {"kind": found.kind, "name": found.name, "sha256": found.sha256, "seed": found.seed}


def with_located_weights(
    spec: CacheSpec, known: Mapping[str, Mapping[str, Any] | None] | None = None, *, beside: Sequence[Path] = ()
) -> CacheSpec:
    """A cache spec whose weights that are files are named by absolute path and hash, where they are now.

    Args:
        spec: as written, or as recorded by a cache or a run.
        known: stream -> its weights as recorded (see `stream_weights`), whose hash the file must have.
        beside: folders to look in for a file that has moved.

    Raises:
        WeightsError: such a file is not there.
    """
    streams = tuple(_with_located(each, (known or {}).get(each.name), beside) for each in spec.streams)
    return spec if streams == spec.streams else spec.model_copy(update={"streams": streams})


def _with_located(spec: StreamSpec, known: Mapping[str, Any] | None, beside: Sequence[Path]) -> StreamSpec:
    asked = getattr(spec, "weights", None)
    if not isinstance(asked, FileWeights):
        return spec
    from emofuse.weights import locate_file

    recorded = asked if asked.sha256 or not known else asked.model_copy(update={"sha256": known["sha256"]})
    return spec.model_copy(update={"weights": locate_file(recorded, beside)})


def may_use_gpu(spec: StreamSpec) -> bool:
    """Whether a stream runs a network, or is one of the user's own that does not say that it does not."""
    return spec.uses_gpu


def _not_extracted(spec: ImportedSpec) -> str:
    origin = f" from {spec.source}" if spec.source else ""
    return f"stream {spec.name!r} was imported{origin}: emofuse cannot extract it from an image. Leave it out"


_MEMBERS = ("shape", "dtype", "needs_face", "flag_names", "columns", "extract", "close")
