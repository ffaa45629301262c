"""Reads what a cache says of itself: attributes of its groups and the manifest beside it. No arrays are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from emofuse.cache.layout import (
    ATTRIBUTE,
    IMPORTED,
    READABLE_FORMATS,
    CacheLayout,
    StreamLayout,
    manifest_path,
    streams_dir,
)
from emofuse.cache.zarr_store import open_array
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError, DatasetError


def read_cache_layout(path: Path) -> CacheLayout:
    """The root group's attributes.

    Raises:
        CacheError: no cache there, of another format, or damaged.
    """
    own = read_attributes(path)
    if own is None:
        what = "no such cache" if not path.exists() else "not a feature cache of emofuse"
        raise CacheError(f"{path}: {what}. Make one with: emofuse cache build")
    if own.get("format") not in READABLE_FORMATS:
        readable = f"{', '.join(map(str, READABLE_FORMATS[:-1]))} and {READABLE_FORMATS[-1]}"
        raise CacheError(
            f"{path}: cache format {own.get('format')}, this emofuse reads formats {readable}. "
            "Build it again at another path, or use the emofuse that wrote it."
        )
    try:
        return CacheLayout(own["rows"], own["block_rows"], own["ids_digest"], own["created"], own["format"])
    except KeyError as error:
        raise CacheError(
            f"{path / 'zarr.json'}: damaged, {error} is missing. Build the cache again at another path."
        ) from None


def read_manifest(path: Path, layout: CacheLayout) -> Manifest:
    """The manifest beside a cache.

    Raises:
        CacheError: missing, damaged, or of other samples than the cache.
    """
    beside = manifest_path(path)
    if not beside.is_file():
        raise CacheError(
            f"{path}: its manifest {beside.name} is missing. Put it back beside the cache, or run the build again."
        )
    try:
        manifest = Manifest.read(beside)
    except (DatasetError, pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise CacheError(f"{beside}: damaged ({error}). Run the same build again to have it written anew.") from error
    if len(manifest) > layout.rows and manifest.head(layout.rows).ids_digest == layout.ids_digest:
        manifest = manifest.head(layout.rows)  # a build was killed while it made room for more rows
    if manifest.ids_digest != layout.ids_digest:
        raise CacheError(
            f"{beside}: not the manifest of {path.name}, its {len(manifest)} sample ids are not those of the cache's "
            f"{layout.rows} rows. Put the right one back, or run the build again."
        )
    return manifest


def stream_names(path: Path) -> list[str]:
    """Names of the folders of streams in a cache, readable or not, in alphabetical order."""
    folder = streams_dir(path)
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def extracted_streams(path: Path) -> list[str]:
    """Names of the streams that a build makes, as against imported ones."""
    found = {name: read_attributes(streams_dir(path) / name) for name in stream_names(path)}
    return [name for name, own in found.items() if own is not None and own.get("kind") != IMPORTED]


def read_stream_layout(path: Path, name: str, *, check_arrays: bool = True) -> StreamLayout | None:
    """One stream of a cache; None if the cache has none of this name, or only one whose creation was not finished.

    Args:
        path: of the cache.
        name: of the stream.
        check_arrays: read the metadata of its arrays too, which costs a request each on a store.

    Raises:
        CacheError: its metadata is damaged.
    """
    folder = streams_dir(path) / name
    own = read_attributes(folder)
    if own is None:
        return None
    try:
        layout = parse_stream_layout(folder, own)
        for array in layout.arrays if check_arrays else ():
            open_array(folder / array)
    except (KeyError, IndexError, ValueError, TypeError, OSError) as error:
        raise CacheError(f"{folder}: damaged ({error}). Mend it with: emofuse cache repair {path}") from error
    return layout


def parse_stream_layout(folder: Path, own: Mapping[str, Any]) -> StreamLayout:
    """A stream's layout from its folder and the attributes of its group.

    Raises:
        KeyError, TypeError, ValueError, OSError: they are not those of a stream.
    """
    if "dim" not in own and "shape" not in own:  # format 1 left it to the features to say their shape and type
        features = open_array(folder / "features")
        own = {"views": features.shape[1], "dim": features.shape[2], "dtype": features.dtype.name, **own}
    return StreamLayout(
        name=folder.name,
        kind=own["kind"],
        shape=tuple(own["shape"]) if "shape" in own else (own["dim"],),
        dimensions=tuple(own.get("dimensions", ("feature",))),
        dtype=np.dtype(own["dtype"]),
        identity=own["identity"],
        weights=own["weights"],
        flag_names=tuple(own["flag_names"]),
        columns=tuple(own["columns"]),
        spec=own["spec"],
        decode=own["decode"],
        face=own["face"],
        views=own["views"],
        augment=own.get("augment"),
        keeps_reasons=own.get("keeps_reasons", False),
    )


def read_attributes(group: Path) -> dict[str, Any] | None:
    """The attributes that emofuse keeps in a Zarr group, None where there are none."""
    file = group / "zarr.json"
    try:
        own = json.loads(file.read_text(encoding="utf-8"))["attributes"].get(ATTRIBUTE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, AttributeError) as error:
        raise CacheError(f"{file}: damaged ({error})") from error
    return own if isinstance(own, dict) else None
