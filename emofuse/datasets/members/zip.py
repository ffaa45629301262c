"""Files in zip archives, stored or deflated.

A member is read by its place alone: `zipfile` would parse the directory of the whole archive for each of them.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from emofuse.errors import DecodeError
from emofuse.stores import open_binary

_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1
_METHODS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma", 9: "deflate64", 93: "zstandard", 99: "AES"}


class _Place(NamedTuple):
    """The place of a member, and its entry in the directory of the archive."""

    start: int
    packed: int
    size: int
    method: int
    crc: int
    is_encrypted: bool


class ZipMembers:
    """The files in a zip archive. Folders and links are left out.

    Raises:
        DecodeError: it is no zip archive, or its directory is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with open_binary(path) as file, zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except zipfile.BadZipFile as error:
            raise DecodeError(f"no whole zip archive ({error}): it may be cut off, as by a failed download") from None
        except (NotImplementedError, UnicodeDecodeError, struct.error, ValueError) as error:
            raise DecodeError(f"the directory of the zip archive cannot be read ({error})") from None
        self._places = {each.filename.replace("\\", "/"): _place(each) for each in entries if _is_file(each)}

    @property
    def names(self) -> Sequence[str]:
        """See `Members`."""
        return list(self._places)

    def length(self, member: str) -> int | None:
        """See `Members`."""
        return self._places[member].size if member in self._places else None

    def read(self, member: str, check_length: Callable[[int], None]) -> bytes:
        """See `Members`."""
        if member not in self._places:
            raise DecodeError(f"the archive has no member {member!r}")
        place = self._places[member]
        check_length(place.size)
        if place.is_encrypted:
            raise DecodeError(f"the member {member!r} is encrypted: unpack the archive with its password")
        if place.method not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            method = _METHODS.get(place.method, f"method {place.method}")
            raise DecodeError(f"the member {member!r} is compressed by {method}; stored and deflated ones can be read")
        check_length(place.packed)
        data = _unpacked(self._packed(place, member), place, member)
        if zlib.crc32(data) != place.crc:
            raise DecodeError(f"the member {member!r} is damaged: its CRC-32 does not fit")
        return data

    def _packed(self, place: _Place, member: str) -> bytes:
        """Return the compressed bytes; the lengths of name and extra field before them are in the local header."""
        with open_binary(self._path) as file:
            file.seek(max(place.start, 0))
            header = file.read(_HEADER.size)
            # The start is negative if bytes were lost before the directory.
            if place.start < 0 or len(header) < _HEADER.size or header[:4] != b"PK\x03\x04":
                raise DecodeError(f"the member {member!r} is not where the directory of the archive says")
            *_, name_length, extra_length = _HEADER.unpack(header)
            file.seek(place.start + _HEADER.size + name_length + extra_length)
            data = file.read(place.packed)
        if len(data) < place.packed:
            raise DecodeError(f"the archive is cut off within its member {member!r}")
        return data


def _place(entry: zipfile.ZipInfo) -> _Place:
    is_encrypted = bool(entry.flag_bits & _ENCRYPTED)
    return _Place(
        entry.header_offset, entry.compress_size, entry.file_size, entry.compress_type, entry.CRC, is_encrypted
    )


def _is_file(entry: zipfile.ZipInfo) -> bool:
    mode = entry.external_attr >> 16
    is_named = bool(entry.filename) and not entry.filename.endswith("/")
    return is_named and (stat.S_IFMT(mode) == 0 or stat.S_ISREG(mode))


def _unpacked(packed: bytes, place: _Place, member: str) -> bytes:
    """Return the bytes of a member, unpacked no further than the length that the directory states."""
    data = packed
    if place.method == zipfile.ZIP_DEFLATED:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflate.decompress(packed, place.size + 1)
        except zlib.error as error:
            raise DecodeError(f"the member {member!r} is damaged ({error})") from None
    if len(data) != place.size:
        more = "more" if len(data) > place.size else "fewer"
        raise DecodeError(f"the member {member!r} has {more} bytes than the {place.size:,} that the archive states")
    return data
