"""A cache with one stream of vectors and no block yet, for benchmarks of reading and writing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from emofuse.cache.layout import StreamLayout
from emofuse.cache.structure import add_stream, create_cache
from emofuse.datasets.manifest import Manifest

STREAM = "resnet50"


def make_empty_cache(folder: Path, rows: int, dim: int, block_rows: int) -> Path:
    """Create a cache of `rows` rows, with a float16 stream of `dim` values and no labels, and return its path."""
    ids = pl.int_range(rows, eager=True).cast(pl.String)
    nothing = pl.Series([None] * rows, dtype=pl.String)
    table = pl.DataFrame({"sample_id": ids, "path": ids, "split": nothing, "label": nothing, "problem": nothing})
    path = folder / "features.zarr"
    create_cache(path, Manifest(table, ("a", "b"), folder, {"name": "empty"}), block_rows=block_rows)
    add_stream(path, StreamLayout(STREAM, "backbone", (dim,), np.dtype("float16"), identity={"kind": "backbone"}))
    return path
