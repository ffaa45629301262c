"""The bytes of a source: a file of this machine or of a store, or a member of one (see `emofuse.datasets.members`).

Every file is opened once. A small one is read whole, so that its bytes can be hashed and decoded without a second read.
A long one, and one of which only a span is needed, stays open and is sought. A member is read whole.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from emofuse.checksum import crc32c
from emofuse.datasets.files import is_lfs_pointer
from emofuse.datasets.members import read_member
from emofuse.datasets.sources import Source
from emofuse.errors import DecodeError
from emofuse.stores import is_remote, open_binary

WHOLE_BYTES = 64 << 20
"""The length of the longest clip or sound that is read whole. Longer ones are sought, and not hashed."""

OnRead = Callable[[os.stat_result, bytes | None], None]
"""Called with the status of a file, taken before it was read, and its bytes; None for a file that is not hashed."""

CheckLength = Callable[[int], None]
"""Called with the length of a file before it is read; raises `DecodeError` if the file is too long."""


class FileSums:
    """The length, time and checksum of what a sample is extracted from: of one file, or of clip and sound together.

    Attributes:
        bytes: the length, or the sum of both.
        modified_ns: the time of change in nanoseconds since 1970, or the sum of both.
        crc: the CRC-32C of the bytes, or of both contents after each other; None if a file was not hashed.
        files: the number of files.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.modified_ns = 0
        self.crc: int | None = 0
        self.files = 0

    def add(self, status: os.stat_result, data: bytes | None) -> None:
        """Add a file: its status from before it was read, and its bytes; None for a file that is not hashed."""
        self.bytes += status.st_size
        self.modified_ns += getattr(status, "st_mtime_ns", 0)  # a store states no time that could be compared
        self.crc = None if data is None or self.crc is None else crc32c(data, self.crc)
        self.files += 1


@dataclass(frozen=True)
class OpenFile:
    """An open clip or sound.

    Attributes:
        file: the bytes, at their start, which can be sought.
        is_whole: whether all bytes are in memory.
    """

    file: BinaryIO
    is_whole: bool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def open_source(source: Source, noun: str, on_read: OnRead | None = None) -> OpenFile:
    """Open the file of a source (not its `audio_path`).

    Args:
        source: the source.
        noun: what the file should be, for messages: "clip", "sound".
        on_read: receives the bytes of a file that is read whole.

    Raises:
        DecodeError: the file is missing, unreadable, empty or a text in place of a file. The message is one line.
    """
    if source.member is not None:
        data = read_file(source, on_read)
        check_is_no_text(data, noun)
        return OpenFile(io.BytesIO(data), is_whole=True)
    try:
        status = _checked_status(source.path)
        if status.st_size <= WHOLE_BYTES and not source.is_span:
            data = source.path.read_bytes()
            if on_read is not None:
                on_read(status, data)
            check_is_no_text(data, noun)
            return OpenFile(io.BytesIO(data), is_whole=True)
        file: BinaryIO = open_binary(source.path)
    except FileNotFoundError:
        raise DecodeError("no such file") from None
    except OSError as error:
        raise DecodeError(f"cannot be read: {error.strerror or error}") from error
    if on_read is not None:
        on_read(status, None)
    start = file.read(256)
    file.seek(0)
    try:
        check_is_no_text(start, noun)
    except DecodeError:
        file.close()
        raise
    return OpenFile(file, is_whole=False)


def read_file(source: Source, on_read: OnRead | None = None, check_length: CheckLength | None = None) -> bytes:
    """Read a whole file or member.

    Args:
        source: the source.
        on_read: receives the bytes, with the status of the file or archive.
        check_length: raises for a length that is not to be read.

    Raises:
        DecodeError: it is missing, unreadable or too long. The message is one line.
    """
    try:
        status = _checked_status(source.path)
        if source.member is None:
            if check_length is not None:
                check_length(status.st_size)
            data = source.path.read_bytes()
        else:
            data = read_member(source.path, source.member, status, check_length)
    except FileNotFoundError:
        raise DecodeError("no such file") from None
    except OSError as error:
        raise DecodeError(f"cannot be read: {error.strerror or error}") from error
    if on_read is not None:
        on_read(status, data)
    return data


def check_is_no_text(data: bytes, noun: str) -> None:
    """Raise if bytes are none, or one of the texts that often replace a file.

    Raises:
        DecodeError: they are.
    """
    if not data:
        raise DecodeError("empty file")
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if is_lfs_pointer(start):
        raise DecodeError(f"git-lfs pointer text instead of the {noun}: run `git lfs pull` in the dataset")
    if start.startswith((b"<!doctype html", b"<html")):
        raise DecodeError(f"an HTML page instead of a {noun} (a failed download?)")


def _checked_status(path: Path) -> os.stat_result:
    status = path.stat()
    if not is_remote(path) and not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise DecodeError("not a file (a named pipe, socket or device)")  # reading it would wait for ever
    return status
