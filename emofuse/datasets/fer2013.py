"""The dataset kind `fer2013`: FER2013 (Goodfellow et al., ICONIP 2013), as a CSV table of pixels or as folders."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from emofuse.datasets.archive_files import check_root_or_file, find_archive, open_tree
from emofuse.datasets.folder import list_label_folders
from emofuse.datasets.members import open_members
from emofuse.datasets.members.base import cell_name
from emofuse.datasets.members.csv_cells import CsvCells
from emofuse.datasets.roots import open_files
from emofuse.datasets.row_faults import Faults, RowFault
from emofuse.datasets.rows import ListedRows, Listing, check_rows
from emofuse.datasets.split_names import read_split_names
from emofuse.errors import DatasetError, DecodeError, did_you_mean
from emofuse.progress import step
from emofuse.specs.datasets import CustomDatasetSpec, StratifiedSplit

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The labels in the order of their numbers in the table."""
TABLES = ("fer2013.csv", "fer2013/fer2013.csv", "icml_face_data.csv", "train.csv")
"""The names under which the table is distributed."""
PIXELS = 48 * 48

_PREFIX = re.compile(r"(Training|PublicTest|PrivateTest)_\d+")
_LISTED = "fer2013.csv, icml_face_data.csv, or folders train and test with one folder for each emotion"


class Fer2013Spec(CustomDatasetSpec):
    """FER2013: a table with the columns `emotion`, `pixels` and `Usage`, or `train|test/<emotion>/*.jpg`.

    The root may be the table, its folder, the folder of train and test, or a zip archive of these two. Pixels are read
    out of the table in place; row 0 has the id that FER+ gives it, `fer0000000`. The split is `Usage`: PublicTest is
    val, PrivateTest is test. In folders it is the begin of a file's name (`PublicTest_123.jpg`), whatever the folder.

    `table` is the path of the table, if it has another name. `group_file` is a table (sample_id, group) of rows that
    splits and folds never part, as `emofuse dataset check --near --write-groups` writes it; both are relative to the
    root.
    """

    ids_from_paths: ClassVar[bool] = True
    kind: Literal["fer2013"] = "fer2013"
    table: Path | None = None
    group_file: Path | None = None

    def read(self) -> Listing:
        """List and check the rows."""
        if find_archive(self.root) is not None:
            return _read_folders(self)
        root, name = check_root_or_file(self.root, self.kind)
        table = find_table(root, self.table or name)
        return _read_folders(self) if table is None else _read_table(self, root, table)


@dataclass(frozen=True)
class FaceTable:
    """The rows of a table of pixels, without the pixels.

    Attributes:
        path: the path of the table, relative to the root.
        pixels: the name of the column of pixels.
        labels: the name of the emotion (N,), the cell itself if it is none, or None if it is empty.
        usage: the cell of `Usage` (N,); None if it is empty or there is no such column.
        faults: what is wrong with rows.
        has_usage: whether there is a column `Usage`.
    """

    path: str
    pixels: str
    labels: list[str | None]
    usage: list[str | None]
    faults: Faults
    has_usage: bool

    def sources(self) -> pl.DataFrame:
        """Return the columns of all rows that do not depend on labels: `file`, `row`, `sample_id`, `path`, `member`."""
        rows = range(len(self.labels))
        return pl.DataFrame(
            {
                "row": pl.Series([row + 2 for row in rows], dtype=pl.Int64),  # as a spreadsheet numbers them
                "sample_id": pl.Series([f"fer{row:07}" for row in rows], dtype=pl.String),
                "member": pl.Series([cell_name(self.pixels, row) for row in rows], dtype=pl.String),
            }
        ).with_columns(file=pl.lit(self.path), path=pl.lit(self.path))

    def splits(self) -> pl.Series:
        """Return train, val, test or null (N,), and add a fault for each cell that is no split."""
        names = read_split_names(dict.fromkeys(usage for usage in self.usage if usage is not None))
        for row, usage in enumerate(self.usage):
            if usage is not None and usage not in names:
                self.faults.add(row, RowFault.UNKNOWN_SPLIT, repr(usage))
        return pl.Series("split", [names.get(usage or "") for usage in self.usage], dtype=pl.String)


def find_table(root: Path, table: str | Path | None) -> str | None:
    """Return the path of the table of pixels below a root; None if there is none but there may be folders.

    Raises:
        DatasetError: there is no table of the given name.
    """
    if table is not None:
        if not (root / table).is_file():
            there = sorted(path.name for path in root.glob("*.csv"))
            raise DatasetError(f"{root / table}: no such table{did_you_mean(str(table), there)}. Set it with `table`")
        return Path(table).as_posix()
    return next((name for name in TABLES if (root / name).is_file()), None)


