"""What a cache's manifest says of the files that its features were extracted from, brought up to date by a build."""

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
from emofuse.datasets.manifest import FILE_COLUMNS
from emofuse.errors import StaleCacheError, StoreError
from emofuse.extraction.plan import BuildPlan
from emofuse.extraction.seen import UNKNOWN, SeenFiles

_SUM = list(FILE_COLUMNS).index("crc32c")
_NAMED = 3


class FileRecord:
    """What is known of the files of a cache while it is built."""

    def __init__(self, path: Path, plan: BuildPlan) -> None:
        """Begins with what the plan's manifest says."""
        self._path = path
        self._plan = plan
        self._streams = extracted_streams(path)  # all that a file's features are in
        known = plan.manifest.known_files.select(FILE_COLUMNS.keys()).fill_null(UNKNOWN)
        self._stamps = known.to_numpy(order="c", writable=True)  # (N, 3) int64
        self._replaced: set[int] = set()
        self._is_new = False

    def add(self, seen: SeenFiles) -> None:
        """Takes note of one block."""
        rows = slice(seen.start, seen.start + len(seen.stamps))
        known = self._stamps[rows]
        is_seen = seen.stamps[:, _SUM] != UNKNOWN
        differs = is_seen & (known[:, _SUM] != UNKNOWN) & (known[:, _SUM] != seen.stamps[:, _SUM])
        if differs.any() and not set(self._streams) <= set(seen.streams):
            self._replaced.update((seen.start + np.flatnonzero(differs)).tolist())
        self._is_new = self._is_new or not np.array_equal(known[is_seen], seen.stamps[is_seen])
        known[is_seen] = seen.stamps[is_seen]

    def keep(self) -> None:
        """Writes what is known now, if it is more than before. If that fails it is known a little less."""
        if not self._is_new:
            return
        files = pl.DataFrame({name: self._stamps[:, place] for place, name in enumerate(FILE_COLUMNS)})
        known = replace(self._plan.manifest, files=files.with_columns(pl.all().replace(UNKNOWN, None)))
        with suppress(OSError, StoreError):
            known.write(manifest_path(self._path))

    def take_back_replaced(self) -> None:
        """Takes back what was extracted from images that were replaced while other features of them were extracted.

        Raises:
            StaleCacheError: there are such images, and their blocks were taken back.
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
            f"{self._path}: images replaced after some of their features had been extracted: {len(rows)} ({named}). "
            f"Their blocks were taken back ({len(blocks)}): run the same build again."
        )
