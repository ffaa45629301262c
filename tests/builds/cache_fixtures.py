"""A small cache in three blocks, the last one shorter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from emofuse.cache.layout import StreamLayout
from emofuse.cache.structure import add_stream, create_cache
from emofuse.cache.writer import write_block
from emofuse.datasets.manifest import Manifest
from emofuse.specs import DecodeSpec, FaceSpec
from emofuse.status import Status

ROWS, BLOCK_ROWS, DIM = 10, 4, 5


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    def make(rows: int = ROWS, root: str = "/data", **columns: list[str | None]) -> Manifest:
        table = {
            "sample_id": [f"s{row}" for row in range(rows)],
            "path": [f"{row}.png" for row in range(rows)],
            "split": (["train", "val", "test", None] * rows)[:rows],
            "label": (["joy", "fear", None] * rows)[:rows],
            "group": [None] * rows,
            "problem": [None] * rows,
        }
        schema = dict.fromkeys(table, pl.String)
        return Manifest(
            pl.DataFrame({**table, **columns}, schema=schema), ("joy", "fear"), Path(root), {"name": "small"}
        )

    return make


@pytest.fixture
def make_layout() -> Callable[..., StreamLayout]:
    def make(name: str = "lbp", **changes: object) -> StreamLayout:
        fields: dict = {
            "kind": "lbp",
            "shape": (DIM,),
            "dtype": np.dtype("float16"),
            "identity": {
                "kind": "lbp",
                "version": 1,
                "parameters": {"region_px": 128},
                "face": {"detector": "face_mesh"},
            },
            "flag_names": ("whole_image",),
            "spec": {"kind": "lbp", "name": name},
            "decode": DecodeSpec().model_dump(mode="json"),
            "face": FaceSpec().model_dump(mode="json"),
        }
        if "dim" in changes:
            changes["shape"] = (changes.pop("dim"),)
        return StreamLayout(name=name, **{**fields, **changes})

    return make


@pytest.fixture
def block_values() -> Callable[[int], dict[str, np.ndarray]]:
    """Values of one block: row r has features r + 0, r + .1, ...; row 3 has no face; row 5 is flagged."""

    def values(block: int) -> dict[str, np.ndarray]:
        rows = np.arange(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, ROWS))
        features = (rows[:, None] + np.arange(DIM) / 10).astype(np.float16)
        features[rows == 3] = 0
        status = np.where(rows == 3, Status.NO_DETECTION, Status.OK).astype(np.uint8)
        return {"features": features, "status": status, "flags": (rows == 5).astype(np.uint8)}

    return values


@pytest.fixture
def cache_path(tmp_path, make_manifest, make_layout, block_values) -> Path:
    """A finished cache of one stream."""
    path = tmp_path / "features.zarr"
    create_cache(path, make_manifest(), block_rows=BLOCK_ROWS)
    add_stream(path, make_layout())
    for block in range(3):
        write_block(path, "lbp", block, **block_values(block))
    return path
