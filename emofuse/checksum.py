"""Checksums: CRC32C (Castagnoli) of Zarr's chunks and of extracted files, SHA-256 of whole files and for seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

_WORTH_LOADING = 65536  # bytes; the extra `fast` is several times as fast, and takes a while to load


def crc32c(data: bytes | npt.NDArray[np.uint8], before: int = 0) -> int:
    """Return the checksum of bytes, or of a contiguous array of them; `before` is that of what lies before them."""
    fast = _fast() if len(data) >= _WORTH_LOADING else None
    if fast is not None:
        return int(fast(data, before))
    if isinstance(data, np.ndarray):
        data = data.view()
        data.flags.writeable = False  # google_crc32c refuses writable buffers
    return int(google_crc32c.extend(before, data) if before else google_crc32c.value(data))


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file on this machine, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seed_of(*parts: object) -> int:
    """Return a whole number of 256 bits that depends on the text of the parts, as the seed of a random generator."""
    return int.from_bytes(hashlib.sha256("\n".join(map(str, parts)).encode()).digest(), "big")


@cache
def _fast() -> Callable[[Any, int], int] | None:
    try:
        from awscrt import checksums
    except ImportError:
        return None
    function: Callable[[Any, int], int] = checksums.crc32c
    return function
