"""What is wrong with the files of a dataset, found without opening more of them than need be.

Millions of rows must pass here, so paths are plain strings, links are followed once per folder and not once per file,
and the look-ups run in threads: they wait for the disk, or for the network behind it.
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
LFS_MAX_BYTES = 1024  # a pointer file is smaller by the specification of git-lfs
_THREADS = 16
_PATHS_PER_TASK = 4096

T = TypeVar("T")


def is_lfs_pointer(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of a git-lfs pointer, the text that stands for a file."""
    return start.startswith(_LFS_START)


class FileFault(StrEnum):
    """Why a path is no image file. The values are what the user reads."""

    OUTSIDE = "path leaves the root"
    MISSING = "missing file"
    NOT_A_FILE = "not a file"
    UNREADABLE = "file cannot be read"
    EMPTY = "empty file"
    LFS_POINTER = "git-lfs pointer text instead of an image"


class Entry(NamedTuple):
    """What lies in a folder: its name, and whether it is a folder itself or leads to one."""

    name: str
    is_dir: bool


class FileStamp(NamedTuple):
    """What tells of a file, without reading it, that it was replaced: its length, and when it was last written.

    `modified_ns` is nanoseconds since 1970, None where a store does not say.
    """

    bytes: int
    modified_ns: int | None


Look = tuple[FileFault | None, FileStamp | None]
"""What is wrong with a file, and its stamp: None if there is no file."""


class DatasetFiles:
    """The files below one root of this machine. Safe to use from many threads.

    A link that leads out of the root is followed only if the user says so, since a manifest may come from somebody
    else, or if what it leads to in the end lies in a store of content that belongs to the dataset.
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
        """The absolute path of one that is relative to the root."""
        return f"{self._root}/{path}"

    def real(self, folder: str) -> str:
        """The absolute path of a folder with all links followed."""
        return os.path.realpath(self.absolute(folder))

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder, by name.

        Raises:
            OSError: it cannot be listed.
        """
        with os.scandir(self.absolute(folder)) as entries:
            found = [Entry(entry.name, entry.is_dir()) for entry in entries]
        return sorted(found)

    def is_inside(self, path: str) -> bool:
        """Whether a relative path stays below the root by its text, and its folder by the links in it as well."""
        if "/.." in path and posixpath.normpath(path).startswith(".."):  # links alone may lead to a store
            return False
        if path == ".." or path.startswith(("../", "/")) or path[1:3] == ":/":
            return False
        return self.follow_links or self._store_of_folder(path.rpartition("/")[0]) is not None

    def read(self, path: str) -> bytes:
        """The bytes of a small file, by its normalised relative path.

        Raises:
            OSError: it is missing or cannot be read.
            ValueError: the path leaves the root, or is no path.
        """
        absolute = self.absolute(path)
        is_inside = self.is_inside(path)
        if is_inside and stat.S_ISLNK(os.lstat(absolute).st_mode):
            is_inside = self.leads_inside(path)
        if not is_inside:
            raise ValueError("its path leaves the root")
        if not stat.S_ISREG(Path(absolute).stat().st_mode):  # a named pipe would be waited for
            raise ValueError("not a file")
        with FileIO(absolute) as file:
            return file.readall()

    def leads_inside(self, path: str) -> bool:
        """Whether a path, its own links followed too, ends below the root or in a store; or may end anywhere."""
        return self.follow_links or self._store_of(path) is not None

    def notes(self) -> list[str]:
        """How many of the files that were looked at lie in a store of content outside of the root, one line a store."""
        return [
            f"links to the content in {printable(store)}, followed: {count}"
            for store, count in sorted(self._in_stores.items())
        ]

    def _store_of(self, path: str) -> str | None:
        """The folder that a path, all links followed, ends in: the real root, a store of content, or None."""
        real = os.path.realpath(self.absolute(path))
        places = (self._real_root, *self._stores)
        return next(
            (place for place in places if real == place or real.startswith(place.rstrip(os.sep) + os.sep)), None
        )

    def _store_of_folder(self, folder: str) -> str | None:
        """The same, asked once per folder."""
        if folder not in self._folder_store:
            self._folder_store[folder] = self._store_of(folder)
        return self._folder_store[folder]

    def holds(self, path: str) -> bool:
        """Whether a relative path of any form ends below the root; one that is missing does if its folder does.

        It is taken as the system takes it, for which `link/..` is the parent of what the link leads to.
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

    def look(self, path: str) -> Look:
        """What is wrong with a normalised relative path, and the stamp of its file."""
        try:
            return self._look(path) if self.is_inside(path) else (FileFault.OUTSIDE, None)
        except (FileNotFoundError, NotADirectoryError):
            return FileFault.MISSING, None
        except (OSError, ValueError):  # no permission, a loop of links, a name too long or with a NUL in it
            return FileFault.UNREADABLE, None

    def looks(self, paths: Sequence[str]) -> Iterator[Look]:
        """The same of many, in order."""
        return map_in_threads(self.look, paths)

    def _look(self, path: str) -> Look:
        found = os.lstat(self.absolute(path))
        is_link = stat.S_ISLNK(found.st_mode)
        if not self.follow_links:
            store = self._store_of(path) if is_link else self._store_of_folder(path.rpartition("/")[0])
            if store is None:
                return FileFault.OUTSIDE, None
            if store != self._real_root:
                with self._lock:
                    self._in_stores[store] += 1
        if is_link:
            found = Path(self.absolute(path)).stat()
        if not stat.S_ISREG(found.st_mode):
            return FileFault.NOT_A_FILE, None
        stamp = FileStamp(found.st_size, found.st_mtime_ns)
        if found.st_size == 0:
            return FileFault.EMPTY, stamp
        is_pointer = found.st_size < LFS_MAX_BYTES and is_lfs_pointer(self.read(path))
        return (FileFault.LFS_POINTER if is_pointer else None), stamp


def map_in_threads(
    work: Callable[[str], T], paths: Sequence[str], paths_per_task: int = _PATHS_PER_TASK
) -> Iterator[T]:
    """Return `map(work, paths)`, computed in threads. A task is a slice of paths: one path would cost less than it."""

    def work_through(start: int) -> list[T]:
        return [work(path) for path in paths[start : start + paths_per_task]]

    with ThreadPoolExecutor(_THREADS) as pool:
        for results in pool.map(work_through, range(0, len(paths), paths_per_task)):
            yield from results