def read_face_table(root: Path, table: str) -> FaceTable:
    """Read the labels and splits of a table of pixels, one row at a time.

    Raises:
        DatasetError: it is no table, or lacks the columns `emotion` or `pixels`.
    """
    path = root / table
    try:
        cells, (emotion, pixels, usage) = _open_table(path)
        found = FaceTable(table, cells.columns[pixels], [], [], Faults(), usage >= 0)
        with step("reading the table", cells.rows, "rows") as advance:
            for row, fields in enumerate(cells.read_rows()):
                _add_row(found, row, fields, len(cells.columns), (emotion, pixels, usage))
                advance(row + 1, cells.rows)
    except (DecodeError, OSError) as error:
        raise DatasetError(f"{path}: {error}") from None
    return found


def _open_table(path: Path) -> tuple[CsvCells, tuple[int, int, int]]:
    """Return a table with the places of its columns emotion, pixels and Usage; -1 if there is no `Usage`."""
    cells = open_members(path)
    if not isinstance(cells, CsvCells):
        raise DecodeError("no CSV table")
    places = {name.lower(): place for place, name in enumerate(cells.columns)}
    if lacking := [name for name in ("emotion", "pixels") if name not in places]:
        raise DecodeError(
            f"there is no column {', '.join(map(repr, lacking))} (columns: {', '.join(cells.columns)[:200]}); "
            "FER2013 has emotion, pixels, Usage"
        )
    return cells, (places["emotion"], places["pixels"], places.get("usage", -1))


def _add_row(table: FaceTable, row: int, fields: Sequence[str], width: int, places: tuple[int, int, int]) -> None:
    if len(fields) != width:
        table.faults.add(row, RowFault.MALFORMED, f"has {len(fields)} fields, the header has {width}")
        table.labels.append(None)
        table.usage.append(None)
        return
    emotion, pixels, usage = places
    label, count = fields[emotion], fields[pixels].count(" ") + 1
    if count != PIXELS and (count := len(fields[pixels].split())) != PIXELS:
        table.faults.add(row, RowFault.MALFORMED, f"has {count} pixels, expected 48 x 48 = {PIXELS}")
    known = label.isdecimal() and int(label) < len(EMOTIONS)
    table.labels.append(EMOTIONS[int(label)] if known else label or None)
    table.usage.append((fields[usage] or None) if usage >= 0 else None)


def check_has_usage(table: FaceTable, spec: CustomDatasetSpec, path: Path) -> None:
    """Raise if a split that the dataset defines is asked for, and the table has none.

    Raises:
        DatasetError: so it is.
    """
    if not table.has_usage and not isinstance(spec.split, StratifiedSplit):
        raise DatasetError(
            f"{path}: there is no column 'Usage', so there is no official split. Ask for a stratified one: "
            "`split: {kind: stratified}` (dataset check: --split stratified)"
        )


def _read_table(spec: Fer2013Spec, root: Path, name: str) -> Listing:
    table = read_face_table(root, name)
    check_has_usage(table, spec, root / name)
    rows = table.sources().with_columns(table.splits(), pl.Series("label", table.labels, dtype=pl.String))
    listed = ListedRows(rows, EMOTIONS, "FER2013", spec.kind, table.faults)
    files = open_files(root, follow_links=spec.follow_links)
    return check_rows(listed, root, spec.split, files, group_file=spec.group_file)


def _read_folders(spec: Fer2013Spec) -> Listing:
    """List the images in folders; the emotion is the name of the folder, in upper or lower case."""
    tree = open_tree(spec.root, spec.kind, follow_links=spec.follow_links)
    try:
        listed, has_splits = list_label_folders(tree, spec.kind)
    except DatasetError as error:
        cause = f" ({error})" if "no images in folders" not in str(error) else ""
        raise DatasetError(f"{tree.shown}: is no FER2013: expected {_LISTED}{cause}") from None
    table = listed.table.with_columns(pl.col("label").str.to_lowercase())
    prefixes = [
        match[1] if (match := _PREFIX.match(posixpath.basename(path))) else None for path in table["path"].to_list()
    ]
    names = read_split_names({prefix for prefix in prefixes if prefix is not None})
    splits = [
        names[prefix] if prefix is not None else split for prefix, split in zip(prefixes, table["split"], strict=True)
    ]
    notes = list(listed.notes)
    without = prefixes.count(None)
    if without < len(prefixes):
        counts = Counter(prefix for prefix in prefixes if prefix is not None)
        named = ", ".join(f"{counts[name]} {name} as {names[name]}" for name in sorted(counts))
        notes.append(f"splits are read from the names of files: {named}")
    if 0 < without < len(prefixes):
        notes.append(f"names without a split, which have that of their folder: {without}")
    if without and not has_splits and not isinstance(spec.split, StratifiedSplit):
        raise DatasetError(
            f"{tree.shown}: {without} files have no split, neither by a folder train or test nor by their name "
            "(PublicTest_123.jpg). Ask for a stratified split: `split: {kind: stratified}`"
        )
    table = tree.with_sources(table.with_columns(pl.Series("split", splits, dtype=pl.String)))
    listed = replace(listed, table=table, classes=EMOTIONS, name="FER2013", notes=notes)
    return check_rows(listed, tree.root, spec.split, tree.files, group_file=spec.group_file)
