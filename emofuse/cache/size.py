"""Estimate the bytes that a build will write, and measure the free space."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from emofuse.cache.layout import StreamLayout
from emofuse.specs import StreamSpec
from emofuse.stores import is_remote


def planned_layout(
    spec: StreamSpec, shape: tuple[int, ...], flag_names: Sequence[str], dimensions: tuple[str, ...] = ("feature",)
) -> StreamLayout:
    """Return the part of the layout of a future stream that determines its size."""
    return StreamLayout(
        spec.name,
        spec.kind,
        shape,
        np.dtype(spec.dtype),
        identity={},
        flag_names=tuple(flag_names),
        dimensions=dimensions,
    )


def bytes_of_blocks(layouts: Iterable[StreamLayout], block_rows: int, blocks: Mapping[str, int]) -> int:
    """Return the bytes of some blocks of each stream, without reasons, which are short and rare.

    Args:
        layouts: the layouts of the streams.
        block_rows: the rows of a block; the last block of a stream is padded to them.
        blocks: stream -> number of blocks, counted once for each view.
    """
    return sum(blocks[layout.name] * layout.block_bytes(block_rows) for layout in layouts)


def free_bytes(path: Path) -> int | None:
    """Return the free bytes at the place of an existing or future path; None for a store, which has no such number."""
    if is_remote(path):
        return None
    existing = path.absolute()
    while not existing.is_dir():
        existing = existing.parent
    return int(shutil.disk_usage(existing).free)
