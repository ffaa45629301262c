"""Stratified splits and folds. They need only NumPy, because training splits cached rows with the same functions."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from emofuse.specs.datasets import HoldoutSplit, OfficialSplit, StratifiedSplit

SPLITS = ("train", "val", "test")


def make_splits(
    labels: Sequence[str | None],
    official: Sequence[str | None],
    spec: OfficialSplit | StratifiedSplit | HoldoutSplit,
) -> list[str | None]:
    """Return the split of every row by a spec.

    Args:
        labels: the label names (N,); None for an unlabelled row.
        official: the split of each row in the dataset itself (N,); None or "" for a row in no split.
        spec: the spec of the split.

    Returns:
        train, val or test, or None for rows in no split, (N,).
    """
    match spec:
        case StratifiedSplit():
            return stratified_split(labels, spec)
        case HoldoutSplit():
            return holdout_split(labels, official, spec)
        case OfficialSplit():
            return [split or None for split in official]


def stratified_split(labels: Sequence[str | None], spec: StratifiedSplit) -> list[str | None]:
    """Assign every labelled row to train, val or test, each label in the same proportions.

    Each label is split independently: its counts are the spec's fractions by largest remainder, and the split of each
        of
    its rows depends only on the seed, the label's name, the number of its rows and their order. So rows of other labels
    may be added, removed or moved without any change for this label. A label with three rows or more has at least one
    in each split; with fewer rows, train comes first. If no label has three rows and a split would have no row, then
    labels with two rows (if there are at least two such labels) keep one for train and give the other to val and test
    in turn, in an order that depends on the seed.

    Args:
        labels: the label names (N,); None for an unlabelled row.
        spec: the fractions and the seed.

    Returns:
        train, val or test, or None for unlabelled rows, (N,).
    """
    splits: list[str | None] = [None] * len(labels)
    rows_of = _rows_of_labels(labels)
    fractions = (spec.train, spec.val, spec.test)
    counts = {label: _counts(len(rows), fractions) for label, rows in rows_of.items()}
    if not all(sum(column) for column in zip(*counts.values(), strict=True)):
        counts |= _counts_of_pairs(rows_of, spec.seed)
    for label, rows in rows_of.items():
        names = np.repeat(SPLITS, counts[label])
        for position, name in zip(_shuffled(len(rows), spec.seed, label), names.tolist(), strict=True):
            splits[rows[position]] = name
    return splits


def _counts_of_pairs(rows_of: Mapping[str, Sequence[int]], seed: int) -> dict[str, list[int]]:
    """Return the rows per split of labels of which none has three rows; {} if val or test would have no row."""
    pairs = sorted((label for label, rows in rows_of.items() if len(rows) == 2), key=lambda label: _words(seed, label))
    if len(pairs) < 2:
        return {}
    single = {label: [1, 0, 0] for label, rows in rows_of.items() if len(rows) == 1}
    return single | {label: [1, 1, 0] if place % 2 == 0 else [1, 0, 1] for place, label in enumerate(pairs)}


def holdout_split(labels: Sequence[str | None], official: Sequence[str | None], spec: HoldoutSplit) -> list[str | None]:
    """Keep the official test rows, and draw validation rows from those of the other splits.

    Each label is drawn from independently, as in `stratified_split`: a fraction `val` of its rows, rounded to the
    nearest whole number, but at least one row of two or more, and never all.

    Args:
        labels: the label names (N,); None for an unlabelled row.
        official: the split of each row in the dataset itself (N,); None or "" for a row in no split.
        spec: the fraction, the seed, and the official split that is the test.

    Returns:
        train, val or test (N,); None for unlabelled rows outside of the test, and for rows in no split.
    """
    drawn_from = {"train", "val"} - {spec.test}
    candidates = [label if split in drawn_from else None for label, split in zip(labels, official, strict=True)]
    splits: list[str | None] = ["test" if split == spec.test else None for split in official]
    for label, rows in _rows_of_labels(candidates).items():
        # Rounded first, as in the stratified split, for equal results on every machine.
        count = min(max(int(round(len(rows) * spec.val, 9) + 0.5), 1), len(rows) - 1)
        for place, position in enumerate(_shuffled(len(rows), spec.seed, label).tolist()):
            splits[rows[position]] = "val" if place < count else "train"
    return splits


def cross_validation_folds(labels: Sequence[str | None], count: int, seed: int) -> list[int | None]:
    """Assign every labelled row to one of `count` folds, with each label spread evenly over them.

    Each label is divided into `count` parts independently, as in `stratified_split`: which of its rows are in a part
    depends on the seed, the label's name, the number of its rows and their order. The parts are assigned label by
    label, in the order of their names, and each label begins at the fold where the previous one ended. So no fold has
    over one row more than another, of each label and in all. Rows of other labels may change which fold a part becomes,
    but never which rows are together.

    Args:
        labels: the label names (N,); None for a row in no fold.
        count: the number of folds.
        seed: the seed of the shuffling.

    Returns:
        the fold of each row, 0 <= fold < count, or None for rows without a label, (N,).
    """
    folds: list[int | None] = [None] * len(labels)
    assigned = 0
    for label, rows in sorted(_rows_of_labels(labels).items()):
        for position, shuffled in enumerate(_shuffled(len(rows), seed, label).tolist()):
            folds[rows[shuffled]] = (assigned + position) % count
        assigned += len(rows)
    return folds


def _rows_of_labels(labels: Sequence[str | None]) -> dict[str, list[int]]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        if label is not None:
            rows_of[label].append(row)
    return rows_of


def _counts(rows: int, fractions: tuple[float, float, float]) -> list[int]:
    """Return the rows per split by largest remainder, ties to the earlier split, none empty from 3 rows on."""
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
    """Return a permutation of 0..rows-1, int64 (rows,).

    It sorts the raw words of PCG64, which NumPy keeps equal in all its versions, unlike `Generator.permutation`.
    """
    words = np.random.PCG64(_words(seed, label)).random_raw(rows)
    return np.argsort(words, kind="stable")


def _words(seed: int, label: str) -> int:
    """Return the 256-bit seed of a label."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{label}".encode()).digest(), "big")
