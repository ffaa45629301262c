"""The files of a dataset on a disk: whether each is there and may be an image, found while opening as few as possible.

A dataset may have millions of rows. So paths are plain strings, links are resolved once per folder and not once per
file, and files are inspected in threads, which wait for the disk or for the network behind it.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

from emofuse.datasets.content_stores import content_stores
from emofuse.datasets.names import printable

_LFS_START = b"version https://git-lfs"
LFS_MAX_BYTES = 1024  # the specification of git-lfs says that a pointer file is smaller
_THREADS = 16
_PATHS_PER_TASK = 4096

P = TypeVar("P")
T = TypeVar("T")


def is_lfs_pointer(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of a git-lfs pointer, the text that stands for a file."""
    return start.startswith(_LFS_START)


class FileFault(StrEnum):
    """The reason why a path is no image file. The values are shown to the user."""

    OUTSIDE = "path leaves the root"
    MISSING = "missing file"
    NOT_A_FILE = "not a file"
    UNREADABLE = "file cannot be read"
    EMPTY = "empty file"
    LFS_POINTER = "git-lfs pointer text instead of a file"


class Entry(NamedTuple):
    """An entry of a folder: its name, and whether it is a folder or a link to one."""

    name: str
    is_dir: bool


class FileStamp(NamedTuple):
    """The length and the time of change of a file, by which a replaced file is noticed without reading it.

    `modified_ns` is in nanoseconds since 1970; None where a store does not state it.
    """

    bytes: int
    modified_ns: int | None


FileState = tuple[FileFault | None, FileStamp | None]
"""The fault of a file (None if it has none) and its stamp (None if there is no file)."""


class DatasetFiles:
    """The files below a root on this machine; many threads may use one instance.

    A link that leads out of the root is followed in two cases only, since a manifest may come from somebody else: the
    user allows it, or its target is in a content store that belongs to the dataset.
    """

    def __init__(self, root: Path, *, follow_links: bool = False) -> None:
        self.follow_links = follow_links
        self._root = str(root.absolute())
        self._real_root = os.path.realpath(self._root)
        self._stores = content_stores(self._real_root)
        self._folder_store: dict[str, str | None] = {}
        self._in_stores: Counter[str] = Counter()
        self._lock = Lock()

    def absolute(self, path: str) -> str:
        """Return the absolute path of a path that is relative to the root."""
        return f"{self._root}/{path}"

    def real(self, folder: str) -> str:
        """Return the absolute path of a folder with all links resolved."""
        return os.path.realpath(self.absolute(folder))

    def entries(self, folder: str) -> list[Entry]:
        """Return the entries of a folder, by name.

        Raises:
            OSError: the folder cannot be listed.
        """
        with os.scandir(self.absolute(folder)) as entries:
            return sorted(Entry(entry.name, entry.is_dir()) for entry in entries)

    def is_inside(self, path: str) -> bool:
        """Return whether a relative path stays below the root by its text, and its folder by the links in it, too."""
        if "/.." in path and posixpath.normpath(path).startswith(".."):  # only links may lead to a content store
            return False
        if path == ".." or path.startswith(("../", "/")) or path[1:3] == ":/":
            return False
        return self.follow_links or self._store_of_folder(path.rpartition("/")[0]) is not None

    def read(self, path: str) -> bytes:
        """Return the bytes of a small file, by its normalised relative path.

        Raises:
            OSError: the file is missing or cannot be read.
            ValueError: the path leaves the root, or is no path of a file.
        """
        absolute = self.absolute(path)
        is_inside = self.is_inside(path)
        if is_inside and stat.S_ISLNK(os.lstat(absolute).st_mode):
            is_inside = self.leads_inside(path)
        if not is_inside:
            raise ValueError("its path leaves the root")
        if not stat.S_ISREG(Path(absolute).stat().st_mode):  # reading a named pipe would wait for a writer
            raise ValueError("not a file")
        with FileIO(absolute) as file:
            return file.readall()

    def leads_inside(self, path: str) -> bool:
        """Return whether a path with all links resolved ends where it may: below the root, in a store, or anywhere."""
        return self.follow_links or self._store_of(path) is not None

    def notes(self) -> list[str]:
        """Return one line per content store outside of the root: how many of the inspected files are in it."""
        return [
            f"links to the content in {printable(store)}, followed: {count}"
            for store, count in sorted(self._in_stores.items())
        ]

    def _store_of(self, path: str) -> str | None:
        """Return the place in which a path ends with all links resolved: the real root, a content store, or None."""
        real = os.path.realpath(self.absolute(path))
        places = (self._real_root, *self._stores)
        return next(
            (place for place in places if real == place or real.startswith(place.rstrip(os.sep) + os.sep)), None
        )

    def _store_of_folder(self, folder: str) -> str | None:
        """Return the same for a folder, resolved once."""
        if folder not in self._folder_store:
            self._folder_store[folder] = self._store_of(folder)
        return self._folder_store[folder]

    def holds(self, path: str) -> bool:
        """Return whether a relative path of any form ends below the root; a missing file does if its folder does.

        Paths are resolved as the system resolves them: `link/..` is the parent of the link's target.
        """
        if not self.is_inside(path):
            return False
        if path.rpartition("/")[2] in {"", ".", ".."}:
            return self.leads_inside(path)
        try:
            is_link = stat.S_ISLNK(os.lstat(self.absolute(path)).st_mode)
        except (OSError, ValueError):
            return True
        return not is_link or self.leads_inside(path)

    def inspect(self, path: str) -> FileState:
        """Return the fault and the stamp of the file at a normalised relative path."""
        try:
            return self._inspect(path) if self.is_inside(path) else (FileFault.OUTSIDE, None)
        except (FileNotFoundError, NotADirectoryError):
            return FileFault.MISSING, None
        except (OSError, ValueError):  # no permission, a loop of links, a name that is too long or has a NUL
            return FileFault.UNREADABLE, None

    def inspect_all(self, paths: Sequence[str]) -> Iterator[FileState]:
        """Inspect many paths in threads, and iterate over the results in order."""
        return map_in_threads(self.inspect, paths)

    def _inspect(self, path: str) -> FileState:
        status = os.lstat(self.absolute(path))
        is_link = stat.S_ISLNK(status.st_mode)
        if not self.follow_links:
            store = self._store_of(path) if is_link else self._store_of_folder(path.rpartition("/")[0])
            if store is None:
                return FileFault.OUTSIDE, None
            if store != self._real_root:
                with self._lock:
                    self._in_stores[store] += 1
        if is_link:
            status = Path(self.absolute(path)).stat()
        if not stat.S_ISREG(status.st_mode):
            return FileFault.NOT_A_FILE, None
        stamp = FileStamp(status.st_size, status.st_mtime_ns)
        if status.st_size == 0:
            return FileFault.EMPTY, stamp
        is_pointer = status.st_size < LFS_MAX_BYTES and is_lfs_pointer(self.read(path))
        return (FileFault.LFS_POINTER if is_pointer else None), stamp


def map_in_threads(work: Callable[[P], T], paths: Sequence[P], paths_per_task: int = _PATHS_PER_TASK) -> Iterator[T]:
    """Return `map(work, paths)`, computed in threads; a task is a slice of paths, since one path is too little."""

    def work_through(start: int) -> list[T]:
        return [work(path) for path in paths[start : start + paths_per_task]]

    with ThreadPoolExecutor(_THREADS) as pool:
        for results in pool.map(work_through, range(0, len(paths), paths_per_task)):
            yield from results
