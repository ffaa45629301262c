"""The checks that all datasets share: from the rows that a reader lists to a checked manifest.

A reader lists its rows as a frame and marks those that are malformed in its format. This module checks every row
against the disk, the classes and the other rows, and collects all faults, so that one error can list them.
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

from emofuse.datasets.files import DatasetFiles, FileFault, FileStamp
from emofuse.datasets.groups import clean_groups, group_notes, joined_groups, read_group_file
from emofuse.datasets.label_notes import label_notes
from emofuse.datasets.manifest import COLUMNS, RESERVED, Manifest
from emofuse.datasets.remote_files import RemoteFiles
from emofuse.datasets.sources import FILE_COLUMNS, SOURCE_COLUMNS, source_columns, span_faults
from emofuse.datasets.split_names import KNOWN_SPLIT_NAMES
from emofuse.datasets.splits import ONE_STRATUM, make_splits
from emofuse.errors import DatasetError, did_you_mean
from emofuse.specs import OfficialSplit, SplitSpec
from emofuse.stores import as_path, is_remote

Files = DatasetFiles | RemoteFiles
_LISTED_PER_FAULT = 20
_UNKNOWN = -1  # stands for null in arrays of integers


class RowFault(StrEnum):
    """A fault of a row other than that of its file. The values are shown to the user."""

    MALFORMED = "malformed row"
    NO_PATH = "no path"
    NOT_UTF8 = "file name is not UTF-8"
    NO_LABEL_FOLDER = "image lies in no label's folder"
    UNKNOWN_LABEL = "unknown label"
    UNKNOWN_SPLIT = "unknown split"
    DUPLICATE_ID = "duplicate id"
    DAMAGED_ANNOTATION = "damaged annotation"
    NO_SPAN = "no span of time"


_ADVICE: Mapping[str, str] = {
    FileFault.LFS_POINTER: "fetch the files: git lfs pull",
    FileFault.OUTSIDE: "absolute, with '..', or a link to elsewhere; links of your own are followed with "
    "--follow-links, or `follow_links: true` of the dataset; those to the content of a hub snapshot, git-annex or DVC "
    "beside the root are followed unasked",
    RowFault.UNKNOWN_SPLIT: f"known: {KNOWN_SPLIT_NAMES}",
}


@dataclass
class Faults:
    """The faults of rows; a row may have several."""

    _rows: list[int] = field(default_factory=list)
    _faults: list[str] = field(default_factory=list)
    _details: list[str] = field(default_factory=list)

    def add(self, row: int, fault: RowFault | FileFault, detail: str = "") -> None:
        """Add a fault of a row, which is its position in the table, from 0."""
        self._rows.append(row)
        self._faults.append(fault.value)
        self._details.append(detail)

    def rows_without_path(self) -> set[int]:
        """Return the rows whose faults imply that they have no path to check."""
        faults = {RowFault.MALFORMED.value, RowFault.NOT_UTF8.value}
        return {row for row, fault in zip(self._rows, self._faults, strict=True) if fault in faults}

    def of_rows(self, places: Mapping[int, int]) -> Faults:
        """Return the faults of some rows, by row -> its place among these."""
        faults = zip(self._rows, self._faults, self._details, strict=True)
        kept = [(places[row], fault, detail) for row, fault, detail in faults if row in places]
        return Faults(*(list(column) for column in zip(*kept, strict=True))) if kept else Faults()

    def table(self) -> pl.DataFrame:
        """Return a table with the columns `index` int64, `fault` str and `detail` str, ordered by index."""
        columns = {"index": self._rows, "fault": self._faults, "detail": self._details}
        schema = {"index": pl.Int64, "fault": pl.String, "detail": pl.String}
        return pl.DataFrame(columns, schema=schema).sort("index", maintain_order=True)


@dataclass(frozen=True)
class ListedRows:
    """The rows that a reader lists, before they are checked.

    Attributes:
        table: one row per sample. `file` str: the table that lists the sample, "" if there is none. `row` int64: its
            number there. `sample_id`, `path`, `split`, `label`: str or null. `group`: str or null, and may be left out,
            as may the columns of `SOURCE_COLUMNS`. Further columns are attributes.
        classes: the label names in the order of their indices.
        name: the name of the dataset in reports.
        kind: the kind of the spec.
        faults: the faults that the reader knows.
        notes: what the user should know although no row is bad, one line each.
        label_column: the column of the table that the labels are from; None where there is no choice.
    """

    table: pl.DataFrame
    classes: Sequence[str]
    name: str
    kind: str
    faults: Faults = field(default_factory=Faults)
    notes: Sequence[str] = ()
    label_column: str | None = None


@dataclass(frozen=True)
class Listing:
    """A manifest with the record of its bad rows.

    Attributes:
        manifest: the manifest of all rows; the bad ones are marked in its column `problem`.
        bad_rows: a table with the columns `file`, `row`, `path`, `fault`, `detail`, one line per fault, in the
            manifest's order.
        bad_count: the number of bad rows, each counted once.
    """

    manifest: Manifest
    bad_rows: pl.DataFrame
    bad_count: int

    def check_no_bad_rows(self) -> None:
        """Raise if there are bad rows.

        Raises:
            DatasetError: there are bad rows; the message counts them all and lists them with their numbers.
        """
        if self.bad_count:
            noun = "bad row" if self.bad_count == 1 else "bad rows"
            raise DatasetError(
                f"{self.manifest.root}: {self.bad_count} {noun} of {len(self.manifest)}. Repair them, or keep them as"
                f" marked rows: --on-bad-rows keep\n{self.describe_bad_rows()}"
            )

    def describe_bad_rows(self) -> str:
        """Return the bad rows by fault, each with file and row number; of many rows the first ones and their number."""
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


def check_rows(
    listed: ListedRows, root: Path, split: SplitSpec, files: Files, *, group_file: Path | None = None
) -> Listing:
    """Check every row against the disk, the classes and the other rows, and split the rows as the spec says.

    A bad row keeps its place: an unknown label becomes null, a number is appended to a repeated id, and `problem`
    states the faults. A drawn split includes bad rows, so that repairing a file moves no other row.

    Args:
        listed: the rows.
        root: the root of the dataset.
        split: the spec of the split.
        files: the files below the root.
        group_file: a table (sample_id, group), relative to the root, whose groups are joined with those of the rows.

    Raises:
        DatasetError: there are no rows, or the table of groups cannot be read or fits no row.
    """
    if listed.table.height == 0:
        raise DatasetError(f"{root}: the dataset lists no samples")
    faults = listed.faults
    table = listed.table.with_columns(below_root(normalised_paths(listed.table["path"]), root).alias("path"))
    table = _with_sources(table, root)
    stamps = _check_files(table, files, faults)
    table = table.with_columns(_known_labels(table["label"], listed.classes, faults), _unique_ids(table, faults))
    groups, notes = _groups(table, root, group_file)
    table = table.with_columns(pl.Series("group", groups, dtype=pl.String))
    if not isinstance(split, OfficialSplit):
        # A dataset without labels has its targets in other columns, and all its rows are one stratum.
        strata = table["label"].to_list() if listed.classes else [ONE_STRATUM] * table.height
        splits = make_splits(strata, table["split"].to_list(), split, groups)
        table = table.with_columns(pl.Series("split", splits, dtype=pl.String))

    table = table.with_row_index("index").with_columns(pl.col("index").cast(pl.Int64), pl.col("path").fill_null(""))
    places = table.select("index", "file", "row", "path")
    bad_rows = faults.table().join(places, on="index", how="left", maintain_order="left")
    problems = _problems(bad_rows)
    table = table.join(problems, on="index", how="left", maintain_order="left")
    attributes = [name for name in listed.table.columns if name not in RESERVED]
    sources = source_columns(table)
    info: dict[str, Any] = {
        "name": listed.name,
        "kind": listed.kind,
        "rows": table.height,
        "bad_rows": problems.height,
        "split": split.model_dump(mode="json"),
        "notes": [
            *listed.notes,
            *files.notes(),
            *label_notes(table["label"].to_list(), table["split"].to_list(), split),
            *_notes_on_unlabelled(table, listed.classes, split, attributes),
            *notes,
            *group_notes(groups, table["split"].to_list(), split),
        ],
    }
    if files.follow_links:
        info["follow_links"] = True
    if number_of_groups := len({group for group in groups if group is not None}):
        info["groups"] = number_of_groups
    if listed.label_column:
        info["label_column"] = listed.label_column
    manifest = Manifest(
        table.select(*COLUMNS, *sources, *attributes), tuple(listed.classes), root.absolute(), info, stamps
    )
    return Listing(manifest, bad_rows.select("file", "row", "path", "fault", "detail"), problems.height)


def _groups(table: pl.DataFrame, root: Path, group_file: Path | None) -> tuple[list[str | None], list[str]]:
    """Return the group of every row (N,), of the table joined with those of a file, and notes on the file."""
    groups: list[str | None] = [None] * table.height
    if "group" in table.columns:
        groups = clean_groups(table["group"])
    if group_file is None:
        return groups, []
    further, notes = read_group_file(root / group_file, table["sample_id"])
    return joined_groups(groups, further), notes


def _notes_on_unlabelled(
    table: pl.DataFrame, classes: Sequence[str], split: SplitSpec, attributes: Sequence[str]
) -> list[str]:
    """Return a note on rows without label that have numbers but, since splits are drawn by label, are in no split."""
    numbers = [name for name in attributes if table[name].dtype.is_numeric()]
    if isinstance(split, OfficialSplit) or not classes or not numbers:
        return []
    has_number = pl.any_horizontal(pl.col(numbers).is_not_null())
    rows = table.filter(pl.col("label").is_null() & pl.col("split").is_null() & has_number).height
    if not rows:
        return []
    why = "The split is drawn by label, so they are in none"
    how = "A run whose target is these numbers has them in its own split: `split: {kind: stratified}` of the run"
    return [f"rows without label that have numbers: {rows}. {why}. {how}"]


def open_files(root: Path, *, follow_links: bool = False) -> Files:
    """Return the files below a root, on this machine or on a store; with `follow_links`, links may lead out of it."""
    return RemoteFiles(root) if is_remote(root) else DatasetFiles(root, follow_links=follow_links)


def follows_links(manifest: Manifest) -> bool:
    """Return whether the manifest was made with `follow_links`: links in the dataset may lead out of its root."""
    return manifest.info.get("follow_links") is True


def below_root(paths: pl.Series, root: Path) -> pl.Series:
    """Return paths (N,) with absolute ones below the root made relative to it, and all others unchanged."""
    if is_remote(root) or not paths.str.starts_with("/").any():
        return paths
    for above in (str(root.absolute()), os.path.realpath(root)):
        paths = paths.str.strip_prefix(above.rstrip("/") + "/")
    return paths


def check_root(root: Path | None, kind: str) -> Path:
    """Return the root folder of a dataset, which must exist.

    Raises:
        DatasetError: the root is not set, or there is no such folder.
    """
    root = as_path(check_root_given(root, kind))
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "no such folder"
        raise DatasetError(f"{root}: {problem}; set the root of the {kind} dataset with --data PATH")
    return root


def check_root_given(root: Path | None, kind: str) -> Path:
    """Return the root folder of a dataset, which may not exist yet.

    Raises:
        DatasetError: the root is not set.
    """
    if root is None:
        raise DatasetError(
            f"the {kind} dataset has no root: say where it is with --data PATH, or `root:` in the pipeline"
        )
    return root


def normalised_paths(paths: pl.Series) -> pl.Series:
    """Return paths (N,) without `//`, `./` and inner `..`; an empty path becomes null."""
    unusual = paths.str.contains(r"(^|/)\.{0,2}(/|$)").fill_null(value=False)
    if unusual.any():
        fixed = [posixpath.normpath(path) if path else None for path in paths.filter(unusual)]
        paths = paths.scatter(unusual.arg_true(), fixed)
    return paths


def ids_from_paths(paths: pl.Series) -> pl.Series:
    """Return sample ids (N,): paths without their suffixes, with them where two different files would share an id."""
    path = pl.col("path")
    stems = pl.DataFrame({"path": paths}).with_columns(path.str.replace(r"([^/])\.[^./]*$", "$1").alias("stem"))
    files = stems.unique().drop_nulls()
    shared = files.filter(pl.col("stem").is_duplicated())["stem"]
    # `a.jpg.png` must not become `a.jpg` where `a.jpg` may be the id of another file.
    taken = files.filter(path != pl.col("stem"))["path"]
    ambiguous = pl.col("stem").is_in(pl.concat([shared, taken]).implode())
    return stems.select(pl.when(ambiguous).then(path).otherwise(pl.col("stem")).alias("sample_id"))["sample_id"]


def _with_sources(table: pl.DataFrame, root: Path) -> pl.DataFrame:
    """Return a table whose source columns have their types; those without a value in any row are left out."""
    table = table.drop([name for name in source_columns(table) if table[name].null_count() == table.height])
    table = table.with_columns(pl.col(name).cast(SOURCE_COLUMNS[name]) for name in source_columns(table))
    if "audio_path" in table.columns:
        table = table.with_columns(below_root(normalised_paths(table["audio_path"]), root).alias("audio_path"))
    return table


def _check_files(table: pl.DataFrame, files: Files, faults: Faults) -> pl.DataFrame:
    """Add the faults of the files and spans to `faults`, and return their stamps as `Manifest.files` holds them."""
    skipped = faults.rows_without_path()
    for row in table["path"].is_null().arg_true():
        if row not in skipped:
            faults.add(row, RowFault.NO_PATH)
            skipped.add(row)
    for row, span in span_faults(table):
        faults.add(row, RowFault.NO_SPAN, span)
    stamps = {name: np.full(table.height, _UNKNOWN, dtype=np.int64) for name in FILE_COLUMNS}
    for column in ("path", "audio_path"):
        if column not in table.columns:
            continue
        absent = set(table[column].is_null().arg_true())
        rows = [row for row in range(table.height) if row not in skipped and row not in absent]
        paths = table[column].gather(rows).to_list()
        different = list(dict.fromkeys(paths))  # an archive or a table has many rows
        states = dict(zip(different, files.inspect_all(different), strict=True))
        for row, path in zip(rows, paths, strict=True):
            fault, stamp = states[path]
            if stamp is not None:
                _add_stamp(stamps, row, stamp)
            if fault is not None:
                faults.add(row, fault, "" if column == "path" else f"audio_path {path}")
    return pl.DataFrame(stamps).with_columns(pl.all().replace(_UNKNOWN, None))


def _add_stamp(stamps: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]], row: int, stamp: FileStamp) -> None:
    """Add the length and the time of one file of a row to those of its other file."""
    modified = _UNKNOWN if stamp.modified_ns is None else stamp.modified_ns
    for name, value in (("bytes", stamp.bytes), ("modified_ns", modified)):
        known = stamps[name][row]
        stamps[name][row] = value if _UNKNOWN in {known, value} else known + value


def _known_labels(labels: pl.Series, classes: Sequence[str], faults: Faults) -> pl.Series:
    """Return labels (N,) with null in place of those that are no class, and add a fault for each."""
    unknown = (labels.is_not_null() & ~labels.is_in(classes)).fill_null(value=False)
    hints: dict[str, str] = {}
    for row, label in zip(unknown.arg_true(), labels.filter(unknown), strict=True):
        if label not in hints:
            hints[label] = did_you_mean(label, classes) or f", expected one of {', '.join(classes)}"
        faults.add(row, RowFault.UNKNOWN_LABEL, f"{label!r}{hints[label]}")
    return labels.set(unknown, None)


def _unique_ids(table: pl.DataFrame, faults: Faults) -> pl.Series:
    """Return unique sample ids (N,): a repeated id gets a number, a missing one is made of file and row."""
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
    """Return the columns `index` and `problem`: for each bad row its place and all its faults, in one line."""
    what = pl.when(pl.col("detail") == "").then("fault").otherwise(pl.format("{}: {}", "fault", "detail"))
    place = (
        pl.when(pl.col("file") == "").then(pl.format("row {}", "row")).otherwise(pl.format("{} row {}", "file", "row"))
    )
    grouped = bad_rows.with_columns(what.alias("what"), place.alias("place")).group_by("index", maintain_order=True)
    joined = grouped.agg(pl.format("{}: {}", pl.col("place").first(), pl.col("what").str.join("; ")).alias("problem"))
    return joined.select("index", "problem")


def _place(file: str, row: int) -> str:
    return f"{file} row {row}" if file else f"row {row}"
