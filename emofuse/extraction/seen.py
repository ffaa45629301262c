"""The files that features were extracted from, as a worker found them, so that a replaced one is noticed later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UNKNOWN = -1


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
