"""Made-up targets that are not one class, and answers to them: numbers, several labels and distributions."""

from __future__ import annotations

from typing import Any

import numpy as np

from emofuse.metrics.targets import target_metrics
from emofuse.results import Predictions

COLUMNS = {
    "regression": ("valence", "arousal"),
    "multilabel": ("affection", "anger", "doubt", "happiness", "peace"),
    "distribution": ("anger", "fear", "joy", "neutral"),
}
SPECS: dict[str, dict[str, Any]] = {
    "regression": {"kind": "regression", "columns": list(COLUMNS["regression"]), "loss": "ccc"},
    "multilabel": {"kind": "multilabel", "columns": list(COLUMNS["multilabel"])},
    "distribution": {
        "kind": "distribution",
        "columns": {name: f"votes_{name}" for name in COLUMNS["distribution"]},
        "votes": True,
        "loss": "kl",
        "label": "majority",
    },
}
CURVES = {"regression": ("val_ccc",), "multilabel": ("val_map",), "distribution": ("val_accuracy", "val_macro_f1")}


def true_values(kind: str, samples: np.ndarray, columns: int) -> np.ndarray:
    """The true values of samples, the same for a sample in every split."""
    rows = [np.random.default_rng([99, int(sample)]) for sample in samples]
    if kind == "regression":
        return np.array([rng.normal([0.2, 5.0, 0.0][:columns] or 0, [0.4, 2.0, 1.0][:columns]) for rng in rows])
    if kind == "multilabel":
        shares = np.geomspace(0.5, 0.05, columns)
        return np.array([rng.random(columns) < shares for rng in rows]).astype(np.float64)
    return np.array([rng.multinomial(10, rng.dirichlet(np.full(columns, 0.5))) / 10 for rng in rows])


def answers(kind: str, target: np.ndarray, skill: float, rng: np.random.Generator) -> np.ndarray:
    """Outputs that are right to the degree `skill`, between 0 and 1."""
    if kind == "regression":
        noise = rng.normal(size=target.shape) * target.std(axis=0) * (1 - skill)
        return target.mean(axis=0) + skill * (target - target.mean(axis=0)) + noise
    if kind == "multilabel":
        return 1 / (1 + np.exp(-(4 * skill * (target - 0.5) + rng.normal(size=target.shape))))
    mixed = skill * target + (1 - skill) * rng.dirichlet(np.ones(target.shape[1]), len(target)) + 1e-3
    return mixed / mixed.sum(axis=1, keepdims=True)


def answered_split(
    kind: str, samples: np.ndarray, names: tuple[str, ...], skill: float, rng: np.random.Generator
) -> tuple[Predictions, dict[str, Any]]:
    """The predictions of these samples, and their metrics."""
    target = true_values(kind, samples, len(names)).astype(np.float32)
    outputs = answers(kind, target.astype(np.float64), skill, rng).astype(np.float32)
    label = np.full(len(samples), -1) if kind != "distribution" else target.argmax(axis=1)
    ids = np.array([f"sample_{sample:05d}" for sample in samples])
    predictions = Predictions(ids, label.astype(np.int64), outputs, target=target)
    labels = predictions.label if kind == "distribution" else None
    return predictions, target_metrics(kind, target, outputs, names, labels=labels)
