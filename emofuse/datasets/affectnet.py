"""The dataset kind `affectnet`: AffectNet (Mollahosseini et al., IEEE Trans. Affective Computing 2019)."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl

from emofuse.datasets.affectnet_tables import FOLDERS, NUMBERS, read_tables, tables_of
from emofuse.datasets.files import map_in_threads
from emofuse.datasets.names import kind_of_name, printable
from emofuse.datasets.roots import Files, check_root, open_files
from emofuse.datasets.row_faults import Faults, RowFault
from emofuse.datasets.rows import ListedRows, Listing, check_rows
from emofuse.errors import DatasetError
from emofuse.progress import step
from emofuse.specs.datasets import CustomDatasetSpec, DatasetSplitSpec, HoldoutSplit

EMOTIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
"""The labels in the order of their numbers."""
OTHERS = ("none", "uncertain", "no face")
"""What the numbers 8, 9 and 10 stand for."""
_SETS = {"train": "train_set", "val": "val_set"}
_UNKNOWN_VALUE = -2  # of valence and arousal, where nobody could tell them


class AffectnetSpec(CustomDatasetSpec):
    """AffectNet: CSV lists with face boxes, or `<train|val>_set/` with one .npy file for each annotation.

    `expressions` says which rows there are: those of the 8 emotions, of 7 (without contempt), or `all`, which keeps the
    rows of the categories none, uncertain and no face, without a label. Valence and arousal are attributes, for runs
    with `target: {kind: regression, columns: [valence, arousal]}`; -2, which stands for an unknown value, is empty. The
    face boxes of the lists are in `face_left`, `face_top`, `face_width` and `face_height`, in pixels. The lists of
    landmarks are not read.

    The labels of the test images are not published: by default the validation rows are the test rows, and a tenth of
    the training rows becomes val.
    """

    ids_from_paths: ClassVar[bool] = False
    kind: Literal["affectnet"] = "affectnet"
    expressions: Literal[7, 8, "all"] = 8
    split: DatasetSplitSpec = HoldoutSplit(test="val")
    group_file: Path | None = None

    def read(self) -> Listing:
        """List and check the rows."""
        return read_affectnet(self)


def read_affectnet(spec: AffectnetSpec) -> Listing:
    """List the rows of AffectNet, training rows first.

    Raises:
        DatasetError: there is no root, or neither form of the dataset in it, or a list is malformed.
    """
    root = check_root(spec.root, spec.kind)
    files = open_files(root, follow_links=spec.follow_links)
    faults = Faults()
    tables = tables_of(root)
    if tables:
        table = read_tables(root, tables, faults)
    elif any((root / folder / "images").is_dir() for folder in _SETS.values()):
        table = _read_annotations(root, files, faults)
    else:
        raise DatasetError(
            f"{root}: is no AffectNet: expected training.csv and validation.csv (in it or in {' or '.join(FOLDERS)}), "
            "or train_set/images and train_set/annotations"
        )
    table, kept, notes = _chosen(table, spec.expressions, faults)
    unknown = pl.any_horizontal(pl.col(*NUMBERS) == _UNKNOWN_VALUE)
    if count := table.filter(unknown).height:
        notes.append(f"valence or arousal is -2, which stands for an unknown value and is empty here, in {count} rows")
    table = table.with_columns(pl.col(*NUMBERS).replace(_UNKNOWN_VALUE, None))
    classes = EMOTIONS[: 7 if spec.expressions == 7 else 8]
    listed = ListedRows(table, classes, "AffectNet", spec.kind, faults.of_rows(kept), notes)
    return check_rows(listed, root, spec.split, files, group_file=spec.group_file)


def _chosen(
    table: pl.DataFrame, expressions: int | str, faults: Faults
) -> tuple[pl.DataFrame, dict[int, int], list[str]]:
    """Return the rows of the chosen expressions with labels, the place of each kept row, and notes on the others."""
    names = [*EMOTIONS, *OTHERS]
    numbers = table["expression"].to_list()
    faulty = set(faults.table()["index"].to_list())
    limit = len(EMOTIONS) if expressions == "all" else int(expressions)
    labels: list[str | None] = []
    left_out = dict.fromkeys(names, 0)
    kept = []
    for row, number in enumerate(numbers):
        known = number is not None and 0 <= number < len(names)
        label = names[number] if known else None if number is None else str(number)
        if known and number >= limit and expressions != "all" and row not in faulty:
            left_out[names[number]] += 1
            continue
        kept.append(row)
        labels.append(None if known and number >= limit else label)
    counts = ", ".join(f"{count} {name}" for name, count in left_out.items() if count)
    notes = [f"rows of other categories, left out (`expressions: all` keeps them): {counts}"] if counts else []
    if expressions == "all" and (others := labels.count(None)):
        notes.append(f"rows of the categories {', '.join(OTHERS)}, which have no label: {others}")
    chosen = table[kept].drop("expression").with_columns(pl.Series("label", labels, dtype=pl.String))
    return chosen, {row: place for place, row in enumerate(kept)}, notes


def _read_annotations(root: Path, files: Files, faults: Faults) -> pl.DataFrame:
    """Return the rows of the form with .npy files: the images of each set, by number where names are numbers."""
    listed: list[tuple[str, str]] = []
    for split, folder in _SETS.items():
        if (root / folder / "images").is_dir():
            names = [
                entry.name
                for entry in files.entries(f"{folder}/images")
                if not entry.is_dir and kind_of_name(entry.name) == "image"
            ]
            names.sort(key=_number_first)
            listed += [(split, name) for name in names]
    rows = []
    with step("reading annotations", len(listed), "images") as advance:
        read = map_in_threads(partial(_annotation, files), listed, paths_per_task=256)
        for row, ((split, name), values) in enumerate(zip(listed, read, strict=True)):
            folder, stem = _SETS[split], name.rpartition(".")[0]
            for fault in values.pop("faults"):
                faults.add(row, RowFault.DAMAGED_ANNOTATION, fault)
            path = printable(f"{folder}/images/{name}")
            rows.append(
                {"row": row + 1, "sample_id": printable(f"{split}_{stem}"), "path": path, "split": split, **values}
            )
            advance(row + 1, len(listed))
    schema: dict[str, Any] = {"row": pl.Int64, "sample_id": pl.String, "path": pl.String, "split": pl.String}
    schema |= {"expression": pl.Int64} | dict.fromkeys(NUMBERS, pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(file=pl.lit(""))


def _number_first(name: str) -> tuple[bool, int, str]:
    """Return the key by which names are sorted: numbers by their value, and then all others."""
    stem = name.rpartition(".")[0]
    return not stem.isdecimal(), int(stem) if stem.isdecimal() else 0, name


def _annotation(files: Files, listed: tuple[str, str]) -> dict[str, Any]:
    """Return the annotations of one image, and what is wrong with them."""
    split, name = listed
    stem = name.rpartition(".")[0]
    values: dict[str, Any] = {"faults": []}
    for column, suffix in (("expression", "exp"), ("valence", "val"), ("arousal", "aro")):
        path = f"{_SETS[split]}/annotations/{stem}_{suffix}.npy"
        values[column] = None
        try:
            value = np.load(io.BytesIO(files.read(path)), allow_pickle=False)[()]  # a number, or a text that is one
            values[column] = int(value) if column == "expression" else float(value)
        except (FileNotFoundError, NotADirectoryError):
            values["faults"].append(f"{path}: missing")
        except (OSError, ValueError, TypeError, EOFError) as error:
            values["faults"].append(f"{path}: {' '.join(str(error).split())[:120]}")
    return values
