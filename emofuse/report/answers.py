"""What runs answered to their test rows: saved predictions, checked, and grouped by the images they are about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emofuse.errors import ResultsError
from emofuse.report.configurations import ReportedConfiguration
from emofuse.report.predictions import read_test_predictions

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowSet:
    """Test rows of a run, ordered by sample.

    Attributes:
        sample_id: (n,) str.
        label: (n,) int64 class index.
        key: equal for equal samples and labels.
    """

    sample_id: npt.NDArray[np.str_]
    label: Ints
    key: str


@dataclass(frozen=True)
class Answered:
    """What the runs of a configuration answered.

    Attributes:
        label: of the configuration.
        rows: test rows of each run.
        predicted: (n,) int64 class index of each run, in the order of its rows.
        probs: (n, C) float64 for each set of rows, by its key: probabilities summed over the runs that have it.
    """

    label: str
    rows: tuple[RowSet, ...]
    predicted: tuple[Ints, ...]
    probs: dict[str, npt.NDArray[np.float64]]

    @property
    def images(self) -> frozenset[str]:
        """What the configuration was scored on: the keys of its sets of rows, one a split."""
        return frozenset(self.probs)


@dataclass(frozen=True)
class Pool:
    """Configurations scored on the same images, and these images as units to draw.

    Attributes:
        answered: the configurations; never empty.
        sample_id: (units,) str, sorted.
        label: (units,) int64 class index.
    """

    answered: tuple[Answered, ...]
    sample_id: npt.NDArray[np.str_]
    label: Ints

    def units(self, rows: RowSet) -> Ints:
        """(n,) int64: which unit each row is."""
        return np.searchsorted(self.sample_id, rows.sample_id).astype(np.int64)

    def right(self, item: Answered) -> npt.NDArray[np.bool_]:
        """(units,) whether the mean probabilities of all runs that have the image in their test rows name its class."""
        classes = next(iter(item.probs.values())).shape[1]
        total = np.zeros((len(self.sample_id), classes))
        for rows in {rows.key: rows for rows in item.rows}.values():
            total[self.units(rows)] += item.probs[rows.key]  # a sum has its largest where the mean has it
        right: npt.NDArray[np.bool_] = total.argmax(axis=1) == self.label
        return right


def read_answers(configurations: Sequence[ReportedConfiguration], runs: Path) -> tuple[list[Answered], dict[str, str]]:
    """Reads the predictions of all runs.

    Returns:
        What each configuration answered whose predictions can be used, and why those of the others cannot: label ->
        message.
    """
    answered, faults = [], {}
    shared: dict[str, RowSet] = {}  # hundreds of runs have the same rows: they are kept once
    for item in configurations:
        try:
            answered.append(_read(item, runs, shared))
        except ResultsError as error:
            faults[item.label] = str(error)
    return answered, faults


def pool_by_images(answered: Iterable[Answered]) -> tuple[list[Pool], list[tuple[str, ...]]]:
    """Groups configurations by the images they were scored on.

    Returns:
        The pools, and the labels of configurations that fit in none, group by group: one of their images has
        different labels in the test rows of different splits.
    """
    same: dict[frozenset[str], list[Answered]] = {}
    for item in answered:
        same.setdefault(item.images, []).append(item)
    pools, contradicting = [], []
    for items in same.values():
        sets = list({rows.key: rows for rows in items[0].rows}.values())
        sample_id, first = np.unique(np.concatenate([rows.sample_id for rows in sets]), return_index=True)
        pool = Pool(tuple(items), sample_id, np.concatenate([rows.label for rows in sets])[first])
        if all((pool.label[pool.units(rows)] == rows.label).all() for rows in sets):
            pools.append(pool)
        else:
            contradicting.append(tuple(item.label for item in items))
    return pools, contradicting


def _read(item: ReportedConfiguration, runs: Path, shared: dict[str, RowSet]) -> Answered:
    sets: list[RowSet] = []
    predicted: list[Ints] = []
    probs: dict[str, npt.NDArray[np.float64]] = {}
    for run in item.runs:
        predictions = read_test_predictions(run, runs)
        order = np.argsort(predictions.sample_id, kind="stable")
        sample_id, label = predictions.sample_id[order], predictions.label[order].astype(np.int64)
        key = hashlib.sha256("\0".join(sample_id.tolist()).encode() + b"\0\0" + label.tobytes()).hexdigest()
        sets.append(shared.setdefault(key, RowSet(sample_id, label, key)))
        predicted.append(predictions.probs[order].argmax(axis=1).astype(np.int64))
        probs[key] = probs.get(key, 0.0) + predictions.probs[order].astype(np.float64)
    return Answered(item.label, tuple(sets), tuple(predicted), probs)
