"""Find the columns of a manifest that could be targets of runs, and notes on unusual values."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.datasets.manifest import Manifest
from emofuse.datasets.sources import FACE_BOX

Array = npt.NDArray[np.float64]
_PREFIX = re.compile(r"^(.*[^\w]|.*_)[^_]*$")
_MOST_LABELS = 50
_SHOWN = 4
_MOSTLY = 0.75
_SUM_TOLERANCE = 1e-3
_LEAST_VOTES = 3  # two columns that are not negative are rather two numbers than votes
_TRUTH = ("0", "1", "false", "true")


@dataclass(frozen=True)
class TargetColumn:
    """A column, or several with a common prefix, that could be the target of a run.

    Attributes:
        name: the name of the column, or the prefix with a star.
        columns: the names of all its columns.
        kind: the kind of the target: `class`, `distribution`, `regression` or `multilabel`.
        values: the range or the labels, in words.
        missing: the number of rows without a value in one of the columns.
        notes: what the user should know, one line each.
    """

    name: str
    columns: tuple[str, ...]
    kind: str
    values: str
    missing: int
    notes: tuple[str, ...] = ()


def find_target_columns(manifest: Manifest) -> list[TargetColumn]:
    """Return the columns that could be targets, in their order; those of a group at the place of its first column.

    Columns of text with many values (ids, captions) are none, and neither is the box of the face. The rows that cannot
    be read count as all others.
    """
    numbers: dict[str, Array] = {}
    found: dict[str, TargetColumn] = {}
    for name in (each for each in manifest.attributes if each not in FACE_BOX):
        values = _numbers(manifest.table[name])
        if values is not None and not np.isnan(values).all():
            numbers[name] = values
        elif (target := _of_words(manifest, name)) is not None:
            found[name] = target
    groups = _groups(numbers, manifest)
    grouped = {column for columns in groups.values() for column in columns}
    for name, columns in groups.items():
        found[columns[0]] = _of_group(name, columns, np.stack([numbers[column] for column in columns], axis=1))
    for name, values in numbers.items():
        if name not in grouped:
            found[name] = _of_numbers(name, values)
    return [found[name] for name in manifest.table.columns if name in found]


def _numbers(column: pl.Series) -> Array | None:
    """Return a column of numbers, or of false and true, as float64 (N,), NaN where it is empty; None for others."""
    if column.dtype == pl.String:
        words = column.str.strip_chars().str.to_lowercase().replace("", None)
        if not words.is_in(_TRUTH).fill_null(value=True).all():
            return None
        column = words.replace_strict(_TRUTH, (0, 1, 0, 1), default=None, return_dtype=pl.Float64)
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        return None
    values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def _of_words(manifest: Manifest, name: str) -> TargetColumn | None:
    column = manifest.table[name]
    if isinstance(column.dtype, pl.List | pl.Array):
        return _of_lists(name, column.to_list())
    if column.dtype != pl.String:
        return None
    words = column.str.strip_chars().replace("", None)
    present = words.drop_nulls()
    labels = sorted(present.unique())
    missing = words.null_count()
    if numeric := _numbers_with_text(manifest, name, words):
        return numeric
    are_labels = bool(labels) and set(labels) <= set(manifest.classes)
    if not are_labels and not 1 <= len(labels) <= min(_MOST_LABELS, max(len(present) // 2, 1)):
        return None
    notes = _constant(name, labels[0]) if len(labels) == 1 else ()
    shown = ", ".join(labels[:_SHOWN]) + (", ..." if len(labels) > _SHOWN else "")
    text = f"{len(labels)} label{'s' * (len(labels) != 1)}: {shown}"
    if are_labels:
        both = words.is_not_null() & manifest.table["label"].is_not_null()
        same = int((words == manifest.table["label"]).filter(both).sum())
        text = f"{len(labels)} of the labels; as the label in {same} of {int(both.sum())} rows"
    return TargetColumn(name, (name,), "class", text, missing, notes)


def _of_lists(name: str, rows: Sequence[Any]) -> TargetColumn | None:
    present = [row for row in rows if row is not None]
    items = {item for row in present for item in row}
    if items and all(isinstance(item, str) for item in items):
        text = f"lists of {len(items)} words"
        return TargetColumn(name, (name,), "multilabel", text, len(rows) - len(present))
    lengths = {len(row) for row in present}
    if items and len(lengths) == 1 and all(isinstance(item, int | float) for item in items):
        text = f"lists of {min(lengths)} numbers, {min(items):g} to {max(items):g}"
        return TargetColumn(name, (name,), "distribution", text, len(rows) - len(present))
    return None


def _numbers_with_text(manifest: Manifest, name: str, words: pl.Series) -> TargetColumn | None:
    """Return a column of numbers in which a few rows have text, which keeps all of it from being numbers."""
    numbers = words.cast(pl.Float64, strict=False)
    text = numbers.is_null() & words.is_not_null()
    present = len(words) - words.null_count()
    if not present or text.sum() > (1 - _MOSTLY) * present or words.str.contains(r"^[+-]?0\d").any():
        return None
    first = text.arg_true()[0]
    note = (
        f"column {name!r} has text in {text.sum()} of {present} rows, the first is {words[first]!r} in row "
        f"{manifest.table['sample_id'][first]!r}: empty these cells, or the column cannot be a target of numbers"
    )
    values = numbers.fill_null(float("nan")).to_numpy()
    return TargetColumn(name, (name,), "regression", _range(values), int(np.isnan(values).sum()), (note,))


def _groups(numbers: dict[str, Array], manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Return name -> the columns of votes, or of several labels, that belong together."""
    by_prefix: dict[str, list[str]] = defaultdict(list)
    for name in numbers:
        if match := _PREFIX.match(name):
            by_prefix[match[1]].append(name)
    named = [name for name in numbers if name in manifest.classes]
    candidates = [(f"{prefix}*", tuple(columns)) for prefix, columns in by_prefix.items()]
    candidates += [(", ".join(named), tuple(named))]
    groups = {name: columns for name, columns in candidates if len(columns) > 1 and _is_group(numbers, columns)}
    rest = [name for name in numbers if all(name not in columns for columns in groups.values())]
    counts = tuple(name for name in rest if _is_count(numbers[name]))
    if len(counts) >= _LEAST_VOTES and _share_of_same_sum(_stack(numbers, counts)) > _MOSTLY:
        groups[f"{counts[0]}, ..., {counts[-1]}"] = counts
    return groups


