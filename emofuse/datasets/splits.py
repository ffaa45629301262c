"""Stratified splits and folds. NumPy only: the training room re-splits cached rows with the same functions."""

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
    own: Sequence[str | None],
    spec: OfficialSplit | StratifiedSplit | HoldoutSplit,
) -> list[str | None]:
    """The split of every row as a spec says.

    Args:
        labels: (N,) label names; None is an unlabelled row.
        own: (N,) the split that the dataset itself gives its rows; None or "" for none.
        spec: which split.

    Returns:
        (N,) train, val or test; None for rows in none.
    """
    match spec:
        case StratifiedSplit():
            return stratified_split(labels, spec)
        case HoldoutSplit():
            return holdout_split(labels, own, spec)
        case OfficialSplit():
            return [split or None for split in own]


def stratified_split(labels: Sequence[str | None], spec: StratifiedSplit) -> list[str | None]:
    """Assigns every labelled row to train, val or test, each label in the same proportions.

    Each label is split on its own: its counts are the spec's fractions by largest remainder, and which of its rows go
    where depends on the seed, the label's name, the number of its rows and their order among themselves, on nothing
    else. So rows of other labels may come, go or move without changing anything for this label. A label with three
    rows or more has at least one in each split; with fewer, train comes first. Only where no label has three rows and
    a split would have no row at all, labels with two (if there are two such) keep one for train and give the other to
    val and test by turns, in an order that the seed decides.

    Args:
        labels: (N,) label names; None is an unlabelled row.
        spec: fractions and seed.

    Returns:
        (N,) train, val or test; None for unlabelled rows.
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
    """Rows per split where no label has three: single rows are for train. {} if val and test cannot both have one."""
    pairs = sorted((label for label, rows in rows_of.items() if len(rows) == 2), key=lambda label: _words(seed, label))
    if len(pairs) < 2:
        return {}
    single = {label: [1, 0, 0] for label, rows in rows_of.items() if len(rows) == 1}
    return single | {label: [1, 1, 0] if place % 2 == 0 else [1, 0, 1] for place, label in enumerate(pairs)}


def holdout_split(labels: Sequence[str | None], own: Sequence[str | None], spec: HoldoutSplit) -> list[str | None]:
    """Keeps the dataset's own test rows and draws validation rows from those of its other splits.

    Each label is drawn from on its own, as in `stratified_split`: a fraction `val` of its rows, to the nearest whole
    number, but at least one if it has two rows or more, and never all.

    Args:
        labels: (N,) label names; None is an unlabelled row.
        own: (N,) the split that the dataset itself gives its rows; None or "" for none.
        spec: fraction and seed, and which split of the dataset's own is the test.

    Returns:
        (N,) train, val or test; None for unlabelled rows that are not of the test, and for rows without a split.
    """
    drawn_from = {"train", "val"} - {spec.test}
    candidates = [label if split in drawn_from else None for label, split in zip(labels, own, strict=True)]
    splits: list[str | None] = ["test" if split == spec.test else None for split in own]
    for label, rows in _rows_of_labels(candidates).items():
        # Rounded first, as for the stratified split: equal on every machine.
        count = min(max(int(round(len(rows) * spec.val, 9) + 0.5), 1), len(rows) - 1)
        for place, position in enumerate(_shuffled(len(rows), spec.seed, label).tolist()):
            splits[rows[position]] = "val" if place < count else "train"
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
    words = np.random.PCG64(_words(seed, label)).random_raw(rows)
    return np.argsort(words, kind="stable")


def _words(seed: int, label: str) -> int:
    """A number of 256 bits that a label has under a seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{label}".encode()).digest(), "big")
