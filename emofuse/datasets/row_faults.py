"""The faults of the rows of a dataset, collected so that one error can list them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import polars as pl

from emofuse.datasets.files import FileFault
from emofuse.datasets.split_names import KNOWN_SPLIT_NAMES

_LISTED_PER_FAULT = 20


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


def describe_bad_rows(bad_rows: pl.DataFrame) -> str:
    """Return bad rows by fault, each with file and row number; of many rows the first ones and their number.

    Args:
        bad_rows: a table with the columns `file`, `row`, `path`, `fault`, `detail`, one line per fault.
    """
    lines = []
    for (fault,), group in bad_rows.group_by("fault", maintain_order=True):
        advice = f" ({_ADVICE[str(fault)]})" if fault in _ADVICE else ""
        lines.append(f"  {fault}: {group.height}{advice}")
        for row in group.head(_LISTED_PER_FAULT).iter_rows(named=True):
            parts = (place_of_row(row["file"], row["row"]), row["path"], row["detail"])
            lines.append("    " + ": ".join(part for part in parts if part))
        if group.height > _LISTED_PER_FAULT:
            lines.append(f"    ... and {group.height - _LISTED_PER_FAULT} more")
    return "\n".join(lines)


def describe_problems(bad_rows: pl.DataFrame) -> pl.DataFrame:
    """Return the columns `index` and `problem`: for each bad row its place and all its faults, in one line."""
    what = pl.when(pl.col("detail") == "").then("fault").otherwise(pl.format("{}: {}", "fault", "detail"))
    place = (
        pl.when(pl.col("file") == "").then(pl.format("row {}", "row")).otherwise(pl.format("{} row {}", "file", "row"))
    )
    grouped = bad_rows.with_columns(what.alias("what"), place.alias("place")).group_by("index", maintain_order=True)
    joined = grouped.agg(pl.format("{}: {}", pl.col("place").first(), pl.col("what").str.join("; ")).alias("problem"))
    return joined.select("index", "problem")


def place_of_row(file: str, row: int) -> str:
    """Return the place of a row as messages name it."""
    return f"{file} row {row}" if file else f"row {row}"
