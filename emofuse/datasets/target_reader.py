"""Read the targets of runs from the columns of a manifest: classes, distributions, numbers, several labels; weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.datasets.manifest import COLUMNS, Manifest
from emofuse.datasets.sources import SOURCE_COLUMNS
from emofuse.datasets.targets import Targets
from emofuse.errors import DatasetError, SpecError, did_you_mean
from emofuse.specs.targets import ClassTarget, DistributionTarget, MultilabelTarget, RegressionTarget, TargetSpec

Array = npt.NDArray[np.float64]
_SUM_TOLERANCE = 1e-3
_TRUTH = {"0": 0, "1": 1, "false": 0, "true": 1}


def read(manifest: Manifest, target: TargetSpec, weight_column: str | None) -> Targets:
    """Read the target and the weight of every row, see `emofuse.datasets.targets.read_targets`."""
    reader = _Reader(manifest)
    match target:
        case ClassTarget():
            targets = _classes(reader, target)
        case DistributionTarget():
            targets = _distribution(reader, target)
        case RegressionTarget():
            targets = _numbers(reader, target)
        case MultilabelTarget():
            targets = _several_labels(reader, target)
    if weight_column is not None:
        targets = replace(targets, weights=_weights(reader, weight_column, targets.labels >= 0))
    return replace(targets, notes=_notes(target, targets))


class _Reader:
    """The columns of a manifest, and the errors that name its rows."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.attributes = manifest.attributes

    def check(self, names: Sequence[str], key: str) -> None:
        """Raise SpecError if a name is no attribute."""
        manifest_columns = {*COLUMNS, *SOURCE_COLUMNS}
        problems = [
            f"{key}: {name!r} is a column of every manifest, and no attribute of the dataset{self.renamed(name)}"
            if name in manifest_columns
            else f"{key}: there is no column {name!r}{did_you_mean(name, self.attributes)}"
            for name in names
            if name not in self.attributes
        ]
        if problems:
            there = ", ".join(self.attributes) or "none"
            raise SpecError(f"{self.manifest.root} (columns: {there})", problems)

    def renamed(self, name: str) -> str:
        """Return the hint that a column of a table got another name, since the manifest has one of its name."""
        attribute = f"table_{name}"
        return f"; the column {name!r} of the table is {attribute!r}" if attribute in self.attributes else ""

    def number(self, name: str) -> Array:
        """Return a column of numbers, float64 (N,), NaN where it is empty."""
        column = self.manifest.table[name]
        if column.dtype == pl.String:
            numbers = column.str.strip_chars().replace("", None).cast(pl.Float64, strict=False)
            bad = (numbers.is_null() & (column.str.strip_chars().replace("", None).is_not_null())).arg_true()
            if len(bad):
                expected = "must hold numbers (empty the cell of a row without one)"
                raise self.error(name, expected, bad.to_numpy(), column.gather(bad).to_list())
        elif column.dtype.is_numeric() or column.dtype in {pl.Boolean, pl.Null}:
            numbers = column.cast(pl.Float64)
        else:
            raise DatasetError(f"{self.manifest.root}: column {name!r} must hold numbers, it holds {column.dtype}")
        values = numbers.fill_null(float("nan")).to_numpy()
        if len(infinite := np.flatnonzero(np.isinf(values))):
            raise self.error(name, "must hold finite numbers", infinite, values[infinite].tolist())
        return np.asarray(values, dtype=np.float64)

    def numbers(self, names: Sequence[str]) -> Array:
        """Return columns of numbers, float64 (N, C)."""
        return np.stack([self.number(name) for name in names], axis=1)

    def lists(self, name: str) -> pl.Series | None:
        """Return a column if it holds lists, else None."""
        column = self.manifest.table[name]
        if isinstance(column.dtype, pl.Array):
            return column.arr.to_list()
        return column if isinstance(column.dtype, pl.List) else None

    def list_of_numbers(self, name: str, lists: pl.Series, length: int, of: str) -> Array:
        """Return a column of lists of the same length, float64 (N, length), NaN where it is empty."""
        if not lists.dtype.inner.is_numeric():  # type: ignore[attr-defined]
            raise DatasetError(
                f"{self.manifest.root}: column {name!r} must hold lists of numbers, it holds {lists.dtype}"
            )
        lengths = lists.list.len()
        if len(bad := (lengths.is_not_null() & (lengths != length)).arg_true()):
            found = [f"{count} numbers" for count in lengths.gather(bad)]
            raise self.error(
                name, f"must hold lists with a number for each of the {length} {of}", bad.to_numpy(), found
            )
        rows = [[float("nan")] * length if row is None else row for row in lists.cast(pl.List(pl.Float64)).to_list()]
        values = np.array(rows, dtype=np.float64).reshape(len(rows), length)
        if len(bad_rows := np.flatnonzero(np.isinf(values).any(axis=1))):
            raise self.error(name, "must hold finite numbers", bad_rows, values[bad_rows].tolist())
        return values

    def error(self, names: str, expected: str, rows: npt.NDArray[np.int64], found: Sequence[object]) -> DatasetError:
        """Return the error of rows whose values are not as expected."""
        first = self.manifest.table["sample_id"][int(rows[0])]
        more = f" and {len(rows) - 1} more row{'s' * (len(rows) > 2)}" if len(rows) > 1 else ""
        return DatasetError(
            f"{self.manifest.root}: column {names!r} {expected}, got {found[0]!r} in row {first!r}{more}"
        )


