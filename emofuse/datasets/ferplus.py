"""The dataset kind `ferplus`: the votes of ten people on each face of FER2013 (Barsoum et al., ICMI 2016)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import polars as pl

from emofuse.datasets.archive_files import check_root_or_file
from emofuse.datasets.fer2013 import TABLES, FaceTable, check_has_usage, find_table, read_face_table
from emofuse.datasets.roots import open_files
from emofuse.datasets.rows import ListedRows, Listing, check_rows
from emofuse.errors import DatasetError
from emofuse.specs.datasets import CustomDatasetSpec

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""The labels in the order of the columns of votes."""
_OTHERS = {"unknown": "unknown_votes", "NF": "no_face_votes"}
_COLUMNS = ("Usage", "Image name", *EMOTIONS, *_OTHERS)


class FerPlusSpec(CustomDatasetSpec):
    """FER+: the votes in `fer2013new.csv` for the rows of `fer2013.csv`, which lie in one folder, in the same order.

    The votes are in the attributes `votes_neutral` to `votes_contempt`, for runs with `target: {kind: distribution}`;
    those for no emotion are in `unknown_votes` and `no_face_votes`, the label of FER2013 is in `fer2013_label`. The
    label of a row is the emotion with most votes (`label: most`), or with more than half of all votes (`label:
    majority`, as in the paper). A row has no label if two emotions share the most votes, or if `unknown` or `no face`
    has as many. Rows without an image name, which FER+ gave up, are left out.

    `table` and `votes` are the paths of both tables relative to the root, if they have other names.
    """

    ids_from_paths: ClassVar[bool] = True
    kind: Literal["ferplus"] = "ferplus"
    table: Path | None = None
    votes: Path = Path("fer2013new.csv")
    label: Literal["most", "majority"] = "most"
    group_file: Path | None = None

    def read(self) -> Listing:
        """List and check the rows."""
        return read_ferplus(self)


class _Votes(NamedTuple):
    """One row of votes."""

    usage: str
    image: str
    emotions: tuple[int, ...]
    others: tuple[int, ...]


def read_ferplus(spec: FerPlusSpec) -> Listing:
    """List the rows of FER2013 that FER+ kept, with their votes.

    Raises:
        DatasetError: a table is missing or malformed, or they have not the same rows in the same order.
    """
    root, name = check_root_or_file(spec.root, spec.kind)
    path = find_table(root, spec.table or name)
    if path is None:
        raise DatasetError(f"{root}: FER+ needs the pixels of FER2013 beside its votes: {' or '.join(TABLES[:3])}")
    table = read_face_table(root, path)
    check_has_usage(table, spec, root / path)
    votes = _read_votes(root / spec.votes)
    _check_same_rows(root, spec, table, votes)
    kept = [row for row, each in enumerate(votes) if each.image]
    place = {row: index for index, row in enumerate(kept)}
    splits = table.splits()
    faults = table.faults.of_rows(place)
    labels = [_label(votes[row], spec.label) for row in kept]
    columns = {
        f"votes_{emotion}": pl.Series([votes[row].emotions[index] for row in kept], dtype=pl.Int64)
        for index, emotion in enumerate(EMOTIONS)
    } | {
        name: pl.Series([votes[row].others[index] for row in kept], dtype=pl.Int64)
        for index, name in enumerate(_OTHERS.values())
    }
    rows = table.sources()[kept].with_columns(
        splits.gather(kept),
        pl.Series("label", labels, dtype=pl.String),
        pl.Series("fer2013_label", [table.labels[row] for row in kept], dtype=pl.String),
        **columns,
    )
    listed = ListedRows(rows, EMOTIONS, "FER+", spec.kind, faults, _notes(spec, votes, labels))
    files = open_files(root, follow_links=spec.follow_links)
    return check_rows(listed, root, spec.split, files, group_file=spec.group_file)


def _label(votes: _Votes, rule: str) -> str | None:
    """Return the label of a row by its votes, see `FerPlusSpec`."""
    most = max(votes.emotions)
    if most == 0 or votes.emotions.count(most) > 1 or most <= max(votes.others):
        return None
    if rule == "majority" and 2 * most <= sum(votes.emotions) + sum(votes.others):
        return None
    return EMOTIONS[votes.emotions.index(most)]


def _notes(spec: FerPlusSpec, votes: Sequence[_Votes], labels: Sequence[str | None]) -> list[str]:
    notes = []
    dropped = sum(not each.image for each in votes)
    if dropped:
        notes.append(f"rows without an image name in {spec.votes.as_posix()}, left out: {dropped} of {len(votes)}")
    if unlabelled := labels.count(None):
        rule = "has most votes" if spec.label == "most" else "has more than half of the votes"
        notes.append(
            f"rows in which no emotion alone {rule}, which have votes and no label: {unlabelled} of {len(labels)}"
        )
    return notes


def _read_votes(path: Path) -> list[_Votes]:
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such table; it is fer2013new.csv of https://github.com/microsoft/FERPlus. Set it with `votes`"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or ()]
            if lacking := [name for name in _COLUMNS if name not in names]:
                raise DatasetError(f"{path}: there is no column {', '.join(lacking)} (columns: {', '.join(names)})")
            reader.fieldnames = names
            return [_votes(path, number, row) for number, row in enumerate(reader, start=2)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a CSV table in UTF-8 ({error})") from None


def _votes(path: Path, number: int, row: Mapping[str, str | None]) -> _Votes:
    cells = {name: (row[name] or "").strip() for name in _COLUMNS}
    for name in (*EMOTIONS, *_OTHERS):
        if not cells[name].isdecimal():
            raise DatasetError(
                f"{path}: row {number}: column {name!r} must hold a number of votes, got {cells[name]!r}"
            )
    return _Votes(
        cells["Usage"],
        cells["Image name"],
        tuple(int(cells[name]) for name in EMOTIONS),
        tuple(int(cells[name]) for name in _OTHERS),
    )


def _check_same_rows(root: Path, spec: FerPlusSpec, table: FaceTable, votes: Sequence[_Votes]) -> None:
    """Raise unless both tables have the same rows in the same order, as far as `Usage` shows it."""
    where = f"{root / spec.votes}: does not belong to {table.path}"
    if len(votes) != len(table.labels):
        raise DatasetError(
            f"{where}: it has {len(votes)} rows, the other {len(table.labels)}; rows are joined by their place"
        )
    for row, (each, usage) in enumerate(zip(votes, table.usage, strict=True)):
        if usage is not None and each.usage.lower() != usage.lower():
            raise DatasetError(
                f"{where}: row {row + 2} is {each.usage!r}, in the other {usage!r}; rows are joined by their place, so "
                "both must be in the same order"
            )
