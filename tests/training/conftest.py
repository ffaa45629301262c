"""Tables with a planted signal."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emofuse.features import FeatureTable

sys.path.append(str(Path(__file__).parent))  # oracle.py


@pytest.fixture(autouse=True)
def _one_thread():
    """Small matrices gain nothing from threads, and threads that share a busy machine wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_table():
    return _make_table


def _make_table(labels, features, *, classes=None, missing=None):
    """A table of plain arrays; `missing` stream -> (n,) bool."""
    labels = np.asarray(labels, np.int64)
    rows = len(labels)
    classes = classes or tuple(f"label{index}" for index in range(int(labels.max(initial=0)) + 1))
    status = {
        name: np.where((missing or {}).get(name, np.zeros(rows, bool)), 2, 1).astype(np.uint8) for name in features
    }
    return FeatureTable(
        sample_ids=np.array([f"s{row}" for row in range(rows)], dtype=np.str_),
        labels=labels,
        splits=np.full(rows, "train"),
        classes=classes,
        kinds=dict.fromkeys(features, "backbone"),
        features={
            name: np.where((status[name] == 1)[:, None], array, 0).astype(np.float32)
            for name, array in features.items()
        },
        status=status,
    )
