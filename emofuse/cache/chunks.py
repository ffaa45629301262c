"""Chunks of numbers read straight into the array that is asked for.

The layout says what a chunk file holds: the rows of a block, little-endian, and their CRC32C behind them. So it is read
into its place in the result, or into a small buffer from which it is widened to float32, and nothing is copied besides.
Zarr gives the same numbers, and does so to everybody else; `benchmarks/read_speed.py` has the difference in time.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from emofuse.cache.layout import CHECKSUM_BYTES, ArrayName, CacheLayout, StreamLayout, chunk_name, streams_dir
from emofuse.stores import is_remote

_REMOTE_THREADS = 16
_LOCAL_THREADS = 4
_FEW_BYTES = 4_000_000  # less than this is read sooner than threads are started


class DamagedChunkError(Exception):
    """A chunk file is not what was written.

    Attributes:
        file: the chunk.
        block: its index.
    """

    def __init__(self, file: Path, block: int, cause: str) -> None:
        super().__init__(cause)
        self.file = file
        self.block = block


@dataclass(frozen=True)
class ChunkedArray:
    """The features, flags or status of one stream.

    Attributes:
        cache: path of the cache.
        rows: rows and blocks of the cache.
        stream: whose array it is.
        array: which one.
    """

    cache: Path
    rows: CacheLayout
    stream: StreamLayout
    array: ArrayName

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self.stream.array_dtype(self.array)

    @property
    def _row_shape(self) -> tuple[int, ...]:
        return (self.stream.dim,) if self.array == "features" else ()

    def read(self, view: int, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
        """All rows of one view, (N, ...); zeros where there is no chunk.

        Args:
            view: its number.
            dtype: float32, or None for the stored one.

        Raises:
            DamagedChunkError: a chunk is damaged; one of them if there are several.
            StoreError: the store does not answer.
        """
        out = np.empty((self.rows.rows, *self._row_shape), dtype=dtype or self.dtype)
        blocks = range(self.rows.blocks)
        threads = self._threads(out.nbytes)
        if threads == 1:
            self._read_blocks(blocks, view, out)
            return out
        with ThreadPoolExecutor(threads) as pool:
            parts = [blocks[start::threads] for start in range(threads)]
            for done in [pool.submit(self._read_blocks, part, view, out) for part in parts]:
                done.result()
        return out

    def read_block(self, block: int, view: int, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
        """The rows of one block, (n, ...); zeros if there is no chunk.

        Raises:
            DamagedChunkError: the chunk is damaged.
            StoreError: the store does not answer.
        """
        rows = self.rows.block_slice(block)
        out = np.empty((rows.stop - rows.start, *self._row_shape), dtype=dtype or self.dtype)
        self._read_chunk(block, view, out, self._buffer(out))
        return out

    def _threads(self, size: int) -> int:
        if is_remote(self.cache):
            return min(_REMOTE_THREADS, self.rows.blocks)
        return 1 if size < _FEW_BYTES else min(_LOCAL_THREADS, os.cpu_count() or 1, self.rows.blocks)

    def _buffer(self, out: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """Room for one chunk as it is stored, where the result has another type."""
        return None if out.dtype == self.dtype else np.empty((self.rows.block_rows, *self._row_shape), self.dtype)

    def _read_blocks(self, blocks: range, view: int, out: npt.NDArray[Any]) -> None:
        buffer = self._buffer(out)
        for block in blocks:
            self._read_chunk(block, view, out[self.rows.block_slice(block)], buffer)

    def _read_chunk(self, block: int, view: int, out: npt.NDArray[Any], buffer: npt.NDArray[Any] | None) -> None:
        """Reads a chunk into the rows of the result that are its own."""
        file = streams_dir(self.cache) / self.stream.name / self.array / chunk_name(block, self.array, view)
        try:
            if buffer is not None:
                own = buffer[: len(out)]
                self._fill(file, own)
                widen(own, out)
            else:
                self._fill(file, out)
        except FileNotFoundError:
            out[...] = 0
        except (OSError, ValueError) as error:
            raise DamagedChunkError(file, block, str(error)) from error

    def _fill(self, file: Path, rows: npt.NDArray[Any]) -> None:
        """Reads the rows of a chunk; the last one of a cache is padded to a whole block, and its checksum covers that.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it has another length, or its checksum does not fit.
        """
        stored = self.stream.chunk_bytes(self.array, self.rows.block_rows)
        is_whole = rows.nbytes == stored - CHECKSUM_BYTES
        if is_remote(file) or not is_whole:
            data = file.read_bytes()
            content = np.frombuffer(data, dtype=np.uint8)[:-CHECKSUM_BYTES]
            _check(content, data[-CHECKSUM_BYTES:], len(data), stored)
            _bytes_of(rows)[:] = content[: rows.nbytes]
            return
        content = _bytes_of(rows)
        with FileIO(str(file)) as opened:
            count = opened.readinto(content.data) or 0
            tail = opened.read(CHECKSUM_BYTES + 1)
        _check(content, tail, count + len(tail), stored)


def _bytes_of(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The bytes of contiguous rows, in place."""
    return rows.reshape(-1).view(np.uint8)


def _check(content: npt.NDArray[np.uint8], checksum: bytes, found: int, stored: int) -> None:
    if found != stored:
        raise ValueError(f"{found} bytes, must be {stored}")
    content = content.view()
    content.flags.writeable = False  # google_crc32c takes nothing that could change under it
    computed = google_crc32c.value(content)
    if computed != int.from_bytes(checksum, "little"):
        raise ValueError(f"stored and computed checksum do not match: {checksum.hex()}, {computed:08x}")


def widen(stored: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Writes numbers into an array of a wider type, with torch where it is loaded: it is some eight times as fast.

    Both give the same numbers: every float16 is a float32.
    """
    torch = sys.modules.get("torch")
    if torch is not None and stored.dtype == np.float16 and out.dtype == np.float32:
        torch.from_numpy(out).copy_(torch.from_numpy(stored))
    else:
        np.copyto(out, stored)
