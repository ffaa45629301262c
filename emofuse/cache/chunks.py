"""Read chunks of numbers directly into the resulting array.

The layout determines what a chunk file holds: the rows of a block, little-endian, followed by their CRC32C. A chunk is
read into its place in the result, or into a small buffer from which it is widened to float32. There are no other
copies. Zarr reads the same numbers; `benchmarks/read_speed.py` measures the difference in time.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.cache.layout import CHECKSUM_BYTES, ArrayName, CacheLayout, StreamLayout, streams_dir
from emofuse.checksum import crc32c
from emofuse.stores import as_path, is_remote

_REMOTE_THREADS = 16
_LOCAL_THREADS = 4
_THREADED_BYTES = 4_000_000  # fewer bytes are read in less time than threads take to start


class DamagedChunkError(Exception):
    """A chunk file is not what was written.

    Attributes:
        file: the chunk file.
        block: the index of its block.
    """

    def __init__(self, file: Path, block: int, cause: str) -> None:
        super().__init__(cause)
        self.file = file
        self.block = block


@dataclass(frozen=True)
class ChunkedArray:
    """The features, mask, flags or status of one stream.

    Attributes:
        cache: the path of the cache.
        rows: the rows and blocks of the cache.
        stream: the layout of the stream.
        array: the name of the array.
    """

    cache: Path
    rows: CacheLayout
    stream: StreamLayout
    array: ArrayName

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the stored type."""
        return self.stream.array_dtype(self.array)

    @property
    def _row_shape(self) -> tuple[int, ...]:
        return self.stream.row_shape(self.array)

    @property
    def _chunk_rows(self) -> int:
        return self.stream.chunk_rows(self.array, self.rows.block_rows)

    def read(self, view: int, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
        """Read all rows of one view, (N, ...); zeros where there is no chunk.

        Args:
            view: the number of the view.
            dtype: float32, or None for the stored type.

        Raises:
            DamagedChunkError: a chunk is damaged; one of them if there are several.
            StoreError: the store does not answer.
        """
        out = np.empty((self.rows.rows, *self._row_shape), dtype=dtype or self.dtype)
        chunks = range(-(-self.rows.rows // self._chunk_rows))
        threads = self._threads(out.nbytes, len(chunks))
        if threads == 1:
            self._read_chunks(chunks, view, out)
            return out
        with ThreadPoolExecutor(threads) as pool:
            # Each thread reads consecutive chunks: threads that fill the same large page of memory wait for each other.
            step = -(-len(chunks) // threads)
            parts = [chunks[start : start + step] for start in range(0, len(chunks), step)]
            for future in [pool.submit(self._read_chunks, part, view, out) for part in parts]:
                future.result()
        return out

    def read_block(self, block: int, view: int, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
        """Read the rows of one block, (n, ...); zeros where there is no chunk.

        Raises:
            DamagedChunkError: a chunk is damaged.
            StoreError: the store does not answer.
        """
        rows = self.rows.block_slice(block)
        out = np.empty((rows.stop - rows.start, *self._row_shape), dtype=dtype or self.dtype)
        self._read_chunks(self.stream.chunks_of_block(self.array, block, self.rows), view, out, rows.start)
        return out

    def _threads(self, size: int, chunks: int) -> int:
        if is_remote(self.cache):
            return min(_REMOTE_THREADS, chunks)
        return 1 if size < _THREADED_BYTES else min(_LOCAL_THREADS, _cores(), chunks)

    def _read_chunks(self, chunks: range, view: int, out: npt.NDArray[Any], first: int = 0) -> None:
        """Read chunks into their rows of the result, whose first row is row `first` of the cache."""
        folder = streams_dir(self.cache) / self.stream.name / self.array
        read = _read_object if is_remote(folder) else _read_file
        size, chunk_rows = self.stream.chunk_bytes(self.array, self.rows.block_rows), self._chunk_rows
        buffer = None
        if out.dtype != self.dtype:
            buffer = np.empty((chunk_rows, *self._row_shape), self.dtype)
        prefix = f"{folder}/"
        for chunk in chunks:
            name = self.stream.chunk_name(self.array, chunk, view)
            start = chunk * chunk_rows
            target = out[start - first : min(start + chunk_rows, self.rows.rows) - first]
            try:
                if buffer is None:
                    read(prefix + name, target, size)
                else:
                    read(prefix + name, buffer[: len(target)], size)
                    widen(buffer[: len(target)], target)
            except FileNotFoundError:
                target[...] = 0
            except (OSError, ValueError) as error:
                raise DamagedChunkError(folder / name, start // self.rows.block_rows, str(error)) from error


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_file(file: str, rows: npt.NDArray[Any], size: int) -> None:
    """Read the rows of a chunk file of this machine; `_read_object` does the same for a store.

    The last chunk of a cache is padded to a whole block, and its checksum covers the padding.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another size, or its checksum does not match.
    """
    if rows.nbytes != size - CHECKSUM_BYTES:
        with FileIO(file) as opened:
            _take(opened.readall(), rows, size)
        return
    content = rows.reshape(-1).view(np.uint8)
    with FileIO(file) as opened:
        count = opened.readinto(content.data) or 0
        tail = opened.read(CHECKSUM_BYTES + 1)
    _check(content, tail, count + len(tail), size)


def _read_object(url: str, rows: npt.NDArray[Any], size: int) -> None:
    _take(as_path(url).read_bytes(), rows, size)


def _take(data: bytes, rows: npt.NDArray[Any], size: int) -> None:
    """Copy the rows from the bytes of a whole chunk."""
    content = np.frombuffer(data, dtype=np.uint8)[:-CHECKSUM_BYTES]
    _check(content, data[-CHECKSUM_BYTES:], len(data), size)
    rows.reshape(-1).view(np.uint8)[:] = content[: rows.nbytes]


def _check(content: npt.NDArray[np.uint8], checksum: bytes, size: int, expected_size: int) -> None:
    if size != expected_size:
        raise ValueError(f"{size} bytes, must be {expected_size}")
    computed = crc32c(content)
    if computed != int.from_bytes(checksum, "little"):
        raise ValueError(f"stored and computed checksum do not match: {checksum.hex()}, {computed:08x}")


def widen(stored: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Copy numbers into an array of a wider type, with torch if it is loaded, which is about eight times as fast.

    Both give the same numbers: every float16 is a float32.
    """
    torch = sys.modules.get("torch")
    if torch is not None and stored.dtype == np.float16 and out.dtype == np.float32:
        torch.from_numpy(out).copy_(torch.from_numpy(stored))
    else:
        np.copyto(out, stored)
