"""A small question and a cache that can answer it, for tests and for the processes that tests start."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emofuse.specs import SweepSpec, parse_spec

CLASSES = ("calm", "glad", "sad")

SPEC = {
    "name": "small",
    "base": {"head": {"embed_dim": 6, "width": 6, "depth": 1}, "train": {"epochs": 4, "batch_size": 16}},
    "factors": {"streams": "all", "learning_rate": [1.0e-3, 0.1 + 0.2], "batch_size": [16, 24, 32]},
    "folds": 2,
    "final": {"best_of": ["streams"], "seeds": [0, 1]},
    "baseline": ["noise"],
}
HEADS = 3 * 2 * 3 * 2  # subsets x rates x batch sizes x folds; those of one batch size are a group


def small_sweep(**changes) -> SweepSpec:
    return parse_spec(SweepSpec, {**SPEC, **changes}, "small.yaml")


def finished_groups(folder: Path) -> list[Path]:
    """The files of rows of a sweep's folder."""
    return [path for path in (folder / "rows").glob("*.jsonl") if not path.name.startswith(".partial")]


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
