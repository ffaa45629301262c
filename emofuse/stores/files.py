"""What is done with files and folders wherever they lie: listed, deleted, replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emofuse.stores.connection import file_system, store_errors
from emofuse.stores.paths import RemotePath, is_remote


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
