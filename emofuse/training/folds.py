"""Folds of training and validation rows, without their scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.datasets.split_needs import check_labels, check_splits, make_folds
from emofuse.errors import TrainingError
from emofuse.specs import FoldSpec, TargetSpec
from emofuse.training.rows import check_columns


@dataclass(frozen=True)
class FoldRows:
    """A fold without its scaling: rows that train and rows that choose the epoch, both ascending.

    Attributes:
        train: (n,) int64.
        val: (m,) int64.
    """

    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]

    @property
    def all_rows(self) -> npt.NDArray[np.int64]:
        """The rows of both, ascending, int64 (n + m,)."""
        return np.union1d(self.train, self.val)


def cross_validation(
    usable: npt.NDArray[np.bool_],
    fold: FoldSpec,
    labels: npt.NDArray[np.int64],
    strata: Sequence[str | None],
    groups: npt.NDArray[np.str_],
) -> list[FoldRows]:
    """Return the folds of the usable rows of training and validation.

    Args:
        usable: (N,) whether a row has a target and can be read.
        fold: the cross-validation.
        labels: (N,) the labels, -1 in rows without a target.
        strata: what folds are balanced by, for each of the N rows.
        groups: (N,) the group of each row, "" for none.
    """
    names = [stratum if is_usable else None for stratum, is_usable in zip(strata, usable, strict=True)]
    of_rows = [group or None for group in groups.tolist()]
    unreadable = int(np.sum((labels >= 0) & ~usable))
    fold_of_rows = np.array(
        [-1 if index is None else index for index in make_folds(names, of_rows, fold, unreadable=unreadable)]
    )
    return [
        FoldRows(np.flatnonzero((fold_of_rows >= 0) & (fold_of_rows != index)), np.flatnonzero(fold_of_rows == index))
        for index in range(int(fold_of_rows.max()) + 1)
    ]


def check_fold(
    fold: FoldRows,
    target: TargetSpec,
    classes: Sequence[str],
    labels: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32] | None,
) -> None:
    """Raise if the target cannot be learned from the training rows of a fold.

    Args:
        fold: the fold.
        target: what is learned.
        classes: the names of the outputs.
        labels: (N,) the labels.
        values: (N, C) the targets that are no class, or None.

    Raises:
        TrainingError: training rows of one label, or columns that do not vary.
    """
    if target.kind == "regression" and values is not None:
        check_columns(classes, values[fold.train])
    if target.kind != "class":
        return
    present, counts = np.unique(labels[fold.train], return_counts=True)
    check_labels({classes[label]: int(count) for label, count in zip(present, counts, strict=True)})


def check_readable(lacking: Mapping[str, str], labelled: Mapping[str, int], there: set[str], *, is_drawn: bool) -> None:
    """Raise if a split has no labelled row with a readable picture.

    Args:
        lacking: split without such rows -> the purpose that it is needed for.
        labelled: split -> the number of its labelled rows, none of which can be read.
        there: the splits that have rows.
        is_drawn: whether the split is drawn, and not the dataset's own.

    Raises:
        TrainingError: with all such splits and what to do.
    """
    if any(labelled.get(split) for split in lacking):
        named = " nor ".join(f"{split!r} ({why})" for split, why in lacking.items())
        counts = ", ".join(f"{split} {labelled.get(split, 0)}" for split in lacking)
        raise TrainingError(
            f"no readable labelled row has split {named}: their pictures cannot be read (labelled rows: {counts}). "
            "`emofuse cache problems CACHE` says why; restore the files and try them again: emofuse cache retry"
        )
    check_splits(lacking, there, is_drawn=is_drawn)
