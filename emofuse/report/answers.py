"""The answers of runs to their test rows, read from saved predictions and grouped by the images they are about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emofuse.errors import ResultsError
from emofuse.report.configurations import Repeat, ReportedConfiguration
from emofuse.report.predictions import read_test_predictions

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowSet:
    """The test rows of a run, ordered by sample.

    Attributes:
        sample_id: the ids of the samples, str (n,).
        label: the class indices, int64 (n,).
        group: the group of each sample, str (n,), empty for a sample that is a group of its own; None without groups.
        key: a text that is the same for the same samples, labels and true values.
        target: the true values, float32 (n, C); None if the target is a class.
    """

    sample_id: npt.NDArray[np.str_]
    label: Ints
    group: npt.NDArray[np.str_] | None
    key: str
    target: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ConfigurationAnswers:
    """The answers of all runs of a configuration.

    Attributes:
        label: the label of the configuration.
        rows: the test rows of each run.
        predicted: the predicted class indices of each run, int64 (n,), in the order of its rows; nothing is predicted
            (n = 0) where rows have no class.
        probs: key of a set of rows -> its outputs summed over the runs that have it, float64 (n, C).
        repeats: the seeds of each run.
        test_to_train: the number of test rows divided by that of training rows, the mean over the runs.
        outputs: the outputs of each run, float32 (n, C), in the order of its rows; empty if the target is a class.
    """

    label: str
    rows: tuple[RowSet, ...]
    predicted: tuple[Ints, ...]
    probs: dict[str, npt.NDArray[np.float64]]
    repeats: tuple[Repeat, ...]
    test_to_train: float
    outputs: tuple[npt.NDArray[np.float32], ...] = ()

    @property
    def images(self) -> frozenset[str]:
        """The keys of the sets of rows that the configuration was scored on, one for each split."""
        return frozenset(self.probs)


@dataclass(frozen=True)
class Pool:
    """Configurations that were scored on the same images.

    The units of a resample are the images or, where the manifest has groups, whole groups of images.

    Attributes:
        answered: the answers of one or more configurations.
        sample_id: the ids of the images, sorted, str (images,).
        label: the class indices of the images, int64 (images,).
        unit: the unit of each image, int64 (images,): its number, or that of its group.
        grouped: whether units are groups of images.
    """

    answered: tuple[ConfigurationAnswers, ...]
    sample_id: npt.NDArray[np.str_]
    label: Ints
    unit: Ints
    grouped: bool

    @property
    def unit_count(self) -> int:
        """The number of units that a resample draws from."""
        return int(self.unit.max()) + 1

    @property
    def splits(self) -> int:
        """The number of different sets of test rows."""
        return len(self.answered[0].probs)

    def images(self, rows: RowSet) -> Ints:
        """Return the number of each row's image, int64 (n,)."""
        return np.searchsorted(self.sample_id, rows.sample_id).astype(np.int64)

    def units(self, rows: RowSet) -> Ints:
        """Return the unit of each row, int64 (n,)."""
        units: Ints = self.unit[self.images(rows)]
        return units

    def right(self, item: ConfigurationAnswers) -> npt.NDArray[np.bool_]:
        """Return whether the mean probabilities of all runs that tested the image name its class, bool (images,)."""
        classes = next(iter(item.probs.values())).shape[1]
        total = np.zeros((len(self.sample_id), classes))
        for rows in {rows.key: rows for rows in item.rows}.values():
            total[self.images(rows)] += item.probs[rows.key]  # the sum is largest where the mean is
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
        labels or true values in the test rows of different splits.
    """
    same: dict[frozenset[str], list[ConfigurationAnswers]] = {}
    for item in answered:
        same.setdefault(item.images, []).append(item)
    pools, contradicting = [], []
    for items in same.values():
        # Runs of a former release have no groups; those of others with the same rows hold for them.
        every = sorted((rows for item in items for rows in item.rows), key=lambda rows: rows.group is not None)
        sets = list({rows.key: rows for rows in every}.values())
        sample_id, first = np.unique(np.concatenate([rows.sample_id for rows in sets]), return_index=True)
        label = np.concatenate([rows.label for rows in sets])[first]
        unit, grouped = _units(sets, first)
        pool = Pool(tuple(items), sample_id, label, unit, grouped)
        if all((pool.label[pool.images(rows)] == rows.label).all() for rows in sets) and _agree(sets, pool, first):
            pools.append(pool)
        else:
            contradicting.append(tuple(item.label for item in items))
    return pools, contradicting


def _agree(sets: Sequence[RowSet], pool: Pool, first: Ints) -> bool:
    """Return whether an image has the same true values in all sets of test rows."""
    targets = [rows.target for rows in sets if rows.target is not None]
    if not targets:
        return True
    of_image = np.concatenate(targets)[first]
    return all(np.array_equal(of_image[pool.images(rows)], rows.target) for rows in sets if rows.target is not None)


def _units(sets: Sequence[RowSet], first: Ints) -> tuple[Ints, bool]:
    """Return the unit of each image, int64 (images,), and whether units are groups.

    Args:
        sets: the sets of test rows.
        first: the place of each image in these sets, one after the other.
    """
    if all(rows.group is None for rows in sets):
        return np.arange(len(first)), False
    groups = [np.full(rows.sample_id.shape, "") if rows.group is None else rows.group for rows in sets]
    return units_of_groups(np.concatenate(groups)[first]), True


def units_of_groups(groups: npt.NDArray[np.str_]) -> Ints:
    """Return the number of each row's group, int64 (n,), from 0; a row with an empty group has one of its own."""
    alone = np.arange(len(groups)).astype(np.str_)
    # The first letter keeps a sample of its own apart from a group that is named like a number.
    names = np.where(groups == "", np.char.add("0", alone), np.char.add("1", groups))
    units: Ints = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return units


def seed_of_repeats(repeats: tuple[Repeat, ...], seed: int) -> list[int]:
    """Return the seed of the draws of repeats: the same for configurations with the same seeds, which are paired."""
    return [seed, int.from_bytes(hashlib.sha256(repr(repeats).encode()).digest()[:8], "little")]


def _read(item: ReportedConfiguration, runs: Path, shared: dict[str, RowSet]) -> ConfigurationAnswers:
    sets: list[RowSet] = []
    predicted: list[Ints] = []
    outputs: list[npt.NDArray[np.float32]] = []
    probs: dict[str, npt.NDArray[np.float64]] = {}
    for run in item.runs:
        predictions = read_test_predictions(run, runs)
        order = np.argsort(predictions.sample_id, kind="stable")
        sample_id, label = predictions.sample_id[order], predictions.label[order].astype(np.int64)
        group = None if predictions.group is None else predictions.group[order]
        target = None if predictions.target is None else predictions.target[order]
        truth = label.tobytes() + (b"" if target is None else target.tobytes())
        key = hashlib.sha256("\0".join(sample_id.tolist()).encode() + b"\0\0" + truth).hexdigest()
        if key not in shared or (shared[key].group is None and group is not None):
            shared[key] = RowSet(sample_id, label, group, key, target)
        sets.append(shared[key])
        answer = predictions.outputs[order]
        predicted.append((answer if label.min() >= 0 else answer[:0]).argmax(axis=1).astype(np.int64))
        probs[key] = probs.get(key, 0.0) + answer.astype(np.float64)
        outputs += [] if target is None else [answer]
    return ConfigurationAnswers(
        item.label, tuple(sets), tuple(predicted), probs, item.repeats, item.test_to_train, tuple(outputs)
    )
