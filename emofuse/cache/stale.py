"""Check that a cache is not stale: same samples, same blocks, and streams made from the same spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emofuse.cache.cached_stream import CachedStream
from emofuse.cache.layout import CacheLayout, describe_difference, manifest_path
from emofuse.cache.metadata import read_manifest
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError, IncompleteCacheError, StaleCacheError
from emofuse.specs import ClipSpec, ImportedSpec


def check_manifest(path: Path, layout: CacheLayout, manifest: Manifest) -> None:
    """Raise unless the cache's rows are the manifest's samples, in their order.

    Raises:
        StaleCacheError: rows differ; the message has both numbers of rows and the first row that differs.
    """
    if layout.ids_digest == manifest.ids_digest:
        return
    message = f"{path} holds {layout.rows} rows, the dataset now has {len(manifest)}"
    if manifest_path(path).is_file():
        old = read_manifest(path, layout).table["sample_id"].to_list()
        new = manifest.table["sample_id"].to_list()
        pairs = enumerate(zip(old, new, strict=False))
        row = next((row for row, (was, now) in pairs if was != now), min(len(old), len(new)))
        was, now = (repr(ids[row]) if row < len(ids) else "nothing" for ids in (old, new))
        message += f"; row {row} was {was} and is now {now}"
    raise StaleCacheError(f"{message}. Cached rows belong to their samples: build into another path.")


def check_block_rows(path: Path, layout: CacheLayout, block_rows: int) -> None:
    """Raise unless the cache has blocks of this many rows.

    Raises:
        StaleCacheError: the cache has other blocks.
    """
    if layout.block_rows != block_rows:
        raise StaleCacheError(
            f"{path} has blocks of {layout.block_rows} rows, the spec now says {block_rows}. "
            f"Set block_rows to {layout.block_rows}, or build into another path."
        )


def check_streams(
    path: Path,
    cached: Iterable[CachedStream],
    identities: Mapping[str, Mapping[str, Any]],
    decode: Mapping[str, Any],
    face: Mapping[str, Any] | None,
) -> None:
    """Raise unless every cached stream was made from the spec and all streams see the same pictures and faces.

    Args:
        path: the path of the cache.
        cached: the streams of the cache.
        identities: stream -> identity, for the streams of the spec.
        decode: the spec's decoding, plain JSON.
        face: the spec's detection of faces, plain JSON; None if none of its streams needs a face.

    Raises:
        StaleCacheError: streams differ; the message has all differences.
    """
    faults = []
    for stream in cached:
        if stream.name in identities:
            fault = _spec_fault(path, stream, identities[stream.name])
        else:
            fault = _picture_fault(path, stream, decode, face) or _clip_fault(path, stream, identities)
        if fault:
            faults.append(fault)
    if faults:
        raise StaleCacheError(" | ".join(faults))


def check_augment(path: Path, cached: Iterable[CachedStream], augment: Mapping[str, Any]) -> None:
    """Raise unless the cached augmented views were drawn as the spec draws them.

    Raises:
        StaleCacheError: views differ; the message has all differences.
    """
    faults = []
    for stream in cached:
        cached_augment = stream.layout.augment
        if cached_augment is None:
            continue
        difference = describe_difference({"augment": cached_augment}, {"augment": augment})
        if difference:
            faults.append(
                f"the {stream.views - 1} augmented views of {stream.name} were cached with {difference}. "
                f"Build into another path, or drop it first: emofuse cache drop {path} {stream.name}"
            )
    if faults:
        raise StaleCacheError(" | ".join(faults))


def check_imported(path: Path, cached: Mapping[str, CachedStream], wanted: Iterable[ImportedSpec]) -> tuple[str, ...]:
    """Raise unless the imported streams that the cache has are those of the spec.

    Returns:
        The names of the streams that the cache does not have.

    Raises:
        StaleCacheError: a stream was extracted, or imported from another content; the message has all differences.
        IncompleteCacheError: an import was interrupted.
    """
    faults = []
    wanted = list(wanted)
    there = {spec.name: cached[spec.name] for spec in wanted if spec.name in cached}
    for spec in wanted:
        if spec.name in there:
            stream = there[spec.name]
            content = stream.identity.get("content", {})
            expected = {"kind": spec.kind, "content": content if spec.sha256 is None else {"sha256": spec.sha256}}
            difference = describe_difference({"kind": stream.kind, "content": content}, expected)
            if difference:
                faults.append(
                    f"{spec.name} was cached with {difference}. "
                    f"Drop it first and import it again: emofuse cache drop {path} {spec.name}"
                )
    if faults:
        raise StaleCacheError(" | ".join(faults))
    for name, stream in there.items():
        lacking = len(stream.lacking_blocks())
        if lacking:
            raise IncompleteCacheError(
                f"{path}: the import of {name!r} was interrupted, {lacking} blocks lack. Run the same import again: "
                "finished blocks are kept."
            )
    return tuple(spec.name for spec in wanted if spec.name not in there)


def check_is_imported(path: Path, missing: Sequence[str]) -> None:
    """Raise if streams that no build can make are missing.

    Raises:
        CacheError: streams are missing; the message has the command that imports them.
    """
    if missing:
        raise CacheError(
            f"{path}: {', '.join(missing)} cannot be extracted, only imported, and the cache does not have it yet. "
            f"Import it, then run the same again: emofuse cache import {path} --file FILE --name {missing[0]}"
        )


def _spec_fault(path: Path, cached: CachedStream, identity: Mapping[str, Any]) -> str | None:
    difference = describe_difference(cached.identity, identity)
    if not difference:
        return None
    return (
        f"{cached.name} was cached with {difference}. "
        f"Build it under another name, or drop it first: emofuse cache drop {path} {cached.name}"
    )


def _clip_fault(path: Path, cached: CachedStream, identities: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return what is wrong if a cached stream sees other frames of the samples than the streams of the spec."""
    seeing = [identity for identity in identities.values() if _sees(identity)]
    if not seeing or not cached.layout.decode or not _sees(cached.identity):
        return None
    former, wanted = (
        {"clip": {name: value for name, value in identity.get("clip", {}).items() if name in ClipSpec.model_fields}}
        for identity in (cached.identity, seeing[0])
    )
    difference = describe_difference(former, wanted)
    if not difference:
        return None
    return (
        f"{cached.name} was cached with {difference}, and all streams of a cache see the same frames. "
        f"Build into another path, or drop it first: emofuse cache drop {path} {cached.name}"
    )


def _sees(identity: Mapping[str, Any]) -> bool:
    """Return whether a stream sees pictures or frames, from its identity."""
    return "clip" in identity or "sound" not in identity


def comparable_face(face: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded detection of faces without the path of a file of weights, which may have moved."""
    weights = face.get("weights")
    if not isinstance(weights, Mapping) or weights.get("kind") != "file":
        return dict(face)
    return {**face, "weights": {name: value for name, value in weights.items() if name != "path"}}


def _picture_fault(
    path: Path, cached: CachedStream, decode: Mapping[str, Any], face: Mapping[str, Any] | None
) -> str | None:
    if not cached.layout.decode:  # imported: emofuse decoded nothing for it
        return None
    both_look_at_faces = cached.layout.face is not None and face is not None
    faces = [comparable_face(each or {}) if both_look_at_faces else {} for each in (cached.layout.face, face)]
    former = {"decode": cached.layout.decode, "face": faces[0]}
    difference = describe_difference(former, {"decode": decode, "face": faces[1]})
    if not difference:
        return None
    return (
        f"{cached.name} was cached with {difference}, and all streams of a cache see the same pictures. "
        f"Build into another path, or drop it first: emofuse cache drop {path} {cached.name}"
    )
