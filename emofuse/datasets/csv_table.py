"""The dataset kind `csv`: a table with one row per image and columns for path and, perhaps, label and split."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

import polars as pl
from pydantic import model_validator

from emofuse.datasets.files import is_lfs_pointer
from emofuse.datasets.groups import check_group_pattern, groups_in_paths
from emofuse.datasets.manifest import attribute_name
from emofuse.datasets.roots import check_root, open_files
from emofuse.datasets.row_faults import Faults, RowFault
from emofuse.datasets.row_paths import below_root, ids_from_paths, normalised_paths
from emofuse.datasets.rows import ListedRows, Listing, check_rows
from emofuse.datasets.separators import SEPARATORS_SHOWN, find_separator, shown_separator
from emofuse.datasets.sources import SOURCE_COLUMNS
from emofuse.datasets.split_names import describe_split_names, read_split_names
from emofuse.errors import DatasetError, did_you_mean
from emofuse.specs.datasets import CustomDatasetSpec, StratifiedSplit

_SPLIT_COLUMN_NAMES = frozenset({"split", "usage", "partition", "set", "fold"})


class CsvSpec(CustomDatasetSpec):
    r"""A table with a path column, a label column and optional columns for splits and groups; paths are below `root`.

    `label_column: null` is for a table without labels, whose targets are other columns: votes, valence and arousal.
    `group_column` names who or what a row comes from (speaker, subject, film), which splits and folds never part.
    `group_pattern` takes the name out of the path instead: a regular expression with one group, such as `_(s\d+)_`.
    `group_file` is a table (sample_id, group) of further groups, as `emofuse dataset check --near --write-groups`
    writes it; its path is relative to `root`.
    """

    ids_from_paths: ClassVar[bool] = True
    optional: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["csv"] = "csv"
    table: Path = Path("labels.csv")
    path_column: str = "path"
    label_column: str | None = "label"
    split_column: str | None = None
    group_column: str | None = None
    group_pattern: str | None = None
    group_file: Path | None = None
    image_dir: Path = Path()

    @model_validator(mode="after")
    def _has_one_kind_of_groups(self) -> Self:
        if self.group_pattern is not None:
            check_group_pattern(self.group_pattern)
            if self.group_column is not None and "group_column" in self.model_fields_set:
                raise ValueError("group_column and group_pattern cannot be given both: groups are from one of them")
        return self

    def read(self) -> Listing:
        """List and check the rows of the table."""
        return read_csv_table(self)

    def source_columns(self) -> dict[str, str]:
        """Return the columns of the manifest that describe sources -> those of the table, which may lack them."""
        return {}


def read_csv_table(spec: CsvSpec) -> Listing:
    """List the rows of a table in its order; the classes are its labels in alphabetical order.

    The separator is a comma, semicolon, tab or bar and follows from the header (see `separators`). Rows are numbered as
    in a spreadsheet: the header is row 1. Spaces around names and values are removed, and backslashes of paths become
    slashes, since tables are written on Windows, too. A row with an empty label is unlabelled. Columns that the spec
    does not name become attributes, as numbers where all their values are numbers; an attribute with the name of a
    column of the manifest gets the prefix `table_`.

    Raises:
        DatasetError: there is no root or no such table, the table is not UTF-8 or lacks a column, or the spec asks for
            an official split without its column.
    """
    root = check_root(spec.root, spec.kind)
    path = root / spec.table
    group = spec.group_column if spec.group_pattern is None else None
    asked = (spec.path_column, spec.label_column, spec.split_column, group)
    wanted = [name for name in asked if name]
    table = _read_table(path, root, wanted)
    columns = _used_columns(spec, path, table.values.columns)
    faults = Faults()
    for row, count in table.ragged.items():
        faults.add(row, RowFault.MALFORMED, f"has {count} fields, the header has {table.values.width}")

    paths = normalised_paths(table.values[columns["path"]].str.replace_all("\\", "/", literal=True))
    paths = below_root(paths, root / spec.image_dir)
    labels = pl.Series("label", [None] * table.values.height, dtype=pl.String)
    if "label" in columns:
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
    sources = _sources(spec, table, faults, root)
    listed = pl.DataFrame(
        {"row": table.row_numbers, "sample_id": _ids(ids_from_paths(paths), sources), "label": labels}
    ).with_columns(
        _below_image_dir(paths, spec.image_dir, root), file=pl.lit(spec.table.as_posix()), split=split, **sources
    )
    if spec.group_pattern is not None:
        groups, further = groups_in_paths(listed["path"], spec.group_pattern)
        listed, notes = listed.with_columns(groups), [*notes, *further]
    elif "group" in columns:
        listed = listed.with_columns(table.values[columns["group"]].alias("group"))
    used = {*columns.values(), *(name for use, name in spec.source_columns().items() if use in sources)}
    listed = listed.with_columns(_attributes(table.values, used))
    classes = sorted(labels.drop_nulls().unique())
    rows = ListedRows(
        listed, classes, root.resolve().name, spec.kind, faults, notes, label_column=spec.label_column or None
    )
    files = open_files(root, follow_links=spec.follow_links)
    return check_rows(rows, root, spec.split, files, group_file=spec.group_file)


class _CsvTable(NamedTuple):
    """The fields of a table.

    Attributes:
        separator: the separator of the fields.
        row_numbers: the numbers of the rows in a spreadsheet, int64 (N,).
        values: the columns as str, with null for empty cells, N rows.
        ragged: the position of each row with too few or too many fields -> how many it has.
    """

    separator: str
    row_numbers: pl.Series
    values: pl.DataFrame
    ragged: dict[int, int]


def _read_table(path: Path, root: Path, wanted: Sequence[str]) -> _CsvTable:
    if not path.is_file():
        tables = sorted(file.name for suffix in ("csv", "tsv", "tab", "parquet") for file in root.glob(f"*.{suffix}"))
        known = f"; there are: {', '.join(tables)}" if tables else f"; there is no *.csv or *.tsv in {root}"
        raise DatasetError(f"{path}: no such table{did_you_mean(path.name, tables)}{known}. Set it with `table`")
    if path.suffix == ".parquet":
        return _read_parquet(path)
    row_numbers: list[int] = []
    rows: list[list[str]] = []
    ragged: dict[int, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator, first_lines = find_separator(file, wanted)
            reader = csv.reader(chain(first_lines, file), delimiter=separator)
            header = _header(path, next(reader, []))
            for number, row in enumerate(reader, start=2):
                if not row:  # a blank line is no row, but has a number
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
    return _CsvTable(separator, pl.Series(row_numbers, dtype=pl.Int64), values, ragged)


def _read_parquet(path: Path) -> _CsvTable:
    """Read a Parquet file as text; its rows are numbered from 1. Columns of lists and structures are left out."""
    try:
        frame = pl.read_parquet(io.BytesIO(path.read_bytes()))
    except pl.exceptions.PolarsError as error:
        raise DatasetError(f"{path}: not a Parquet table ({' '.join(str(error).split())[:200]})") from None
    values = frame.select(
        pl.col(name).cast(pl.String).str.strip_chars().replace("", None)
        for name, dtype in frame.schema.items()
        if not dtype.is_nested()
    )
    numbers = pl.Series(range(1, frame.height + 1), dtype=pl.Int64)
    return _CsvTable(",", numbers, values, {})


def _sources(spec: CsvSpec, table: _CsvTable, faults: Faults, root: Path) -> dict[str, pl.Series]:
    """Return the columns of the manifest that describe sources, those that the table has."""
    sources = {}
    for use, name in spec.source_columns().items():
        if name not in table.values.columns:
            continue
        values = table.values[name]
        if SOURCE_COLUMNS[use] is float:
            seconds = [_seconds(text) for text in values]
            for row, (text, number) in enumerate(zip(values, seconds, strict=True)):
                if text is not None and number is None and row not in table.ragged:
                    faults.add(row, RowFault.NO_SPAN, f"{name} {text!r}, expected seconds or hours:minutes:seconds")
            sources[use] = pl.Series(use, seconds, dtype=pl.Float64)
        elif use == "audio_path":
            paths = normalised_paths(values.str.replace_all("\\", "/", literal=True))
            sources[use] = _below_image_dir(below_root(paths, root / spec.image_dir), spec.image_dir, root).alias(use)
        else:
            sources[use] = values.alias(use)
    return sources


def _seconds(text: str | None) -> float | None:
    """Return the seconds that a text states: `12.5`, `1:02.5` or `0:16:16,059`; None if it states none."""
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?|[.,]\d+)", text or "")
    if match is None:
        return None
    hours, minutes, seconds = match.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds.replace(",", "."))


def _ids(stems: pl.Series, sources: Mapping[str, pl.Series]) -> pl.Series:
    """Return ids that also differ for several members or spans of one file: `film@12.5-14`, `shard/0001.png`."""
    if not set(sources) & {"member", "start_s", "end_s"}:
        return stems
    nothing = [None] * len(stems)
    parts = [sources[use].to_list() if use in sources else nothing for use in ("member", "start_s", "end_s")]
    ids = []
    for stem, member, start, end in zip(stems, *parts, strict=True):
        name = stem if member is None or stem is None else f"{stem}/{member}"
        if name is not None and not (start is None and end is None):
            name += f"@{start or 0:.15g}-{'' if end is None else f'{end:.15g}'}"
        ids.append(name)
    return pl.Series("sample_id", ids, dtype=pl.String)


def _header(path: Path, names: list[str]) -> list[str]:
    """Return the names of columns without spaces around them; a column without a name is named by its number."""
    if names and is_lfs_pointer(names[0].encode()):
        raise DatasetError(f"{path}: git-lfs pointer text instead of a table; fetch the files: git lfs pull")
    header = [name.strip() or f"column_{number}" for number, name in enumerate(names, start=1)]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if not header:
        raise DatasetError(f"{path}: the table is empty; its first row must name the columns")
    if repeated:
        raise DatasetError(f"{path}: two columns have the same name: {', '.join(repeated)}")
    return header


_LABEL_COLUMN = "Name the column of labels by `label_column`. Set `label_column: null` for a table without labels"


def _used_columns(spec: CsvSpec, path: Path, available: list[str]) -> dict[str, str]:
    """Return the columns of path, label, groups and official split that the spec asks for, and check them."""
    group = spec.group_column if spec.group_pattern is None else None
    asked = {"path": spec.path_column, "label": spec.label_column, "group": group}
    columns = {use: name for use, name in asked.items() if name and (use not in spec.optional or name in available)}
    problems = []
    if not isinstance(spec.split, StratifiedSplit):
        if spec.split_column is None:
            guess = next((name for name in available if name.lower() in _SPLIT_COLUMN_NAMES), None)
            advice = f"set `split_column: {guess}`" if guess else "set `split_column`, if there is such a column"
            problems.append(
                f"the official split needs the column that holds it: {advice}, or ask for a stratified split: "
                "`split: {kind: stratified}` (dataset check: --split stratified)"
            )
        else:
            columns["split"] = spec.split_column
    for use, name in columns.items():
        if name not in available:
            without = f". {_LABEL_COLUMN}" if use == "label" else ""
            problems.append(f"{use}_column: there is no column {name!r}{did_you_mean(name, available)}{without}")
    if problems and len(available) == 1:
        problems.append(f"the table has only one column: its fields must be separated by one of {SEPARATORS_SHOWN}")
    if problems:
        raise DatasetError(f"{path} (columns: {', '.join(available)}): {' | '.join(problems)}")
    return columns


def _splits(
    values: pl.Series, names: Mapping[str, str], labels: pl.Series, ragged: Collection[int], faults: Faults
) -> pl.Series:
    """Return train, val, test or null (N,); only a row without a label may have no split."""
    splits = values.replace_strict(names, default=None, return_dtype=pl.String)
    for row in (splits.is_null() & (values.is_not_null() | labels.is_not_null())).arg_true():
        if row not in ragged:
            faults.add(
                row, RowFault.UNKNOWN_SPLIT, f"{values[row]!r}" if values[row] else "the row has a label but no split"
            )
    return splits


def _below_image_dir(paths: pl.Series, image_dir: Path, root: Path) -> pl.Series:
    """Return paths (N,) relative to the root; an absolute path stays absolute, so that `check_rows` finds it."""
    if not (root / image_dir).is_dir():
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        raise DatasetError(
            f"{root / image_dir}: image_dir: no such folder{did_you_mean(str(image_dir), folders)}"
            f" (folders in the root: {', '.join(folders) or 'none'})"
        )
    if image_dir == Path():
        return paths.alias("path")
    path = pl.col("path")
    prefixed = pl.when(path.str.starts_with("/")).then(path).otherwise(pl.lit(f"{image_dir.as_posix()}/") + path)
    return pl.DataFrame({"path": paths}).select(prefixed.alias("path"))["path"]


def _attributes(values: pl.DataFrame, used: Collection[str]) -> list[pl.Series]:
    """Return the other columns, with names that no column of the manifest has."""
    return [
        _as_numbers(values[name]).alias(attribute_name(name, values.columns))
        for name in values.columns
        if name not in used
    ]


def _as_numbers(values: pl.Series) -> pl.Series:
    """Return a column of whole numbers as int64, of numbers as float64, of anything else (ids like 007) unchanged."""
    if values.null_count() == len(values) or values.str.contains(r"^[+-]?0\d").any():
        return values
    for dtype in (pl.Int64, pl.Float64):
        numbers = values.cast(dtype, strict=False)
        if numbers.null_count() == values.null_count():
            return numbers
    return values
