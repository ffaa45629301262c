"""Rows of searched runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from emofuse.specs import FeaturesSpec, RunSpec
from emofuse.sweep.rows import RunRow
from emofuse.training.rates import nominal_rates

sys.path.append(str(Path(__file__).parent))  # small_question.py


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Small matrices gain nothing from threads, and threads that share a busy machine wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _nominal_rates(monkeypatch):
    """Plans tell a time for a common machine: to measure this one takes seconds, and another test does so."""
    monkeypatch.setattr("emofuse.sweep.trainers.measure_rates", nominal_rates)


@pytest.fixture
def make_row():
    return _make_row


def _make_row(digest="a", **changes) -> RunRow:
    """A plausible row; its digest is the given letters, repeated."""
    fields = {
        "digest": (digest * 64)[:64],
        "configuration": "c" * 64,
        "name": "lbp",
        "settings": {"streams": ["lbp"]},
        "spec": RunSpec(name="lbp", features=FeaturesSpec(streams=("lbp",))).model_dump(mode="json"),
        "fold": 0,
        "seed": 0,
        "val_macro_f1": 0.5,
        "val_accuracy": 0.5,
        "val_loss": 1.0,
        "best_epoch": 2,
        "last_epoch": 3,
        "ended": "epochs",
        "parameters": 100,
        "seconds": 1.5,
        "history": ({"epoch": 1, "train_loss": 2.0, "val_loss": 1.0, "val_accuracy": 0.5, "val_macro_f1": 0.5},),
        "sweep": "small",
        "device": "cpu",
        "created": "2026-01-01T00:00:00+00:00",
        "versions": {"emofuse": "0.1.0"},
    }
    return RunRow(**{**fields, **changes})