def _is_group(numbers: dict[str, Array], columns: Sequence[str]) -> bool:
    if all(_is_truth(numbers[column]) for column in columns):
        return True
    if any((numbers[column] < 0).any() for column in columns):
        return False
    counts = len(columns) >= _LEAST_VOTES and all(_is_count(numbers[column]) for column in columns)
    return counts or _share_of_same_sum(_stack(numbers, columns)) > _MOSTLY


def _stack(numbers: dict[str, Array], columns: Sequence[str]) -> Array:
    return np.stack([numbers[column] for column in columns], axis=1)


def _is_truth(values: Array) -> bool:
    return bool(np.isin(values[~np.isnan(values)], (0, 1)).all())


def _is_count(values: Array) -> bool:
    present = values[~np.isnan(values)]
    return bool((present >= 0).all() and (present == present.round()).all())


def _share_of_same_sum(values: Array) -> float:
    """Return how many of the complete rows have the most frequent sum, as a share."""
    sums = values[~np.isnan(values).any(axis=1)].sum(axis=1)
    if not len(sums):
        return 0.0
    return float((np.abs(sums - _usual_sum(sums)) <= _SUM_TOLERANCE).mean())


def _usual_sum(sums: Array) -> float:
    each, counts = np.unique(sums.round(3), return_counts=True)
    return float(each[counts.argmax()])


def _of_group(name: str, columns: tuple[str, ...], values: Array) -> TargetColumn:
    incomplete = int(np.isnan(values).any(axis=1).sum())
    complete = values[~np.isnan(values).any(axis=1)]
    notes = [note for place, column in enumerate(columns) for note in _constant_numbers(column, values[:, place])]
    sums = complete.sum(axis=1)
    if _is_truth(complete) and not (sums == 1).all():
        share = f"{sums.mean():.2g} of them a row" if len(sums) else "none"
        return TargetColumn(name, columns, "multilabel", f"{len(columns)} columns of 0 and 1, {share}", incomplete)
    usual = _usual_sum(sums) if len(sums) else 0.0
    other = sums[(np.abs(sums - usual) > _SUM_TOLERANCE) & (sums > 0)]
    text = f"{len(columns)} columns, {_range(complete)}, sum {usual:g}"
    if empty := int((sums == 0).sum()):
        notes.append(f"{name}: {empty} of {len(sums)} rows have no vote, and so no target")
    if len(other):
        notes.append(
            f"{name}: {len(other)} of {len(sums)} rows do not sum to {usual:g}, but to {_range(other)}. As votes they "
            "are divided by their sum; as probabilities (`votes: false`) they are refused"
        )
    return TargetColumn(name, columns, "distribution", text, incomplete, tuple(notes))


def _of_numbers(name: str, values: Array) -> TargetColumn:
    missing = int(np.isnan(values).sum())
    notes = _constant_numbers(name, values)
    if _is_truth(values):
        ones = int(np.nansum(values))
        return TargetColumn(
            name, (name,), "multilabel", f"0 and 1, {ones} of {len(values) - missing} are 1", missing, notes
        )
    return TargetColumn(name, (name,), "regression", _range(values), missing, (*notes, *_codes(name, values)))


def _codes(name: str, values: Array) -> tuple[str, ...]:
    """Return a note on a repeated value that lies apart from all others, as a code for a missing value does."""
    each, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    for end, rest in ((0, each[1:]), (-1, each[:-1])):
        if len(rest) > 2 and counts[end] > 1 and min(abs(rest - each[end])) > 0.4 * (rest.max() - rest.min()):
            others = f"{_range(rest)} in all others. If it stands for a missing value, empty these cells"
            return (f"column {name!r} has {each[end]:g} in {counts[end]} rows, and {others}",)
    return ()


def _constant_numbers(name: str, values: Array) -> tuple[str, ...]:
    present = values[~np.isnan(values)]
    return _constant(name, f"{present[0]:g}") if len(present) and (present == present[0]).all() else ()


def _constant(name: str, value: str) -> tuple[str, ...]:
    return (f"column {name!r} has the same value in all rows, {value}: there is nothing to learn",)


def _range(values: Array) -> str:
    low, high = f"{np.nanmin(values):.4g}", f"{np.nanmax(values):.4g}"
    return low if low == high else f"{low} to {high}"
