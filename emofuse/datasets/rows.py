"""From what a reader found to a checked manifest: the checks that all datasets share.

A reader lists its rows as a frame and says which are malformed in its own format. Here every row is then held against
the disk, the classes and the other rows; all that is wrong is collected, so that one error can list it.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from emofuse.datasets.files import DatasetFiles, FileFault
from emofuse.datasets.label_notes import label_notes
from emofuse.datasets.manifest import COLUMNS, FILE_COLUMNS, Manifest
from emofuse.datasets.remote_files import RemoteFiles
from emofuse.datasets.split_names import KNOWN_SPLIT_NAMES
from emofuse.datasets.splits import make_splits
from emofuse.errors import DatasetError, did_you_mean
from emofuse.specs import OfficialSplit, SplitSpec
from emofuse.stores import as_path, is_remote

Files = DatasetFiles | RemoteFiles
RESERVED = (*COLUMNS, "file", "row", "index")  # names that an attribute cannot have
_LISTED_PER_FAULT = 20
_UNKNOWN = -1


class RowFault(StrEnum):
    """Why a row is bad, apart from its file. The values are what the user reads."""

    MALFORMED = "malformed row"
    NO_PATH = "no path"
    NOT_UTF8 = "file name is not UTF-8"
    NO_LABEL_FOLDER = "image lies in no label's folder"
    UNKNOWN_LABEL = "unknown label"
    UNKNOWN_SPLIT = "unknown split"
    DUPLICATE_ID = "duplicate id"
    DAMAGED_ANNOTATION = "damaged annotation"


_ADVICE: Mapping[str, str] = {
    FileFault.LFS_POINTER: "fetch the images: git lfs pull",
    FileFault.OUTSIDE: "absolute, with '..', or a link to elsewhere; links of your own are followed with "
    "--follow-links, or `follow_links: true` of the dataset; those to the content of a hub snapshot, git-annex or DVC "
    "beside the root are followed unasked",
    RowFault.UNKNOWN_SPLIT: f"known: {KNOWN_SPLIT_NAMES}",
}


@dataclass
class Faults:
    """What is wrong, by row. A row may have several faults."""

    _rows: list[int] = field(default_factory=list)
    _faults: list[str] = field(default_factory=list)
    _details: list[str] = field(default_factory=list)

    def add(self, row: int, fault: RowFault | FileFault, detail: str = "") -> None:
        """Marks a row (its position in the table, from 0)."""
        self._rows.append(row)
        self._faults.append(fault.value)
        self._details.append(detail)

    def rows_without_path(self) -> set[int]:
        """Rows whose fault says already that there is no path to look at."""
        known = {RowFault.MALFORMED.value, RowFault.NOT_UTF8.value}
        return {row for row, fault in zip(self._rows, self._faults, strict=True) if fault in known}

    def table(self) -> pl.DataFrame:
        """Columns `index` int64, `fault` str, `detail` str; ordered by index."""
        columns = {"index": self._rows, "fault": self._faults, "detail": self._details}
        schema = {"index": pl.Int64, "fault": pl.String, "detail": pl.String}
        return pl.DataFrame(columns, schema=schema).sort("index", maintain_order=True)


@dataclass(frozen=True)
class FoundRows:
    """What a reader found, before it is checked.

    Attributes:
        table: one row a sample. `file` str: the table that lists it, "" if there is none. `row` int64: its number
            there. `sample_id`, `path`, `split`, `label`: str or null. Then the dataset's own attributes.
        classes: label names in index order.
        name: what reports call the dataset.
        kind: the spec's kind.
        faults: what the reader itself holds against its rows.
        notes: what the user should know though no row is bad, one line each.
    """

    table: pl.DataFrame
    classes: Sequence[str]
    name: str
    kind: str
    faults: Faults = field(default_factory=Faults)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Listing:
    """A manifest with the record of its bad rows.

    Attributes:
        manifest: all rows; the bad ones are marked in `problem`.
        bad_rows: columns `file`, `row`, `path`, `fault`, `detail`: one line per fault, in the manifest's order.
        bad_count: bad rows, each counted once.
    """

    manifest: Manifest
    bad_rows: pl.DataFrame
    bad_count: int

    def check_no_bad_rows(self) -> None:
        """Passes a dataset without bad rows.

        Raises:
            DatasetError: there are bad rows; they are all counted, and listed with their numbers.
        """
        if self.bad_count:
            noun = "bad row" if self.bad_count == 1 else "bad rows"
            raise DatasetError(
                f"{self.manifest.root}: {self.bad_count} {noun} of {len(self.manifest)}. Repair them, or keep them as"
                f" marked rows: --on-bad-rows keep\n{self.describe_bad_rows()}"
            )

    def describe_bad_rows(self) -> str:
        """The bad rows grouped by fault, each with file and row number; of long groups the first ones and the count."""
        lines = []
        for (fault,), group in self.bad_rows.group_by("fault", maintain_order=True):
            advice = f" ({_ADVICE[str(fault)]})" if fault in _ADVICE else ""
            lines.append(f"  {fault}: {group.height}{advice}")
            for row in group.head(_LISTED_PER_FAULT).iter_rows(named=True):
                parts = (_place(row["file"], row["row"]), row["path"], row["detail"])
                lines.append("    " + ": ".join(part for part in parts if part))
            if group.height > _LISTED_PER_FAULT:
                lines.append(f"    ... and {group.height - _LISTED_PER_FAULT} more")
        return "\n".join(lines)


def check_rows(found: FoundRows, root: Path, split: SplitSpec, files: Files) -> Listing:
    """Holds every row against the disk, the classes and the other rows, and splits the rows if the spec says so.

    A bad row keeps its place: its label becomes null if it is unknown, a repeated id gets a number behind it, and
    `problem` says what is wrong. A split that is drawn counts bad rows in, so that repairing a file moves no other row.

    Raises:
        DatasetError: there is no row at all.
    """
    if found.table.height == 0:
        raise DatasetError(f"{root}: the dataset lists no images")
    faults = found.faults
    table = found.table.with_columns(below_root(normalised_paths(found.table["path"]), root).alias("path"))
    stamps = _check_files(table["path"], files, faults)
    table = table.with_columns(_known_labels(table["label"], found.classes, faults), _unique_ids(table, faults))
    if not isinstance(split, OfficialSplit):
        splits = make_splits(table["label"].to_list(), table["split"].to_list(), split)
        table = table.with_columns(pl.Series("split", splits, dtype=pl.String))

    faulty = faults.table()
    table = table.with_row_index("index").with_columns(pl.col("index").cast(pl.Int64), pl.col("path").fill_null(""))
    bad_rows = faulty.join(table.select("index", "file", "row", "path"), on="index", how="left", maintain_order="left")
    problems = _problems(bad_rows)
    table = table.join(problems, on="index", how="left", maintain_order="left")
    attributes = [name for name in found.table.columns if name not in RESERVED]
    info: dict[str, Any] = {
        "name": found.name,
        "kind": found.kind,
        "rows": table.height,
        "bad_rows": problems.height,
        "split": split.model_dump(mode="json"),
        "notes": [
            *found.notes,
            *files.notes(),
            *label_notes(table["label"].to_list(), table["split"].to_list(), split),
        ],
    }
    if files.follow_links:
        info["follow_links"] = True
    manifest = Manifest(table.select(*COLUMNS, *attributes), tuple(found.classes), root.absolute(), info, stamps)
    return Listing(manifest, bad_rows.select("file", "row", "path", "fault", "detail"), problems.height)


def open_files(root: Path, *, follow_links: bool = False) -> Files:
    """The files below a root, on this machine or on a store; `follow_links`: links may lead out of it."""
    return RemoteFiles(root) if is_remote(root) else DatasetFiles(root, follow_links=follow_links)


def follows_links(manifest: Manifest) -> bool:
    """Whether who made the manifest said that links in the dataset may lead out of its root."""
    return manifest.info.get("follow_links") is True


def below_root(paths: pl.Series, root: Path) -> pl.Series:
    """Paths (N,), those that are absolute and lie below the root relative to it; all others as they are."""
    if is_remote(root) or not paths.str.starts_with("/").any():
        return paths
    for above in (str(root.absolute()), os.path.realpath(root)):
        paths = paths.str.strip_prefix(above.rstrip("/") + "/")
    return paths


def check_root(root: Path | None, kind: str) -> Path:
    """The dataset's root folder, given and there.

    Raises:
        DatasetError: it is neither.
    """
    root = as_path(check_root_given(root, kind))
    if not root.is_dir():
        found = "is a file, not a folder" if root.exists() else "no such folder"
        raise DatasetError(f"{root}: {found}; set the root of the {kind} dataset with --data PATH")
    return root


def check_root_given(root: Path | None, kind: str) -> Path:
    """The dataset's root folder, given but perhaps not there yet.

    Raises:
        DatasetError: it is not given.
    """
    if root is None:
        raise DatasetError(
            f"the {kind} dataset has no root: say where it is with --data PATH, or `root:` in the pipeline"
        )
    return root


def normalised_paths(paths: pl.Series) -> pl.Series:
    """Paths (N,) without `//`, `./` and inner `..`; an empty one is null."""
    unusual = paths.str.contains(r"(^|/)\.{0,2}(/|$)").fill_null(value=False)
    if unusual.any():
        fixed = [posixpath.normpath(path) if path else None for path in paths.filter(unusual)]
        paths = paths.scatter(unusual.arg_true(), fixed)
    return paths


def ids_from_paths(paths: pl.Series) -> pl.Series:
    """Sample ids (N,): each path without its suffix; with it where two different files would share one id."""
    path = pl.col("path")
    stems = pl.DataFrame({"path": paths}).with_columns(path.str.replace(r"([^/])\.[^./]*$", "$1").alias("stem"))
    files = stems.unique().drop_nulls()
    shared = files.filter(pl.col("stem").is_duplicated())["stem"]
    # `a.jpg.png` must not become `a.jpg` where `a.jpg` may be the id of another file.
    taken = files.filter(path != pl.col("stem"))["path"]
    ambiguous = pl.col("stem").is_in(pl.concat([shared, taken]).implode())
    return stems.select(pl.when(ambiguous).then(path).otherwise(pl.col("stem")).alias("sample_id"))["sample_id"]


def _check_files(paths: pl.Series, files: Files, faults: Faults) -> pl.DataFrame:
    """Adds what is wrong with the files to the faults; gives their stamps, as `Manifest.files` wants them."""
    passed_over = faults.rows_without_path()
    for row in paths.is_null().arg_true():
        if row not in passed_over:
            faults.add(row, RowFault.NO_PATH)
            passed_over.add(row)
    rows = [row for row in range(len(paths)) if row not in passed_over]
    known = {name: np.full(len(paths), _UNKNOWN, dtype=np.int64) for name in FILE_COLUMNS}
    for row, (fault, stamp) in zip(rows, files.looks(paths.gather(rows).to_list()), strict=True):
        if stamp is not None:
            known["bytes"][row] = stamp.bytes
            known["modified_ns"][row] = _UNKNOWN if stamp.modified_ns is None else stamp.modified_ns
        if fault is not None:
            faults.add(row, fault)
    return pl.DataFrame(known).with_columns(pl.all().replace(_UNKNOWN, None))


def _known_labels(labels: pl.Series, classes: Sequence[str], faults: Faults) -> pl.Series:
    """Labels (N,) with null in place of the unknown ones."""
    unknown = (labels.is_not_null() & ~labels.is_in(classes)).fill_null(value=False)
    hints: dict[str, str] = {}
    for row, label in zip(unknown.arg_true(), labels.filter(unknown), strict=True):
        if label not in hints:
            hints[label] = did_you_mean(label, classes) or f", expected one of {', '.join(classes)}"
        faults.add(row, RowFault.UNKNOWN_LABEL, f"{label!r}{hints[label]}")
    return labels.set(unknown, None)


def _unique_ids(table: pl.DataFrame, faults: Faults) -> pl.Series:
    """Sample ids (N,), unique: a repeated one gets a number, a missing one is made of file and row."""
    ids = table.select(
        pl.coalesce("sample_id", pl.format("{}#{}", "file", "row")).alias("sample_id"), "file", "row"
    ).with_row_index("index")
    repeated = ids.filter(pl.col("sample_id").is_duplicated())
    if repeated.height == 0:
        return ids["sample_id"]
    unique = ids["sample_id"].to_list()
    taken = set(unique)
    first: dict[str, str] = {}
    copies: dict[str, int] = {}
    for index, sample_id, file, row in repeated.select("index", "sample_id", "file", "row").iter_rows():
        if sample_id not in first:
            first[sample_id] = _place(file, row)
            continue
        faults.add(index, RowFault.DUPLICATE_ID, f"{sample_id!r} is the id of {first[sample_id]} too")
        copies.setdefault(sample_id, 1)
        while (name := f"{sample_id}#{copies[sample_id] + 1}") in taken:
            copies[sample_id] += 1
        taken.add(name)
        unique[index] = name
    return pl.Series("sample_id", unique, dtype=pl.String)


def _problems(bad_rows: pl.DataFrame) -> pl.DataFrame:
    """Columns `index` and `problem`: one line for each bad row, that says where it is listed and all its faults."""
    what = pl.when(pl.col("detail") == "").then("fault").otherwise(pl.format("{}: {}", "fault", "detail"))
    place = (
        pl.when(pl.col("file") == "").then(pl.format("row {}", "row")).otherwise(pl.format("{} row {}", "file", "row"))
    )
    grouped = bad_rows.with_columns(what.alias("what"), place.alias("place")).group_by("index", maintain_order=True)
    joined = grouped.agg(pl.format("{}: {}", pl.col("place").first(), pl.col("what").str.join("; ")).alias("problem"))
    return joined.select("index", "problem")


def _place(file: str, row: int) -> str:
    return f"{file} row {row}" if file else f"row {row}"
