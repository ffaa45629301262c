"""Cells with pixel values in a CSV table, as FER2013 has them.

The index holds the first byte of every row, so that a table of 300 MB needs some hundred kilobytes of memory and one
row is read at a time.
"""

from __future__ import annotations

import codecs
import csv
import io
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from emofuse.datasets.members.base import Cells, picture_of_pixels, split_cell_name
from emofuse.datasets.separators import find_separator
from emofuse.errors import DecodeError, did_you_mean
from emofuse.stores import open_binary

_CHUNK_BYTES = 1 << 20
_HEADER_BYTES = 1 << 20  # no header is longer


class CsvCells(Cells):
    """The cells of a CSV table in UTF-8 whose first row names the columns; blank lines are no rows.

    Attributes:
        columns: the names of the columns, without spaces around them.
        rows: the number of rows after the header.

    Raises:
        DecodeError: it is no CSV table.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with open_binary(path) as file:
                self._starts = _record_starts(file)
                start = self._record(file, 0) if len(self._starts) > 1 and self._starts[1] <= _HEADER_BYTES else b""
        except csv.Error as error:
            raise DecodeError(f"no CSV table ({error})") from None
        lines = io.StringIO(_text(start.removeprefix(codecs.BOM_UTF8)), newline="")
        self._separator, header = find_separator(lines, ())
        if not header:  # the first row is `sep=;`, and the second the header
            self._starts = self._starts[1:]
            with open_binary(path) as file:
                header = [_text(self._record(file, 0))] if len(self._starts) > 1 else []
        self.columns = tuple(name.strip() for name in _fields("".join(header), self._separator) if "".join(header))
        self.rows = max(len(self._starts) - 2, 0)  # the last start is the end of the table
        if not self.columns:
            raise DecodeError("no CSV table: it has no header")

    def read(self, member: str, check_length: Callable[[int], None]) -> bytes:
        """See `Members`."""
        column, row = split_cell_name(member)
        if column not in self.columns:
            shown = ", ".join(self.columns)[:200]
            raise DecodeError(f"the table has no column {column!r}{did_you_mean(column, self.columns)} ({shown})")
        if row >= self.rows:
            raise DecodeError(f"the table has no row {row}: it has {self.rows}, counted from 0")
        check_length(int(self._starts[row + 2] - self._starts[row + 1]))
        with open_binary(self._path) as file:
            fields = _fields(_text(self._record(file, row + 1)), self._separator)
        if len(fields) != len(self.columns):
            raise DecodeError(f"row {row} of the table has {len(fields)} fields, the header has {len(self.columns)}")
        return picture_of_pixels(fields[self.columns.index(column)])

    def read_rows(self) -> Iterator[list[str]]:
        """Iterate over the fields of all rows after the header, one at a time and without spaces around them.

        Raises:
            DecodeError: a row is not UTF-8 or no row of a table.
        """
        with open_binary(self._path) as file:
            for row in range(self.rows):
                fields = _fields(_text(self._record(file, row + 1)), self._separator)
                yield [field.strip() for field in fields]

    def _record(self, file: BinaryIO, number: int) -> bytes:
        start, end = int(self._starts[number]), int(self._starts[number + 1])
        if file.tell() != start:
            file.seek(start)
        return file.read(end - start)


def _text(record: bytes) -> str:
    try:
        return record.decode()
    except UnicodeDecodeError:
        raise DecodeError("not UTF-8 text; save the table as 'CSV UTF-8'") from None


def _fields(record: str, separator: str) -> list[str]:
    record = record.rstrip("\r\n")
    if '"' not in record:
        return record.split(separator)
    try:
        return next(csv.reader([record], delimiter=separator), [])
    except csv.Error as error:
        raise DecodeError(f"no row of a CSV table ({error})") from None


def _record_starts(file: BinaryIO) -> npt.NDArray[np.int64]:
    """Return the first byte of every record that is not blank, and the end of the last one, int64 (records + 1,).

    A line break within quotes is a part of its record.
    """
    starts, ends = array("q"), array("q")
    start = position = 0
    quotes = 0
    is_blank = True
    while chunk := file.read(_CHUNK_BYTES):
        data = np.frombuffer(chunk, dtype=np.uint8)
        breaks = np.flatnonzero(data == ord("\n"))
        marks = np.flatnonzero(data == ord('"'))
        if len(marks) or quotes % 2:
            breaks = breaks[(quotes + np.searchsorted(marks, breaks)) % 2 == 0]
            quotes += len(marks)
        last = 0
        for end in (breaks + 1).tolist():
            is_blank = is_blank and not chunk[last:end].strip(b"\r\n")
            if not is_blank:
                starts.append(start)
                ends.append(position + end)
            start, last, is_blank = position + end, end, True
        is_blank = is_blank and not chunk[last:].strip(b"\r\n")
        position += len(chunk)
    if not is_blank:
        starts.append(start)
        ends.append(position)
    return np.array([*starts, *ends[-1:]], dtype=np.int64)
