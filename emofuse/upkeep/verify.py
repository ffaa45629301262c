"""The verification of every byte of a cache: metadata, manifest, and each chunk of each block.

Chunks are checked against their checksums, metadata against its own checksum and against the metadata that emofuse
writes, and statuses against the features and reasons of their rows. Nothing is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.cache.cached_stream import CHUNK_ERRORS
from emofuse.cache.layout import (
    ATTRIBUTE,
    CHECKSUM,
    ArrayName,
    CacheLayout,
    StreamLayout,
    is_sealed,
    streams_dir,
)
from emofuse.cache.metadata import (
    parse_stream_layout,
    read_cache_layout,
    read_manifest,
    read_stream_layout,
    stream_names,
)
from emofuse.cache.zarr_store import open_array
from emofuse.errors import CacheError
from emofuse.status import Status, Step
from emofuse.stores import file_sizes

OnBlock = Callable[[int, int], None]
"""Called after every block with the number of blocks checked so far and the number of all blocks."""

_SEALED_FORMAT = 2  # the first with checksums of metadata


class FaultKind(StrEnum):
    """The part of a cache that a fault is in, which decides how it can be repaired."""

    ROOT = "metadata of the root"
    MANIFEST = "manifest"
    STREAMS_GROUP = "metadata of the group of streams"
    STREAM = "metadata of a stream"
    ARRAY = "metadata of an array"
    BLOCK = "block"


@dataclass(frozen=True)
class Fault:
    """A fault of a cache.

    Attributes:
        kind: the part of the cache that the fault is in.
        what: a description without the place.
        stream: the name of the stream, "" for a fault outside of all streams.
        array: the array whose metadata or chunk it is, None for other faults.
        block: the number of the block, None for a fault of metadata.
        view: the view of the block.
        rows: the first and last row of the chunk, or the first wrong row twice; None for a fault of metadata.
    """

    kind: FaultKind
    what: str
    stream: str = ""
    array: ArrayName | None = None
    block: int | None = None
    view: int = 0
    rows: tuple[int, int] | None = None

    def __str__(self) -> str:
        place = [self.stream] if self.stream else []
        if self.block is not None:
            place.append(f"block {self.block}" + (f" view {self.view}" if self.view else ""))
        if self.rows is not None:
            first, last = self.rows
            place.append(f"rows {first}-{last}" if last > first else f"row {first}")
        return f"{' '.join(place)}: {self.what}" if place else self.what


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        faults: all faults; only the first one of each block and view.
        blocks: the number of blocks that were read, once for each stream and view.
        lacking: stream -> number of blocks that are not computed yet, once for each view; without complete streams.
    """

    faults: tuple[Fault, ...]
    blocks: int
    lacking: Mapping[str, int]

    def bad_blocks(self) -> dict[str, list[tuple[int, int]]]:
        """Return stream -> (block, view) of every block that must be computed again."""
        bad: dict[str, list[tuple[int, int]]] = {}
        for fault in self.faults:
            if fault.block is not None:
                bad.setdefault(fault.stream, []).append((fault.block, fault.view))
        return bad


def verify_cache(path: Path, on_block: OnBlock | None = None) -> Verification:
    """Read a whole cache and return its faults.

    Args:
        path: the path of the cache.
        on_block: receives the progress of the check.

    Raises:
        CacheError: there is no cache at the path.
        StoreError: its store does not answer.
    """
    if not (path / "zarr.json").is_file() and not streams_dir(path).is_dir():
        read_cache_layout(path)  # raises: there is no cache
    try:
        cache = _check_root(path)
    except CacheError as error:  # without rows and blocks nothing else can be checked
        return Verification((Fault(FaultKind.ROOT, f"zarr.json: {error}"),), 0, {})
    faults = [*_manifest_faults(path, cache), *_streams_group_faults(path)]
    layouts: list[StreamLayout] = []
    for name in stream_names(path):
        of_stream = list(_stream_faults(path, cache, name))
        faults += of_stream
        layout = None if of_stream else read_stream_layout(path, name)
        if layout is not None:
            layouts.append(layout)
    total = sum(cache.blocks * layout.views for layout in layouts)
    done = 0
    lacking: dict[str, int] = {}
    for layout in layouts:
        blocks = _Blocks(path, cache, layout)
        for block, view in np.ndindex(cache.blocks, layout.views):
            if blocks.is_done(block, view):
                faults += blocks.faults(block, view)
            else:
                lacking[layout.name] = lacking.get(layout.name, 0) + 1
            done += 1
            if on_block is not None:
                on_block(done, total)
    return Verification(tuple(faults), done - sum(lacking.values()), lacking)