def _classes(reader: _Reader, target: ClassTarget) -> Targets:
    manifest = reader.manifest
    if target.column == "label" and reader.renamed("label"):
        reader.check(["label"], "target.column")
    if target.column is None or target.column == "label":
        if not manifest.classes:
            there = ", ".join(reader.attributes) or "none"
            problem = (
                "target: the dataset has no labels, so a run needs the columns that it learns, such as `target: {kind: "
                "regression, columns: [valence]}`; `emofuse dataset check` lists those that could be targets"
            )
            raise SpecError(f"{manifest.root} (columns: {there})", [problem])
        return Targets("class", manifest.classes, _indices(manifest.table["label"], manifest.classes))
    reader.check([target.column], "target.column")
    column = manifest.table[target.column]
    if column.dtype.is_float():
        whole = column.fill_nan(None)
        if len(bad := (whole.is_not_null() & (whole != whole.round())).arg_true()):
            expected = "must hold labels, words or whole numbers (numbers are a target of kind regression)"
            raise reader.error(target.column, expected, bad.to_numpy(), whole.gather(bad).to_list())
        column = whole.cast(pl.Int64)
    if column.dtype.is_nested():
        raise DatasetError(f"{manifest.root}: column {target.column!r} must hold labels, it holds {column.dtype}")
    labels = column.cast(pl.String).str.strip_chars().replace("", None)
    found = sorted(labels.drop_nulls().unique())
    classes = manifest.classes if set(found) <= set(manifest.classes) else tuple(found)
    return Targets("class", classes, _indices(labels, classes))


