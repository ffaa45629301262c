"""What makes a cache stale: other samples, other blocks, or streams made from another spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emofuse.cache.layout import CacheLayout, describe_difference, manifest_path
from emofuse.cache.reader import CachedStream, read_manifest
from emofuse.datasets.manifest import Manifest
from emofuse.errors import StaleCacheError


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


def check_same_stream(path: Path, cached: CachedStream, identity: Mapping[str, Any]) -> None:
    """Raises unless a cached stream was made from this identity.

    Raises:
        StaleCacheError: with what differs.
    """
    difference = describe_difference(cached.identity, identity)
    if difference:
        raise StaleCacheError(
            f"{cached.name} was cached with {difference}. "
            f"Build it under another name, or drop it first: emofuse cache drop {path} {cached.name}"
        )
