"""Make caches and streams, add views, and drop streams. Only one process at a time may: see `lock_cache`."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, VLenUTF8Codec
from zarr.dtype import VariableLengthUTF8

from emofuse.cache.attempts import writing
from emofuse.cache.cached_stream import read_stream
from emofuse.cache.layout import (
    FORMAT,
    SHAPES_FORMAT,
    ArrayName,
    CacheLayout,
    StreamLayout,
    manifest_path,
    streams_dir,
)
from emofuse.cache.lease import hold_lease
from emofuse.cache.lock import hold_lock
from emofuse.cache.metadata import read_cache_layout, read_manifest, read_stream_layout, stream_names
from emofuse.cache.stale import check_block_rows, check_manifest, check_streams
from emofuse.cache.zarr_store import create_group, open_array, update_group, zarr_store
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError, UnwritableCacheError, did_you_mean
from emofuse.stores import PARTIAL_SUFFIX, is_remote, partials, remove_tree

_UNFINISHED = ".new-"
_DROPPED = ".dropped-"


@contextlib.contextmanager
def lock_cache(path: Path) -> Iterator[None]:
    """Hold a cache for one build at a time, at most until the process ends (see `lock`, and `lease` for stores).

    Raises:
        CacheError: another build holds it.
        UnwritableCacheError: its folder cannot be written.
    """
    with hold_lease(path) if is_remote(path) else hold_lock(path):
        yield


def check_writable(path: Path) -> None:
    """Raise before hours of work if the blocks of a cache could not be written; stores are not checked.

    Raises:
        UnwritableCacheError: the disk is full, or read-only.
    """
    if is_remote(path):
        return
    with writing(str(path)):
        probe = path / f".writable{PARTIAL_SUFFIX}"
        probe.write_bytes(b"?")
        probe.unlink()
    for folder in streams_dir(path).glob("*/*/"):
        if not os.access(folder, os.W_OK):
            raise UnwritableCacheError(f"{folder} cannot be written: it is read-only.")


def create_cache(path: Path, manifest: Manifest, *, block_rows: int) -> CacheLayout:
    """Make an empty cache and its manifest, or check that the existing one belongs to the same samples.

    An existing cache keeps its arrays. Its manifest is replaced if labels, splits, paths or attributes changed, and
    unfinished files of a killed build are removed. Call it under `lock_cache`.

    Raises:
        CacheError: something else is at the path, or the manifest has no rows.
        StaleCacheError: the cache is of other samples or has blocks of another size.
    """
    if len(manifest) == 0:
        raise CacheError(f"{path}: a cache of no rows cannot be made; the dataset is empty")
    if (path / "zarr.json").is_file():
        layout = read_cache_layout(path)
        check_manifest(path, layout, manifest)
        check_block_rows(path, layout, block_rows)
        _remove_leftovers(path)
        if not is_current(path, manifest):
            manifest.write(manifest_path(path))
        return layout
    _remove_leftovers(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CacheError(f"{path}: not empty and not a cache of emofuse. Choose another path for the cache.")
    layout = CacheLayout(
        rows=len(manifest),
        block_rows=block_rows,
        ids_digest=manifest.ids_digest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path.mkdir(parents=True, exist_ok=True)
    manifest.write(manifest_path(path))
    create_group(path, layout.to_attributes())
    return layout


def add_stream(path: Path, layout: StreamLayout) -> None:
    """Add an empty stream to a cache, or check that the stream of this name is the same. Other streams do not change.

    The stream appears under its name at once and whole. Call it under `lock_cache`.

    Raises:
        CacheError: there is no cache, or the stream's shape or type changed without a change of its version.
        StaleCacheError: a stream of this name was made from another spec.
    """
    cache = read_cache_layout(path)
    cached = read_stream(path, cache, layout.name)
    if cached is not None:
        check_streams(path, [cached], {layout.name: layout.identity}, layout.decode, layout.face)
        if _form(cached.layout) != _form(layout):
            raise CacheError(
                f"{layout.name} was cached with {_form(cached.layout)}, its code now gives {_form(layout)}. "
                f"Raise the stream's version, then drop it: emofuse cache drop {path} {layout.name}"
            )
        return
    if not layout.is_vector and cache.format == FORMAT:
        # The format comes first: a release without shapes must refuse the cache, not take such a stream for damaged.
        cache = replace(cache, format=SHAPES_FORMAT)
        update_group(path, cache.to_attributes())
    _remove_stream_folder(path, layout.name)
    folder = streams_dir(path) / layout.name
    # A store cannot rename: there the attributes of the group, which come last, make the stream appear.
    unfinished = folder if is_remote(path) else streams_dir(path) / (_UNFINISHED + layout.name)
    remove_tree(unfinished)
    for array in layout.arrays:
        create_array(unfinished / array, layout, array, cache)
    if not (streams_dir(path) / "zarr.json").is_file():
        create_group(streams_dir(path))
    create_group(unfinished, layout.to_attributes())
    if unfinished != folder:
        unfinished.rename(folder)


def _form(layout: StreamLayout) -> str:
    """Return shape, dimensions and type of a stream in words."""
    if layout.is_vector:
        return f"{layout.dim} values of {layout.dtype}"
    axes = zip(layout.dimensions, layout.shape, strict=True)
    return f"{' x '.join(f'{name} {size}' for name, size in axes)} values of {layout.dtype}"


def create_array(folder: Path, layout: StreamLayout, array: ArrayName, cache: CacheLayout) -> None:
    """Write the metadata of one array of a stream; chunks that are in its folder already become its chunks."""
    is_text = array == "reason"
    zarr.create_array(
        zarr_store(folder),
        shape=layout.array_shape(array, cache.rows),
        chunks=layout.chunk_shape(array, cache.block_rows),
        dtype=VariableLengthUTF8() if is_text else layout.array_dtype(array),
        filters=None,
        serializer=VLenUTF8Codec() if is_text else BytesCodec(endian="little" if array == "features" else None),
        compressors=[Crc32cCodec()],
        fill_value="" if is_text else 0,
        zarr_format=3,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=layout.dimension_names(array),
    )


def add_views(path: Path, stream: str, views: int, augment: Mapping[str, Any]) -> None:
    """Enlarge the arrays of a stream for more views; existing views stay. Call it under `lock_cache`.

    Args:
        path: the path of the cache.
        stream: the name of the stream.
        views: the new number of views; nothing happens if the stream has as many.
        augment: the drawing of the views, plain JSON.

    Raises:
        CacheError: no such stream.
    """
    cache = read_cache_layout(path)
    cached = read_stream_layout(path, stream)
    if cached is None:
        raise CacheError(f"{path}: no stream {stream!r} to add views to")
    if cached.views >= views:
        return
    wider = replace(cached, views=views, augment=augment)
    folder = streams_dir(path) / stream
    for array in wider.arrays:
        open_array(folder / array, "r+").resize(wider.array_shape(array, cache.rows))
    # The attributes come last, for they have the number of views. Larger arrays of a killed build are not read whole.
    update_group(folder, wider.to_attributes())


def update_origin(path: Path, name: str, *, spec: Mapping[str, Any], weights: Mapping[str, Any] | None) -> None:
    """Record the present origin of a stream: a spec may name its weights anew as long as they have the same bytes.

    Nothing is written if nothing changed. Call it under `lock_cache`.
    """
    cached = read_stream_layout(path, name)
    if cached is None or (cached.spec, cached.weights) == (spec, weights):
        return
    update_group(streams_dir(path) / name, replace(cached, spec=spec, weights=weights).to_attributes())


def check_stream_exists(path: Path, stream: str) -> None:
    """Raise unless a cache has a folder of this stream, readable or not.

    Raises:
        CacheError: no such cache or stream.
    """
    read_cache_layout(path)
    names = stream_names(path)
    if stream not in names:
        there = ", ".join(names) or "none"
        raise CacheError(f"{path}: no stream {stream!r}{did_you_mean(stream, names)} (there are: {there})")


def drop_stream(path: Path, stream: str) -> None:
    """Remove one stream, readable or not.

    Raises:
        CacheError: no such cache or stream, or a build is writing the cache.
    """
    check_stream_exists(path, stream)
    with lock_cache(path):
        _remove_stream_folder(path, stream)


def _remove_stream_folder(path: Path, stream: str) -> None:
    """Rename a stream's folder in one step, then delete it; nothing happens if there is none."""
    folder = streams_dir(path) / stream
    if is_remote(folder):
        (folder / "zarr.json").unlink(missing_ok=True)  # without its attributes the stream is gone
        remove_tree(folder)
    elif folder.is_dir():
        dropped = folder.with_name(_DROPPED + stream)
        remove_tree(dropped)
        folder.rename(dropped)
        shutil.rmtree(dropped)


def is_current(path: Path, manifest: Manifest) -> bool:
    """Return whether the manifest beside the cache is already this one."""
    try:
        return read_manifest(path, read_cache_layout(path)).equals(manifest)
    except CacheError:
        return False  # it is missing, damaged or of other samples


def _remove_leftovers(path: Path) -> None:
    """Delete the remains of killed builds: parts of files, and streams that are not finished or not deleted yet.

    On a store there is none: objects appear whole and under their names.
    """
    if is_remote(path):
        return
    for file in [*partials(manifest_path(path)), *path.rglob(f"*{PARTIAL_SUFFIX}")]:
        file.unlink(missing_ok=True)
    for prefix in (_UNFINISHED, _DROPPED):
        for folder in streams_dir(path).glob(prefix + "*"):
            shutil.rmtree(folder)
