"""Runs after their training: one head, or the several heads of an ensemble, each perhaps trained a second time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.specs import RunSpec
from emofuse.training.data import TrainingData
from emofuse.training.refits import epochs_of
from emofuse.training.together import Trained
from emofuse.training.validation import mean_outputs

Rows = Mapping[str, npt.NDArray[np.int64]]
"""Split -> its labelled rows, ascending."""


@dataclass(frozen=True)
class AnsweringHead:
    """A trained head and the rows that it answers in the scores of a run.

    Attributes:
        trained: the head.
        rows: split -> the rows that it answers; splits without such rows are left out.
    """

    trained: Trained
    rows: Rows


@dataclass(frozen=True)
class TrainedRun:
    """A run after its training.

    Attributes:
        spec: the run.
        first: the first training of each head, in the order of `RunSpec.heads`.
        second: the second training of each head with `refit: train_val`; empty without.
    """

    spec: RunSpec
    first: tuple[Trained, ...]
    second: tuple[Trained, ...] = ()

    @property
    def heads(self) -> tuple[Trained, ...]:
        """The heads that are saved, and whose mean outputs are the answer of the run."""
        return self.second or self.first

    @property
    def is_ensemble(self) -> bool:
        """Whether the run has several heads."""
        return len(self.first) > 1

    @property
    def parameters(self) -> int:
        """The number of parameters of all heads."""
        return sum(head.parameters for head in self.heads)

    @property
    def seconds(self) -> float:
        """The seconds of all trainings."""
        return sum(trained.seconds for trained in (*self.first, *self.second))

    @property
    def best_epoch(self) -> int:
        """The best epoch of the first training; of several heads the mean, as far as `history` goes."""
        mean = round(fmean(trained.result.best_epoch for trained in self.first))
        return min(mean, len(self.history))

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The history of the first training; of several heads the mean over the epochs that all of them have."""
        histories = [trained.result.history for trained in self.first]
        if len(histories) == 1:
            return histories[0]
        return [mean_entry(entries) for entries in zip(*histories, strict=False)]

    def answering(self, data: TrainingData, test: npt.NDArray[np.int64]) -> list[AnsweringHead]:
        """Return every head with the rows that it answers.

        A row of train is answered by the heads that learned from it, a row of val by the first trainings that chose by
        it, and a test row by all heads.

        Args:
            data: of the run's split.
            test: the test rows.
        """
        answering = []
        for number, first in enumerate(self.first):
            fold = data.folds(first.spec)[first.spec.fold.index if first.spec.fold else 0]
            if not self.second:
                answering.append(AnsweringHead(first, {"train": fold.train, "val": fold.val, "test": test}))
                continue
            answering.append(AnsweringHead(first, {"val": fold.val}))
            answering.append(AnsweringHead(self.second[number], {"train": fold.all_rows, "test": test}))
        return answering

    def heads_record(self) -> list[dict[str, Any]]:
        """Return what is recorded of each head of an ensemble as plain data; nothing of a single head."""
        if not self.is_ensemble:
            return []
        return [
            {
                "fold": None if first.spec.fold is None else first.spec.fold.index,
                "seed": first.spec.train.seed,
                "best_epoch": first.result.best_epoch,
                "history": list(first.result.history),
                "fitted": {stream: scaling.fitted for stream, scaling in head.scaling.items()},
            }
            for first, head in zip(self.first, self.heads, strict=True)
        ]

    def refit_record(self, data: TrainingData) -> list[dict[str, Any]]:
        """Return what is recorded of each second training as plain data; nothing if there is none."""
        return [
            {
                "rows": len(data.folds(trained.spec)[trained.spec.fold.index if trained.spec.fold else 0].train),
                "epochs": epochs_of(trained.spec),
                "train_loss": trained.result.history[trained.result.best_epoch - 1]["train_loss"],
                "seconds": trained.seconds,
            }
            for trained in self.second
        ]

    def together_record(self) -> dict[str, Any]:
        """Return what is recorded of the heads that trained at the same time; nothing where it is not known."""
        groups = {trained.group for trained in self.first}
        group = groups.pop() if len(groups) == 1 else None
        return {} if group is None else {"together": {"heads": group[0], "seconds": group[1]}}


def mean_entry(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the mean of the entries of several heads for one epoch; the entry of a single head is as it is."""
    if len(entries) == 1:
        return entries[0]
    return {"epoch": entries[0]["epoch"]} | {
        key: fmean(entry[key] for entry in entries)
        for key in entries[0]
        if key == "train_loss" or key.startswith("val_")
    }


def mean_of_answers(
    answers: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the rows that any head answers, ascending, and the mean outputs of the heads that answer each.

    Args:
        answers: the rows (n,) of each head, ascending, and its outputs (n, C).
    """
    first = answers[0][0]
    if all(np.array_equal(rows, first) for rows, _ in answers):
        return first, mean_outputs([probs for _, probs in answers])
    rows = np.unique(np.concatenate([of_head for of_head, _ in answers]))
    sums, counts = np.zeros((len(rows), answers[0][1].shape[1])), np.zeros((len(rows), 1))
    for of_head, probs in answers:
        places = np.searchsorted(rows, of_head)
        sums[places] += probs
        counts[places] += 1
    return rows, (sums / counts).astype(np.float32)
