"""The files that features were extracted from, as a worker read them, so that a later build notices a replaced one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.datasets.sources import FILE_COLUMNS, Source
from emofuse.media.files import FileSums
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
    def of_block(cls, start: int, sources: Sequence[Source | None], streams: tuple[str, ...]) -> SeenFiles | None:
        """Return the record of a block before any of its files was read; None for a store, which dates its objects."""
        if any(source is not None and is_remote(source.path) for source in sources):
            return None
        return cls(start, np.full((len(sources), len(FILE_COLUMNS)), UNKNOWN, dtype=np.int64), streams)

    @classmethod
    def joined(cls, parts: Sequence[SeenFiles]) -> SeenFiles:
        """Join the records of one block, whose parts extracted other streams and left out other deadly rows."""
        stamps = np.maximum.reduce([part.stamps for part in parts])  # UNKNOWN is below all others
        return cls(parts[0].start, stamps, tuple(stream for part in parts for stream in part.streams))

    def add(self, row: int, sums: FileSums) -> None:
        """Record the files of one row of the block."""
        self.stamps[row] = sums.bytes, sums.modified_ns, UNKNOWN if sums.crc is None else sums.crc
