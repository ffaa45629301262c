"""The table of predictions: one row for each frame and face, or for each image or clip, as CSV or Parquet.

A table is written beside its place and moved there when it is finished, so that a file of that name is always whole.
Memory holds a part of it at a time.
"""

from __future__ import annotations

import csv
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.errors import DatasetError
from emofuse.predict.frames import FramePrediction, PredictedFrame
from emofuse.predict.prediction import ActionUnit, Prediction
from emofuse.predict.predictor import Predictor
from emofuse.stores import replacing

SUFFIXES = (".csv", ".parquet")
_PART_ROWS = 4096

Row = dict[str, Any]


class RowTable:
    """The columns of the table of a run, and its rows.

    Columns: `path`; `time_s`, `frame`, `face` and the box `left, top, right, bottom` in pixels of a video's faces;
    `label`; the outputs of the head, `prob.NAME` for classes and labels or `value.NAME` for numbers, and `smooth.NAME`,
    the same smoothed over time; `au.NAME`, the raw action units, and `activation.NAME`, their distance from the
    baseline of the run in deviations, if it has one; `missing`, the streams that the head did not use and why; and
    `problem`, why a file could not be read.

    Args:
        predictor: the run.
    """

    def __init__(self, predictor: Predictor) -> None:
        record = predictor.record
        self._classes = tuple(record.classes)
        self._kind = record.target_kind
        self._output = "value" if self._kind == "regression" else "prob"
        numbers = [f"{start}.{name}" for start in (self._output, "smooth") for name in self._classes]
        units = predictor.action_unit_names
        starts = ("au", "activation") if predictor.has_baseline else ("au",)
        numbers += [f"{start}.{name}" for start in starts for name in units]
        self.schema: dict[str, Any] = {
            "path": pl.String,
            "time_s": pl.Float64,
            "frame": pl.Int64,
            "face": pl.Int64,
            **dict.fromkeys(("left", "top", "right", "bottom"), pl.Float32),
            "label": pl.String,
            **dict.fromkeys(numbers, pl.Float32),
            "missing": pl.String,
            "problem": pl.String,
        }

    def of_frame(self, path: str, predicted: PredictedFrame) -> list[Row]:
        """Return the rows of a frame."""
        return [self._of_face(path, predicted, each) for each in predicted.predictions]

    def of_file(self, prediction: Prediction) -> Row:
        """Return the row of an image, clip or sound; it has no frame, and its outputs are not smoothed."""
        outputs = prediction.values if self._kind == "regression" else prediction.probs
        row: Row = {"path": str(prediction.path), "problem": prediction.problem}
        row |= {f"{self._output}.{name}": value for name, value in outputs.items()}
        row["label"] = ";".join(prediction.labels) if self._kind == "multilabel" else prediction.label
        if prediction.face_box is not None:
            left, top, width, height = prediction.face_box
            row |= {"left": left, "top": top, "right": left + width, "bottom": top + height}
        return row | self._units(prediction.action_units) | {"missing": _missing(prediction.missing)}

    def label(self, outputs: npt.NDArray[np.float32] | None) -> str | None:
        """Return the most probable class, or the labels over one half; None for numbers and without outputs."""
        if outputs is None or self._kind == "regression":
            return None
        if self._kind == "multilabel":
            return ";".join(name for name, prob in zip(self._classes, outputs, strict=True) if prob > 0.5)
        return self._classes[int(np.argmax(outputs))]

    def _of_face(self, path: str, predicted: PredictedFrame, each: FramePrediction) -> Row:
        row: Row = {
            "path": path,
            "time_s": round(predicted.frame.time_s, 6),
            "frame": predicted.frame.number,
            "face": each.number,
            "label": self.label(each.smoothed),
        }
        if each.face is not None:
            row |= dict(zip(("left", "top", "right", "bottom"), map(float, each.face.box), strict=True))
        for start, outputs in ((self._output, each.outputs), ("smooth", each.smoothed)):
            if outputs is not None:
                row |= {f"{start}.{name}": float(value) for name, value in zip(self._classes, outputs, strict=True)}
        return row | self._units(each.action_units) | {"missing": _missing(each.missing)}

    @staticmethod
    def _units(units: Sequence[ActionUnit]) -> Row:
        row = {f"au.{unit.name}": unit.value for unit in units}
        return row | {f"activation.{unit.name}": unit.activation for unit in units if unit.activation is not None}