def _check_root(path: Path) -> CacheLayout:
    attributes = _group_attributes(path / "zarr.json")
    if CHECKSUM in attributes or attributes.get("format") != 1:
        _check_sealed(attributes)
    cache = read_cache_layout(path)
    try:
        datetime.fromisoformat(cache.created)
    except (TypeError, ValueError) as error:
        raise CacheError(f"damaged, created is no time ({error})") from None
    return cache


def _manifest_faults(path: Path, cache: CacheLayout) -> Iterator[Fault]:
    try:
        read_manifest(path, cache)
    except CacheError as error:
        yield Fault(FaultKind.MANIFEST, str(error))


def _streams_group_faults(path: Path) -> Iterator[Fault]:
    if stream_names(path):
        try:
            _group_attributes(streams_dir(path) / "zarr.json")
        except CacheError as error:
            yield Fault(FaultKind.STREAMS_GROUP, f"streams/zarr.json: {error}")


def _stream_faults(path: Path, cache: CacheLayout, name: str) -> Iterator[Fault]:
    """Yield the faults of the metadata of a stream and its arrays."""
    folder = streams_dir(path) / name
    try:
        attributes = _group_attributes(folder / "zarr.json")
        if CHECKSUM in attributes or cache.format >= _SEALED_FORMAT:
            _check_sealed(attributes)
        layout = parse_stream_layout(folder, attributes)
    except (CacheError, KeyError, TypeError, ValueError, OSError) as error:
        yield Fault(FaultKind.STREAM, f"zarr.json: {error}", name)
        return
    if attributes["digest"] != layout.digest:
        yield Fault(FaultKind.STREAM, "zarr.json: its digest is not that of its identity", name)
    for array in layout.arrays:
        try:
            metadata = json.loads((folder / array / "zarr.json").read_bytes())
        except (OSError, ValueError) as error:
            yield Fault(FaultKind.ARRAY, f"{array}/zarr.json: damaged ({error})", name, array)
            continue
        what = _difference(metadata, layout.array_metadata(array, cache))
        if what:
            yield Fault(FaultKind.ARRAY, f"{array}/zarr.json: {what}", name, array)


def _difference(actual: Any, expected: Mapping[str, Any]) -> str:
    """Return the first difference of array metadata, or ""; other releases of Zarr may write additional entries."""
    for key, value in expected.items():
        if not isinstance(actual, dict) or key not in actual:
            return f"{key} is missing"
        if not _contains(actual[key], value):
            return f"{key} must be {json.dumps(value)}, found {json.dumps(actual[key])[:200]}"
    return ""


def _contains(actual: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            key in actual and _contains(actual[key], value) for key, value in expected.items()
        )
    if isinstance(expected, list):
        pairs = zip(actual, expected, strict=False) if isinstance(actual, list) else ()
        return isinstance(actual, list) and len(actual) == len(expected) and all(_contains(*pair) for pair in pairs)
    return isinstance(actual, bool) == isinstance(expected, bool) and bool(actual == expected)


