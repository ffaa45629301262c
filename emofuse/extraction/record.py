"""The record of the files that features were extracted from, which a build updates in the cache's manifest."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from emofuse.cache.layout import manifest_path
from emofuse.cache.metadata import extracted_streams, read_stream_layout
from emofuse.cache.writer import discard_blocks
from emofuse.datasets.sources import FILE_COLUMNS
from emofuse.errors import StaleCacheError, StoreError
from emofuse.extraction.plan import BuildPlan
from emofuse.extraction.seen import UNKNOWN, SeenFiles

_LENGTH, _TIME, _SUM = (list(FILE_COLUMNS).index(name) for name in ("bytes", "modified_ns", "crc32c"))
_NAMED = 3


class FileRecord:
    """The files of a cache that is being built: length, time and CRC-32C of each."""

    def __init__(self, path: Path, plan: BuildPlan) -> None:
        """Start with the files of the plan's manifest."""
        self._path = path
        self._plan = plan
        self._streams = extracted_streams(path)  # all streams with features of a file
        known = plan.manifest.known_files.select(FILE_COLUMNS.keys()).fill_null(UNKNOWN)
        self._stamps = known.to_numpy(order="c", writable=True)  # (N, 3) int64
        self._replaced: set[int] = set()
        self._is_new = False

    def add(self, seen: SeenFiles) -> None:
        """Record the files of one block."""
        rows = slice(seen.start, seen.start + len(seen.stamps))
        known = self._stamps[rows]
        is_seen = seen.stamps[:, _LENGTH] != UNKNOWN
        is_hashed = seen.stamps[:, _SUM] != UNKNOWN
        others = known != seen.stamps
        differs = is_hashed & (known[:, _SUM] != UNKNOWN) & others[:, _SUM]
        differs |= is_seen & ~is_hashed & (known[:, _LENGTH] != UNKNOWN) & others[:, [_LENGTH, _TIME]].any(axis=1)
        if differs.any() and not set(self._streams) <= set(seen.streams):
            self._replaced.update((seen.start + np.flatnonzero(differs)).tolist())
        self._is_new = self._is_new or not np.array_equal(known[is_seen], seen.stamps[is_seen])
        known[is_seen] = seen.stamps[is_seen]

    def keep(self) -> None:
        """Write the record if it has changed. A failure is ignored: the next build then knows fewer files."""
        if not self._is_new:
            return
        files = pl.DataFrame({name: self._stamps[:, place] for place, name in enumerate(FILE_COLUMNS)})
        known = replace(self._plan.manifest, files=files.with_columns(pl.all().replace(UNKNOWN, None)))
        with suppress(OSError, StoreError):
            known.write(manifest_path(self._path))

    def take_back_replaced(self) -> None:
        """Discard the blocks of images that were replaced after some of their features had been extracted.

        Raises:
            StaleCacheError: there are such images, and their blocks were discarded.
        """
        if not self._replaced:
            return
        rows = sorted(self._replaced)
        blocks = sorted({row // self._plan.layout.block_rows for row in rows})
        for name in self._streams:
            layout = read_stream_layout(self._path, name)
            if layout is not None:
                discard_blocks(self._path, name, product(blocks, range(layout.views)))
        ids = self._plan.manifest.table["sample_id"]
        named = ", ".join(ids[row] for row in rows[:_NAMED]) + (", ..." if len(rows) > _NAMED else "")
        raise StaleCacheError(
            f"{self._path}: files replaced after some of their features had been extracted: {len(rows)} ({named}). "
            f"Their blocks were taken back ({len(blocks)}): run the same build again."
        )
