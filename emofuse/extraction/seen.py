"""The files that features were extracted from, as a worker read them, so that a later build notices a replaced one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emofuse.checksum import crc32c
from emofuse.datasets.manifest import FILE_COLUMNS
from emofuse.stores import is_remote

UNKNOWN = -1


@dataclass(frozen=True)
class SeenFiles:
    """The files of one block as its extraction read them.

    Attributes:
        start: the index of the block's first row.
        stamps: (n, 3) int64, the `FILE_COLUMNS` of each row, UNKNOWN where no file was read.
        streams: the streams that were extracted from the files, each in all of its views.
    """

    start: int
    stamps: npt.NDArray[np.int64]
    streams: tuple[str, ...]

    @classmethod
    def of_block(cls, start: int, paths: Sequence[Path | None], streams: tuple[str, ...]) -> SeenFiles | None:
        """Return the record of a block before any of its files was read; None for a store, which dates its objects."""
        if any(path is not None and is_remote(path) for path in paths):
            return None
        return cls(start, np.full((len(paths), len(FILE_COLUMNS)), UNKNOWN, dtype=np.int64), streams)

    @classmethod
    def joined(cls, parts: Sequence[SeenFiles]) -> SeenFiles:
        """Join the records of one block, whose parts extracted other streams and left out other deadly rows."""
        stamps = np.maximum.reduce([part.stamps for part in parts])  # UNKNOWN is below all others
        return cls(parts[0].start, stamps, tuple(stream for part in parts for stream in part.streams))

    def add(self, row: int, status: os.stat_result, data: bytes) -> None:
        """Record the file of one row of the block."""
        self.stamps[row] = status.st_size, status.st_mtime_ns, crc32c(data)
