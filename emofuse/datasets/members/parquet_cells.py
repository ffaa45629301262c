"""Cells of a Parquet table: bytes, the structure that Hugging Face's datasets write, or pixel values as text.

Cells of one column are read in batches of some 32 MB, and the last batches are kept, since rows are read in order as a
rule. So a table of any size needs little memory, whatever the size of its row groups.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from pathlib import Path
from threading import Lock
from typing import Any

from emofuse.datasets.members.base import Cells, picture_of_pixels, split_cell_name
from emofuse.errors import DatasetError, DecodeError, StoreError, did_you_mean
from emofuse.stores import open_binary

_BATCH_BYTES = 32 << 20
_KEPT_BYTES = 96 << 20  # of all tables together
_BUFFER_BYTES = 1 << 20


def load_parquet() -> Any:
    """Import the library that reads Parquet files.

    Raises:
        DatasetError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise DatasetError(
            "images in Parquet files need pyarrow, which is not installed: pip install 'emofuse[parquet]'"
        ) from None


class _KeptBatches:
    """The batches of cells that were read last, of all tables of the process."""

    def __init__(self) -> None:
        self._batches: OrderedDict[tuple[int, str, int], Any] = OrderedDict()

    def find(self, table: int, column: str, row: int) -> tuple[int, Any] | None:
        """Return the first row of the batch that has a row, and the batch."""
        for key in reversed(self._batches):
            if key[:2] == (table, column) and key[2] <= row < key[2] + len(self._batches[key]):
                self._batches.move_to_end(key)
                return key[2], self._batches[key]
        return None

    def add(self, table: int, column: str, first: int, batch: Any) -> None:
        """Keep a batch, and drop those that were not used for longest."""
        self._batches[table, column, first] = batch
        while len(self._batches) > 1 and sum(each.nbytes for each in self._batches.values()) > _KEPT_BYTES:
            self._batches.popitem(last=False)


_BATCHES = _KeptBatches()
_NUMBERS = count()
_LOCK = Lock()


@dataclass
class _Cursor:
    """The batches of one row group that are not read yet, the first of which begins at `row`."""

    group: int
    row: int
    batches: Iterator[Any]


class ParquetCells(Cells):
    """The cells of a Parquet table; its footer alone is read for the index.

    Attributes:
        schema: the schema of pyarrow.
        rows: the number of rows.

    Raises:
        DecodeError: it is no whole Parquet table.
        DatasetError: pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        parquet = load_parquet()
        try:
            self._file = parquet.ParquetFile(
                open_binary(path), pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
            )
            self.schema = self._file.schema_arrow
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged footer raises ArrowInvalid, OSError, and others
            raise DecodeError(f"no whole Parquet table ({_one_line(error)})") from None
        metadata = self._file.metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        self.rows: int = metadata.num_rows
        self._ends = list(accumulate(group.num_rows for group in groups))
        self._cursors: dict[str, _Cursor] = {}
        self._number = next(_NUMBERS)

    def read(self, member: str, check_length: Callable[[int], None]) -> bytes:
        """See `Members`."""
        name, row = split_cell_name(member)
        column = self._column(name)
        if row >= self.rows:
            raise DecodeError(f"the table has no row {row}: it has {self.rows}, counted from 0")
        with _LOCK:
            try:
                first, batch = _BATCHES.find(self._number, column, row) or self._read_batch(column, row)
            except (DecodeError, StoreError):
                raise
            except Exception as error:  # noqa: BLE001 - damaged pages raise OSError, ArrowInvalid, and others
                self._cursors.pop(column, None)
                raise DecodeError(f"column {column!r} cannot be read at row {row} ({_one_line(error)})") from None
        return _content(batch[row - first].as_py(), check_length)

    def read_columns(self, names: Sequence[str]) -> Any:
        """Return columns of all rows as a table of pyarrow.

        Raises:
            DecodeError: they are damaged.
        """
        with _LOCK:
            try:
                return self._file.read(columns=list(names))
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - see above
                raise DecodeError(f"its columns cannot be read ({_one_line(error)})") from None

    def _column(self, name: str) -> str:
        """Return the column in the file that has the content: `image` of a structure is `image.bytes`."""
        leaves = [self._file.schema.column(index).path for index in range(len(self._file.schema))]
        for leaf in (name, f"{name}.bytes"):
            if leaf in leaves:
                return leaf
        named = list(self.schema.names)
        if name in named:
            raise DecodeError(f"column {name!r} holds {self.schema.field(name).type}, expected bytes, or `bytes` in it")
        raise DecodeError(f"the table has no column {name!r}{did_you_mean(name, named)} ({', '.join(named)[:200]})")

    def _read_batch(self, column: str, row: int) -> tuple[int, Any]:
        group = next(index for index, end in enumerate(self._ends) if row < end)
        cursor = self._cursors.get(column)
        if cursor is None or cursor.group != group or row < cursor.row:
            cursor = self._cursors[column] = self._start(column, group)
        for batch in cursor.batches:
            array = batch.column(0)
            first, cursor.row = cursor.row, cursor.row + len(array)
            if row < cursor.row:
                _BATCHES.add(self._number, column, first, array)
                return first, array
        raise DecodeError(f"the row group of row {row} ends too early")

    def _start(self, column: str, group: int) -> _Cursor:
        metadata = self._file.metadata.row_group(group)
        columns = [metadata.column(index) for index in range(metadata.num_columns)]
        size = next(each.total_uncompressed_size for each in columns if each.path_in_schema == column)
        rows = max(1, min(metadata.num_rows, _BATCH_BYTES * metadata.num_rows // max(size, 1)))
        batches = self._file.iter_batches(batch_size=rows, row_groups=[group], columns=[column], use_threads=False)
        return _Cursor(group, self._ends[group] - metadata.num_rows, batches)


def _content(cell: Any, check_length: Callable[[int], None]) -> bytes:
    """Return the bytes of a cell."""
    if isinstance(cell, dict):
        cell = cell.get("bytes")
    if cell is None:
        raise DecodeError("the cell is empty (null)")
    if isinstance(cell, str):
        check_length(len(cell))
        return picture_of_pixels(cell)
    if not isinstance(cell, bytes):
        raise DecodeError(f"the cell holds {type(cell).__name__}, expected the bytes of a file")
    check_length(len(cell))
    return cell


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
