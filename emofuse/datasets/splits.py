"""Stratified splits and folds, which never part a group of rows.

They need only NumPy, because training splits cached rows with the same functions. Without groups of two or more
labelled rows, splits and folds are those of the labels alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from emofuse.checksum import seed_of
from emofuse.datasets.placement import groups_of_rows, place_groups
from emofuse.specs.datasets import HoldoutSplit, OfficialSplit, OuterFoldsSplit, StratifiedSplit

SPLITS = ("train", "val", "test")
ONE_STRATUM = "rows with a target"
"""What drawn splits take for the label of all rows, where a dataset or a target has no labels."""


def make_splits(
    labels: Sequence[str | None],
    official: Sequence[str | None],
    spec: OfficialSplit | StratifiedSplit | HoldoutSplit | OuterFoldsSplit,
    groups: Sequence[str | None] | None = None,
) -> list[str | None]:
    """Return the split of every row by a spec. Drawn splits keep groups together unless `grouped` is false.

    Args:
        labels: the label names (N,); None for an unlabelled row.
        official: the split of each row in the dataset itself (N,); None or "" for a row in no split.
        spec: the spec of the split.
        groups: the group of every row (N,), None for a row that is a group of its own; None without groups.

    Returns:
        train, val or test, or None for rows in no split, (N,).
    """
    match spec:
        case StratifiedSplit():
            return stratified_split(labels, spec, groups)
        case HoldoutSplit():
            return holdout_split(labels, official, spec, groups)
        case OuterFoldsSplit():
            return outer_folds_split(labels, spec, groups)
        case OfficialSplit():
            return [split or None for split in official]


def stratified_split(
    labels: Sequence[str | None], spec: StratifiedSplit, groups: Sequence[str | None] | None = None
) -> list[str | None]:
    """Assign every labelled row to train, val or test, each label in the same proportions.

    Each label is split independently: its counts are the spec's fractions by largest remainder, and the split of each
    of its rows depends only on the seed, the label's name, the number of its rows and their order. So rows of other
    labels may be added, removed or moved without any change for this label. A label with three rows or more has at
    least one in each split; with fewer rows, train comes first. If no label has three rows and a split would have no
    row, then labels with two rows (if there are at least two such labels) keep one for train and give the other to val
    and test in turn, in an order that depends on the seed.

    Groups of two or more labelled rows are placed first, as a whole (see `place_groups`). The other rows then fill the
    counts of their label, so that the proportions are off by no more than the groups force.

    Args:
        labels: the label names (N,); None for an unlabelled row.
        spec: the fractions and the seed; with `grouped: false`, groups are ignored.
        groups: the group of every row (N,), None for a row that is a group of its own; None without groups.

    Returns:
        train, val or test, or None for unlabelled rows, (N,).
    """
    rows_of = _rows_of_labels(labels)
    fractions = (spec.train, spec.val, spec.test)
    counts = {label: _counts(len(rows), fractions) for label, rows in rows_of.items()}
    if not all(sum(column) for column in zip(*counts.values(), strict=True)):
        counts |= _counts_of_pairs(rows_of, spec.seed)
    placed, rest = _placed(labels, groups if spec.grouped else None, counts, spec.seed)
    splits: list[str | None] = [None if part is None else SPLITS[part] for part in placed]
    for label, (rows, free) in rest.items():
        names = np.repeat(SPLITS, free)
        for position, name in zip(_shuffled(len(rows), spec.seed, label), names.tolist(), strict=True):
            splits[rows[position]] = name
    return splits


def _counts_of_pairs(rows_of: Mapping[str, Sequence[int]], seed: int) -> dict[str, list[int]]:
    """Return the rows per split of labels of which none has three rows; {} if val or test would have no row."""
    pairs = sorted((label for label, rows in rows_of.items() if len(rows) == 2), key=lambda label: seed_of(seed, label))
    if len(pairs) < 2:
        return {}
    single = {label: [1, 0, 0] for label, rows in rows_of.items() if len(rows) == 1}
    return single | {label: [1, 1, 0] if place % 2 == 0 else [1, 0, 1] for place, label in enumerate(pairs)}


def holdout_split(
    labels: Sequence[str | None],
    official: Sequence[str | None],
    spec: HoldoutSplit,
    groups: Sequence[str | None] | None = None,
) -> list[str | None]:
    """Keep the official test rows, and draw validation rows from those of the other splits.

    Each label is drawn from independently, as in `stratified_split`: a fraction `val` of its rows, rounded to the
    nearest whole number, but at least one row of two or more, and never all. Groups are placed first, as there.

    Args:
        labels: the label names (N,); None for an unlabelled row.
        official: the split of each row in the dataset itself (N,); None or "" for a row in no split.
        spec: the fraction, the seed, and the official split that is the test; with `grouped: false`, groups are
            ignored.
        groups: the group of every row (N,), None for a row that is a group of its own; None without groups.

    Returns:
        train, val or test (N,); None for unlabelled rows outside of the test, and for rows in no split.
    """
    drawn_from = {"train", "val"} - {spec.test}
    candidates = [label if split in drawn_from else None for label, split in zip(labels, official, strict=True)]
    drawn = _train_and_val(candidates, spec.val, spec.seed, groups if spec.grouped else None)
    return ["test" if split == spec.test else part for split, part in zip(official, drawn, strict=True)]


def outer_folds_split(
    labels: Sequence[str | None], spec: OuterFoldsSplit, groups: Sequence[str | None] | None = None
) -> list[str | None]:
    """Make one fold of an outer cross-validation the test rows, and draw validation rows from the other folds.

    Folds are those of `cross_validation_folds`; validation rows are drawn as in `holdout_split`. The official split
    plays no part.

    Args:
        labels: the label names (N,); None for an unlabelled row.
        spec: the folds, the repeat, and which fold is tested; with `grouped: false`, groups are ignored.
        groups: the group of every row (N,), None for a row that is a group of its own; None without groups.

    Returns:
        train, val or test, or None for unlabelled rows, (N,).
    """
    kept, seed = groups if spec.grouped else None, spec.seed + spec.repeat
    tested = [fold == spec.index for fold in cross_validation_folds(labels, spec.count, seed, kept)]
    candidates = [None if is_tested else label for label, is_tested in zip(labels, tested, strict=True)]
    drawn = _train_and_val(candidates, spec.val, seed, kept)
    return ["test" if is_tested else part for is_tested, part in zip(tested, drawn, strict=True)]


def _train_and_val(
    candidates: Sequence[str | None], val: float, seed: int, groups: Sequence[str | None] | None
) -> list[str | None]:
    """Return `val` for a share of the rows of every label, `train` for the others, None for rows without a label."""
    # Rounded first, as in the stratified split, for equal results on every machine.
    counts = {
        label: [len(rows) - drawn, drawn]
        for label, rows in _rows_of_labels(candidates).items()
        for drawn in [min(max(int(round(len(rows) * val, 9) + 0.5), 1), len(rows) - 1)]
    }
    placed, rest = _placed(candidates, groups, counts, seed)
    splits: list[str | None] = [None if part is None else ("train", "val")[part] for part in placed]
    for label, (rows, (_, drawn)) in rest.items():
        for place, position in enumerate(_shuffled(len(rows), seed, label).tolist()):
            splits[rows[position]] = "val" if place < drawn else "train"
    return splits


def cross_validation_folds(
    labels: Sequence[str | None], count: int, seed: int, groups: Sequence[str | None] | None = None
) -> list[int | None]:
    """Assign every labelled row to one of `count` folds, with each label spread evenly over them.

    Each label is divided into `count` parts independently, as in `stratified_split`: which of its rows are in a part
    depends on the seed, the label's name, the number of its rows and their order. The parts are assigned label by
    label, in the order of their names, and each label begins at the fold where the previous one ended. So no fold has
    over one row more than another, of each label and in all. Rows of other labels may change which fold a part becomes,
    but never which rows are together. Groups are placed first, as a whole, and may force larger differences.

    Args:
        labels: the label names (N,); None for a row in no fold.
        count: the number of folds.
        seed: the seed of the shuffling.
        groups: the group of every row (N,), None for a row that is a group of its own; None without groups.

    Returns:
        the fold of each row, 0 <= fold < count, or None for rows without a label, (N,).
    """
    counts: dict[str, list[int]] = {}
    first: dict[str, int] = {}
    assigned = 0
    for label, rows in sorted(_rows_of_labels(labels).items()):
        first[label] = assigned % count
        counts[label] = [len(range((fold - assigned) % count, len(rows), count)) for fold in range(count)]
        assigned += len(rows)
    folds, rest = _placed(labels, groups, counts, seed)
    for label, (rows, free) in rest.items():
        for position, fold in zip(
            _shuffled(len(rows), seed, label).tolist(), _in_turn(first[label], free), strict=True
        ):
            folds[rows[position]] = fold
    return folds


def group_folds(labels: Sequence[str | None], groups: Sequence[str | None]) -> list[int | None]:
    """Assign every labelled row to the fold of its group, one fold a group, in the order of their names.

    Args:
        labels: the label names (N,); None for a row in no fold.
        groups: the group of every row (N,), None for rows without one, which are in no fold.
    """
    pairs = list(zip(labels, groups, strict=True))
    names = sorted({group for label, group in pairs if label is not None and group is not None})
    fold_of = {name: fold for fold, name in enumerate(names)}
    return [None if label is None or group is None else fold_of[group] for label, group in pairs]


def _placed(
    labels: Sequence[str | None], groups: Sequence[str | None] | None, counts: Mapping[str, Sequence[int]], seed: int
) -> tuple[list[int | None], dict[str, tuple[list[int], list[int]]]]:
    """Place groups in parts, and return what is left to draw.

    Args:
        labels: the label names (N,); None for a row in no part.
        groups: the group of every row (N,) or None.
        counts: label -> the rows of each part, if no group forces others.
        seed: the seed of the draw.

    Returns:
        The part of every row of a group (N,), None for all other rows; and label -> its other rows, and how many of
        them each part gets.
    """
    parts: list[int | None] = [None] * len(labels)
    members = groups_of_rows(labels, groups)
    in_groups = {row for rows in members.values() for row in rows}
    rest = {label: [row for row in rows if row not in in_groups] for label, rows in _rows_of_labels(labels).items()}
    placed = {label: [0] * len(each) for label, each in counts.items()}
    kinds = {name: Counter(str(labels[row]) for row in rows) for name, rows in members.items()}
    singles = {label: len(rows) for label, rows in rest.items()}
    for name, part in place_groups(kinds, counts, singles, seed).items():
        for label, rows in kinds[name].items():
            placed[label][part] += rows
        for row in members[name]:
            parts[row] = part
    return parts, {label: (rows, _free(counts[label], placed[label], len(rows))) for label, rows in rest.items()}


def _free(wanted: Sequence[int], placed: Sequence[int], rows: int) -> list[int]:
    """Return how many further rows each part gets: as many as it lacks, less in the part with most where rows lack."""
    free = [max(want - there, 0) for want, there in zip(wanted, placed, strict=True)]
    for _ in range(sum(free) - rows):
        free[free.index(max(free))] -= 1
    return free


def _in_turn(first: int, free: Sequence[int]) -> list[int]:
    """Return parts in turn from the first one on, each as often as it has room."""
    left, part = list(free), first
    order: list[int] = []
    while len(order) < sum(free):
        if left[part]:
            left[part] -= 1
            order.append(part)
        part = (part + 1) % len(left)
    return order


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
    words = np.random.PCG64(seed_of(seed, label)).random_raw(rows)
    return np.argsort(words, kind="stable")
