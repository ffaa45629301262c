"""The answers of saved runs to rows that they have not learned from, joined over outer folds, on common units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emofuse.analysis.scoring import ScoredAnswers, Scoring
from emofuse.report.answers import units_of_groups
from emofuse.report.configurations import ReportedConfiguration
from emofuse.report.pooled import fold_count
from emofuse.report.predictions import read_test_predictions
from emofuse.results import Predictions, RunRecord
from emofuse.statistics import RunPredictions

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TestedRows:
    """The rows that one repeat of a configuration has tested: those of one run, or of all outer folds of a deal.

    Attributes:
        runs: the runs, whose rows stand one after another.
        counts: the number of rows of each run.
        sample_id: the ids of the samples, str (n,).
        label: the true classes, int64 (n,); -1 for targets without classes.
        unit: the unit of each row that resamples draw, int64 (n,): the row, or its group.
        outputs: the outputs, float64 (n, C): probabilities, or values.
        target: the true values, float64 (n, C); None where the target is a class.
    """

    __test__ = False  # for pytest, which takes the name for that of a class of tests

    runs: tuple[RunRecord, ...]
    counts: tuple[int, ...]
    sample_id: npt.NDArray[np.str_]
    label: Ints
    unit: Ints
    outputs: Floats
    target: Floats | None = None

    @property
    def parts(self) -> list[tuple[RunRecord, slice]]:
        """Each run with the places of its rows."""
        ends = np.cumsum(self.counts)
        return [
            (run, slice(int(end) - count, int(end)))
            for run, count, end in zip(self.runs, self.counts, ends, strict=True)
        ]

    def predictions(self, predicted: Ints | None = None) -> RunPredictions:
        """Return the rows for resampling, with these predicted classes (n,); those of the runs unless given."""
        return RunPredictions(self.unit, self.label, self.outputs.argmax(axis=1) if predicted is None else predicted)


@dataclass(frozen=True)
class TestedConfiguration:
    """A configuration with the answers of all its repeats.

    Attributes:
        item: the configuration.
        repeats: one or more repeats.
        units: the number of units of all analysed configurations.
    """

    __test__ = False

    item: ReportedConfiguration
    repeats: tuple[TestedRows, ...]
    units: int

    @property
    def scoring(self) -> Scoring:
        """The scores of its target."""
        return Scoring(self.item.target.kind, self.classes)

    def scored(self, rows: TestedRows, outputs: npt.NDArray[np.generic] | None = None) -> ScoredAnswers:
        """Return the answers to the rows of a repeat for scoring; those of the runs unless others are given."""
        return self.scoring.prepare(rows.unit, rows.label, rows.outputs if outputs is None else outputs, rows.target)

    @property
    def label(self) -> str:
        """The name of the configuration."""
        return self.item.label

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, columns or labels."""
        return tuple(self.item.runs[0].classes)

    @property
    def grouped(self) -> bool:
        """Whether resamples draw whole groups."""
        return any(len(np.unique(rows.unit)) < len(rows.unit) for rows in self.repeats)

    @cached_property
    def mean(self) -> TestedRows:
        """Each tested sample once, ordered by its id, with the mean of its outputs over the repeats."""
        ids, first, place = np.unique(
            np.concatenate([rows.sample_id for rows in self.repeats]), return_index=True, return_inverse=True
        )
        outputs = np.concatenate([rows.outputs for rows in self.repeats])
        total = np.zeros((len(ids), outputs.shape[1]))
        np.add.at(total, place, outputs)
        label = np.concatenate([rows.label for rows in self.repeats])[first]
        unit = np.concatenate([rows.unit for rows in self.repeats])[first]
        targets = [rows.target for rows in self.repeats if rows.target is not None]
        target = np.concatenate(targets)[first] if targets else None
        return TestedRows((), (), ids, label, unit, total / np.bincount(place)[:, None], target)


def read_tested(items: Sequence[ReportedConfiguration], runs: Path) -> list[TestedConfiguration]:
    """Read the saved predictions of configurations, on common units.

    Runs that are outer folds of a complete deal are joined, so that a repeat tests every row once.

    Args:
        items: the configurations.
        runs: the folder of their runs.

    Raises:
        ResultsError: predictions are damaged.
    """
    predictions = {run.digest: read_test_predictions(run, runs) for item in items for run in item.runs}
    unit_of = _Units(list(predictions.values()))
    return [
        TestedConfiguration(
            item,
            tuple(_tested(of_repeat, predictions, unit_of) for of_repeat in _repeats(item)),
            unit_of.count,
        )
        for item in items
    ]


class _Units:
    """The unit of each sample of any run: the sample itself, or its group."""

    def __init__(self, predictions: Sequence[Predictions]) -> None:
        # Runs of a former release have no groups; those of others with the same samples hold for them.
        every = sorted(predictions, key=lambda each: each.group is None)
        ids = np.concatenate([each.sample_id for each in every])
        groups = np.concatenate(
            [np.full(each.sample_id.shape, "") if each.group is None else each.group for each in every]
        )
        self._ids, first = np.unique(ids, return_index=True)
        self._units = units_of_groups(groups[first])
        self.count = int(self._units.max()) + 1

    def __call__(self, sample_id: npt.NDArray[np.str_]) -> Ints:
        units: Ints = self._units[np.searchsorted(self._ids, sample_id)]
        return units


def _repeats(item: ReportedConfiguration) -> list[list[RunRecord]]:
    """Return the runs of each repeat: all outer folds of a complete deal, or else each run alone."""
    folds = fold_count(item)
    if not folds:
        return [[run] for run in item.runs]
    deals: dict[tuple[object, int], list[RunRecord]] = {}
    for run, (split, seed) in zip(item.runs, item.repeats, strict=True):
        deals.setdefault((split[0] if isinstance(split, tuple) else split, seed), []).append(run)
    complete = all(len(runs) == folds for runs in deals.values())
    return list(deals.values()) if complete else [[run] for run in item.runs]


def _tested(runs: Sequence[RunRecord], predictions: Mapping[str, Predictions], unit_of: _Units) -> TestedRows:
    parts = [predictions[run.digest] for run in runs]
    ids = np.concatenate([part.sample_id for part in parts])
    return TestedRows(
        tuple(runs),
        tuple(len(part.sample_id) for part in parts),
        ids,
        np.concatenate([part.label for part in parts]).astype(np.int64),
        unit_of(ids),
        np.concatenate([part.outputs for part in parts]).astype(np.float64),
        np.concatenate([part.target for part in parts if part.target is not None]).astype(np.float64)
        if parts[0].target is not None
        else None,
    )
