"""Stratified splits. NumPy only: the training room re-splits cached rows with the same function."""

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
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        if label is not None:
            rows_of[label].append(row)
    splits: list[str | None] = [None] * len(labels)
    for label, rows in rows_of.items():
        names = np.repeat(SPLITS, _counts(len(rows), (spec.train, spec.val, spec.test)))
        for position, name in zip(_shuffled(len(rows), spec.seed, label), names.tolist(), strict=True):
            splits[rows[position]] = name
    return splits


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
