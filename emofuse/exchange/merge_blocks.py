"""Choose the cache that each block of a merged cache comes from, and write the blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.cache.cached_stream import CachedStream, read_streams
from emofuse.cache.layout import CacheLayout, StreamLayout
from emofuse.cache.reader import Cache
from emofuse.cache.writer import Layouts, read_layouts, write_block

OnBlocks = Callable[[int, int], None]
"""Called after every block with the number of blocks done so far, once for each stream and view, and of all blocks."""


@dataclass(frozen=True)
class _Values:
    """Some rows of one view of one stream, as `write_block` takes them."""

    features: npt.NDArray[Any]
    status: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]
    reasons: npt.NDArray[np.object_]
    mask: npt.NDArray[np.uint8] | None


class Part:
    """A cache of a merge.

    Attributes:
        start: the row of the new cache that its first row becomes.
        stop: the row of the new cache after its last row.
    """

    def __init__(self, cache: Cache, start: int) -> None:
        self.start, self.stop = start, start + len(cache)
        self._cache = cache
        self._done: dict[str, npt.NDArray[np.bool_]] = {}
        self._reasons: dict[str, npt.NDArray[np.object_]] = {}

    def has(self, stream: str, view: int, rows: slice) -> bool:
        """Return whether all of these rows, counted as in the new cache, were computed."""
        cached = self._cache.streams.get(stream)
        if cached is None or view >= cached.views:
            return False
        if stream not in self._done:
            done = ~cached.lacking(cached.views)
            self._done[stream] = np.repeat(done, self._cache.layout.block_rows, axis=0)[: len(self._cache)]
        return bool(self._done[stream][self._rows_here(rows), view].all())

    def read(self, stream: str, view: int, rows: slice) -> _Values:
        """Read these rows, counted as in the new cache.

        Raises:
            CacheError: a chunk is damaged.
        """
        cached = self._cache.streams[stream]
        rows = self._rows_here(rows)
        if stream not in self._reasons:
            self._reasons = {stream: cached.reasons()}
        size = self._cache.layout.block_rows
        blocks = range(rows.start // size, -(-rows.stop // size))
        features = np.concatenate([cached.read_block(block, view) for block in blocks])
        first = rows.start - blocks.start * size
        return _Values(
            features[first : first + rows.stop - rows.start],
            cached.status[rows, view],
            cached.flags[rows, view],
            self._reasons[stream][rows, view],
            self._mask(cached, blocks, view, slice(first, first + rows.stop - rows.start)),
        )

    def _mask(self, stream: CachedStream, blocks: range, view: int, rows: slice) -> npt.NDArray[np.uint8] | None:
        """Read some rows of the masks of some blocks, None unless the stream holds sequences."""
        masks = [mask for block in blocks if (mask := stream.read_mask_block(block, view)) is not None]
        return np.concatenate(masks)[rows] if masks else None

    def _rows_here(self, rows: slice) -> slice:
        return slice(rows.start - self.start, rows.stop - self.start)


@dataclass(frozen=True)
class MergedBlocks:
    """The blocks of a new cache and the parts that they come from.

    Attributes:
        layout: the layout of the new cache.
        parts: the caches; a row of a block comes from the first one that has computed it.
    """

    layout: CacheLayout
    parts: Sequence[Part]

    def givers(self, streams: Sequence[StreamLayout]) -> npt.NDArray[np.bool_]:
        """Return (parts, N) bool: whether features of a row, of any of these streams, come from a part."""
        gives = np.zeros((len(self.parts), self.layout.rows), dtype=np.bool_)
        for stream in streams:
            for block, view in np.ndindex(self.layout.blocks, stream.views):
                for number, rows in self._sources(stream.name, block, view):
                    gives[number, rows] = True
        return gives

    def write(self, path: Path, streams: Sequence[StreamLayout], on_blocks: OnBlocks | None) -> dict[str, int]:
        """Write all blocks that the new cache lacks, and return stream -> number of blocks that no part has."""
        there = {stream.name: stream for stream in read_streams(path, self.layout)}
        total = sum(self.layout.blocks * stream.views for stream in streams)
        done = 0
        lacking: dict[str, int] = {}
        for stream in streams:
            missing = there[stream.name].lacking(stream.views)
            layouts = read_layouts(path, stream.name)
            for block, view in np.ndindex(missing.shape):
                if missing[block, view] and not self._write_block(path, layouts, block, view):
                    lacking[stream.name] = lacking.get(stream.name, 0) + 1
                done += 1
                if on_blocks is not None:
                    on_blocks(done, total)
        return lacking

    def _sources(self, stream: str, block: int, view: int) -> list[tuple[int, slice]]:
        """Return the parts and rows of the new cache that a block comes from, in order; [] if a row is in no part."""
        rows = self.layout.block_slice(block)
        sources: list[tuple[int, slice]] = []
        row = rows.start
        while row < rows.stop:
            for number, part in enumerate(self.parts):
                stop = min(rows.stop, part.stop)
                if part.start <= row < part.stop and part.has(stream, view, slice(row, stop)):
                    sources.append((number, slice(row, stop)))
                    row = stop
                    break
            else:
                return []
        return sources

    def _write_block(self, path: Path, layouts: Layouts, block: int, view: int) -> bool:
        """Write one block, or return False if a row of it is in no part."""
        stream = layouts[1].name
        parts = [self.parts[number].read(stream, view, rows) for number, rows in self._sources(stream, block, view)]
        if not parts:
            return False
        masks = [values.mask for values in parts if values.mask is not None]
        write_block(
            path,
            stream,
            block,
            view=view,
            features=np.concatenate([values.features for values in parts]),
            status=np.concatenate([values.status for values in parts]),
            flags=np.concatenate([values.flags for values in parts]),
            mask=np.concatenate(masks) if masks else None,
            reasons=np.concatenate([values.reasons for values in parts]).tolist(),
            layouts=layouts,
        )
        return True
