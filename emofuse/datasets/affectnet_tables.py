"""The lists of AffectNet: image, face box, landmarks, expression, valence and arousal of each row."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import polars as pl

from emofuse.datasets.files import is_lfs_pointer
from emofuse.datasets.row_faults import Faults, RowFault
from emofuse.errors import DatasetError

COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
)  # fmt: skip
BOX = {"face_x": "face_left", "face_y": "face_top", "face_width": "face_width", "face_height": "face_height"}
"""The columns of the box in a list -> those of the manifest."""
NUMBERS = ("valence", "arousal")
FOLDERS = ("Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated_file_lists")
"""The folders of the lists, where they are not in the root."""
_NAMES = {"train": ("training.csv", "train.csv"), "val": ("validation.csv", "val.csv", "valid.csv")}
_IMAGES = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", "images", "")


def tables_of(root: Path) -> dict[str, str]:
    """Return the split of each list below a root -> its path; {} if there is none."""
    found = {}
    for split, names in _NAMES.items():
        paths = [f"{folder}/{name}" if folder else name for folder in ("", *FOLDERS) for name in names]
        if (path := next((path for path in paths if (root / path).is_file()), None)) is not None:
            found[split] = path
    return found


def read_tables(root: Path, tables: Mapping[str, str], faults: Faults) -> pl.DataFrame:
    """Return the rows of all lists: file, row, sample_id, path, split, expression, valence, arousal, and the box.

    Raises:
        DatasetError: a list lacks a column, or is no table.
    """
    images = next(folder for folder in _IMAGES if folder == "" or (root / folder).is_dir())
    parts: list[pl.DataFrame] = []
    count = 0
    for split, table in tables.items():
        part = _read_table(root, table, faults, count).with_columns(split=pl.lit(split), file=pl.lit(table))
        count += part.height
        parts.append(part)
    path = pl.col("subDirectory_filePath").str.replace_all("\\", "/", literal=True)
    stem = path.str.replace(r"([^/])\.[^./]*$", "$1")
    return pl.concat(parts).with_columns(
        path=pl.format("{}{}", pl.lit(f"{images}/" if images else ""), path), sample_id=stem
    ).drop("subDirectory_filePath")  # fmt: skip


def _read_table(root: Path, table: str, faults: Faults, before: int) -> pl.DataFrame:
    """Return one list, whose first row is number `before` of all; validation.csv of the authors has no header."""
    path = root / table
    rows: list[Sequence[object]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            first = [cell.strip() for cell in next(reader, [])]
            if first and is_lfs_pointer(first[0].encode()):
                raise DatasetError(f"{path}: git-lfs pointer text instead of a table; fetch the files: git lfs pull")
            has_header = "expression" in first or len(first) != len(COLUMNS)
            names = first if has_header else list(COLUMNS)
            wanted = [name for name in COLUMNS if name != "facial_landmarks"]
            if lacking := [name for name in wanted if name not in names]:
                raise DatasetError(f"{path}: there is no column {', '.join(lacking)} (columns: {', '.join(names)})")
            places = [names.index(name) for name in wanted]
            for number, cells in enumerate(reader if has_header else chain([first], reader), start=1 + has_header):
                if cells:
                    rows.append((number, *_values(cells, places, len(names), faults, before + len(rows))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a CSV table in UTF-8 ({error})") from None
    schema = {"row": pl.Int64, "subDirectory_filePath": pl.String}
    schema |= dict.fromkeys(BOX.values(), pl.Float64) | {"expression": pl.Int64} | dict.fromkeys(NUMBERS, pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _values(
    cells: Sequence[str], places: Sequence[int], width: int, faults: Faults, row: int
) -> tuple[str | float | None, ...]:
    """Return path, box, expression, valence and arousal of a row; null for what it lacks."""
    if len(cells) != width:
        faults.add(row, RowFault.MALFORMED, f"has {len(cells)} fields, the header has {width}")
        return (None,) * len(places)
    path, *box, expression, valence, arousal = (cells[place].strip() for place in places)
    number = int(expression) if expression.isdecimal() else None
    if number is None:
        faults.add(row, RowFault.DAMAGED_ANNOTATION, f"expression is {expression!r}, expected a number from 0 to 10")
    return (path or None, *map(_number, box), number, _number(valence), _number(arousal))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None  # the lists have NULL where there is no box
    return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 - NaN
