"""A small planted cache with trained runs: `a` tells the first label, `b` the second, `noise` nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emofuse.analysis.sources import open_source
from emofuse.cache.reader import open_cache
from emofuse.specs import RunSpec, parse_spec
from emofuse.training.runs import train_runs

CLASSES = ("joy", "fear", "calm")
ROWS = 150


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def planted(tmp_path_factory, write_cache):
    """The folder of a pipeline: the cache, and runs of three heads in two outer folds."""
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, ROWS)
    ok = np.ones(ROWS, np.uint8)
    streams = {
        "a": ("backbone", rng.normal(size=(ROWS, 6)) + 2.5 * (truth == 0)[:, None], ok),
        "b": ("backbone", rng.normal(size=(ROWS, 4)) + 2.5 * (truth == 1)[:, None], ok),
        "noise": ("backbone", rng.normal(size=(ROWS, 5)), np.where(rng.random(ROWS) < 0.3, 2, 1).astype(np.uint8)),
    }
    streams = {name: (kind, array.astype(np.float32), status) for name, (kind, array, status) in streams.items()}
    splits = (["train", "train", "val", "test", "test"] * ROWS)[:ROWS]
    path = write_cache(folder / "features.zarr", CLASSES, truth, splits, streams, block_rows=40)
    cache = open_cache(path)
    features = {"streams": ["a", "b", "noise"]}
    network = {
        "head": {"kind": "concat", "embed_dim": 8, "depth": 1, "width": 8},
        "train": {"epochs": 12, "learning_rate": 1e-2, "batch_size": 16},
    }
    split = {"kind": "outer_folds", "count": 2}
    plain = [
        {"name": "network", "features": features, **network},
        {"name": "ridge", "features": features, "head": {"kind": "kernel_ridge"}},
        {"name": "folds", "features": features, **network, "ensemble": {"folds": 2}},
    ]
    specs = [
        parse_spec(RunSpec, {**run, "split": {**split, "index": index}}, "test") for run in plain for index in (0, 1)
    ]
    train_runs(cache, specs, folder / "runs", device="cpu")
    return SimpleNamespace(folder=folder, cache=cache, path=path, truth=truth)


@pytest.fixture(scope="session")
def source_of(planted):
    """Opens the runs of one configuration."""
    return lambda name: open_source(planted.folder, configuration=name)
