"""Paths of this machine and of stores.

A path of a store has those members of `pathlib.Path` that caches and datasets use, and what has no counterpart on a
store (links, locks, renaming) is not among them, so that it fails at once and not on the quiet.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TextIO, cast

from emofuse.stores.connection import file_system, is_refused_condition, store_errors

SCHEME = "s3://"


def as_path(given: str | Path) -> Path:
    """A path of this machine, or of a store where it says `s3://`.

    `Path("s3://bucket/x")` has lost one of its slashes; it is understood too, so that a path may have been through a
    spec or a command line before.

    Returns:
        A `Path`, or a `RemotePath` in its stead.
    """
    text = str(given)
    if not text.startswith("s3:/"):
        return Path(given)
    return cast("Path", RemotePath(SCHEME + text.removeprefix("s3:").strip("/")))


def is_remote(path: Path) -> bool:
    """Whether a path is one of a store."""
    return isinstance(path, RemotePath)


@dataclass(frozen=True)
class RemoteStat:
    """What a store says of an object.

    Attributes:
        st_size: bytes.
        st_mtime: when it was written, seconds since 1970.
    """

    st_size: int
    st_mtime: float


@dataclass(frozen=True, order=True)
class RemotePath:
    """An object of a store, or what its objects have in common at the beginning of their keys: a folder.

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
        """`bucket/key`."""
        return self.url.removeprefix(SCHEME)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """What follows the last dot of the name, with the dot."""
        return Path(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    @property
    def parent(self) -> RemotePath:
        """The folder that it lies in; of a bucket, the bucket."""
        above = self.key.rpartition("/")[0]
        return RemotePath(SCHEME + above) if above else self

    def with_name(self, name: str) -> RemotePath:
        """Its neighbour of another name."""
        return self.parent / name

    def absolute(self) -> RemotePath:
        """Itself: it is."""
        return self

    def resolve(self) -> RemotePath:
        """Itself: a store has no links."""
        return self

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """What matches a pattern with as many parts as it has slashes, and one more; `**` is not known."""
        first, _, rest = pattern.partition("/")
        for found in self.iterdir() if self.is_dir() else ():
            if fnmatch(found.name, first):
                yield from found.glob(rest) if rest else (found,)

    def stat(self) -> RemoteStat:
        """Size and age of an object.

        Raises:
            FileNotFoundError: there is none.
        """
        with store_errors(self):
            found = file_system().info(self.key)
        if found["type"] != "file":
            raise FileNotFoundError(f"{self}: no such object")
        modified = found.get("LastModified")
        return RemoteStat(int(found["size"]), modified.timestamp() if modified is not None else 0.0)

    def is_file(self) -> bool:
        """Whether there is such an object."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        with store_errors(self):
            return bool(file_system().isdir(self.key))

    def exists(self) -> bool:
        """Whether it is one or the other."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[RemotePath]:
        """What lies in a folder, in the order of the names.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        with store_errors(self):
            found = file_system().ls(self.key, detail=False)
        return iter(sorted(RemotePath(SCHEME + key) for key in found if key.rstrip("/") != self.key))

    def read_bytes(self) -> bytes:
        """The object whole.

        Raises:
            FileNotFoundError: there is none.
        """
        with store_errors(self):
            return bytes(file_system().cat_file(self.key))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object whole, as text.

        Raises:
            FileNotFoundError: there is none.
        """
        return self.read_bytes().decode(encoding)

    def open(self, encoding: str = "utf-8", newline: str | None = None) -> TextIO:
        """The object as a text to read; it is read whole.

        Raises:
            FileNotFoundError: there is none.
        """
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding=encoding, newline=newline)

    def write_bytes(self, data: bytes) -> int:
        """Writes an object whole, in place of the one that may be there; returns its length."""
        with store_errors(self):
            file_system().pipe_file(self.key, data)
        return len(data)

    def write_if(self, data: bytes, tag: str | None) -> str:
        """Writes an object only if it is what the caller believes; of two processes that try, one succeeds.

        Args:
            data: what to write.
            tag: what `tag()` said of the object that is there; None if there shall be none.

        Returns:
            The tag of what is there now.

        Raises:
            FileExistsError: there is another one, or none any more.
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
        """What changes whenever the object is written; None if there is none."""
        with store_errors(self):
            try:
                return str(file_system().info(self.key)["ETag"])
            except FileNotFoundError:
                return None

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes an object.

        Raises:
            FileNotFoundError: there is none, and `missing_ok` is False.
        """
        if not missing_ok:
            self.stat()  # a store deletes what is not there without a word
        with store_errors(self):
            file_system().rm_file(self.key)

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder is there as soon as an object is in it."""
