"""Read the metadata of a cache: the attributes of its groups and the manifest beside it. No chunks are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
from emofuse.errors import CacheError, DatasetError

if TYPE_CHECKING:
    from emofuse.datasets.manifest import Manifest


def read_cache_layout(path: Path) -> CacheLayout:
    """Read the root group's attributes.

    Raises:
        CacheError: there is no cache, or it is damaged or of another format.
    """
    attributes = read_attributes(path)
    if attributes is None:
        what = "no such cache" if not path.exists() else "not a feature cache of emofuse"
        raise CacheError(f"{path}: {what}. Make one with: emofuse cache build")
    if attributes.get("format") not in READABLE_FORMATS:
        readable = f"{', '.join(map(str, READABLE_FORMATS[:-1]))} and {READABLE_FORMATS[-1]}"
        raise CacheError(
            f"{path}: cache format {attributes.get('format')}, this emofuse reads formats {readable}. "
            "Build it again at another path, or use the emofuse that wrote it."
        )
    try:
        return CacheLayout(**{field.name: attributes[field.name] for field in fields(CacheLayout)})
    except KeyError as error:
        raise CacheError(
            f"{path / 'zarr.json'}: damaged, {error} is missing. Build the cache again at another path."
        ) from None


def read_manifest(path: Path, layout: CacheLayout) -> Manifest:
    """Read the manifest beside a cache.

    Raises:
        CacheError: the manifest is missing, damaged, or of other samples than the cache.
    """
    import polars as pl  # not by extraction processes, which read no manifest

    from emofuse.datasets.manifest import Manifest

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
        manifest = manifest.head(layout.rows)  # a build was killed while it added rows
    if manifest.ids_digest != layout.ids_digest:
        raise CacheError(
            f"{beside}: not the manifest of {path.name}, its {len(manifest)} sample ids are not those of the cache's "
            f"{layout.rows} rows. Put the right one back, or run the build again."
        )
    return manifest


def stream_names(path: Path) -> list[str]:
    """Return the names of the folders of streams in a cache, readable or not, in alphabetical order."""
    folder = streams_dir(path)
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def extracted_streams(path: Path) -> list[str]:
    """Return the names of the streams that a build makes, which leaves out imported ones."""
    groups = {name: read_attributes(streams_dir(path) / name) for name in stream_names(path)}
    return [name for name, group in groups.items() if group is not None and group.get("kind") != IMPORTED]


def read_stream_layout(path: Path, name: str, *, check_arrays: bool = True) -> StreamLayout | None:
    """Read the layout of one stream; None if the cache has none of this name, or an unfinished one.

    Args:
        path: the path of the cache.
        name: the name of the stream.
        check_arrays: whether the metadata of its arrays is read too, which costs a request each on a store.

    Raises:
        CacheError: the metadata of the stream is damaged.
    """
    folder = streams_dir(path) / name
    attributes = read_attributes(folder)
    if attributes is None:
        return None
    try:
        layout = parse_stream_layout(folder, attributes)
        if check_arrays:
            layout = replace(layout, runtimes=tuple(sorted({*layout.runtimes, *noted_runtimes(folder)})))
            for array in layout.arrays:
                open_array(folder / array)
    except (KeyError, IndexError, ValueError, TypeError, OSError) as error:
        raise CacheError(f"{folder}: damaged ({error}). Repair it with: emofuse cache repair {path}") from error
    return layout


RUNTIME_NOTES = ".runtimes"
"""The folder of a stream with an empty file for each runtime that is not yet in its attributes (see `runtimes`)."""


def noted_runtimes(folder: Path) -> list[str]:
    """Return what a build has noted of a stream and not yet recorded: it runs, or was killed."""
    try:
        return sorted(each.name for each in (folder / RUNTIME_NOTES).iterdir())
    except OSError:
        return []  # there is no such folder


def parse_stream_layout(folder: Path, attributes: Mapping[str, Any]) -> StreamLayout:
    """Return a stream's layout from its folder and the attributes of its group.

    Raises:
        KeyError, TypeError, ValueError, OSError: they are not those of a stream.
    """
    if "dim" not in attributes and "shape" not in attributes:  # format 1 stored shape and type with the features only
        features = open_array(folder / "features")
        stored = {"views": features.shape[1], "dim": features.shape[2], "dtype": features.dtype.name}
        attributes = {**stored, **attributes}
    return StreamLayout(
        name=folder.name,
        kind=attributes["kind"],
        shape=tuple(attributes["shape"]) if "shape" in attributes else (attributes["dim"],),
        dimensions=tuple(attributes.get("dimensions", ("feature",))),
        dtype=np.dtype(attributes["dtype"]),
        identity=attributes["identity"],
        weights=attributes["weights"],
        flag_names=tuple(attributes["flag_names"]),
        columns=tuple(attributes["columns"]),
        spec=attributes["spec"],
        decode=attributes["decode"],
        face=attributes["face"],
        views=attributes["views"],
        augment=attributes.get("augment"),
        keeps_reasons=attributes.get("keeps_reasons", False),
        runtimes=tuple(attributes.get("runtimes", ())),
    )


def read_attributes(group: Path) -> dict[str, Any] | None:
    """Read the attributes that emofuse keeps in a Zarr group, None if there are none."""
    file = group / "zarr.json"
    try:
        attributes = json.loads(file.read_text(encoding="utf-8"))["attributes"].get(ATTRIBUTE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, AttributeError) as error:
        raise CacheError(f"{file}: damaged ({error})") from error
    return attributes if isinstance(attributes, dict) else None
