"""Where caches and images lie: in folders of this machine, or on an S3-compatible store as `s3://bucket/prefix`.

A path of a store is a `RemotePath`: it has those members of `pathlib.Path` that caches and datasets use, and what has
no counterpart on a store (links, locks, renaming) is not among them, so that it fails at once and not on the quiet.

Endpoint, region and credentials come from the usual places of AWS's tools: `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_PROFILE`, `~/.aws/config`, or the role of the machine. What fails in
passing (no answer, 500, 503, SlowDown) is tried again with growing pauses; a process has at most `_CONNECTIONS`
requests under way. An object appears whole or not at all, which is all that a cache's blocks ask for.
"""

from __future__ import annotations

import io
import os
import posixpath
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO, cast

from emofuse.errors import StoreError

SCHEME = "s3://"
_CONNECTIONS = 16
_ATTEMPTS = 5
_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 60
# What the caller is to judge: all other errors are faults of the store or of the way to it.
_ORDINARY = (FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError, StoreError)
_FOREIGN = ("botocore", "aiobotocore", "aiohttp")  # whose exceptions have no base class but Exception


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
                if not any(word in str(error) for word in ("PreconditionFailed", "pre-conditions", "Conditional")):
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


def list_objects(folder: RemotePath) -> dict[str, tuple[int, int | None]]:
    """Name relative to a folder -> bytes, and when it was written if the store says, of all objects below it.

    Times are nanoseconds since 1970, to the second.
    """
    with store_errors(folder):
        found: Mapping[str, Any] = file_system().find(folder.key, detail=True)
    start = len(folder.key) + 1
    listed = {}
    for key, entry in found.items():
        if len(key) > start:
            modified = entry.get("LastModified")
            listed[key[start:]] = (int(entry["size"]), modified and int(modified.timestamp()) * 1_000_000_000)
    return listed


def file_sizes(folder: Path | RemotePath) -> dict[str, int]:
    """Name relative to a folder, with slashes -> bytes, of all files below it at any depth; {} if there is no folder.

    Files are listed, not asked for one by one: a cache of millions of rows has tens of thousands of them.
    """
    if isinstance(folder, RemotePath):
        return {name: size for name, (size, _) in list_objects(folder).items()}
    sizes: dict[str, int] = {}
    folders = [("", str(folder))] if folder.is_dir() else []
    for prefix, name in folders:
        with os.scandir(name) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append((f"{prefix}{entry.name}/", entry.path))
                elif entry.is_file():
                    sizes[prefix + entry.name] = entry.stat().st_size
    return sizes


def remove_tree(folder: Path | RemotePath) -> None:
    """Deletes a folder with all that is in it; nothing happens if there is none."""
    if not isinstance(folder, RemotePath):
        shutil.rmtree(folder, ignore_errors=True)
        return
    keys = [f"{folder.key}/{name}" for name in file_sizes(folder)]
    if keys:
        with store_errors(folder):
            file_system().rm(keys)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file so that it is there whole or, if this process dies, as it was before."""
    if is_remote(path):
        path.write_bytes(data)
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


@lru_cache(maxsize=1)
def file_system() -> Any:
    """The one connection of this process to the store, for use from any thread.

    Raises:
        StoreError: s3fs is not installed.
    """
    return _connect(asynchronous=False)


@lru_cache(maxsize=1)
def async_file_system() -> Any:
    """The same for Zarr, which runs requests in an event loop of its own."""
    return _connect(asynchronous=True)


def forget_connections() -> None:
    """The next use of a store reads the environment again."""
    file_system.cache_clear()
    async_file_system.cache_clear()


def _connect(*, asynchronous: bool) -> Any:
    try:
        import s3fs
    except ImportError:
        raise StoreError("s3:// needs the package s3fs: pip install 'emofuse[s3]'") from None
    made = s3fs.S3FileSystem(
        asynchronous=asynchronous,
        use_listings_cache=False,  # other processes write too
        skip_instance_cache=True,
        max_concurrency=_CONNECTIONS,
        config_kwargs={
            "retries": {"max_attempts": _ATTEMPTS, "mode": "standard"},
            "max_pool_connections": _CONNECTIONS,
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "read_timeout": _READ_TIMEOUT_S,
        },
    )
    made.retries = 2  # on top of those above; the default of 5 takes minutes to notice that nobody is there
    return made


@contextmanager
def store_errors(path: object) -> Iterator[None]:
    """Faults of the store or of the way to it become a `StoreError`; that an object is missing stays what it is."""
    try:
        yield
    except _ORDINARY:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _FOREIGN:
            raise
        raise StoreError(
            f"{path}: the store cannot be used ({type(error).__name__}: {error}). Check the endpoint and the "
            "credentials (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), then run the same again."
        ) from error
