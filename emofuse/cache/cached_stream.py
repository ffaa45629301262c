"""Read one stream of a cache. Arrays are read on access."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from emofuse.cache.chunks import ChunkedArray, DamagedChunkError
from emofuse.cache.layout import ArrayName, CacheLayout, StreamLayout, streams_dir
from emofuse.cache.metadata import read_stream_layout, stream_names
from emofuse.cache.zarr_store import open_array
from emofuse.errors import CacheError, IncompleteCacheError
from emofuse.status import Status
from emofuse.stores import file_sizes

# Zarr's codec pipelines raise these for a chunk that is damaged, short or unreadable. `StoreError` is none of them: a
# store that does not answer is no damage.
CHUNK_ERRORS = (ValueError, RuntimeError, OSError)


class CachedStream:
    """A stream of an open cache.

    Attributes:
        name: the name of the stream in this cache.
        kind: the kind of its spec.
        digest: the SHA-256 of `identity`.
        identity: everything that changes the bytes, as plain JSON.
        weights: the origin of its weights as plain JSON (kind `random`: a demonstration); None without weights.
        shape: the shape of the features of one row: (D,) for vectors, (T, D) for sequences, (C, Y, X) for maps.
        dimensions: the names of the axes of `shape`.
        dim: the number of values of a row, D for vectors.
        dtype: the stored type of the features.
        columns: the names of the values along the last axis, or ().
        flag_names: the names of the bits of a flag.
        spec: the stream's spec as plain JSON.
        views: the number V of views; view 0 is the picture itself, the others are augmented views of it.
    """

    def __init__(self, cache: Path, cache_layout: CacheLayout, layout: StreamLayout) -> None:
        self._cache = cache
        self._folder = streams_dir(cache) / layout.name
        self._rows = cache_layout
        self._layout = layout
        self.name = layout.name
        self.kind = layout.kind
        self.digest = layout.digest
        self.identity = layout.identity
        self.weights = layout.weights
        self.shape = layout.shape
        self.dimensions = layout.dimensions
        self.dim = layout.dim
        self.dtype = layout.dtype
        self.columns = layout.columns
        self.flag_names = layout.flag_names
        self.spec = layout.spec
        self.views = layout.views

    def __repr__(self) -> str:
        shape = (self._rows.rows, self.views, *self.shape)
        return f"<CachedStream {self.name!r} {shape} {self.dtype}>"

    @property
    def layout(self) -> StreamLayout:
        """Return everything that is constant about the stream."""
        return self._layout

    @property
    def is_sequence(self) -> bool:
        """Return whether rows are sequences of steps, whose status `read_mask` gives."""
        return self._layout.is_sequence

    @cached_property
    def features(self) -> zarr.Array[Any]:
        """Return the (N, V, *shape) Zarr array. Rows that are not OK and blocks not computed yet are zeros."""
        return self._open("features")

    @cached_property
    def status(self) -> npt.NDArray[np.uint8]:
        """Return (N, V) uint8 of `Status`, as it was at the first call. A damaged chunk reads as PENDING."""
        return self._read_small("status")

    @cached_property
    def flags(self) -> npt.NDArray[np.uint8]:
        """Return (N, V) uint8 with bit b set where `flag_names[b]` holds; zeros for a stream without flags."""
        if not self.flag_names:
            return np.zeros((self._rows.rows, self.views), dtype=np.uint8)
        return self._read_small("flags")

    def reasons(self) -> npt.NDArray[np.object_]:
        """Return (N, V) str, the reason why a row is not OK; "" where it is OK or pending, and everywhere in format 1.

        Raises:
            CacheError: a chunk is damaged.
        """
        if not self._layout.keeps_reasons:
            return np.full((self._rows.rows, self.views), "", dtype=object)
        try:
            return np.asarray(self._open("reason")[self._whole], dtype=object)
        except CHUNK_ERRORS as error:
            raise self._reason_damage(error) from error

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each status in view 0, by the name of every status in lower case."""
        counted = np.bincount(self.status[:, 0], minlength=len(Status))
        return {status.name.lower(): int(counted[status]) for status in Status}

    def lacking(self, views: int) -> npt.NDArray[np.bool_]:
        """Return (blocks, views) bool: true where a row is pending, or a chunk file is missing or too short.

        Args:
            views: the number of views to check; those that the stream does not have yet lack everywhere.
        """
        lacking = np.ones((self._rows.blocks, views), dtype=np.bool_)
        starts = np.arange(0, self._rows.rows, self._rows.block_rows)
        files = file_sizes(self._folder)
        for view in range(min(views, self.views)):
            lacking[:, view] = np.logical_or.reduceat(self.status[:, view] == Status.PENDING, starts)
            has_reasons = np.logical_or.reduceat(self.status[:, view] != Status.OK, starts)
            for block in np.flatnonzero(~lacking[:, view]).tolist():
                lacking[block, view] = not self._has_whole_chunks(
                    files, block, view, has_reasons=bool(has_reasons[block])
                )
        return lacking

    def lacking_blocks(self, views: int = 1) -> npt.NDArray[np.int64]:
        """Return the blocks of which one of the first `views` views is not done, ascending."""
        return np.flatnonzero(self.lacking(views).any(axis=1))

    def check_complete(self, views: int = 1) -> None:
        """Raise unless every block of the first `views` views was computed.

        Raises:
            IncompleteCacheError: blocks are missing, or views; the message has their number.
        """
        if views > self.views:
            raise IncompleteCacheError(
                f"{self.name!r} has {self.views} of {views} views of each sample. Build the cache with "
                f"`views: {views}`, or take `views: {self.views}`"
            )
        lacking = len(self.lacking_blocks(views))
        if lacking:
            raise IncompleteCacheError(
                f"{self.name!r} lacks {lacking} of {self._rows.blocks} blocks. "
                "Run the same build again: finished blocks are kept."
            )

    def read(
        self, view: int = 0, dtype: npt.DTypeLike | None = None
    ) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.uint8]]:
        """Read all rows of one view.

        Args:
            view: the number of the view.
            dtype: float32 to widen the features while they are read, without a second copy; None for the stored type.

        Returns:
            features (N, *shape), zeros where the status, or a step of a sequence, is not OK; status (N,) uint8.

        Raises:
            IncompleteCacheError: blocks are missing.
            CacheError: a chunk is damaged.
        """
        self.check_complete(view + 1)
        try:
            return self._chunks("features").read(view, dtype), self.status[:, view]
        except DamagedChunkError as error:
            raise self._damage(error) from error

    def read_block(
        self, block: int, view: int = 0, dtype: npt.DTypeLike | None = None
    ) -> npt.NDArray[np.floating[Any]]:
        """Read the rows of one block and view, (n, *shape); zeros where the status is not OK.

        Args:
            block: the index of the block.
            view: the number of the view.
            dtype: float32, or None for the stored type.

        Raises:
            CacheError: a chunk is damaged.
        """
        try:
            return self._chunks("features").read_block(block, view, dtype)
        except DamagedChunkError as error:
            raise self._damage(error) from error

    def read_mask(self, view: int = 0) -> npt.NDArray[np.uint8] | None:
        """Read the mask of all rows of one view, (N, T) uint8 of `Step`; None unless this is a sequence.

        Raises:
            IncompleteCacheError: blocks are missing.
            CacheError: a chunk is damaged.
        """
        if not self.is_sequence:
            return None
        self.check_complete(view + 1)
        try:
            return self._chunks("mask").read(view)
        except DamagedChunkError as error:
            raise self._damage(error) from error

    def read_mask_block(self, block: int, view: int = 0) -> npt.NDArray[np.uint8] | None:
        """Read the mask of the rows of one block and view, (n, T) uint8 of `Step`; None unless this is a sequence.

        Raises:
            CacheError: a chunk is damaged.
        """
        if not self.is_sequence:
            return None
        try:
            return self._chunks("mask").read_block(block, view)
        except DamagedChunkError as error:
            raise self._damage(error) from error

    def nbytes(self) -> int:
        """Return the bytes of the stream's files."""
        return sum(file_sizes(self._folder).values())

    def _chunks(self, array: ArrayName) -> ChunkedArray:
        return ChunkedArray(self._cache, self._rows, self._layout, array)

    def _open(self, array: ArrayName) -> zarr.Array[Any]:
        return open_array(self._folder / array)

    @property
    def _whole(self) -> tuple[slice, slice]:
        """Return the stream's part of its arrays, which a build may have enlarged before it was killed."""
        return slice(0, self._rows.rows), slice(0, self.views)

    def _has_whole_chunks(self, files: Mapping[str, int], block: int, view: int, *, has_reasons: bool) -> bool:
        """Return whether a listing of the stream's folder has all files of a block in their full length."""
        for array in self._layout.number_arrays:
            expected = self._layout.chunk_bytes(array, self._rows.block_rows)
            names = self._layout.chunk_names(array, block, view, self._rows)
            if any(files.get(f"{array}/{name}") != expected for name in names):
                return False
        needs_reasons = has_reasons and self._layout.keeps_reasons
        return not needs_reasons or f"reason/{self._layout.chunk_name('reason', block, view)}" in files

    def _read_small(self, array: ArrayName) -> npt.NDArray[np.uint8]:
        """Read status or flags. A damaged chunk reads as zeros (PENDING), so that its block is computed again."""
        chunks = self._chunks(array)
        values = np.zeros((self._rows.rows, self.views), dtype=np.uint8)
        for view in range(self.views):
            try:
                values[:, view] = chunks.read(view)
                continue
            except DamagedChunkError:
                pass  # read the others one by one
            for block in range(self._rows.blocks):
                with suppress(DamagedChunkError):
                    values[self._rows.block_slice(block), view] = chunks.read_block(block, view)
        return values

    def _damage(self, error: DamagedChunkError) -> CacheError:
        """Return the error that names a damaged chunk and the command that computes its block again."""
        rows = self._rows.block_slice(error.block)
        return CacheError(
            f"{error.file}: damaged (rows {rows.start}-{rows.stop - 1} of {self.name!r}: {error}). "
            f"Have its block computed again: emofuse cache repair {self._cache}"
        )

    def _reason_damage(self, cause: Exception) -> CacheError:
        """Return the error for a damaged chunk of reasons, which are text and read by Zarr."""
        stored = self._open("reason")
        for block, view in np.ndindex(self._rows.blocks, self.views):
            try:
                stored[self._rows.block_slice(block), view]
            except CHUNK_ERRORS:
                file = self._folder / "reason" / self._layout.chunk_name("reason", block, view)
                return self._damage(DamagedChunkError(file, block, str(cause)))
        return CacheError(f"{self._folder / 'reason'}: cannot be read ({cause})")


def read_streams(path: Path, layout: CacheLayout) -> list[CachedStream]:
    """Return all streams of a cache, by name. A folder without attributes is an unfinished creation and is left out.

    Raises:
        CacheError: a stream's metadata is damaged.
    """
    streams = [read_stream(path, layout, name) for name in stream_names(path)]
    return [stream for stream in streams if stream is not None]


def read_stream(path: Path, layout: CacheLayout, name: str) -> CachedStream | None:
    """Return one stream of a cache, None if the cache has none of this name.

    Raises:
        CacheError: the metadata of the stream is damaged.
    """
    stream = read_stream_layout(path, name)
    return None if stream is None else CachedStream(path, layout, stream)
