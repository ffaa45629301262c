"""Write and discard the blocks of a cache. Any process may write any block of the streams that `structure` has made.

Of a block, the chunk of features is written first and that of the status last. Each file appears at once under its
name. A build that is killed at any moment therefore leaves only blocks that are done and blocks that are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from emofuse.cache.attempts import write_persistently
from emofuse.cache.layout import ArrayName, CacheLayout, StreamLayout, streams_dir
from emofuse.cache.metadata import read_cache_layout, read_stream_layout
from emofuse.cache.zarr_store import array_of
from emofuse.errors import CacheError
from emofuse.status import Status

_PLAIN_REASONS = {
    Status.NO_DETECTION: "nothing detected",
    Status.UNREADABLE: "unreadable",
    Status.FAILED: "failed",
}


def write_block(
    path: Path,
    stream: str,
    block: int,
    *,
    features: npt.NDArray[np.floating[Any]],
    status: npt.NDArray[np.uint8],
    flags: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8] | None = None,
    reasons: Sequence[str] | None = None,
    view: int = 0,
    layouts: Layouts | None = None,
) -> None:
    """Write one block of one view of one stream: features, mask, flags, reasons, then status, which marks it as done.

    Args:
        path: the path of the cache.
        stream: the name of the stream.
        block: the index of the block.
        features: the features of the n rows of this block, (n, *shape) of the stored dtype.
        status: the status of the rows, (n,) uint8 of `Status` without PENDING.
        flags: the flags of the rows, (n,) uint8; not stored for a stream without flags.
        mask: the steps of a sequence, (n, T) uint8 of `Step`; None for all else.
        reasons: n texts, why each row is not OK. Rows that are OK have "". For other rows with "", and for None, the
            status in words is stored.
        view: the number of the view.
        layouts: the layouts of the cache and the stream if they were read before; None to read them now.

    Raises:
        CacheError: there is no such stream, arrays do not fit it, or the file system refuses.
        UnwritableCacheError: the disk is full, or read-only.
    """
    cache, layout = layouts or read_layouts(path, stream)
    rows = cache.block_slice(block)
    count = rows.stop - rows.start
    values: dict[ArrayName, npt.NDArray[Any]] = {"features": features, "flags": flags, "status": status}
    if layout.is_sequence != (mask is not None):
        must = "a mask of its steps must" if layout.is_sequence else "no mask may"
        raise CacheError(
            f"{path}: block {block} of {stream!r}: {must} be given, its dimensions are {layout.dimensions}"
        )
    if mask is not None:
        values["mask"] = mask
    for array, of_rows in values.items():
        shape = (count, *layout.row_shape(array))
        dtype = layout.dtype if array == "features" else np.dtype(np.uint8)
        if of_rows.shape != shape or of_rows.dtype != dtype:
            raise CacheError(
                f"{path}: block {block} of {stream!r}: {array} must be {shape} {dtype}, "
                f"got {of_rows.shape} {of_rows.dtype}"
            )
    if (status == Status.PENDING).any():
        raise CacheError(f"{path}: block {block} of {stream!r}: status must not be PENDING in a block that is done")
    texts = _reason_texts([""] * count if reasons is None else reasons, status, f"{path}: block {block} of {stream!r}")
    stored: dict[ArrayName, npt.NDArray[Any]] = {**values, "reason": texts}
    for array in layout.arrays:
        target = _open_for_writing(path, layout, array, cache)
        write_persistently(partial(_write, target, (rows, view), stored[array]), f"{path}: block {block} of {stream!r}")


Layouts = tuple[CacheLayout, StreamLayout]


def read_layouts(path: Path, stream: str) -> Layouts:
    """Read the layouts of a cache and of one of its streams, which do not change while a build writes blocks.

    Raises:
        CacheError: there is no such cache or stream.
    """
    cache = read_cache_layout(path)
    layout = read_stream_layout(path, stream, check_arrays=False)
    if layout is None:
        raise CacheError(f"{path}: no stream {stream!r} to write to")
    return cache, layout


def read_layouts_once(path: Path, stream: str, build: str) -> Layouts:
    """Read the same layouts once in the process for each build, so that a worker does not read them for every block.

    Args:
        path: the path of the cache.
        stream: the name of the stream.
        build: the id of the build, which enlarges arrays before its first block; "" to read the layouts every time.

    Raises:
        CacheError: there is no such cache or stream.
    """
    return _read_once(path, stream, build) if build else read_layouts(path, stream)


@lru_cache(maxsize=64)
def _read_once(path: Path, stream: str, _build: str) -> Layouts:
    return read_layouts(path, stream)


def discard_blocks(path: Path, stream: str, blocks: Iterable[tuple[int, int]]) -> None:
    """Delete the chunks of some blocks, as if they had never been computed. Call it under `lock_cache`.

    The status is deleted first, so that an interruption leaves no block that counts as done.

    Args:
        path: the path of the cache.
        stream: the name of the stream.
        blocks: the (block, view) pairs.
    """
    cache, layout = read_layouts(path, stream)
    folder = streams_dir(path) / stream
    for block, view in blocks:
        for array in reversed(layout.arrays):
            for name in layout.chunk_names(array, block, view, cache):
                (folder / array / name).unlink(missing_ok=True)


def _write(target: zarr.Array[Any], place: tuple[slice, int], values: npt.NDArray[Any]) -> None:
    target[place] = values


def _reason_texts(reasons: Sequence[str], status: npt.NDArray[np.uint8], where: str) -> npt.NDArray[np.object_]:
    """Return (n,) str, a reason for every row that is not OK and "" for all others."""
    if len(reasons) != len(status):
        raise CacheError(f"{where}: reasons must be {len(status)} texts, got {len(reasons)}")
    texts = np.empty(len(status), dtype=object)
    for row, (text, code) in enumerate(zip(reasons, status.tolist(), strict=True)):
        if text and code == Status.OK:
            raise CacheError(f"{where}: row {row} of the block is OK and needs no reason, got {text!r}")
        texts[row] = text or ("" if code == Status.OK else _PLAIN_REASONS[Status(code)])
    return texts


def _open_for_writing(path: Path, layout: StreamLayout, array: ArrayName, cache: CacheLayout) -> zarr.Array[Any]:
    """Open an array that writes chunks of zeros too: `zarr.open_array` would omit them, and a block would seem lost.

    The layouts determine its metadata, so that no file is read for every block. A chunk of reasons that are all "" is
    omitted, and a former one is deleted.
    """
    folder = streams_dir(path) / layout.name / array
    return array_of(folder, layout.array_metadata(array, cache), write_empty_chunks=array != "reason")
