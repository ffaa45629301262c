"""The files of a dataset on a store: listed once, since asking for each of millions of images takes days."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

from emofuse.datasets.files import LFS_MAX_BYTES, Entry, FileFault, FileStamp, Look, is_lfs_pointer, map_in_threads
from emofuse.stores import RemotePath, list_objects


class RemoteFiles:
    """The files below one root on a store: what `DatasetFiles` is for a disk. A store has no links."""

    follow_links = False

    def __init__(self, root: Path) -> None:
        self._root = cast("RemotePath", root)

    @cached_property
    def _stamps(self) -> dict[str, FileStamp]:
        found = list_objects(self._root)
        return {path: FileStamp(size, modified_ns) for path, (size, modified_ns) in found.items()}

    @cached_property
    def _folders(self) -> dict[str, dict[str, bool]]:
        """Folder, "" for the root -> name of what lies in it -> whether that is a folder."""
        folders: dict[str, dict[str, bool]] = {"": {}}
        for path in self._stamps:
            above, _, name = path.rpartition("/")
            folders.setdefault(above, {})[name] = False
            while above:
                outer, _, name = above.rpartition("/")
                known = folders.setdefault(outer, {})
                if name in known:
                    break
                known[name] = True
                above = outer
        return folders

    def absolute(self, path: str) -> str:
        """The address of a relative path."""
        return str(self._root / path) if path else str(self._root)

    def real(self, folder: str) -> str:
        """The address: nothing leads elsewhere."""
        return self.absolute(folder)

    def is_inside(self, path: str) -> bool:
        """Whether a normalised relative path stays below the root."""
        return not (path == ".." or path.startswith(("../", "/")) or path[1:3] == ":/")

    def leads_inside(self, path: str) -> bool:
        """The same: nothing leads elsewhere."""
        return self.is_inside(path)

    def notes(self) -> list[str]:
        """None: nothing lies elsewhere."""
        return []

    def holds(self, path: str) -> bool:
        """Whether a relative path of any form stays below the root."""
        return self.is_inside(posixpath.normpath(path))

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder, by name."""
        found = self._folders.get(folder, {})
        return [Entry(name, found[name]) for name in sorted(found) if name]

    def read(self, path: str) -> bytes:
        """The bytes of a small file, by its normalised relative path.

        Raises:
            FileNotFoundError: it is missing.
            ValueError: the path leaves the root.
            StoreError: the store does not answer.
        """
        if not self.is_inside(path):
            raise ValueError("its path leaves the root")
        return (self._root / path).read_bytes()

    def look(self, path: str) -> Look:
        """What is wrong with a normalised relative path, and the stamp of its object."""
        if not self.is_inside(path):
            return FileFault.OUTSIDE, None
        stamp = self._stamps.get(path)
        if stamp is None:
            return (FileFault.NOT_A_FILE if path in self._folders else FileFault.MISSING), None
        if stamp.bytes == 0:
            return FileFault.EMPTY, stamp
        is_pointer = stamp.bytes < LFS_MAX_BYTES and is_lfs_pointer(self.read(path))
        return (FileFault.LFS_POINTER if is_pointer else None), stamp

    def looks(self, paths: Sequence[str]) -> Iterator[Look]:
        """The same of many, in order."""
        _ = self._folders  # before there are threads
        return map_in_threads(self.look, paths)
