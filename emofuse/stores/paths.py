"""Paths of this machine and of stores.

A path of a store has those members of `pathlib.Path` that caches and datasets use. Members without a counterpart on a
store (links, locks, renaming) are missing, so that their use is an error.
"""
# universal-pathlib 0.3 was tried in its place. It answers `is_file()` with False when the store does not answer, has
# no conditional writes, and loads in 0.6 s; every request would have to be wrapped again, which is most of this module.

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from emofuse.stores.connection import file_system, is_refused_condition, store_errors

SCHEME = "s3://"
_BLOCK_BYTES = 1 << 20


def as_path(path: str | Path) -> Path:
    """Return a path of this machine, or of a store if the text begins with `s3://`.

    `Path("s3://bucket/x")` has lost one of its slashes. It is accepted too, because specs and the command line parse
    paths.

    Returns:
        A `Path`, or a `RemotePath` in its place.
    """
    text = str(path)
    if not text.startswith("s3:/"):
        return Path(path)
    return cast("Path", RemotePath(SCHEME + text.removeprefix("s3:").strip("/")))


def is_remote(path: Path) -> bool:
    """Return whether a path lies on a store."""
    return isinstance(path, RemotePath)


def open_binary(path: Path) -> BinaryIO:
    """Open a file of this machine or of a store for reading parts of it."""
    if is_remote(path):
        return cast("RemotePath", path).open_binary()
    return path.open("rb")


@dataclass(frozen=True)
class RemoteStat:
    """Size and time of an object of a store.

    Attributes:
        st_size: the size in bytes.
        st_mtime: the time of writing, seconds since 1970.
    """

    st_size: int
    st_mtime: float


class _RemoteFile(io.RawIOBase):
    """An open object of a store, whose faults are errors of the store."""

    def __init__(self, path: RemotePath, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with store_errors(self._path):
            return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass(frozen=True, order=True)
class RemotePath:
    """An object of a store, or a folder: a common beginning of the keys of objects.

    Attributes:
        url: `s3://bucket/key`, without a slash at the end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __truediv__(self, key: str | Path) -> RemotePath:
        return RemotePath(f"{self.url}/{posixpath.normpath(str(key))}") if str(key) != "." else self

    @property
    def key(self) -> str:
        """Return `bucket/key`."""
        return self.url.removeprefix(SCHEME)

    @property
    def name(self) -> str:
        """Return the last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Return the name from its last dot on."""
        return Path(self.name).suffix

    @property
    def stem(self) -> str:
        """Return the name without its suffix."""
        return Path(self.name).stem

    @property
    def parent(self) -> RemotePath:
        """Return the folder of the path; a bucket is its own parent."""
        above = self.key.rpartition("/")[0]
        return RemotePath(SCHEME + above) if above else self

    def with_name(self, name: str) -> RemotePath:
        """Return the path in the same folder with another name."""
        return self.parent / name

    def absolute(self) -> RemotePath:
        """Return the path itself, which is absolute."""
        return self

    def resolve(self) -> RemotePath:
        """Return the path itself: a store has no links."""
        return self

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield the paths below that match a pattern, part by part; `**` is not supported."""
        first, _, rest = pattern.partition("/")
        for entry in self.iterdir() if self.is_dir() else ():
            if fnmatch(entry.name, first):
                yield from entry.glob(rest) if rest else (entry,)

    def stat(self) -> RemoteStat:
        """Return size and time of the object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with store_errors(self):
            info = file_system().info(self.key)
        if info["type"] != "file":
            raise FileNotFoundError(f"{self}: no such object")
        modified = info.get("LastModified")
        return RemoteStat(int(info["size"]), modified.timestamp() if modified is not None else 0.0)

    def is_file(self) -> bool:
        """Return whether there is such an object."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return whether there are objects below the path."""
        with store_errors(self):
            return bool(file_system().isdir(self.key))

    def exists(self) -> bool:
        """Return whether the path is an object or a folder."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield the paths in the folder, in the order of their names.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        with store_errors(self):
            keys = file_system().ls(self.key, detail=False)
        return iter(sorted(RemotePath(SCHEME + key) for key in keys if key.rstrip("/") != self.key))

    def read_bytes(self) -> bytes:
        """Read the whole object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with store_errors(self):
            return bytes(file_system().cat_file(self.key))

    def open_binary(self) -> BinaryIO:
        """Open the object for reading parts of it; only these parts are transferred, in blocks.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with store_errors(self):
            file = file_system().open(self.key, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
        return cast("BinaryIO", _RemoteFile(self, file))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read the whole object as text.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self.read_bytes().decode(encoding)

    def open(self, encoding: str = "utf-8", newline: str | None = None) -> TextIO:
        """Open the object for reading text; it is read whole at once.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding=encoding, newline=newline)

    def write_bytes(self, data: bytes) -> int:
        """Write or replace the whole object, and return its length."""
        with store_errors(self):
            file_system().pipe_file(self.key, data)
        return len(data)

    def write_if(self, data: bytes, tag: str | None) -> str:
        """Write the object only if it is still the one with this tag; of two processes that try, one succeeds.

        Args:
            data: the bytes to write.
            tag: the result of `tag()` for the object to replace; None to write only if there is no object.

        Returns:
            The new tag.

        Raises:
            FileExistsError: the object has another tag, or is gone.
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with store_errors(self):
            try:
                return str(file_system().pipe_file(self.key, data, **condition)["ETag"])
            except FileNotFoundError:
                raise FileExistsError(f"{self}: gone meanwhile") from None
            except OSError as error:
                if not isinstance(error, FileExistsError) and not is_refused_condition(error):
                    raise
                raise FileExistsError(f"{self}: changed meanwhile") from None

    def tag(self) -> str | None:
        """Return the tag of the object, which changes with every write; None if there is no object."""
        with store_errors(self):
            try:
                return str(file_system().info(self.key)["ETag"])
            except FileNotFoundError:
                return None

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object.

        Raises:
            FileNotFoundError: there is no such object, and `missing_ok` is False.
        """
        if not missing_ok:
            self.stat()  # a store reports no error for a missing object
        with store_errors(self):
            file_system().rm_file(self.key)

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder exists as soon as an object is in it."""
