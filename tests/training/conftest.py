"""Tables with a planted signal."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from emofuse.cache.reader import open_cache
from emofuse.scaling import Scaling
from emofuse.training.members import FeatureTable

sys.path.append(str(Path(__file__).parent))  # oracle.py


@pytest.fixture(autouse=True)
def _one_thread():
    """Small matrices gain nothing from threads, and threads that share a busy machine wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class ArrayTable:
    """Rows of plain arrays: stream -> (N, D) float32 and (N,) bool, with labels."""

    labels: np.ndarray
    classes: tuple[str, ...]
    features: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]

    def __len__(self):
        return len(self.labels)

    @property
    def dims(self):
        return {name: array.shape[1] for name, array in self.features.items()}

    def tensors(self):
        """What the engine takes."""
        features, valid = ({n: torch.from_numpy(a) for n, a in part.items()} for part in (self.features, self.valid))
        return FeatureTable(features, valid, torch.from_numpy(self.labels), len(self.classes))

    def fit(self, rows):
        """Stream -> its scaling on the given rows that have it."""
        return {name: Scaling.fit(array, rows[self.valid[name][rows]]) for name, array in self.features.items()}

    def scaled(self, rows, scaling):
        """Features and validity of the given rows, standardised."""
        valid = {name: scaling[name].present(array[rows]) for name, array in self.valid.items()}
        return {name: scaling[name].apply(array[rows], valid[name]) for name, array in self.features.items()}, valid


@pytest.fixture
def make_table():
    return _make_table


def _make_table(labels, features, *, classes=None, missing=None):
    """A table of plain arrays; `missing` stream -> (n,) bool."""
    labels = np.asarray(labels, np.int64)
    classes = classes or tuple(f"label{index}" for index in range(int(labels.max(initial=0)) + 1))
    valid = {name: ~(missing or {}).get(name, np.zeros(len(labels), bool)) for name in features}
    present = {name: np.where(valid[name][:, None], array, 0).astype(np.float32) for name, array in features.items()}
    return ArrayTable(labels, classes, present, valid)


@pytest.fixture(scope="session")
def plant_cache(write_cache):
    """Writes a small learnable cache of three kinds of streams in blocks; a fifth has no face, one row no label."""

    def plant(path, *, labels=None, splits=None, streams=None, block_rows=16, rows=150):
        rng = np.random.default_rng(0)
        truth = rng.integers(0, 3, rows)
        faces = np.where(rng.random(rows) < 0.2, 2, 1).astype(np.uint8)
        hidden = rng.normal(size=(3, 512))[truth] * 0.02
        planted = {
            "resnet50": ("backbone", np.eye(3)[truth].repeat(4, 1) + rng.normal(size=(rows, 12)), np.ones(rows)),
            "lbp": ("lbp", rng.random((rows, 512)) * 0.1 + hidden, faces),
            "action_units": ("action_units", rng.normal(5, 2, size=(rows, 30)) + truth[:, None], faces),
            "places365": ("backbone", rng.normal(size=(rows, 8)) + truth[:, None] * 0.3, np.ones(rows)),
        }
        types = {"resnet50": np.float16, "places365": np.float16}
        arrays = {
            name: (kind, x.astype(types.get(name, np.float32)), status.astype(np.uint8))
            for name, (kind, x, status) in planted.items()
        }
        planted_labels = truth.copy()
        planted_labels[7] = -1
        planted_splits = (["train", "train", "train", "val", "test"] * rows)[:rows]
        written = write_cache(
            path,
            ("joy", "fear", "calm"),
            planted_labels if labels is None else labels,
            planted_splits if splits is None else splits,
            arrays | (streams or {}),
            block_rows=block_rows,
        )
        return open_cache(written)

    return plant
