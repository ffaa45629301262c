"""Reader of a table (CSV and its like): one row an image, with columns for path, label and, if there is one, split."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import polars as pl

from emofuse.datasets.files import is_lfs_pointer
from emofuse.datasets.rows import (
    RESERVED,
    Faults,
    FoundRows,
    Listing,
    RowFault,
    below_root,
    check_root,
    check_rows,
    ids_from_paths,
    normalised_paths,
    open_files,
)
from emofuse.datasets.separators import SEPARATORS_SHOWN, find_separator, shown_separator
from emofuse.datasets.split_names import describe_split_names, read_split_names
from emofuse.errors import DatasetError, did_you_mean
from emofuse.specs.datasets import CustomDatasetSpec, StratifiedSplit

_SPLIT_COLUMN_NAMES = frozenset({"split", "usage", "partition", "set", "fold"})


class CsvSpec(CustomDatasetSpec):
    """A table with a path column, a label column and, if there is one, a split column. Paths are relative to `root`."""

    ids_from_paths: ClassVar[bool] = True
    kind: Literal["csv"] = "csv"
    table: Path = Path("labels.csv")
    path_column: str = "path"
    label_column: str = "label"
    split_column: str | None = None
    image_dir: Path = Path()

    def read(self) -> Listing:
        """Its rows, listed and checked."""
        return read_csv_table(self)


def read_csv_table(spec: CsvSpec) -> Listing:
    """Lists the rows of a table in its order; classes are its labels in alphabetical order.

    The table may be separated by commas, semicolons, tabs or bars: its header says which (see `separators`).
    Rows are numbered as a spreadsheet numbers them: the header is row 1. Spaces around names and values are removed,
    and backslashes of paths become slashes (tables are written on Windows too). An empty label is an unlabelled row.
    Columns that the spec does not name become attributes, as numbers where all their values are numbers; one that is
    called like a column of the manifest gets `table_` before its name.

    Raises:
        DatasetError: no root, no such table, not UTF-8, a column is missing, or an official split without its column.
    """
    root = check_root(spec.root, spec.kind)
    path = root / spec.table
    wanted = [name for name in (spec.path_column, spec.label_column, spec.split_column) if name is not None]
    table = _read_table(path, root, wanted)
    columns = _used_columns(spec, path, table.values.columns)
    faults = Faults()
    for row, count in table.ragged.items():
        faults.add(row, RowFault.MALFORMED, f"has {count} fields, the header has {table.values.width}")

    paths = normalised_paths(table.values[columns["path"]].str.replace_all("\\", "/", literal=True))
    paths = below_root(paths, root / spec.image_dir)
    labels = table.values[columns["label"]]
    split = pl.lit(None, pl.String)
    notes = []
    if table.separator != ",":
        notes.append(f"{spec.table.as_posix()} is separated by {shown_separator(table.separator)}")
    if "split" in columns:
        values = table.values[columns["split"]]
        names = read_split_names(values.drop_nulls().unique(maintain_order=True))
        split = pl.lit(_splits(values, names, labels, table.ragged, faults))
        if described := describe_split_names(names):
            notes.append(f"column {columns['split']!r} is read so: {described}")
    listed = pl.DataFrame({"row": table.row_numbers, "sample_id": ids_from_paths(paths), "label": labels}).with_columns(
        _below_image_dir(paths, spec.image_dir, root), file=pl.lit(spec.table.as_posix()), split=split
    )
    listed = listed.with_columns(_attributes(table.values, columns.values()))
    found = FoundRows(listed, sorted(labels.drop_nulls().unique()), root.resolve().name, spec.kind, faults, notes)
    return check_rows(found, root, spec.split, open_files(root, follow_links=spec.follow_links))


class _Table(NamedTuple):
    """`row_numbers` (N,) as in a spreadsheet; `values` str, empty cells null; `ragged`: position -> fields found."""

    separator: str
    row_numbers: pl.Series
    values: pl.DataFrame
    ragged: dict[int, int]


def _read_table(path: Path, root: Path, wanted: Sequence[str]) -> _Table:
    if not path.is_file():
        tables = sorted(found.name for suffix in ("csv", "tsv", "tab") for found in root.glob(f"*.{suffix}"))
        there = f"; there are: {', '.join(tables)}" if tables else f"; there is no *.csv or *.tsv in {root}"
        raise DatasetError(f"{path}: no such table{did_you_mean(path.name, tables)}{there}. Set it with `table`")
    row_numbers: list[int] = []
    rows: list[list[str]] = []
    ragged: dict[int, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator, first_lines = find_separator(file, wanted)
            reader = csv.reader(chain(first_lines, file), delimiter=separator)
            header = _header(path, next(reader, []))
            for number, row in enumerate(reader, start=2):
                if not row:  # a blank line: no row, but it counts
                    continue
                if len(row) != len(header):
                    ragged[len(rows)] = len(row)
                rows.append(row if len(row) == len(header) else [""] * len(header))
                row_numbers.append(number)
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: not UTF-8 text; save it as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise DatasetError(f"{path}: not a CSV table ({error})") from None
    values = pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row").with_columns(
        pl.all().str.strip_chars().replace("", None)
    )
    return _Table(separator, pl.Series(row_numbers, dtype=pl.Int64), values, ragged)


def _header(path: Path, names: list[str]) -> list[str]:
    """Column names without spaces around them; a column without a name is called by its number."""
    if names and is_lfs_pointer(names[0].encode()):
        raise DatasetError(f"{path}: git-lfs pointer text instead of a table; fetch the files: git lfs pull")
    header = [name.strip() or f"column_{number}" for number, name in enumerate(names, start=1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if not header:
        raise DatasetError(f"{path}: the table is empty; its first row must name the columns")
    if twice:
        raise DatasetError(f"{path}: two columns have the same name: {', '.join(twice)}")
    return header


def _used_columns(spec: CsvSpec, path: Path, available: list[str]) -> dict[str, str]:
    """The columns of path, label and, for the official split, split; all of them in the table."""
    columns = {"path": spec.path_column, "label": spec.label_column}
    problems = []
    if not isinstance(spec.split, StratifiedSplit):
        if spec.split_column is None:
            guess = next((name for name in available if name.lower() in _SPLIT_COLUMN_NAMES), None)
            way = f"set `split_column: {guess}`" if guess else "set `split_column`, if there is such a column"
            problems.append(
                f"the official split needs the column that holds it: {way}, or ask for a stratified split: "
                "`split: {kind: stratified}` (dataset check: --split stratified)"
            )
        else:
            columns["split"] = spec.split_column
    for use, name in columns.items():
        if name not in available:
            problems.append(f"{use}_column: there is no column {name!r}{did_you_mean(name, available)}")
    if problems and len(available) == 1:
        problems.append(f"the table has one column alone: its fields must be separated by one of {SEPARATORS_SHOWN}")
    if problems:
        raise DatasetError(f"{path} (columns: {', '.join(available)}): {' | '.join(problems)}")
    return columns


def _splits(
    values: pl.Series, names: Mapping[str, str], labels: pl.Series, ragged: Collection[int], faults: Faults
) -> pl.Series:
    """train, val, test or null (N,). Only a row without a label may have no split."""
    splits = values.replace_strict(names, default=None, return_dtype=pl.String)
    for row in (splits.is_null() & (values.is_not_null() | labels.is_not_null())).arg_true():
        if row not in ragged:
            faults.add(
                row, RowFault.UNKNOWN_SPLIT, f"{values[row]!r}" if values[row] else "the row has a label but no split"
            )
    return splits


def _below_image_dir(paths: pl.Series, image_dir: Path, root: Path) -> pl.Series:
    """Paths (N,) relative to the root. An absolute one stays absolute, for the checks to find."""
    if not (root / image_dir).is_dir():
        folders = sorted(found.name for found in root.iterdir() if found.is_dir())
        raise DatasetError(
            f"{root / image_dir}: image_dir is no such folder{did_you_mean(str(image_dir), folders)}"
            f" (folders in the root: {', '.join(folders) or 'none'})"
        )
    if image_dir == Path():
        return paths.alias("path")
    path = pl.col("path")
    prefixed = pl.when(path.str.starts_with("/")).then(path).otherwise(pl.lit(f"{image_dir.as_posix()}/") + path)
    return pl.DataFrame({"path": paths}).select(prefixed.alias("path"))["path"]


def _attributes(values: pl.DataFrame, used: Collection[str]) -> list[pl.Series]:
    """The other columns, named unlike any of the manifest's."""
    attributes = []
    for name in values.columns:
        if name not in used:
            new = name
            while new in RESERVED or (new != name and new in values.columns):
                new = f"table_{new}"
            attributes.append(_as_numbers(values[name]).alias(new))
    return attributes


def _as_numbers(values: pl.Series) -> pl.Series:
    """A column of whole numbers as int64, of numbers as float64, of else (ids with zeros in front) as it is."""
    if values.null_count() == len(values) or values.str.contains(r"^[+-]?0\d").any():
        return values
    for dtype in (pl.Int64, pl.Float64):
        numbers = values.cast(dtype, strict=False)
        if numbers.null_count() == values.null_count():
            return numbers
    return values
