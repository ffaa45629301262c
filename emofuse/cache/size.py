"""How many bytes a build will write, before it writes them, and how much room there is."""

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
    """As much of the layout of a stream that is not there yet as tells its size."""
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
    """Bytes of so many blocks of each stream, without reasons, which are short and often not there.

    Args:
        layouts: of the streams.
        block_rows: rows of a block; the last one of a stream is padded to as many.
        blocks: stream -> how many, counted once for each view.
    """
    return sum(blocks[layout.name] * layout.block_bytes(block_rows) for layout in layouts)


def free_bytes(path: Path) -> int | None:
    """Bytes that are free where a path is or will be; None for a store, which does not tell."""
    if is_remote(path):
        return None
    existing = path.absolute()
    while not existing.is_dir():
        existing = existing.parent
    return int(shutil.disk_usage(existing).free)
