"""The files of a dataset on an object store, listed once: asking for each of millions of images would take days."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

from emofuse.datasets.files import LFS_MAX_BYTES, Entry, FileFault, FileStamp, FileState, is_lfs_pointer, map_in_threads
from emofuse.stores import RemotePath, list_objects


class RemoteFiles:
    """The files below a root on an object store, as `DatasetFiles` is for a disk; a store has no links."""

    follow_links = False

    def __init__(self, root: Path) -> None:
        self._root = cast("RemotePath", root)

    @cached_property
    def _stamps(self) -> dict[str, FileStamp]:
        objects = list_objects(self._root)
        return {path: FileStamp(size, modified_ns) for path, (size, modified_ns) in objects.items()}

    @cached_property
    def _folders(self) -> dict[str, dict[str, bool]]:
        """Folder ("" for the root) -> name of an entry in it -> whether the entry is a folder."""
        folders: dict[str, dict[str, bool]] = {"": {}}
        for path in self._stamps:
            above, _, name = path.rpartition("/")
            folders.setdefault(above, {})[name] = False
            while above:
                outer, _, name = above.rpartition("/")
                entries = folders.setdefault(outer, {})
                if name in entries:
                    break
                entries[name] = True
                above = outer
        return folders

    def absolute(self, path: str) -> str:
        """Return the address of a relative path."""
        return str(self._root / path) if path else str(self._root)

    def real(self, folder: str) -> str:
        """Return the address of a folder: a store has no links."""
        return self.absolute(folder)

    def is_inside(self, path: str) -> bool:
        """Return whether a normalised relative path stays below the root."""
        return not (path == ".." or path.startswith(("../", "/")) or path[1:3] == ":/")

    def leads_inside(self, path: str) -> bool:
        """Return whether a path stays below the root: a store has no links."""
        return self.is_inside(path)

    def notes(self) -> list[str]:
        """Return no notes: a store has no links to content elsewhere."""
        return []

    def holds(self, path: str) -> bool:
        """Return whether a relative path of any form stays below the root."""
        return self.is_inside(posixpath.normpath(path))

    def entries(self, folder: str) -> list[Entry]:
        """Return the entries of a folder, by name."""
        entries = self._folders.get(folder, {})
        return [Entry(name, entries[name]) for name in sorted(entries) if name]

    def read(self, path: str) -> bytes:
        """Return the bytes of a small file, by its normalised relative path.

        Raises:
            FileNotFoundError: the file is missing.
            ValueError: the path leaves the root.
            StoreError: the store does not answer.
        """
        if not self.is_inside(path):
            raise ValueError("its path leaves the root")
        return (self._root / path).read_bytes()

    def inspect(self, path: str) -> FileState:
        """Return the fault and the stamp of the object at a normalised relative path."""
        if not self.is_inside(path):
            return FileFault.OUTSIDE, None
        stamp = self._stamps.get(path)
        if stamp is None:
            return (FileFault.NOT_A_FILE if path in self._folders else FileFault.MISSING), None
        if stamp.bytes == 0:
            return FileFault.EMPTY, stamp
        is_pointer = stamp.bytes < LFS_MAX_BYTES and is_lfs_pointer(self.read(path))
        return (FileFault.LFS_POINTER if is_pointer else None), stamp

    def inspect_all(self, paths: Sequence[str]) -> Iterator[FileState]:
        """Inspect many paths in threads, and iterate over the results in order."""
        _ = self._folders  # listed before the threads start
        return map_in_threads(self.inspect, paths)
