"""Copy a cache byte for byte between folders and stores.

Chunks are compared with their checksums when they are read, and every file is read back after it was written. The
root's metadata is copied last. Until then there is no cache at the target, and the same command copies what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from emofuse.cache.layout import CHECKSUM_BYTES, manifest_path
from emofuse.cache.metadata import read_cache_layout, read_manifest
from emofuse.cache.structure import lock_cache
from emofuse.checksum import crc32c
from emofuse.errors import CacheError
from emofuse.stores import PARTIAL_SUFFIX, file_sizes, replace_file
from emofuse.wording import join_first

OnFiles = Callable[[int, int], None]
"""Called after every file with the number of files done so far and of all files."""

_ROOT = "zarr.json"
_THREADS = 8
_LISTED = 10


@dataclass(frozen=True)
class CopySummary:
    """The result of a copy.

    Attributes:
        files: the number of files of the cache and its manifest.
        copied: the number of files that this call copied; the others were there already and are the same.
        bytes: the bytes of all files.
    """

    files: int
    copied: int
    bytes: int


def copy_cache(source: Path, target: Path, *, on_files: OnFiles | None = None) -> CopySummary:
    """Copy a cache and its manifest.

    Args:
        source: the path of the cache; it is only read, and no build should be writing it.
        target: the path of the copy; files of the same cache that are there already are kept.
        on_files: called after every file.

    Raises:
        CacheError: there is no cache to copy, it is damaged, something else is at the target, or the target cannot be
            written or gives back other bytes than were written.
        StoreError: a store does not answer.
    """
    read_manifest(source, read_cache_layout(source))
    sizes = {name: size for name, size in file_sizes(source).items() if _is_part(name)}
    with lock_cache(target):
        there = file_sizes(target)
        _check_target(source, target, sizes, there)
        files = [_File(source / name, target / name, there.get(name)) for name in sorted(sizes) if name != _ROOT]
        beside = manifest_path(target)
        files.append(_File(manifest_path(source), beside, beside.stat().st_size if beside.is_file() else None))
        root = _File(source / _ROOT, target / _ROOT, there.get(_ROOT))
        copied = _copy_all(files, len(files) + 1, on_files) + root.copy()
    if on_files is not None:
        on_files(len(files) + 1, len(files) + 1)
    return CopySummary(len(files) + 1, copied, sum(sizes.values()) + manifest_path(source).stat().st_size)


def _is_part(name: str) -> bool:
    """Return whether a file belongs to a cache, and is no leftover of a killed build."""
    return not name.endswith(PARTIAL_SUFFIX) and not name.startswith("streams/.")


def _check_target(source: Path, target: Path, sizes: dict[str, int], there: dict[str, int]) -> None:
    """Raise unless the target holds only files of the same cache."""
    if source.resolve() == target.resolve():
        raise CacheError(f"{source}: a cache cannot be copied onto itself. Choose another path for the copy.")
    if target.is_file():
        raise CacheError(f"{target}: is a file. Choose another path for the copy.")
    others = sorted(name for name in there if name not in sizes and _is_part(name))
    if others:
        raise CacheError(
            f"{target}: holds {len(others)} files that are not in {source}, the first {others[0]}. "
            "Choose another path for the copy."
        )
    if _ROOT in there and (target / _ROOT).read_bytes() != (source / _ROOT).read_bytes():
        raise CacheError(f"{target}: another cache is there already. Choose another path for the copy.")


class _DamagedError(Exception):
    """A chunk of the source is damaged."""


@dataclass(frozen=True)
class _File:
    """One file to copy; `there` is the length of the file at the target, None if there is none."""

    source: Path
    target: Path
    there: int | None

    def copy(self) -> bool:
        """Copy the file unless the same file is there, and return whether it was copied.

        Raises:
            _DamagedError: the checksum of the source does not match.
            CacheError: the target cannot be written, or other bytes are read back.
        """
        data = self.source.read_bytes()
        if self.source.name.startswith("c.") and not _is_whole(data):
            raise _DamagedError
        if self.there == len(data) and self.target.read_bytes() == data:
            return False
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.target, data)
            read_back = self.target.read_bytes()
        except OSError as error:
            raise CacheError(f"{self.target}: cannot be written ({error}). Run the same copy again.") from error
        if read_back != data:
            raise CacheError(f"{self.target}: was written, and other bytes are read back. Check this disk or store.")
        return True


def _is_whole(chunk: bytes) -> bool:
    """Return whether the checksum at the end of a chunk matches the bytes before it."""
    checksum = int.from_bytes(chunk[-CHECKSUM_BYTES:], "little")
    return len(chunk) >= CHECKSUM_BYTES and crc32c(chunk[:-CHECKSUM_BYTES]) == checksum


def _copy_all(files: Sequence[_File], total: int, on_files: OnFiles | None) -> int:
    """Copy files in several threads, and return how many were copied.

    Raises:
        CacheError: chunks of the source are damaged, listed when all others are copied; or as `_File.copy`.
    """
    copied = 0
    damaged: list[str] = []

    def try_copy(file: _File) -> bool:
        try:
            return file.copy()
        except _DamagedError:
            damaged.append(str(file.source))
            return False

    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for done, did in enumerate(pool.map(try_copy, files), start=1):
                copied += did
                if on_files is not None:
                    on_files(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if damaged:
        raise CacheError(
            f"{len(damaged)} chunks are damaged and were not copied: {join_first(sorted(damaged), _LISTED)}. "
            "Repair them, then run the same copy again: emofuse cache repair"
        )
    return copied
