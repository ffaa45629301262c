"""Stratified splits and folds. NumPy only: the training room re-splits cached rows with the same functions."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from emofuse.specs import StratifiedSplit

SPLITS = ("train", "val", "test")


def stratified_split(labels: Sequence[str | None], spec: StratifiedSplit) -> list[str | None]:
    """Assigns every labelled row to train, val or test, each label in the same proportions.

    Each label is split on its own: its counts are the spec's fractions by largest remainder, and which of its rows go
    where depends on the seed, the label's name, the number of its rows and their order among themselves, on nothing
    else. So rows of other labels may come, go or move without changing anything for this label. A label with three
    rows or more has at least one in each split; with fewer, train comes first.

    Args:
        labels: (N,) label names; None is an unlabelled row.
        spec: fractions and seed.

    Returns:
        (N,) train, val or test; None for unlabelled rows.
    """
    splits: list[str | None] = [None] * len(labels)
    for label, rows in _rows_of_labels(labels).items():
        names = np.repeat(SPLITS, _counts(len(rows), (spec.train, spec.val, spec.test)))
        for position, name in zip(_shuffled(len(rows), spec.seed, label), names.tolist(), strict=True):
            splits[rows[position]] = name
    return splits


def cross_validation_folds(labels: Sequence[str | None], count: int, seed: int) -> list[int | None]:
    """Deals every labelled row to one of `count` folds, each label spread evenly over them.

    Each label is cut into `count` parts on its own, as in `stratified_split`: which of its rows make a part depends on
    the seed, the label's name, the number of its rows and their order among themselves. The parts are dealt out label
    by label, in the order of their names, each label beginning where the one before it ended: so of each label and of
    all rows together, no fold has more than one row more than another. Rows of other labels may change the number of
    the fold that a part becomes, never which rows are together.

    Args:
        labels: (N,) label names; None is a row in no fold.
        count: how many folds.
        seed: of the shuffling.

    Returns:
        (N,) fold, 0 <= fold < count; None for rows without a label.
    """
    folds: list[int | None] = [None] * len(labels)
    dealt = 0
    for label, rows in sorted(_rows_of_labels(labels).items()):
        for position, shuffled in enumerate(_shuffled(len(rows), seed, label).tolist()):
            folds[rows[shuffled]] = (dealt + position) % count
        dealt += len(rows)
    return folds


def _rows_of_labels(labels: Sequence[str | None]) -> dict[str, list[int]]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        if label is not None:
            rows_of[label].append(row)
    return rows_of


def _counts(rows: int, fractions: tuple[float, float, float]) -> list[int]:
    """Rows per split: largest remainder (Hamilton's method), ties to the earlier split, none empty from 3 rows on."""
    # Rounded, so that 0.7 * 70 is 49 on every machine and equal remainders are equal.
    quotas = [round(rows * fraction / sum(fractions), 9) for fraction in fractions]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(3), key=lambda split: -round(quotas[split] - counts[split], 9))
    for split in by_remainder[: rows - sum(counts)]:
        counts[split] += 1
    if rows >= 3:
        for split in range(3):
            if counts[split] == 0:
                counts[counts.index(max(counts))] -= 1
                counts[split] = 1
    return counts


def _shuffled(rows: int, seed: int, label: str) -> npt.NDArray[np.int64]:
    """A permutation (rows,) of 0..rows-1.

    It sorts the raw words of PCG64: NumPy promises these, unlike `Generator.permutation`, for all its versions.
    """
    entropy = int.from_bytes(hashlib.sha256(f"{seed}\n{label}".encode()).digest(), "big")
    words = np.random.PCG64(entropy).random_raw(rows)
    return np.argsort(words, kind="stable")
