"""List, delete and replace files and folders on disks and stores."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from emofuse.stores.connection import file_system, store_errors
from emofuse.stores.paths import RemotePath, is_remote

PARTIAL_SUFFIX = ".partial"
"""Ends the names of files and folders that are not finished yet."""


def list_objects(folder: RemotePath) -> dict[str, tuple[int, int | None]]:
    """Return size and time of all objects below a folder.

    Returns:
        The name relative to the folder -> (bytes, nanoseconds since 1970 to the second, or None if the store gives no
        time).
    """
    with store_errors(folder):
        entries: Mapping[str, Any] = file_system().find(folder.key, detail=True)
    start = len(folder.key) + 1
    listed = {}
    for key, entry in entries.items():
        if len(key) > start:
            modified = entry.get("LastModified")
            listed[key[start:]] = (int(entry["size"]), modified and int(modified.timestamp()) * 1_000_000_000)
    return listed


def file_sizes(folder: Path | RemotePath) -> dict[str, int]:
    """Return the sizes of all files below a folder at any depth: name relative to it, with slashes -> bytes.

    The result is {} if there is no folder. Files are listed, not queried one by one: a cache of millions of rows has
    tens of thousands of them.
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
    """Delete a folder with its content; nothing happens if there is none."""
    if not isinstance(folder, RemotePath):
        shutil.rmtree(folder, ignore_errors=True)
        return
    keys = [f"{folder.key}/{name}" for name in file_sizes(folder)]
    if keys:
        with store_errors(folder):
            file_system().rm(keys)


def replace_file(path: Path, data: bytes | str, *, flush: bool = False) -> None:
    """Write a file at once: readers see the former file or the new one, also if this process is killed.

    Args:
        path: the file, on a disk or a store.
        data: the bytes, or text that is written as UTF-8.
        flush: whether the file must survive a loss of power after the call. Stores always give that.
    """
    data = data.encode() if isinstance(data, str) else data
    if is_remote(path):
        path.write_bytes(data)
        return
    with replacing(path) as partial:
        partial.write_bytes(data)
        if flush:
            _flush(partial)
    if flush:
        _flush(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a hidden path beside a file, which replaces the file when the block ends without an error.

    If the block fails, what was written is deleted. Processes that replace the same file at once do not meet.
    """
    partial = _hidden(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder beside a path, which becomes the folder of that path when the block ends without an error.

    If the block fails, what was written is deleted.

    Raises:
        OSError: a folder with files is there already, or the file system refuses.
    """
    partial = _hidden(path)
    partial.mkdir()
    try:
        yield partial
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partials(path: Path) -> Iterator[Path]:
    """Yield what killed processes left beside a file while they replaced it, those of former releases too."""
    yield from path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL_SUFFIX}")
    yield from path.parent.glob(glob.escape(path.name) + PARTIAL_SUFFIX)


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")


def _flush(path: Path) -> None:
    """Write what the system still holds of a file or a folder to the disk."""
    if path.is_dir() and sys.platform == "win32":
        return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
