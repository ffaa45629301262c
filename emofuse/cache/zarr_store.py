"""Open arrays and groups with Zarr: folders of this machine directly, stores through emofuse's own connection."""

from __future__ import annotations

import atexit
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.metadata import ArrayV3Metadata
from zarr.core.sync import sync
from zarr.storage import FsspecStore
from zarr.storage._common import make_store_path

from emofuse.stores import RemotePath, async_file_system, store_errors


class ObjectStore(FsspecStore):
    """An S3-compatible store whose faults are `StoreError`, so that Zarr does not take them for missing chunks."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the object of a key, None if there is none."""
        with store_errors(f"s3://{self.path}/{key}"):
            return await super().get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write the object of a key."""
        with store_errors(f"s3://{self.path}/{key}"):
            await super().set(key, value, byte_range)

    async def delete(self, key: str) -> None:
        """Delete the object of a key, if there is one."""
        with store_errors(f"s3://{self.path}/{key}"):
            await super().delete(key)

    async def exists(self, key: str) -> bool:
        """Return whether a key has an object."""
        with store_errors(f"s3://{self.path}/{key}"):
            return await super().exists(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below a prefix."""
        with store_errors(f"s3://{self.path}/{prefix}"):
            async for name in super().list_dir(prefix):
                yield name


def zarr_store(path: Path | RemotePath) -> Path | Store:
    """Return the argument of Zarr's functions for a path."""
    if isinstance(path, RemotePath):
        return ObjectStore(_connected(async_file_system()), path=path.key)
    return path


def _connected(file_system: Any) -> Any:
    """Close a connection when this process ends, while Zarr's event loop, in which it lives, is still running."""
    if id(file_system) not in _to_close:  # by identity: connections with equal settings are equal
        _to_close.add(id(file_system))
        atexit.register(_close, file_system)
    return file_system


_to_close: set[int] = set()


def _close(file_system: Any) -> None:
    session = getattr(file_system, "_s3creator", None)
    if session is not None:
        with suppress(Exception):  # the process ends in any case
            sync(session.__aexit__(None, None, None), timeout=1)


def open_array(folder: Path, mode: Literal["r", "r+"] = "r") -> zarr.Array[Any]:
    """Open the array in a folder.

    Raises:
        FileNotFoundError, ValueError: there is no array, or its metadata is damaged.
        StoreError: the store does not answer.
    """
    return zarr.open_array(zarr_store(folder), mode=mode, zarr_format=3)


def array_of(folder: Path, metadata: dict[str, Any], *, write_empty_chunks: bool) -> zarr.Array[Any]:
    """Open the array in a folder for writing by its known metadata, without reading a file.

    Args:
        folder: the folder of the array.
        metadata: the content of its `zarr.json`, plain JSON.
        write_empty_chunks: whether chunks that hold only the fill value are written too.
    """
    return zarr.Array(
        zarr.AsyncArray(
            metadata=ArrayV3Metadata.from_dict(metadata),
            store_path=sync(make_store_path(zarr_store(folder), mode="r+")),
            config={"order": "C", "write_empty_chunks": write_empty_chunks},
        )
    )


def create_group(folder: Path, attributes: dict[str, Any] | None = None) -> None:
    """Make a group."""
    zarr.create_group(zarr_store(folder), zarr_format=3, attributes=attributes)


def update_group(folder: Path, attributes: dict[str, Any]) -> None:
    """Add attributes to those of a group, or replace them."""
    zarr.open_group(zarr_store(folder), mode="r+", zarr_format=3).update_attributes(attributes)