def _indices(labels: pl.Series, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return (N,) int64 indices into classes, -1 for null."""
    return labels.replace_strict(list(classes), range(len(classes)), default=-1, return_dtype=pl.Int64).to_numpy()


def _distribution(reader: _Reader, target: DistributionTarget) -> Targets:
    manifest = reader.manifest
    names, numbers, named = _shares(reader, target)
    complete = ~np.isnan(numbers).any(axis=1)
    if len(bad := np.flatnonzero((numbers < 0).any(axis=1))):
        what = "votes" if target.votes else "probabilities"
        raise reader.error(named, f"must hold {what}, which are not negative", bad, numbers[bad].min(axis=1).tolist())
    sums = np.where(complete, numbers.sum(axis=1), 0.0)
    off = np.flatnonzero(complete & (np.abs(sums - 1) > _SUM_TOLERANCE))
    if not target.votes and len(off):
        expected = "must hold probabilities that sum to 1 in each row (`votes: true` divides by the sum)"
        raise reader.error(named, expected, off, [float(f"{total:.6g}") for total in sums[off]])
    has = sums > 0
    shares = np.where(has[:, None], numbers, np.nan) / np.where(has, sums, 1.0)[:, None]
    labels = _indices(manifest.table["label"], names) if set(manifest.classes) & set(names) else np.full(len(has), -1)
    if target.label == "manifest":
        if unknown := [name for name in manifest.classes if name not in names]:
            raise SpecError(
                f"{manifest.root} (classes: {', '.join(manifest.classes)})",
                [f"target.label: manifest, but target.columns has no column for {', '.join(map(repr, unknown))}"],
            )
        has &= labels >= 0
    else:
        labels = _majority(shares, labels)
    values = np.where(has[:, None], shares, np.nan).astype(np.float32)
    return Targets("distribution", names, np.where(has, labels, -1).astype(np.int64), values)


def _shares(reader: _Reader, target: DistributionTarget) -> tuple[tuple[str, ...], Array, str]:
    """Return the classes, in the order of the manifest's if they are the same, with the numbers and their columns."""
    manifest, column_of = reader.manifest, target.column_of_class
    if not column_of:
        (column,) = target.columns
        reader.check([column], "target.columns")
        lists = reader.lists(column)
        if lists is None:
            holds = f"the single column {column!r} must hold lists, it holds {manifest.table[column].dtype}"
            raise SpecError(str(manifest.root), [f"target.columns: {holds}"])
        numbers = reader.list_of_numbers(column, lists, len(manifest.classes), "classes")
        return manifest.classes, numbers, column
    reader.check(list(column_of.values()), "target.columns")
    names = manifest.classes if set(manifest.classes) == set(column_of) else tuple(column_of)
    return names, reader.numbers([column_of[name] for name in names]), ", ".join(column_of.values())


def _majority(shares: Array, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the class with most votes (N,); a tie goes to the label of the manifest, or else to the first class."""
    known = np.where(np.isnan(shares), -1.0, shares)
    most = known.max(axis=1)
    of_label = np.take_along_axis(known, np.maximum(labels, 0)[:, None], axis=1)[:, 0]
    return np.where((labels >= 0) & (of_label >= most), labels, known.argmax(axis=1))


def _numbers(reader: _Reader, target: RegressionTarget) -> Targets:
    reader.check(target.columns, "target.columns")
    values = reader.numbers(target.columns)
    for name, numbers in zip(target.columns, values.T, strict=True):
        low, high = target.range or (-np.inf, np.inf)
        if len(bad := np.flatnonzero((numbers < low) | (numbers > high))):
            expected = f"must be from {low:g} to {high:g}, as `target.range` says (empty the cell where there is none)"
            raise reader.error(name, expected, bad, numbers[bad].tolist())
    return _of_columns("regression", target.columns, values)


def _several_labels(reader: _Reader, target: MultilabelTarget) -> Targets:
    reader.check(target.columns, "target.columns")
    lists = reader.lists(target.columns[0]) if len(target.columns) == 1 else None
    if lists is not None:
        return _listed_labels(reader, target.columns[0], lists)
    values = np.stack([_zero_or_one(reader, name) for name in target.columns], axis=1)
    return _of_columns("multilabel", target.columns, values)


def _listed_labels(reader: _Reader, name: str, lists: pl.Series) -> Targets:
    """Return labels that are listed row by row: every word that occurs is a label."""
    if lists.dtype != pl.List(pl.String):
        raise DatasetError(f"{reader.manifest.root}: column {name!r} must hold lists of words, it holds {lists.dtype}")
    rows = lists.to_list()
    words = sorted({word for row in rows for word in row or () if word})
    if not words:
        raise DatasetError(f"{reader.manifest.root}: column {name!r} has no label in any row")
    place = {word: index for index, word in enumerate(words)}
    values = np.zeros((len(rows), len(words)))
    for index, row in enumerate(rows):
        if row is None:
            values[index] = np.nan
        else:
            values[index, [place[word] for word in row if word]] = 1
    return _of_columns("multilabel", tuple(words), values)


def _zero_or_one(reader: _Reader, name: str) -> Array:
    """Return a column of 0 and 1, float64 (N,), NaN where it is empty."""
    column = reader.manifest.table[name]
    expected = "must hold 0 or 1, or false or true"
    if column.dtype == pl.String:
        words = column.str.strip_chars().str.to_lowercase().replace("", None)
        values = words.replace_strict(_TRUTH, default=None, return_dtype=pl.Float64)
        if len(bad := (values.is_null() & words.is_not_null()).arg_true()):
            raise reader.error(name, expected, bad.to_numpy(), column.gather(bad).to_list())
        return np.asarray(values.fill_null(float("nan")).to_numpy(), dtype=np.float64)
    numbers = reader.number(name)
    if len(bad_rows := np.flatnonzero(~np.isnan(numbers) & (numbers != 0) & (numbers != 1))):
        raise reader.error(name, expected, bad_rows, numbers[bad_rows].tolist())
    return numbers


def _of_columns(kind: str, names: Sequence[str], values: Array) -> Targets:
    complete = ~np.isnan(values).any(axis=1)
    if kind == "regression" and complete.sum() > 1:
        _check_not_constant(names, values[complete])
    kept = np.where(complete[:, None], values, np.nan).astype(np.float32)
    return Targets(kind, tuple(names), np.where(complete, 0, -1).astype(np.int64), kept)


def _check_not_constant(names: Sequence[str], values: Array) -> None:
    constant = [name for name, column in zip(names, values.T, strict=True) if (column == column[0]).all()]
    if constant:
        raise DatasetError(
            f"target.columns: {', '.join(map(repr, constant))} has the same value in all {len(values)} rows with a "
            "target, so there is nothing to learn. Leave it out"
        )


def _weights(reader: _Reader, name: str, has_target: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    reader.check([name], "weight_column")
    weights = reader.number(name)
    expected = "must hold weights, 0 or more"
    if len(bad := np.flatnonzero(has_target & ~(weights >= 0))):
        found = [None if np.isnan(weight) else weight for weight in weights[bad].tolist()]
        raise reader.error(name, expected, bad, found)
    if not (weights[has_target] > 0).any():
        raise DatasetError(f"{reader.manifest.root}: column {name!r} {expected}, and no row with a target is above 0")
    return np.where(has_target, weights, 0).astype(np.float32)


def _notes(target: TargetSpec, targets: Targets) -> tuple[str, ...]:
    lacking = int((targets.labels < 0).sum())
    if not lacking or target == ClassTarget():
        return ()
    if lacking == len(targets.labels):
        raise DatasetError(f"no row has a target: all {lacking} lack the {target}")
    why = " or have no votes" if isinstance(target, DistributionTarget) and target.votes else ""
    rows = f"{lacking} of {len(targets.labels)} rows"
    return (f"{rows} lack the {target}{why}: they neither train nor are scored",)