def _group_attributes(file: Path) -> dict[str, Any]:
    """Return emofuse's attributes of a group, {} if it has none.

    Raises:
        CacheError: the file cannot be read, or is not the metadata of a group.
    """
    try:
        metadata = json.loads(file.read_bytes())
        is_group = (metadata["zarr_format"], metadata["node_type"]) == (3, "group")
        attributes = metadata["attributes"].get(ATTRIBUTE, {})
    except FileNotFoundError:
        raise CacheError(f"{file.parent.name}/{file.name} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheError(f"damaged ({error!r})") from error
    if not is_group or not isinstance(attributes, dict):
        raise CacheError("damaged, it is not that of a Zarr group")
    return attributes


def _check_sealed(attributes: Mapping[str, Any]) -> None:
    if not is_sealed(attributes):
        raise CacheError("damaged, its checksum does not fit")


class _Blocks:
    """The blocks of one stream."""

    def __init__(self, path: Path, cache: CacheLayout, layout: StreamLayout) -> None:
        folder = streams_dir(path) / layout.name
        self._cache = cache
        self._layout = layout
        self._files = file_sizes(folder)
        self._arrays = {array: open_array(folder / array) for array in layout.arrays}

    def is_done(self, block: int, view: int) -> bool:
        """Return whether the block has a status chunk, which is written last."""
        return f"status/{self._layout.chunk_name('status', block, view)}" in self._files

    def faults(self, block: int, view: int) -> Iterator[Fault]:
        """Yield the first fault of a block that is done, if it has one."""
        rows = self._cache.block_slice(block)
        read: dict[ArrayName, npt.NDArray[Any]] = {}
        for array in self._layout.arrays:
            parts: list[npt.NDArray[Any]] = []
            size = self._layout.chunk_rows(array, self._cache.block_rows)
            for chunk in self._layout.chunks_of_block(array, block, self._cache):
                of_chunk = slice(chunk * size, min((chunk + 1) * size, rows.stop))
                name = f"{array}/{self._layout.chunk_name(array, chunk, view)}"
                what = self._length_fault(name, array)
                if what is None:
                    try:
                        parts.append(np.asarray(self._arrays[array][of_chunk, view]))
                    except CHUNK_ERRORS as error:
                        what = f"damaged ({' '.join(str(error).split())[:200]})"
                if what is not None:
                    place = (of_chunk.start, of_chunk.stop - 1)
                    yield Fault(FaultKind.BLOCK, f"{name}: {what}", self._layout.name, array, block, view, place)
                    return
            read[array] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        for row, what, array in _value_faults(read, len(self._layout.flag_names)):
            at = rows.start + row
            yield Fault(FaultKind.BLOCK, what, self._layout.name, array, block, view, (at, at))
            return

    def _length_fault(self, name: str, array: ArrayName) -> str | None:
        """Return the fault of a chunk file's length, or None. Chunks of reasons may have any length or be missing."""
        if array == "reason":
            return None
        if name not in self._files:
            return "missing"
        expected = self._layout.chunk_bytes(array, self._cache.block_rows)
        return None if self._files[name] == expected else f"{self._files[name]} bytes, must be {expected}"


def _value_faults(read: Mapping[ArrayName, npt.NDArray[Any]], flag_names: int) -> Iterator[tuple[int, str, ArrayName]]:
    """Yield (row of the block, description, array) of the first row of each kind of contradiction."""
    status, features = read["status"], read["features"]
    ok = status == Status.OK
    inner = tuple(range(1, features.ndim))
    kinds: list[tuple[npt.NDArray[np.bool_], str, ArrayName]] = [
        (~np.isin(status, [each for each in Status if each != Status.PENDING]), "a status that is none", "status"),
        (ok & ~np.isfinite(features).all(axis=inner), "its features are not finite", "features"),
        (~ok & features.any(axis=inner), "it is not OK and its features are not zero", "features"),
    ]
    if "mask" in read:
        mask = read["mask"]
        has_steps = (mask == Step.OK).any(axis=1)
        stray = (features.reshape(*mask.shape, -1).any(axis=2) & (mask != Step.OK)).any(axis=1)
        kinds += [
            (~np.isin(mask, list(Step)).all(axis=1), "a step of its mask that is none", "mask"),
            (ok & ~has_steps, "it is OK and none of its steps is", "mask"),
            (~ok & has_steps, "it is not OK and some of its steps are", "mask"),
            (stray, "its features are not zero at a step that is not OK", "features"),
        ]
    if "flags" in read:
        kinds.append((read["flags"] >> flag_names > 0, "it has flags without a name", "flags"))
    if "reason" in read:
        has_reason = np.array([bool(text) for text in read["reason"]], dtype=np.bool_)
        kinds.append((ok & has_reason, "it is OK and has a reason not to be", "reason"))
        kinds.append((~ok & ~has_reason, "it is not OK and has no reason", "reason"))
    for where, what, array in kinds:
        if where.any():
            yield int(np.flatnonzero(where)[0]), what, array
