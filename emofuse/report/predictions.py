"""Saved predictions of the test rows, read and checked; what a report computes scores from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emofuse.errors import ResultsError
from emofuse.metrics.confusion import confusion_matrix
from emofuse.report.targets import reported_target
from emofuse.results import Predictions, RunRecord, read_predictions, run_dir


def read_test_predictions(run: RunRecord, runs: Path) -> Predictions:
    """Read the predictions of a run and check that the scores in its record can come from them.

    Args:
        run: the record of the run.
        runs: the folder of all runs.

    Raises:
        ResultsError: the file is missing or damaged, or it is that of another run.
    """
    folder = run_dir(runs, run.digest)
    predictions = read_predictions(folder)
    problem = _problem(predictions, len(run.classes), run.target_kind)
    recorded = run.metrics.get("test", {}).get("confusion")
    if not problem and recorded is not None:
        confusion = confusion_matrix(predictions.label, predictions.outputs.argmax(axis=1), len(run.classes))
        if confusion.tolist() != recorded:
            problem = "its confusion matrix is not that of run.json"
    if problem:
        path = folder / "predictions.npz"
        raise ResultsError(f"{path}: damaged ({problem}); delete the folder and train the run again")
    return predictions


def _problem(predictions: Predictions, classes: int, kind: str) -> str:
    """Return what is wrong with the arrays; an empty text if nothing is."""
    sample_id, label, probs, group = predictions.sample_id, predictions.label, predictions.outputs, predictions.group
    if sample_id.ndim != 1 or not 0 < len(sample_id) == label.size or probs.shape != (label.size, classes):
        shapes = f"{sample_id.shape}, {label.shape} and {probs.shape}"
        return f"expected sample_id (n,), label (n,) and probs (n, {classes}) with n >= 1, got {shapes}"
    if (sample_id.dtype.kind, label.dtype.kind, probs.dtype.kind) != ("U", "i", "f"):
        return f"expected str, int and float, got {sample_id.dtype}, {label.dtype} and {probs.dtype}"
    if group is not None and (group.shape != sample_id.shape or group.dtype.kind != "U"):
        return f"group must be str {sample_id.shape}, got {group.dtype} {group.shape}"
    return _problem_of_target(predictions, kind) or _problem_of_values(predictions, classes, kind)


def _problem_of_target(predictions: Predictions, kind: str) -> str:
    """Return what is wrong with the true values, which all targets but a class have."""
    target, shape = predictions.target, predictions.outputs.shape
    if kind == "class":
        return ""
    if target is None:
        return f"it has no true values (target), which a {kind} is scored by"
    if target.shape != shape or target.dtype.kind != "f":
        return f"target must be float {shape}, got {target.dtype} {target.shape}"
    return "" if np.isfinite(target).all() else "a true value is not finite"


def _problem_of_values(predictions: Predictions, classes: int, kind: str) -> str:
    label = predictions.label
    if reported_target(kind).has_classes and (label.min() < 0 or label.max() >= classes):
        return f"labels must be 0 .. {classes - 1}, got {label.min()} .. {label.max()}"
    if not np.isfinite(predictions.outputs).all():
        return f"a {'value' if kind == 'regression' else 'probability'} is not finite"
    if len(np.unique(predictions.sample_id)) < len(label):
        return "a sample stands in it twice"
    return ""
