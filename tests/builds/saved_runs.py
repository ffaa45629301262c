"""Saved runs made up for tests of what reads them: four test rows, two classes, two epochs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from emofuse.results import Predictions, RunRecord, write_run

CLASSES = ("joy", "fear/anger")


def made_up_record(name: str = "net", *, seed: int = 0, score: float = 0.5, **changes: Any) -> RunRecord:
    """A record whose accuracy and F1 are `score` on validation rows and a tenth less on test rows."""
    options = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-4, "weight_decay": 0.0, "label_smoothing": 0.0}
    fields = {
        "digest": hashlib.sha256(f"{name} {seed}".encode()).hexdigest(),
        "name": name,
        "spec": {
            "name": name,
            "features": {"streams": ["resnet50"], "neutral_label": None},
            "head": {"kind": "concat", "embed_dim": 8, "depth": 1, "width": 8, "dropout": 0.0},
            "train": {**options, "optimizer": "adam", "select": "macro_f1", "patience": None, "seed": seed},
            "split": {"kind": "official"},
        },
        "cache_spec": {"name": "features"},
        "classes": CLASSES,
        "dataset": {"name": "made-up", "kind": "folder"},
        "streams": {
            "resnet50": {
                "kind": "backbone",
                "digest": "1" * 64,
                "dim": 3,
                "used_dim": 3,
                "weights": {"kind": "random", "name": None, "sha256": None, "seed": 0},
            }
        },
        "rows": {split: {"rows": 4, "missing": {"resnet50": {}}} for split in ("train", "val", "test")},
        "metrics": {"val": _metrics(score), "test": _metrics(score - 0.1)},
        "history": [
            {"epoch": epoch, "train_loss": 1.0 / epoch, "val_loss": 1.0, "val_accuracy": 0.5, "val_macro_f1": 0.4}
            for epoch in (1, 2)
        ],
        "best_epoch": 2,
        "parameters": 10,
        "versions": {"emofuse": "0.1.0"},
        "machine": {"platform": "Linux", "device": "cpu"},
        "seconds": 1.0,
        "created": f"2026-01-0{seed % 9 + 1}T00:00:00+00:00",
    }
    return RunRecord(**{**fields, **changes})


def write_made_up_run(runs: Path, name: str = "net", **changes: Any) -> RunRecord:
    """Write such a run into a folder of runs."""
    record = made_up_record(name, **changes)
    probs = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    predictions = Predictions(np.array(["a", "b", "c", "d"]), np.array([0, 0, 1, 1]), probs)
    write_run(runs, record, predictions, {"bias": np.zeros(1, dtype=np.float32)})
    return record


def _metrics(score: float) -> dict[str, Any]:
    scores = dict.fromkeys(("precision", "recall", "f1", "specificity"), score)
    return {
        "accuracy": score,
        "loss": 1.0,
        "macro": scores,
        "weighted": scores,
        "per_class": [{"label": label, **scores, "support": 2} for label in CLASSES],
        "confusion": [[1, 1], [1, 1]],
    }
