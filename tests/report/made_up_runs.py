"""Saved runs made up with NumPy: what training would have written, with metrics that fit their predictions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from target_runs import COLUMNS, CURVES, SPECS, answered_split

from emofuse.results import Predictions, RunRecord, write_run
from emofuse.specs import digest

CLASSES = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
DIMS = {"lbp": (512, 256), "landmarks": (1404, 1404), "action_units": (30, 25), "objects": (30, 30)}
KINDS = {"resnet50": "backbone"}
REGISTRY = {"places365", "resnet50"}


def _recorded(stream: str) -> dict[str, str]:
    kind = KINDS.get(stream, stream)
    return {"kind": kind, "name": stream} | ({"model": stream} if kind == "backbone" else {})


def score(labels: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Metrics in the form of `emofuse.metrics.classification`."""
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    total, hit = confusion.sum(), np.diag(confusion)
    support, named = confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = hit / np.maximum(named, 1), hit / np.maximum(support, 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    specificity = (total - support - named + hit) / np.maximum(total - support, 1)
    columns = {"precision": precision, "recall": recall, "f1": f1, "specificity": specificity}
    return {
        "accuracy": float(hit.sum() / total),
        "loss": 1.0,
        "macro": {key: float(values.mean()) for key, values in columns.items()},
        "weighted": {key: float(np.average(values, weights=support)) for key, values in columns.items()},
        "per_class": [
            {"label": label, **{key: float(values[i]) for key, values in columns.items()}, "support": int(support[i])}
            for i, label in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }


def answers(
    labels: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...], rows: int, split_seed: int | None
) -> Predictions:
    """Predictions of a test split: sample i has label i modulo C; another split seed draws other samples."""
    per_class = rows // len(classes) + 1
    order = np.arange(per_class) if split_seed is None else np.random.default_rng(split_seed).permutation(per_class)
    samples = labels + len(classes) * order[np.arange(len(labels)) // len(classes)]
    probs = np.full((len(labels), len(classes)), 0.4 / len(classes), dtype=np.float32)
    probs[np.arange(len(labels)), predicted] += np.float32(0.6)
    return Predictions(np.array([f"sample_{sample:05d}" for sample in samples]), labels.astype(np.int64), probs)


class RunMaker:
    """Writes made-up runs into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def __call__(
        self,
        name: str,
        streams: tuple[str, ...] = ("resnet50",),
        *,
        skill: float = 0.6,
        seed: int = 0,
        split_seed: int | None = None,
        classes: tuple[str, ...] = CLASSES,
        dataset: dict[str, Any] | None = None,
        random_weights: tuple[str, ...] = (),
        train: dict[str, Any] | None = None,
        missing: dict[str, dict[str, int]] | None = None,
        rows: int = 800,
        epochs: int = 12,
        change: dict[str, Any] | None = None,
        stream_digest: str = "",
        head: str = "",
        reference: bool = False,
        target: str = "class",
    ) -> RunRecord:
        """One run whose test accuracy (or agreement, of a target that is not a class) is about `skill`."""
        self.made += 1
        rng = np.random.default_rng([self.made, seed, split_seed or 0])
        counts = {"train": int(rows * 0.7), "val": int(rows * 0.2), "test": rows - int(rows * 0.7) - int(rows * 0.2)}
        metrics = {}
        if target != "class" and classes is CLASSES:
            classes = COLUMNS[target]
        first = 0
        for split, count in counts.items():
            if target != "class":
                order = np.random.default_rng(split_seed or 0).permutation(rows)
                samples, first = order[first : first + count], first + count
                predictions, metrics[split] = answered_split(target, samples, classes, skill, rng)
                continue
            labels = np.arange(count) % len(classes)
            predicted = np.where(rng.random(count) < skill, labels, rng.integers(0, len(classes), count))
            metrics[split] = score(labels, predicted, classes)
            if split == "test":
                predictions = answers(labels, predicted, classes, rows, split_seed)
        split_spec = {"kind": "official"}
        if split_seed is not None:
            split_spec = {"kind": "stratified", "train": 0.7, "val": 0.2, "test": 0.1, "seed": split_seed}
        spec = {
            "name": name,
            "features": {"streams": list(streams), "lbp_bins": 256, "action_units": 25, "neutral_label": None},
            "head": {"kind": "concat", "embed_dim": 512, "depth": 2, "width": 512, "dropout": 0.0},
            "train": {
                "epochs": 100, "batch_size": 64, "learning_rate": 1e-4, "weight_decay": 0.0, "label_smoothing": 0.0,
                "optimizer": "adam", "select": "macro_f1", "patience": None, "seed": seed, **(train or {}),
            },
            "split": split_spec,
        }  # fmt: skip
        if head:
            spec["head"] = {"kind": head}
        if reference:
            spec["reference"] = True
        keys = ("val_accuracy", "val_macro_f1")
        if target != "class":
            keys = CURVES[target]
            spec["target"] = {**SPECS[target], **({} if target == "distribution" else {"columns": list(classes)})}
            spec["train"]["select"] = "loss"
        curve = skill * (1 - np.exp(-np.arange(1, epochs + 1) / 4)) + rng.normal(0, 0.01, epochs)
        data: dict[str, Any] = {
            "digest": digest([spec, self.made]),
            "name": name,
            "spec": spec,
            "cache_spec": {"name": "cache", "streams": [_recorded(s) for s in streams]},
            "classes": list(classes),
            "dataset": dataset or {"name": "made-up", "kind": "folder"},
            "streams": {s: self._stream(s, s in random_weights, stream_digest) for s in streams},
            "rows": {split: {"rows": n, "missing": self._missing(streams, n, missing)} for split, n in counts.items()},
            "metrics": metrics,
            "history": [
                {"epoch": i + 1, "train_loss": 1.0, "val_loss": 1.0, **dict.fromkeys(keys, float(v))}
                for i, v in enumerate(curve)
            ],
            "best_epoch": int(curve.argmax()) + 1,
            "parameters": 100_000 * len(streams),
            "versions": {"emofuse": "0.1.0", "numpy": "1.26.4", "torch": "2.4.0"},
            "machine": {"platform": "Linux-x86_64", "device": "cpu"},
            "seconds": 3.5 + seed,
            "created": f"2026-01-01T00:{self.made // 60:02d}:{self.made % 60:02d}Z",
        }
        record = RunRecord(**copy.deepcopy(data | (change or {})))
        write_run(self.folder, record, predictions, {"bias": np.zeros(1, dtype=np.float32)})
        return record

    def _stream(self, name: str, is_random: bool, stream_digest: str) -> dict[str, Any]:
        dim, used = DIMS.get(name, (2048, 2048))
        weights = None
        if is_random:
            weights = {"kind": "random", "name": None, "sha256": None, "seed": 0}
        elif name in REGISTRY:
            weights = {"kind": "registry", "name": name, "sha256": digest(name), "seed": None}
        kind = KINDS.get(name, name)
        return {
            "kind": kind,
            "digest": stream_digest or digest([name, is_random]),
            "dim": dim,
            "used_dim": used,
            "weights": weights,
        }

    def _missing(self, streams: tuple[str, ...], rows: int, given: dict[str, dict[str, int]] | None) -> dict[str, Any]:
        """Counts of one split: given ones, else an eighth of the rows without a face for streams that need one."""
        default = {s: {"no_detection": rows // 8} for s in ("lbp", "landmarks", "action_units")}
        table = default | {
            s: {status: min(n, rows) for status, n in counts.items()} for s, counts in (given or {}).items()
        }
        return {s: table.get(s, {}) for s in streams}
