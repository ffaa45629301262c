"""The scores that a report shows of a run, all from one confusion matrix, in one order and by one function."""

from __future__ import annotations

import numpy as np

from emofuse.metrics.confusion import Floats, accuracy, by_support, class_scores, over_classes_that_occur

SCORES = ("precision", "recall", "f1", "specificity")
MEANS = ("macro", "weighted")

MEASURED = ("accuracy", "macro.f1")
"""The metrics that are compared: places in a run's metrics. They are the first two of `measured_paths`."""

MOST_CLASSES = 100
"""The largest number of classes that have intervals of their own; each takes four scores of every resample."""


def class_path(label: int, score: str) -> str:
    """Return the name of the score of one class, such as `per_class.3.f1`."""
    return f"per_class.{label}.{score}"


def measured_paths(classes: int) -> tuple[str, ...]:
    """Return the names of all scores of a run, in the order of `measure`."""
    means = [f"{mean}.{score}" for mean in MEANS for score in SCORES]
    others = [path for path in means if path not in MEASURED]
    labels = range(classes if classes <= MOST_CLASSES else 0)
    return (*MEASURED, *others, *(class_path(label, score) for label in labels for score in SCORES))


def measure(confusion: Floats) -> Floats:
    """Return all scores (..., M) of counts (..., C, C), in the order of `measured_paths`.

    A class without a row has no precision, recall and F1 (NaN): a resample without it does not measure it.
    """
    scores = class_scores(confusion)
    over = {"macro": over_classes_that_occur, "weighted": by_support}
    means = {f"{mean}.{score}": over[mean](scores[score], confusion) for mean in MEANS for score in SCORES}
    first = [accuracy(confusion), means.pop("macro.f1")]
    columns = [np.stack([*first, *means.values()], axis=-1)]
    if confusion.shape[-1] <= MOST_CLASSES:
        absent = confusion.sum(axis=-1) == 0
        of_classes = [np.where(absent & (score != "specificity"), np.nan, scores[score]) for score in SCORES]
        stacked = np.stack(of_classes, axis=-1)  # (..., C, 4): the four scores of a class stand side by side
        columns.append(stacked.reshape(*stacked.shape[:-2], -1))
    return np.concatenate(columns, axis=-1)
