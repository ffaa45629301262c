"""A small question and a cache that can answer it, for tests and for the processes that tests start."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emofuse.cache.layout import StreamLayout
from emofuse.cache.structure import add_stream
from emofuse.cache.writer import write_block
from emofuse.specs import SweepSpec, parse_spec

CLASSES = ("calm", "glad", "sad")

SPEC = {
    "name": "small",
    "base": {"head": {"embed_dim": 6, "width": 6, "depth": 1}, "train": {"epochs": 4, "batch_size": 16}},
    "factors": {"streams": "all", "learning_rate": [1.0e-3, 0.1 + 0.2], "batch_size": [16, 24, 32]},
    "folds": 2,
    "final": {"best_of": ["streams"], "seeds": [0, 1]},
    "baseline": ["noise"],
    "references": "off",
}
HEADS = 3 * 2 * 3 * 2  # subsets x rates x batch sizes x folds; those of one batch size are a group


def small_sweep(**changes) -> SweepSpec:
    return parse_spec(SweepSpec, {**SPEC, **changes}, "small.yaml")


def finished_groups(folder: Path) -> list[Path]:
    """The files of rows of a sweep's folder."""
    return [path for path in (folder / "rows").glob("*.jsonl") if not path.name.startswith(".partial")]


def add_sequence_and_map(cache: Path, rows: int = 150, seed: int = 0) -> None:
    """Add a stream `sequence` of rows (3, 4) and a stream `map` of rows (2, 5, 5) to a cache of one block."""
    rng = np.random.default_rng(seed)
    for name, shape, dimensions, mask in (
        ("sequence", (3, 4), ("time", "feature"), np.ones((rows, 3), np.uint8)),
        ("map", (2, 5, 5), ("channel", "y", "x"), None),
    ):
        layout = StreamLayout(
            name=name,
            kind="custom",
            shape=shape,
            dtype=np.dtype(np.float32),
            identity={"kind": "custom", "name": name},
            dimensions=dimensions,
        )
        add_stream(cache, layout)
        features = rng.normal(size=(rows, *shape)).astype(np.float32)
        ok, flags = np.ones(rows, np.uint8), np.zeros(rows, np.uint8)
        write_block(cache, name, 0, features=features, status=ok, flags=flags, mask=mask)


def planted(rows: int = 150, seed: int = 0) -> dict:
    """Arguments of `write_cache`: one stream tells two of three labels, one tells nothing, some rows have none."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    labels[:4] = -1
    splits = rng.choice(["train", "val", "test"], rows, p=[0.6, 0.2, 0.2])
    signal = rng.normal(size=(rows, 5)) + 2.0 * (labels[:, None] == np.array([0, 1, 0, 1, 0]))
    status = np.where(rng.random(rows) < 0.1, 2, 1).astype(np.uint8)
    return {
        "classes": CLASSES,
        "labels": labels,
        "splits": splits.tolist(),
        "streams": {
            "signal": ("backbone", signal.astype(np.float32), status),
            "noise": ("backbone", rng.normal(size=(rows, 4)).astype(np.float32), np.ones(rows, np.uint8)),
        },
    }
