"""Files in tar archives that are not compressed as a whole."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from emofuse.errors import DecodeError
from emofuse.stores import open_binary


class TarMembers:
    """The files in a tar archive. Links and sparse files are left out. Its headers alone are read for the index.

    Raises:
        DecodeError: it is no tar archive whose members can be sought.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with open_binary(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                self._places = {
                    each.name: (each.offset_data, each.size) for each in archive if each.isreg() and not each.issparse()
                }
        except tarfile.TarError as error:
            raise DecodeError(
                f"no tar archive whose members can be sought ({error}); a compressed one can not"
            ) from None

    @property
    def names(self) -> Sequence[str]:
        """See `Members`."""
        return list(self._places)

    def length(self, member: str) -> int | None:
        """See `Members`."""
        return self._places[member][1] if member in self._places else None

    def read(self, member: str, check_length: Callable[[int], None]) -> bytes:
        """See `Members`."""
        if member not in self._places:
            raise DecodeError(f"the archive has no member {member!r}")
        start, size = self._places[member]
        check_length(size)
        with open_binary(self._path) as file:
            file.seek(start)
            data = file.read(size)
        if len(data) < size:
            raise DecodeError(f"the archive is cut off within its member {member!r}")
        return data
