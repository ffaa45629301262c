"""The checks that all datasets share: from the rows that a reader lists to a checked manifest.

A reader lists its rows as a frame and marks those that are malformed in its format. This module checks every row
against the disk, the classes and the other rows, and collects all faults, so that one error can list them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from emofuse.datasets.files import FileStamp
from emofuse.datasets.groups import clean_groups, group_notes, joined_groups, read_group_file
from emofuse.datasets.label_notes import label_notes
from emofuse.datasets.manifest import COLUMNS, RESERVED, Manifest
from emofuse.datasets.roots import Files, check_root, check_root_given, open_files
from emofuse.datasets.row_faults import Faults, RowFault, describe_bad_rows, describe_problems, place_of_row
from emofuse.datasets.row_paths import below_root, ids_from_paths, normalised_paths
from emofuse.datasets.sources import FILE_COLUMNS, SOURCE_COLUMNS, source_columns, span_faults
from emofuse.datasets.splits import ONE_STRATUM, make_splits
from emofuse.errors import DatasetError, did_you_mean
from emofuse.specs import OfficialSplit, SplitSpec
from emofuse.wording import count_of

__all__ = [
    "Faults",
    "ListedRows",
    "Listing",
    "RowFault",
    "check_root",
    "check_root_given",
    "check_rows",
    "ids_from_paths",
    "open_files",
]
"""What a dataset of a plugin needs."""

_UNKNOWN = -1  # stands for null in arrays of integers


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
            raise DatasetError(
                f"{self.manifest.root}: {count_of(self.bad_count, 'bad row')} of {len(self.manifest)}. "
                f"Repair them, or keep them as marked rows: --on-bad-rows keep\n{self.describe_bad_rows()}"
            )

    def describe_bad_rows(self) -> str:
        """Return the bad rows by fault, each with file and row number; of many rows the first ones and their number."""
        return describe_bad_rows(self.bad_rows)


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
    groups, group_file_notes = _groups(table, root, group_file)
    table = _with_splits(table.with_columns(pl.Series("group", groups, dtype=pl.String)), listed.classes, split)
    table, bad_rows = _with_problems(table, faults)
    attributes = [name for name in listed.table.columns if name not in RESERVED]
    bad_count = table.height - table["problem"].null_count()
    info: dict[str, Any] = {
        "name": listed.name,
        "kind": listed.kind,
        "rows": table.height,
        "bad_rows": bad_count,
        "split": split.model_dump(mode="json"),
        "notes": [
            *listed.notes,
            *files.notes(),
            *label_notes(table["label"].to_list(), table["split"].to_list(), split),
            *_notes_on_unlabelled(table, listed.classes, split, attributes),
            *group_file_notes,
            *group_notes(groups, table["split"].to_list(), split),
        ],
    }
    if files.follow_links:
        info["follow_links"] = True
    if number_of_groups := len({group for group in groups if group is not None}):
        info["groups"] = number_of_groups
    if listed.label_column:
        info["label_column"] = listed.label_column
    columns = (*COLUMNS, *source_columns(table), *attributes)
    return Listing(
        Manifest(table.select(*columns), tuple(listed.classes), root.absolute(), info, stamps), bad_rows, bad_count
    )


def _groups(table: pl.DataFrame, root: Path, group_file: Path | None) -> tuple[list[str | None], list[str]]:
    """Return the group of every row (N,), of the table joined with those of a file, and notes on the file."""
    groups: list[str | None] = [None] * table.height
    if "group" in table.columns:
        groups = clean_groups(table["group"])
    if group_file is None:
        return groups, []
    further, notes = read_group_file(root / group_file, table["sample_id"])
    return joined_groups(groups, further), notes


def _with_splits(table: pl.DataFrame, classes: Sequence[str], split: SplitSpec) -> pl.DataFrame:
    """Return a table with the splits that the spec draws; without classes, all rows are one stratum."""
    if isinstance(split, OfficialSplit):
        return table
    strata = table["label"].to_list() if classes else [ONE_STRATUM] * table.height
    splits = make_splits(strata, table["split"].to_list(), split, table["group"].to_list())
    return table.with_columns(pl.Series("split", splits, dtype=pl.String))


def _with_problems(table: pl.DataFrame, faults: Faults) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a table with its column `problem`, which is null in good rows, and the table of bad rows of a listing."""
    table = table.with_row_index("index").with_columns(pl.col("index").cast(pl.Int64), pl.col("path").fill_null(""))
    places = table.select("index", "file", "row", "path")
    bad_rows = faults.table().join(places, on="index", how="left", maintain_order="left")
    table = table.join(describe_problems(bad_rows), on="index", how="left", maintain_order="left")
    return table, bad_rows.select("file", "row", "path", "fault", "detail")


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
            first[sample_id] = place_of_row(file, row)
            continue
        faults.add(index, RowFault.DUPLICATE_ID, f"{sample_id!r} is the id of {first[sample_id]} too")
        copies.setdefault(sample_id, 1)
        while (name := f"{sample_id}#{copies[sample_id] + 1}") in taken:
            copies[sample_id] += 1
        taken.add(name)
        unique[index] = name
    return pl.Series("sample_id", unique, dtype=pl.String)
