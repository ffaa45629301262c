"""The dataset kind `parquet`: images in the cells of Parquet files, as Hugging Face's datasets are stored."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl

from emofuse.datasets.archive_files import check_root_or_file
from emofuse.datasets.manifest import attribute_name
from emofuse.datasets.members import open_members
from emofuse.datasets.members.base import cell_name
from emofuse.datasets.members.parquet_cells import ParquetCells
from emofuse.datasets.names import printable
from emofuse.datasets.parquet_schema import image_column, is_content, read_features
from emofuse.datasets.roots import Files, open_files
from emofuse.datasets.row_faults import Faults, RowFault
from emofuse.datasets.rows import ListedRows, Listing, check_rows
from emofuse.datasets.shards import ShardSplits, find_shards
from emofuse.datasets.split_names import read_split_names
from emofuse.errors import DatasetError, DecodeError, did_you_mean
from emofuse.progress import step
from emofuse.specs.datasets import CustomDatasetSpec

_NO_LABEL = -1  # the number of a row without label, as Hugging Face's datasets have it


class ParquetSpec(CustomDatasetSpec):
    """A Parquet file, or a folder of them: `root/data/train-00000-of-00002.parquet`.

    `image_column` holds the bytes of the files, or the structure with `bytes` of Hugging Face's datasets. Without
    it, it is the column that the metadata of the file call an image, or the only one with bytes. `label_column` holds
    names, or numbers, whose names are in the same metadata; `label_column: null` is for targets in other columns. The
    split is in `split_column`, or else in the begin of a file's name or the name of its folder. `group_column` names
    who or what a row comes from, which splits never part. All other columns of numbers and words are attributes.
    """

    ids_from_paths: ClassVar[bool] = False
    kind: Literal["parquet"] = "parquet"
    image_column: str | None = None
    label_column: str | None = "label"
    split_column: str | None = None
    group_column: str | None = None
    group_file: Path | None = None

    def read(self) -> Listing:
        """List and check the rows."""
        root, name = check_root_or_file(self.root, self.kind)
        files = open_files(root, follow_links=self.follow_links)
        paths = [name] if name is not None else find_shards(root, files, (".parquet",), self.kind)
        return _read(self, root, files, paths)


@dataclass(frozen=True)
class _Columns:
    """The columns of the first file by their use.

    Attributes:
        image: the column of images.
        label: the column of labels; None without labels.
        names: the names of labels by their number; () if the labels are names.
        others: the columns of splits, groups and attributes.
        notes: what the user should know, one line each.
    """

    image: str
    label: str | None
    names: tuple[str, ...]
    others: tuple[str, ...]
    notes: tuple[str, ...]


def _read(spec: ParquetSpec, root: Path, files: Files, paths: Sequence[str]) -> Listing:
    columns: _Columns | None = None
    parts = []
    with step("reading the tables", len(paths), "files") as advance:
        for number, path in enumerate(paths, start=1):
            try:
                cells = open_members(root / path)
                if not isinstance(cells, ParquetCells):
                    raise DatasetError(f"{root / path}: no Parquet table")
                columns = columns or _columns(spec, root / path, cells.schema)
                parts.append(_read_file(cells, path, columns))
            except (DecodeError, OSError) as error:
                raise DatasetError(f"{root / path}: {error}") from None
            advance(number, len(paths))
    assert columns is not None  # noqa: S101 - there is a file
    table = pl.concat(parts, how="vertical_relaxed")
    faults = Faults()
    labels, classes = _labels(table, columns, faults)
    splits = ShardSplits(paths, root)
    table = table.with_columns(labels, _splits(spec, table, splits, faults))
    splits.check(table["split"], spec)
    used = {spec.group_column, spec.split_column}
    others = [name for name in columns.others if name not in used]
    attributes = [table[f"={name}"].alias(attribute_name(name, columns.others)) for name in others]
    rows = table.select("file", "row", "sample_id", "path", "member", "split", "label").with_columns(attributes)
    if spec.group_column:
        rows = rows.with_columns(table[f"={spec.group_column}"].cast(pl.String).alias("group"))
    notes = [*columns.notes, *splits.notes(spec.split_column)]
    name = root.resolve().name if len(paths) > 1 else Path(paths[0]).stem
    listed = ListedRows(rows, classes, printable(name), spec.kind, faults, notes, label_column=columns.label)
    return check_rows(listed, root, spec.split, files, group_file=spec.group_file)


def _columns(spec: ParquetSpec, path: Path, schema: Any) -> _Columns:
    """Find the columns of a file by their use.

    Raises:
        DatasetError: there is no such column, or no column of images.
    """
    features = read_features(schema)
    names = list(schema.names)
    image = spec.image_column or image_column(path, schema)
    problems = []
    label, notes = spec.label_column or None, []
    if label is not None and label not in names and label == "label":
        classes = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
        if len(classes) == 1:
            label = classes[0]
            notes.append(f"the labels are in column {label!r}, the only one that the metadata call a label")
    asked = {"image_column": image, "label_column": label}
    asked |= {"split_column": spec.split_column, "group_column": spec.group_column}
    for use, name in asked.items():
        if name is not None and name not in names:
            without = ". Set `label_column: null` for a dataset without labels" if use == "label_column" else ""
            problems.append(f"{use}: there is no column {name!r}{did_you_mean(name, names)}{without}")
    if problems:
        raise DatasetError(f"{path} (columns: {', '.join(names)}): {' | '.join(problems)}")
    others = [name for name in names if name not in {image, label} and not is_content(schema.field(name).type)]
    left_out = [name for name in names if name not in {image, label, *others}]
    if left_out:
        notes.append(f"columns of structures or bytes, left out: {', '.join(left_out)}")
    named = features.get(label or "", {}).get("names")
    return _Columns(
        image, label, tuple(map(str, named)) if isinstance(named, list) else (), tuple(others), tuple(notes)
    )


def _read_file(cells: ParquetCells, path: str, columns: _Columns) -> pl.DataFrame:
    """Return the rows of one file; columns of the file have an equals sign before their name.

    Raises:
        DecodeError: the file lacks a column of the first file, or is damaged.
    """
    wanted = [*columns.others, *([columns.label] if columns.label else [])]
    lacking = [name for name in (*wanted, columns.image) if name not in cells.schema.names]
    if lacking:
        raise DecodeError(f"there is no column {', '.join(lacking)}, which the first file has")
    frame = pl.from_arrow(cells.read_columns(wanted)) if wanted else pl.DataFrame()
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - tables become frames
    stem = posixpath.splitext(path)[0]
    rows = range(cells.rows)
    table = pl.DataFrame(
        {
            "row": pl.Series(range(1, cells.rows + 1), dtype=pl.Int64),
            "sample_id": pl.Series([f"{stem}/{row}" for row in rows], dtype=pl.String),
            "member": pl.Series([cell_name(columns.image, row) for row in rows], dtype=pl.String),
        }
    ).with_columns(file=pl.lit(path), path=pl.lit(path))
    return table.with_columns(frame[name].alias(f"={name}") for name in wanted)


def _labels(table: pl.DataFrame, columns: _Columns, faults: Faults) -> tuple[pl.Series, Sequence[str]]:
    """Return the label of every row (N,) and the classes in their order."""
    if columns.label is None:
        return pl.Series("label", [None] * table.height, dtype=pl.String), ()
    values = table[f"={columns.label}"]
    if not values.dtype.is_integer():
        labels = values.cast(pl.String).str.strip_chars().replace("", None).alias("label")
        return labels, columns.names or sorted(labels.drop_nulls().unique())
    values = values.cast(pl.Int64).replace(_NO_LABEL, None)
    if not columns.names:
        numbers = sorted(values.drop_nulls().unique())
        return values.cast(pl.String).alias("label"), [str(number) for number in numbers]
    known = dict(enumerate(columns.names))
    labels = values.replace_strict(known, default=None, return_dtype=pl.String).alias("label")
    for row in (labels.is_null() & values.is_not_null()).arg_true():
        faults.add(row, RowFault.UNKNOWN_LABEL, f"{values[row]}, expected a number from 0 to {len(known) - 1}")
    return labels, columns.names


def _splits(spec: ParquetSpec, table: pl.DataFrame, shards: ShardSplits, faults: Faults) -> pl.Series:
    """Return train, val, test or null (N,)."""
    if spec.split_column is None:
        return table["path"].replace_strict(shards.splits, return_dtype=pl.String).alias("split")
    values = table[f"={spec.split_column}"].cast(pl.String).str.strip_chars().replace("", None)
    names = read_split_names(values.drop_nulls().unique(maintain_order=True))
    splits = values.replace_strict(names, default=None, return_dtype=pl.String)
    for row in (splits.is_null() & values.is_not_null()).arg_true():
        faults.add(row, RowFault.UNKNOWN_SPLIT, repr(values[row]))
    return splits.alias("split")
