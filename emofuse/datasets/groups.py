"""Groups of rows: who or what rows come from, read from a dataset or from a table beside it, and notes on them.

Rows of one group (a speaker, a subject, a film, a picture and its copies) are alike in more than their label. A head
that learned from some of them is tested on the others as if it knew them. `splits` keeps groups together.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from emofuse.datasets.splits import SPLITS
from emofuse.errors import DatasetError, did_you_mean
from emofuse.specs.datasets import SplitSpec
from emofuse.stores import replace_file
from emofuse.wording import join_first

GROUP_COLUMNS = ("sample_id", "group")
_NAMED = 3


def clean_groups(groups: pl.Series) -> list[str | None]:
    """Return the names of groups as text without spaces around them (N,); an empty name is None."""
    return groups.cast(pl.String).str.strip_chars().replace("", None).to_list()


def joined_groups(groups: Sequence[str | None], others: Sequence[str | None]) -> list[str | None]:
    """Return the groups of two groupings in one: rows that are together in either of them are together.

    A joined group has the first of its names in alphabetical order, of those in `groups` if there is one.

    Args:
        groups: the first grouping (N,); None for a row that is a group of its own.
        others: the second grouping (N,).

    Returns:
        The group of every row (N,), None for a row that is in no group of either.
    """
    parent: dict[tuple[int, str], tuple[int, str]] = {}

    def root(node: tuple[int, str]) -> tuple[int, str]:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = parent.setdefault(above, above)  # halves the path for the next search
            node = above
        return node

    for first, second in zip(groups, others, strict=True):
        if first is not None and second is not None:
            low, high = sorted((root((0, first)), root((1, second))))
            parent[high] = low
    taken = {name for name in groups if name is not None}
    joined: list[str | None] = []
    for first, second in zip(groups, others, strict=True):
        if first is None and second is None:
            joined.append(None)
            continue
        which, name = root((0, first) if first is not None else (1, str(second)))
        while which == 1 and name in taken:  # the two groupings may use one name for different groups
            name += "'"
        joined.append(name)
    return joined


def check_group_pattern(pattern: str, or_else: str = "") -> None:
    """Raise unless a text is a regular expression with one group, which is the name of the group in a path.

    Args:
        pattern: the text.
        or_else: what the text may be instead, for the message, such as `'parent' nor `.

    Raises:
        ValueError: it is not.
    """
    neither = f"neither {or_else}" if or_else else "not "
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is {neither}a regular expression ({error})") from None
    if groups != 1:
        raise ValueError(
            f"{pattern!r} is {neither}a regular expression with one group in parentheses, which is the name of the "
            f"group of an image; it has {groups}"
        )


def groups_in_paths(paths: pl.Series, pattern: str) -> tuple[pl.Series, list[str]]:
    """Return what a pattern finds in paths (N,), null where it finds nothing, and a note on these.

    Raises:
        DatasetError: the pattern is in no path.
    """
    search = re.compile(pattern).search
    matches = [None if path is None else search(path) for path in paths]
    groups = [match[1] or None if match else None for match in matches]
    lacking = [path for path, group in zip(paths, groups, strict=True) if group is None and path is not None]
    if lacking and len(lacking) == len(groups):
        raise DatasetError(
            f"group: the pattern {pattern!r} is in none of the {len(groups)} paths relative to the root, such as "
            f"{lacking[0]!r}"
        )
    notes = []
    if lacking:
        note = f"the pattern of the groups is not in {len(lacking)} of {len(groups)} paths ({lacking[0]}, ...)"
        notes.append(f"{note}: each of them is a group of its own")
    return pl.Series("group", groups, dtype=pl.String), notes


def read_group_file(path: Path, sample_ids: pl.Series) -> tuple[list[str | None], list[str]]:
    """Read a table with the columns `sample_id` and `group`.

    Args:
        path: the path of the table, UTF-8 with commas.
        sample_ids: the ids of the dataset (N,).

    Returns:
        The group of every row (N,), None for a row that the table lacks; and a note if the table has other ids, too.

    Raises:
        DatasetError: there is no such table, it is not one, an id has two groups, or it has no id of the dataset.
    """
    group_of: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or ()]
            for name in GROUP_COLUMNS:
                if name not in names:
                    hint = did_you_mean(name, names)
                    raise DatasetError(f"{path}: group_file: there is no column {name!r}{hint} ({', '.join(names)})")
            reader.fieldnames = names
            for number, row in enumerate(reader, start=2):
                sample_id, group = ((row[name] or "").strip() for name in GROUP_COLUMNS)
                if group and group_of.setdefault(sample_id, group) != group:
                    raise DatasetError(
                        f"{path}: group_file: row {number}: {sample_id!r} has two groups, {group_of[sample_id]!r} and "
                        f"{group!r}; join them under one name"
                    )
    except FileNotFoundError:
        raise DatasetError(
            f"{path}: group_file: no such table. A relative path starts at the root of the dataset"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: group_file: not a CSV table in UTF-8 ({error})") from None
    groups = [group_of.get(sample_id) for sample_id in sample_ids]
    unknown = group_of.keys() - set(sample_ids)
    if group_of and len(unknown) == len(group_of):
        raise DatasetError(
            f"{path}: group_file: none of its {len(group_of)} ids is in the dataset: it has {min(group_of)!r}, the "
            f"dataset {sample_ids[0]!r}"
        )
    if not unknown:
        return groups, []
    return groups, [
        f"{len(unknown)} of {len(group_of)} ids of {path.name} are not in the dataset ({min(unknown)}, ...)"
    ]


def write_group_file(path: Path, group_of: Mapping[str, str]) -> None:
    """Write a table that `read_group_file` reads: sample id -> group."""
    table = pl.DataFrame(list(group_of.items()), schema=dict.fromkeys(GROUP_COLUMNS, pl.String), orient="row")
    replace_file(path, table.write_csv().encode())


def group_notes(groups: Sequence[str | None], splits: Sequence[str | None], split: SplitSpec) -> list[str]:
    """Return a note if groups are in several splits, as those of the dataset itself may be.

    Args:
        groups: the group of every row (N,); None for a row that is a group of its own.
        splits: train, val, test or None (N,).
        split: the spec that the splits were made by.
    """
    shared = shared_groups(groups, splits)
    if not shared:
        return []
    named = join_first((f"{name!r} in {' and '.join(where)}" for name, where in shared.items()), _NAMED)
    count = len({group for group in groups if group is not None})
    if getattr(split, "grouped", True):
        advice = "the dataset's own split parts them; `split: {kind: stratified}` keeps each in one split"
    else:
        advice = "`grouped: false` of the split asks for it"
    note = (
        f"groups are shared between train, val and test: {len(shared)} of {count} are in several splits "
        f"({named}), so that scores are those of known groups; {advice}"
    )
    return [note]


def shared_groups(groups: Sequence[str | None], splits: Sequence[str | None]) -> dict[str, tuple[str, ...]]:
    """Return each group with rows in several splits, in order of appearance -> its splits."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        if group is not None and split:
            splits_of[group].add(split)
    return {
        group: tuple(name for name in SPLITS if name in where) for group, where in splits_of.items() if len(where) > 1
    }


def describe_groups(groups: Sequence[str | None]) -> str:
    """Return how many groups there are, the rows of the largest and the rows without one, in one line; "" for none."""
    counts = Counter(group for group in groups if group is not None)
    if not counts:
        return ""
    name, largest = min(counts.items(), key=lambda item: (-item[1], item[0]))
    alone = len(groups) - counts.total()
    rest = f"; {alone} row{'s' * (alone != 1)} without a group, each of its own" if alone else ""
    noun = "group" if len(counts) == 1 else "groups"
    return f"{len(counts)} {noun} in {counts.total()} rows, the largest {name!r} with {largest}{rest}"
