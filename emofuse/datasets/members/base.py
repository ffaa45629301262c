"""The interface of all indices of files with members, and the cells of tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import isqrt
from typing import Protocol

import numpy as np

from emofuse.errors import DecodeError

_CELL = re.compile(r"(.+)\[(\d{1,18})\]")


class Members(Protocol):
    """The index of the members of one file; many threads may use it.

    Attributes:
        names: the names of all files in an archive, in its order; () for the cells of a table.
    """

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102 - described above

    def length(self, member: str) -> int | None:
        """Return the length of a member in bytes; None if only reading it would say."""

    def read(self, member: str, check_length: Callable[[int], None]) -> bytes:
        """Read a member whole.

        Raises:
            DecodeError: there is no such member, or it cannot be read.
        """


class Cells:
    """The base of the indices of tables: cells are not listed, and the length of a cell is unknown."""

    @property
    def names(self) -> Sequence[str]:
        """See `Members`."""
        return ()

    def length(self, member: str) -> int | None:  # noqa: ARG002 - as `Members` says
        """See `Members`."""
        return None


def cell_name(column: str, row: int) -> str:
    """Return the name of a cell as a member: column and row, counted from 0."""
    return f"{column}[{row}]"


def split_cell_name(member: str) -> tuple[str, int]:
    """Return the column and the row of a cell.

    Raises:
        DecodeError: the name is not that of a cell.
    """
    match = _CELL.fullmatch(member)
    if match is None:
        raise DecodeError(f"a member of a table must be named column[row], such as image[17], got {member!r}")
    return match[1], int(match[2])


def picture_of_pixels(text: str) -> bytes:
    """Return a square grey picture of pixel values, which are separated by spaces, as the bytes of a PGM file.

    Raises:
        DecodeError: the values are not whole numbers from 0 to 255, or their number is not that of a square.
    """
    words = text.split()
    try:
        values = np.array([int(word) for word in words], dtype=np.int64)
    except (ValueError, OverflowError):
        bad = next(word for word in words if not re.fullmatch(r"[+-]?\d{1,18}", word))
        raise DecodeError(f"pixel values must be whole numbers from 0 to 255, got {bad[:40]!r}") from None
    if not len(values):
        raise DecodeError("the cell is empty")
    if len(bad_values := values[(values < 0) | (values > 255)]):
        raise DecodeError(f"pixel values must be from 0 to 255, got {bad_values[0]}")
    side = isqrt(len(values))
    if side * side != len(values):
        raise DecodeError(f"{len(values)} pixel values, which are no square picture (48 x 48 has 2304)")
    return b"P5 %d %d 255\n" % (side, side) + values.astype(np.uint8).tobytes()
