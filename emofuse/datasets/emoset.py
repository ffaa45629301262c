"""The dataset kind `emoset`: EmoSet (Yang et al., ICCV 2023), as released and as its README describes it.

`info.json` has seven vocabularies or, in the downloaded archive, the emotions alone. Split rows have three fields
(emotion, image, annotation) or four (emotion, image id, image, annotation). Both forms of both are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl

from emofuse.datasets.files import is_lfs_pointer, map_in_threads
from emofuse.datasets.roots import Files, check_root, open_files
from emofuse.datasets.row_faults import Faults, RowFault
from emofuse.datasets.row_paths import normalised_paths
from emofuse.datasets.rows import ListedRows, Listing, check_rows
from emofuse.datasets.splits import SPLITS
from emofuse.errors import DatasetError
from emofuse.specs.datasets import CustomDatasetSpec

ATTRIBUTES: Mapping[str, pl.DataType] = {
    "brightness": pl.Float64(),
    "colorfulness": pl.Float64(),
    "scene": pl.String(),
    "object": pl.List(pl.String()),
    "facial_expression": pl.String(),
    "human_action": pl.String(),
}


class EmoSetSpec(CustomDatasetSpec):
    """EmoSet as released: `info.json`, `train.json`, `val.json`, `test.json`, `image/`, `annotation/`.

    `group_file` is a table (sample_id, group) of rows that splits and folds never part, as `emofuse dataset check
    --near --write-groups` writes it; its path is relative to `root`.
    """

    kind: Literal["emoset"] = "emoset"
    group_file: Path | None = None

    def read(self) -> Listing:
        """List and check the rows of the split files."""
        return read_emoset(self)


def read_emoset(spec: EmoSetSpec) -> Listing:
    """List the rows of `train.json`, `val.json` and `test.json` in that order, numbered from 1 in each file.

    The attributes of the annotation files become columns, null where an annotation lacks them. An image without its
    annotation file is a good row whose attributes are all null, because no stream needs an annotation; a note counts
    such rows. A damaged annotation makes a bad row, because it is a sign of a damaged download.

    Raises:
        DatasetError: there is no root, or `info.json` or a split file is missing or malformed.
    """
    root = check_root(spec.root, spec.kind)
    files = open_files(root, follow_links=spec.follow_links)
    classes = _read_classes(root)
    faults = Faults()
    table = _read_split_files(root, faults)
    table, notes = _with_attributes(table, files, faults)
    listed = ListedRows(table, classes, "EmoSet", spec.kind, faults, notes)
    return check_rows(listed, root, spec.split, files, group_file=spec.group_file)


def _read_json(root: Path, name: str) -> Any:
    path = root / name
    if not path.is_file():
        below = sorted(str(other.parent) for other in root.glob(f"*/{name}"))
        hint = f"; there is one in {below[0]}: set --data to that folder" if below else ""
        layout = "info.json, train.json, val.json, test.json, image/ and annotation/"
        raise DatasetError(f"{path}: missing. The root of an EmoSet holds {layout}{hint}")
    text = path.read_bytes()
    if is_lfs_pointer(text):
        raise DatasetError(f"{path}: git-lfs pointer text instead of JSON; fetch the files: git lfs pull")
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_mapping)
    except _RepeatedKeyError as error:
        raise DatasetError(f"{path}: {error.args[0]!r} is given twice in one mapping; leave one of them out") from None
    except ValueError as error:
        raise DatasetError(f"{path}: not valid JSON ({error}); download it again") from None


class _RepeatedKeyError(ValueError):
    pass


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping of JSON, and raise for a repeated key, of which Python's reader silently keeps the last."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return mapping


def _read_classes(root: Path) -> tuple[str, ...]:
    """Return the emotions in the order of their indices, which is not alphabetical."""
    info = _read_json(root, "info.json")
    emotions = info.get("emotion", info) if isinstance(info, dict) else None
    indices = emotions.get("label2idx") if isinstance(emotions, dict) else None
    if not isinstance(indices, dict) or not indices:
        raise DatasetError(f"{root / 'info.json'}: has neither `emotion.label2idx` nor `label2idx`, a map of emotions")
    names = [label.strip() for label in indices]
    is_numbered = all(type(index) is int for index in indices.values()) and sorted(indices.values()) == list(
        range(len(names))
    )
    if not is_numbered or len(set(names)) != len(names):
        raise DatasetError(f"{root / 'info.json'}: label2idx must number the emotions 0, 1, 2, ..., got {indices}")
    return tuple(sorted(names, key=dict(zip(names, indices.values(), strict=True)).__getitem__))


def _read_split_files(root: Path, faults: Faults) -> pl.DataFrame:
    """Return the columns file, row, sample_id, path, split, label, and annotation (the path of its file)."""
    parts: list[pl.DataFrame] = []
    listed = 0
    for split in SPLITS:
        name = f"{split}.json"
        entries = _read_json(root, name)
        if not isinstance(entries, list):
            raise DatasetError(f"{root / name}: must be a list of rows, got {type(entries).__name__}")
        rows = [_fields(entry) for entry in entries]
        for index, row in enumerate(rows):
            if row is None:
                shapes = "[emotion, image, annotation] or [emotion, image_id, image, annotation]"
                faults.add(listed + index, RowFault.MALFORMED, f"{_short(entries[index])}, expected {shapes}")
        listed += len(rows)
        columns = zip(*(row or (None, None, None) for row in rows), strict=True) if rows else ((), (), ())
        fields = {
            key: pl.Series(key, column, dtype=pl.String)
            for key, column in zip(("label", "path", "annotation"), columns, strict=True)
        }
        part = pl.DataFrame(fields).with_row_index("row", offset=1)
        parts.append(part.with_columns(pl.col("row").cast(pl.Int64), file=pl.lit(name), split=pl.lit(split)))
    table = pl.concat(parts)
    stem = pl.col("path").str.extract(r"([^/]*)$").str.replace(r"(.)\.[^.]*$", "$1").replace("", None)
    return table.with_columns(sample_id=stem)


def _fields(entry: Any) -> tuple[str, str, str] | None:
    """Return the emotion, image and annotation of a split row of either form, or None for any other row."""
    if not isinstance(entry, list) or len(entry) not in {3, 4} or not all(isinstance(value, str) for value in entry):
        return None
    try:
        "".join(entry).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON allows and a table cannot hold
        return None
    return entry[0].strip(), entry[-2].strip(), entry[-1].strip()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _with_attributes(table: pl.DataFrame, files: Files, faults: Faults) -> tuple[pl.DataFrame, list[str]]:
    """Return the table with the attributes of annotations in place of their paths, and notes for the user."""
    annotations = normalised_paths(table["annotation"])
    rows = annotations.is_not_null().arg_true().to_list()
    columns: dict[str, list[Any]] = {name: [None] * table.height for name in ATTRIBUTES}
    missing = 0
    read = map_in_threads(partial(_read_annotation, files), annotations.drop_nulls().to_list())
    for row, values in zip(rows, read, strict=True):
        if values is None:
            missing += 1
        elif isinstance(values, str):
            faults.add(row, RowFault.DAMAGED_ANNOTATION, f"{annotations[row]}: {values}")
        else:
            for name, value in values.items():
                columns[name][row] = value
    series = [pl.Series(name, column, dtype=ATTRIBUTES[name]) for name, column in columns.items()]
    notes = (
        [f"annotation files missing: {missing} of {len(rows)}; the attributes of these rows are null"]
        if missing
        else []
    )
    return table.drop("annotation").with_columns(series), notes


def _read_annotation(files: Files, path: str) -> dict[str, Any] | str | None:
    """Return the attributes of an annotation file, or its fault as text, or None if there is no such file."""
    try:
        return _load_annotation(files, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (ValueError, OverflowError, RecursionError) as error:
        return str(error)


def _load_annotation(files: Files, path: str) -> dict[str, Any]:
    text = files.read(path)
    if is_lfs_pointer(text):
        raise ValueError("git-lfs pointer text instead of JSON")
    return _attributes(json.loads(text))


def _attributes(data: Any) -> dict[str, Any]:
    """Return the known attributes of an annotation without spaces around names and words (one action is `"boxing "`).

    Raises:
        ValueError: the annotation is no object, or an attribute has another type than in EmoSet.
    """
    if not isinstance(data, dict):
        raise ValueError(f"must be an object, got {type(data).__name__}")  # noqa: TRY004 - bad data, not bad code
    values = {key.strip(): value for key, value in data.items()}
    present = {name: dtype for name, dtype in ATTRIBUTES.items() if values.get(name) is not None}
    return {name: _attribute(name, values[name], dtype) for name, dtype in present.items()}


def _attribute(name: str, value: Any, dtype: pl.DataType) -> float | str | list[str] | None:
    if dtype == pl.Float64 and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if dtype == pl.String and isinstance(value, str):
        return _word(value) or None
    if isinstance(dtype, pl.List) and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [_word(item) for item in value]
    expected = {pl.Float64: "a number", pl.String: "a word"}.get(type(dtype), "a list of words")
    raise ValueError(f"{name} is {_short(value)}, expected {expected}")


def _word(text: str) -> str:
    text.encode()  # raises for a lone surrogate, which JSON allows and a table cannot hold
    return text.strip()
