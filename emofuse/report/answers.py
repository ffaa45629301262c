"""The answers of runs to their test rows, read from saved predictions and grouped by the images they are about."""

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
    """The test rows of a run, ordered by sample.

    Attributes:
        sample_id: the ids of the samples, str (n,).
        label: the class indices, int64 (n,).
        key: a text that is the same for the same samples and labels.
    """

    sample_id: npt.NDArray[np.str_]
    label: Ints
    key: str


@dataclass(frozen=True)
class ConfigurationAnswers:
    """The answers of all runs of a configuration.

    Attributes:
        label: the label of the configuration.
        rows: the test rows of each run.
        predicted: the predicted class indices of each run, int64 (n,), in the order of its rows.
        probs: key of a set of rows -> its probabilities summed over the runs that have it, float64 (n, C).
    """

    label: str
    rows: tuple[RowSet, ...]
    predicted: tuple[Ints, ...]
    probs: dict[str, npt.NDArray[np.float64]]

    @property
    def images(self) -> frozenset[str]:
        """The keys of the sets of rows that the configuration was scored on, one for each split."""
        return frozenset(self.probs)


@dataclass(frozen=True)
class Pool:
    """Configurations that were scored on the same images, which are the units of a resample.

    Attributes:
        answered: the answers of one or more configurations.
        sample_id: the ids of the images, sorted, str (units,).
        label: the class indices of the images, int64 (units,).
    """

    answered: tuple[ConfigurationAnswers, ...]
    sample_id: npt.NDArray[np.str_]
    label: Ints

    def units(self, rows: RowSet) -> Ints:
        """Return the unit of each row, int64 (n,)."""
        return np.searchsorted(self.sample_id, rows.sample_id).astype(np.int64)

    def right(self, item: ConfigurationAnswers) -> npt.NDArray[np.bool_]:
        """Return whether the mean probabilities of all runs that tested the image name its class, bool (units,)."""
        classes = next(iter(item.probs.values())).shape[1]
        total = np.zeros((len(self.sample_id), classes))
        for rows in {rows.key: rows for rows in item.rows}.values():
            total[self.units(rows)] += item.probs[rows.key]  # the sum is largest where the mean is
        right: npt.NDArray[np.bool_] = total.argmax(axis=1) == self.label
        return right


def read_answers(
    configurations: Sequence[ReportedConfiguration], runs: Path
) -> tuple[list[ConfigurationAnswers], dict[str, str]]:
    """Read the predictions of all runs.

    Returns:
        The answers of each configuration whose predictions can be used, and label -> the reason for the others.
    """
    answered, faults = [], {}
    shared: dict[str, RowSet] = {}  # hundreds of runs have the same rows, which are kept once
    for item in configurations:
        try:
            answered.append(_read(item, runs, shared))
        except ResultsError as error:
            faults[item.label] = str(error)
    return answered, faults


def pool_by_images(answered: Iterable[ConfigurationAnswers]) -> tuple[list[Pool], list[tuple[str, ...]]]:
    """Group configurations by the images they were scored on.

    Returns:
        The pools, and groups of labels of configurations that fit in none, because one of their images has different
        labels in the test rows of different splits.
    """
    same: dict[frozenset[str], list[ConfigurationAnswers]] = {}
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


def _read(item: ReportedConfiguration, runs: Path, shared: dict[str, RowSet]) -> ConfigurationAnswers:
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
    return ConfigurationAnswers(item.label, tuple(sets), tuple(predicted), probs)
