"""The restoration of damaged metadata that follows from the rest of the cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from emofuse.cache.layout import FORMAT, SHAPES_FORMAT, ArrayName, CacheLayout, manifest_path, streams_dir
from emofuse.cache.metadata import parse_stream_layout, read_attributes, read_cache_layout, stream_names
from emofuse.cache.structure import create_array
from emofuse.cache.zarr_store import create_group
from emofuse.datasets.manifest import Manifest
from emofuse.errors import DatasetError
from emofuse.upkeep.verify import Fault, FaultKind


def restore_metadata(path: Path, faults: Sequence[Fault]) -> list[str]:
    """Write metadata again that follows from the rest of the cache. Call it under `lock_cache`.

    The metadata of an array follows from its stream, and that of the root from the manifest and any array. The time of
    creation is lost and becomes now. The attributes of a stream and the manifest cannot be restored.

    Args:
        path: the path of the cache.
        faults: the faults that `verify_cache` found.

    Returns:
        The names of the files that were written.
    """
    written = []
    for fault in faults:
        match fault.kind, fault.array:
            case FaultKind.ROOT, _:
                name = _restore_root(path)
            case FaultKind.STREAMS_GROUP, _:
                name = _restore_streams_group(path)
            case FaultKind.ARRAY, str(array):
                name = _restore_array(path, fault.stream, array)
            case _:
                name = None
        if name is not None:
            written.append(name)
    return written


def _restore_array(path: Path, stream: str, array: ArrayName) -> str:
    folder = streams_dir(path) / stream
    layout = parse_stream_layout(folder, read_attributes(folder) or {})
    (folder / array / "zarr.json").unlink(missing_ok=True)
    create_array(folder / array, layout, array, read_cache_layout(path))
    return f"streams/{stream}/{array}/zarr.json"


def _restore_streams_group(path: Path) -> str:
    (streams_dir(path) / "zarr.json").unlink(missing_ok=True)
    create_group(streams_dir(path))
    return "streams/zarr.json"


def _restore_root(path: Path) -> str | None:
    block_rows = _block_rows(path)
    try:
        manifest = Manifest.read(manifest_path(path))
    except (DatasetError, pl.exceptions.PolarsError, OSError, ValueError):
        return None
    if block_rows is None:
        return None
    created = datetime.now(UTC).isoformat(timespec="seconds")
    layout = CacheLayout(len(manifest), block_rows, manifest.ids_digest, created, _format(path))
    (path / "zarr.json").unlink(missing_ok=True)
    create_group(path, layout.to_attributes())
    return "zarr.json"


def _format(path: Path) -> int:
    """Return the format of the cache: 1 if a stream is of format 1, 3 if one has another shape than a vector."""
    attributes = [read_attributes(streams_dir(path) / name) or {} for name in stream_names(path)]
    if not all("keeps_reasons" in of_stream for of_stream in attributes):
        return 1
    return SHAPES_FORMAT if any("shape" in of_stream for of_stream in attributes) else FORMAT


def _block_rows(path: Path) -> int | None:
    """Return the rows of a block according to the first readable status array, or None."""
    for name in stream_names(path):
        try:
            metadata = json.loads((streams_dir(path) / name / "status" / "zarr.json").read_bytes())
            return int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue
    return None
