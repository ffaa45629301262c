"""The pictures, clips and sounds in a file that holds many: an archive, or a table with images in its cells."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from emofuse.datasets.archive_files import find_archive
from emofuse.datasets.members import TABLE_SUFFIXES, open_members
from emofuse.datasets.members.base import cell_name
from emofuse.datasets.members.csv_cells import CsvCells
from emofuse.datasets.members.parquet_cells import ParquetCells
from emofuse.datasets.names import NameKind, is_debris, kind_of_name
from emofuse.datasets.parquet_schema import image_column
from emofuse.datasets.sources import Source
from emofuse.errors import DatasetError, DecodeError


def media_members(path: Path, kinds: Collection[NameKind]) -> list[Source] | None:
    """Return the members of some kinds in an archive (`a.zip`, `a.zip/train`) or table, or one (`a.csv/pixels[3]`).

    Args:
        path: the archive or table, a folder in the archive, or a member.
        kinds: the kinds of members that are wanted. The cells of tables are images.

    Returns:
        The members in the order of their names, or of rows; None if the path leads into no archive and no table.

    Raises:
        DatasetError: the file cannot be read, has no such member, or a table has no column of images.
    """
    try:
        if (archive := find_archive(path)) is not None:
            return _in_archive(*archive, kinds)
        table = path.parent if path.parent.suffix.lower() in TABLE_SUFFIXES else path
        if table.suffix.lower() not in TABLE_SUFFIXES or not table.is_file():
            return None
        if table != path:
            return [Source(table, path.name)]
        return _in_table(table)
    except (DecodeError, OSError) as error:
        raise DatasetError(f"{path}: {error}") from None


def _in_archive(path: Path, inner: str, kinds: Collection[NameKind]) -> list[Source]:
    names = open_members(path).names
    member = inner.rstrip("/")
    if member in names:
        return [Source(path, member)]
    found = [name for name in names if name.startswith(inner) and kind_of_name(name) in kinds]
    found = sorted(name for name in found if not any(is_debris(part) for part in name.removeprefix("./").split("/")))
    if not found:
        where = f" below {member!r}" if member else ""
        raise DatasetError(f"{path}: no {' or '.join(sorted(kinds))} in this archive{where}")
    return [Source(path, name) for name in found]


def _in_table(path: Path) -> list[Source]:
    cells = open_members(path)
    if isinstance(cells, ParquetCells):
        column = image_column(path, cells.schema)
        return [Source(path, cell_name(column, row)) for row in range(cells.rows)]
    if not isinstance(cells, CsvCells):
        raise DecodeError("no table")
    pixels = [name for name in cells.columns if name.lower() == "pixels"]
    if not pixels:
        raise DecodeError(f"no column 'pixels' with the values of pictures (columns: {', '.join(cells.columns)[:200]})")
    return [Source(path, cell_name(pixels[0], row)) for row in range(cells.rows)]