def _missing(missing: Mapping[str, str]) -> str | None:
    return "; ".join(f"{name}: {why}" for name, why in missing.items()) or None


class RowWriter(Protocol):
    """A table that is being written."""

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows; columns that they lack are empty."""
        ...


@contextmanager
def writing_rows(path: Path, table: RowTable) -> Iterator[RowWriter]:
    """Write a table to a file; it is whole when the context ends, also by an error.

    A table that the disk refused rows of would have a hole: nothing is left of it.

    Raises:
        OSError: the disk refuses the table.
        DatasetError: the name ends in neither .csv nor .parquet, or its folder does not exist.
    """
    check_table_path(path)
    with ExitStack() as opened:
        partial = opened.enter_context(replacing(path))
        writer: _CsvWriter | _ParquetWriter
        if path.suffix.lower() == ".csv":
            writer = _CsvWriter(opened.enter_context(partial.open("w", encoding="utf-8", newline="")), table)
        else:
            folder = Path(
                opened.enter_context(tempfile.TemporaryDirectory(prefix=".rows-", dir=path.absolute().parent))
            )
            writer = _ParquetWriter(partial, folder, table)
        failure: BaseException | None = None
        try:
            yield writer
        except BaseException as error:  # noqa: BLE001 - raised again after the table is finished
            failure = error
        if writer.failed:
            raise failure or OSError(f"{path}: rows could not be written")
        writer.finish()
        opened.close()  # moves the table to its place
        if failure is not None:
            raise failure


def check_table_path(path: Path) -> None:
    """Raise if a table cannot be written to a path.

    Raises:
        DatasetError: as `writing_rows`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(f"{path}: a table is written as {' or '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}")
    check_folder_of(path)


def check_folder_of(path: Path) -> None:
    """Raise if the folder of a file to be written does not exist, or the file is a folder.

    Raises:
        DatasetError: it does not, or is.
    """
    if path.is_dir():
        raise DatasetError(f"{path}: a folder, expected the name of a file to write")
    if not path.absolute().parent.is_dir():
        raise DatasetError(f"{path}: its folder does not exist; make it first: mkdir -p {path.absolute().parent}")


class _CsvWriter:
    failed = False

    def __init__(self, file: IO[str], table: RowTable) -> None:
        self._names = list(table.schema)
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(self._names)
        self._file = file

    def add(self, rows: Sequence[Row]) -> None:
        try:
            self._writer.writerows([[_text(row.get(name)) for name in self._names] for row in rows])
        except OSError:
            self.failed = True
            raise

    def finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _text(value: Any) -> Any:
    """Return a value as CSV has it: numbers with seven digits, nothing for what is unknown."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return "" if value is None else value


class _ParquetWriter:
    """Parts of the table are files of a folder until they become one."""

    failed = False

    def __init__(self, path: Path, folder: Path, table: RowTable) -> None:
        self._path, self._folder, self._schema = path, folder, table.schema
        self._waiting: list[Row] = []
        self._parts = 0

    def add(self, rows: Sequence[Row]) -> None:
        self._waiting += rows
        if len(self._waiting) >= _PART_ROWS:
            try:
                self._write_part()
            except (OSError, pl.exceptions.PolarsError):
                self.failed = True
                raise

    def finish(self) -> None:
        if self._waiting or not self._parts:
            self._write_part()
        pl.scan_parquet(sorted(self._folder.glob("*.parquet"))).sink_parquet(self._path)

    def _write_part(self) -> None:
        part = pl.DataFrame(
            {name: [row.get(name) for row in self._waiting] for name in self._schema}, schema=self._schema
        )
        part.write_parquet(self._folder / f"{self._parts:08}.parquet")
        self._parts, self._waiting = self._parts + 1, []
