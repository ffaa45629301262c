"""What the files were that features were extracted from, so that a later build notices those that were replaced."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.datasets.manifest import FILE_COLUMNS, Manifest

UNKNOWN = -1
_SUM = list(FILE_COLUMNS).index("crc32c")


@dataclass(frozen=True)
class SeenFiles:
    """The files of one block as its extraction found them.

    Attributes:
        start: first row of the block.
        stamps: (n, 3) int64, the `FILE_COLUMNS` of each row, UNKNOWN where there is no file or nobody looked.
        streams: that were extracted from them, each in all of its views.
    """

    start: int
    stamps: npt.NDArray[np.int64]
    streams: tuple[str, ...]


class FileRecord:
    """What is known of the files of a cache, brought up to date while it is built."""

    def __init__(self, manifest: Manifest, streams: Collection[str]) -> None:
        """Begins with what the manifest says; `streams` are all that a file's features are in."""
        self._manifest = manifest
        self._streams = frozenset(streams)
        self._stamps = np.full((len(manifest), len(FILE_COLUMNS)), UNKNOWN, dtype=np.int64)
        if manifest.files is not None:
            for place, name in enumerate(FILE_COLUMNS):
                self._stamps[:, place] = manifest.files[name].fill_null(UNKNOWN).to_numpy()
        self._replaced: set[int] = set()
        self._is_new = False

    @property
    def replaced(self) -> list[int]:
        """Rows whose images were replaced after some of their features had been extracted, ascending."""
        return sorted(self._replaced)

    def add(self, seen: SeenFiles) -> None:
        """Takes note of one block."""
        rows = slice(seen.start, seen.start + len(seen.stamps))
        known = self._stamps[rows]
        is_seen = seen.stamps[:, _SUM] != UNKNOWN
        differs = is_seen & (known[:, _SUM] != UNKNOWN) & (known[:, _SUM] != seen.stamps[:, _SUM])
        if differs.any() and not self._streams <= set(seen.streams):
            self._replaced.update((seen.start + np.flatnonzero(differs)).tolist())
        self._is_new = self._is_new or not np.array_equal(known[is_seen], seen.stamps[is_seen])
        known[is_seen] = seen.stamps[is_seen]

    def manifest(self) -> Manifest | None:
        """The manifest with all that is known now, None if that is what it said before."""
        if not self._is_new:
            return None
        files = pl.DataFrame({name: self._stamps[:, place] for place, name in enumerate(FILE_COLUMNS)})
        return replace(self._manifest, files=files.with_columns(pl.all().replace(UNKNOWN, None)))
