"""What makes a cache stale: other samples, other blocks, or streams made from another spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emofuse.cache.cached_stream import CachedStream
from emofuse.cache.layout import CacheLayout, describe_difference, manifest_path
from emofuse.cache.metadata import read_manifest
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError, IncompleteCacheError, StaleCacheError
from emofuse.specs import ImportedSpec


def check_manifest(path: Path, layout: CacheLayout, manifest: Manifest) -> None:
    """Raises unless the cache's rows are the manifest's samples, in their order.

    Raises:
        StaleCacheError: with both numbers of rows and the first row that differs.
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
    """Raises unless the cache has blocks of this many rows.

    Raises:
        StaleCacheError: it has not.
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
    """Raises unless every cached stream was made from the spec and all streams see the same pictures and faces.

    Args:
        path: of the cache.
        cached: its streams.
        identities: stream -> identity, of the streams of the spec.
        decode: the spec's way of decoding, plain JSON.
        face: the spec's way of finding faces, plain JSON; None if none of its streams looks at one.

    Raises:
        StaleCacheError: with everything that differs.
    """
    faults = []
    for stream in cached:
        if stream.name in identities:
            fault = _spec_fault(path, stream, identities[stream.name])
        else:
            fault = _picture_fault(path, stream, decode, face)
        if fault:
            faults.append(fault)
    if faults:
        raise StaleCacheError(" | ".join(faults))


def check_augment(path: Path, cached: Iterable[CachedStream], augment: Mapping[str, Any]) -> None:
    """Raises unless the augmented views that there are were drawn as the spec draws them.

    Raises:
        StaleCacheError: with everything that differs.
    """
    faults = []
    for stream in cached:
        had = stream.layout.augment
        difference = describe_difference({"augment": had}, {"augment": augment}) if had is not None else ""
        if difference:
            faults.append(
                f"the {stream.views - 1} augmented views of {stream.name} were cached with {difference}. "
                f"Build into another path, or drop it first: emofuse cache drop {path} {stream.name}"
            )
    if faults:
        raise StaleCacheError(" | ".join(faults))


def check_imported(path: Path, cached: Mapping[str, CachedStream], wanted: Iterable[ImportedSpec]) -> tuple[str, ...]:
    """Raises unless the imported streams of a spec are what it says, as far as the cache has them.

    Returns:
        Names of those that it does not have.

    Raises:
        StaleCacheError: a stream was extracted, or imported from another content; with everything that differs.
        IncompleteCacheError: an import was interrupted.
    """
    faults = []
    wanted = list(wanted)
    there = {spec.name: cached[spec.name] for spec in wanted if spec.name in cached}
    for spec in wanted:
        if spec.name in there:
            had = there[spec.name]
            found: Mapping[str, Any] = {"kind": had.kind, "content": had.identity.get("content", {})}
            content = found["content"] if spec.sha256 is None else {"sha256": spec.sha256}
            difference = describe_difference(found, {"kind": spec.kind, "content": content})
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
    """Raises if streams that no build can make are missing.

    Raises:
        CacheError: they are; with the command that imports them.
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


def _picture_fault(
    path: Path, cached: CachedStream, decode: Mapping[str, Any], face: Mapping[str, Any] | None
) -> str | None:
    if not cached.layout.decode:  # imported: emofuse decoded nothing for it
        return None
    both_look_at_faces = cached.layout.face is not None and face is not None
    had = {"decode": cached.layout.decode, "face": cached.layout.face if both_look_at_faces else {}}
    difference = describe_difference(had, {"decode": decode, "face": face if both_look_at_faces else {}})
    if not difference:
        return None
    return (
        f"{cached.name} was cached with {difference}, and all streams of a cache see the same pictures. "
        f"Build into another path, or drop it first: emofuse cache drop {path} {cached.name}"
    )
