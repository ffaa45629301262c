"""Members of files, read in place: files in tar and zip archives, and cells of CSV and Parquet tables.

A member has a name. That of a file in an archive is its path there. That of a cell is `column[row]`, with rows counted
from 0 after the header: `pixels[17]`, `image[17]`. Nothing is unpacked: an index of the file, which is made once a
process and made anew if the length or the time of the file changes, says where each member is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import Lock

from emofuse.datasets.members.base import Members
from emofuse.datasets.members.csv_cells import CsvCells
from emofuse.datasets.members.parquet_cells import ParquetCells
from emofuse.datasets.members.tar import TarMembers
from emofuse.datasets.members.zip import ZipMembers
from emofuse.datasets.sources import Source
from emofuse.errors import DecodeError
from emofuse.stores import open_binary

MEMBER_BYTES = 1 << 30
"""The length of the longest member that is read: members are read whole."""
ARCHIVE_SUFFIXES = (".tar", ".zip")
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")

_INDEXED_FILES = 16
_LOCK = Lock()

CheckLength = Callable[[int], None]
"""Called with the length of a member before it is read; raises `DecodeError` if it is too long."""


def open_members(path: Path, status: os.stat_result | None = None) -> Members:
    """Return the index of the members of a file.

    Args:
        path: the file.
        status: the status of the file, if it is known.

    Raises:
        DecodeError: the file is none that has members, or it is damaged. The message is one line without the path.
        OSError: the file is missing or cannot be read.
    """
    status = path.stat() if status is None else status
    with _LOCK:  # of several threads, the first makes the index
        return _index(path, status.st_size, getattr(status, "st_mtime_ns", status.st_mtime))


def read_member(
    path: Path, member: str, status: os.stat_result | None = None, check_length: CheckLength | None = None
) -> bytes:
    """Read a member of a file whole. A cell with pixel values is returned as a PGM picture.

    Raises:
        DecodeError: there is no such member, or it is damaged, encrypted or too long. The message is one line.
        OSError: the file is missing or cannot be read.
    """

    def check(length: int) -> None:
        if check_length is not None:
            check_length(length)
        if length > MEMBER_BYTES:
            raise DecodeError(f"{length:,} bytes, more than the {MEMBER_BYTES:,} that a member may have")

    return open_members(path, status).read(member, check)


def read_content(source: Source) -> bytes:
    """Read a whole file, or a member of one, without the sound beside it.

    Raises:
        DecodeError: there is no such member, or it cannot be read. The message is one line.
        OSError: the file is missing or cannot be read.
    """
    return source.path.read_bytes() if source.member is None else read_member(source.path, source.member)


@lru_cache(maxsize=_INDEXED_FILES)
def _index(path: Path, size: int, modified: float) -> Members:  # noqa: ARG001 - a part of the key
    with open_binary(path) as file:
        start = file.read(8)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")) or path.suffix.lower() == ".zip":
        return ZipMembers(path)
    if start.startswith(b"PAR1") or path.suffix.lower() == ".parquet":
        return ParquetCells(path)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return CsvCells(path)
    return TarMembers(path)
