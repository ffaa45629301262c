"""Tables of searched runs: one row a run, or one a configuration; filtered, sorted, printed and exported.

A table is a polars DataFrame. A null cell means that the run has no such value: a linear probe has no `width`.
"""

from __future__ import annotations

import io
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from emofuse.errors import ResultsError, did_you_mean
from emofuse.specs.pca import PCA
from emofuse.specs.streams import factor_defaults
from emofuse.specs.sweeps import Metric
from emofuse.specs.target_options import MAIN_SCORES
from emofuse.specs.train import NEWER
from emofuse.stores import replace_file
from emofuse.sweep.choice import mean_and_error
from emofuse.sweep.rows import RunRow

_METRICS: tuple[Metric, ...] = ("macro_f1", "accuracy", "ccc", "map", "loss")
_SCORES = tuple(f"val_{metric}" for metric in _METRICS)
_ERRORS = tuple(f"{score}_error" for score in _SCORES)
_NAMES = ("configuration", "sweep", "name")
_HEAD = (
    *("embed_dim", "depth", "width", "gate_dim", "attention_heads"),
    *("temporal", "spatial", "stem_width", "dropout"),
)
_TRAIN = (
    *("learning_rate", "weight_decay", "label_smoothing", "batch_size", "optimizer", "gradient_balancing", "epochs"),
    *NEWER,
)
_VARIANTS = tuple(factor_defaults())  # the factors of variants that every run records
_FACTORS = ("streams", "head", *_HEAD, *_TRAIN, *_VARIANTS)

RUN_COLUMNS = (
    *("digest", *_NAMES, *_FACTORS, "fold", "seed", *_SCORES),
    *("best_epoch", "last_epoch", "ended", "parameters", "seconds", "device", "created"),
)
CONFIGURATION_COLUMNS = (
    *(*_NAMES, *_FACTORS, "runs"),
    *(name for pair in zip(_SCORES, _ERRORS, strict=True) for name in pair),
    *("diverged", "halved", "parameters", "seconds"),
)
_DTYPES: dict[str, type[pl.DataType]] = {
    **dict.fromkeys((*RUN_COLUMNS, *CONFIGURATION_COLUMNS), pl.String),
    **dict.fromkeys(("embed_dim", "depth", "width", "gate_dim", "attention_heads", "stem_width"), pl.Int64),
    **dict.fromkeys(("batch_size", "epochs", *_VARIANTS, "fold", "seed", "runs"), pl.Int64),
    **dict.fromkeys(("best_epoch", "last_epoch", "diverged", "halved", "parameters"), pl.Int64),
    **dict.fromkeys(("dropout", "learning_rate", "weight_decay", "label_smoothing", "seconds"), pl.Float64),
    **dict.fromkeys((name for name, value in NEWER.items() if isinstance(value, float)), pl.Float64),
    **dict.fromkeys((*_SCORES, *_ERRORS), pl.Float64),
}

SHOWN_RUNS = ("name", "fold", "seed", *_SCORES, "best_epoch", "ended", "seconds")
SHOWN_CONFIGURATIONS = (
    *("name", "runs", *(name for score in _SCORES[:-1] for name in (score, f"{score}_error")), "val_loss"),
    *("diverged", "halved", "parameters", "seconds"),
)
_DIGESTS = ("digest", "configuration")  # printed by their first 16 digits, matched by any number of first digits
_LARGEST_FIRST = _SCORES[:-1]
_CONDITION = re.compile(r"\s*(\w+)\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*")
_ORDERS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Condition:
    """A condition on rows: `column=value`, or another comparison.

    Attributes:
        column: the name of the column.
        comparison: `=`, `!=`, `>`, `<`, `>=` or `<=`.
        value: the value as text; `none` matches a null cell.
    """

    column: str
    comparison: str
    value: str

    def expression(self, dtype: pl.DataType) -> pl.Expr:
        """Return the condition as a polars expression.

        Numbers are compared as numbers, so `1e-4` matches 0.0001. A null cell fulfils no order.

        Args:
            dtype: the type of the column.

        Raises:
            ResultsError: the condition orders text.
        """
        cell, number = pl.col(self.column), _number(self.value)
        if (compare := _ORDERS.get(self.comparison)) is not None:
            if dtype == pl.String or number is None:
                raise ResultsError(f"{self.column}{self.comparison}{self.value}: only numbers are in an order")
            ordered: pl.Expr = compare(cell.cast(pl.Float64), number)
            return ordered.fill_null(value=False)
        if dtype == pl.String:
            equal = cell.str.starts_with(self.value) if self.column in _DIGESTS else cell == self.value
        else:
            equal = pl.lit(value=False) if number is None else cell.cast(pl.Float64) == number
        equal = equal.fill_null(value=False)
        if self.value.lower() == "none":
            equal |= cell.is_null()
        return equal if self.comparison == "=" else ~equal


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """Parse conditions such as `["head=concat,fold=0", "val_macro_f1>=0.4"]`: one a text, or several with commas.

    Raises:
        ResultsError: a text is not a condition.
    """
    conditions = []
    for part in (part for text in texts for part in text.split(",")):
        match = _CONDITION.fullmatch(part)
        if match is None:
            raise ResultsError(f"{part!r} is no condition; write column=value (or != > < >= <=), with commas between")
        conditions.append(Condition(*match.groups()))
    return conditions


def run_table(rows: Iterable[RunRow]) -> pl.DataFrame:
    """Return a table with one row a run."""
    names = [name for name in RUN_COLUMNS if name not in _FACTORS]
    return _table([{**_factor_cells(row), **{name: getattr(row, name) for name in names}} for row in rows], RUN_COLUMNS)


def configuration_table(rows: Iterable[RunRow]) -> pl.DataFrame:
    """Return a table with one row a configuration: means over its folds and seeds and their errors (`..._error`).

    A folder may hold one fold and seed of a configuration twice, for two caches or two brackets of successive halving.
    The run that ended last counts.
    """
    groups: dict[str, dict[tuple[tuple[int, int] | None, int], RunRow]] = {}
    for row in rows:
        groups.setdefault(row.configuration, {})[row.drawn_fold, row.seed] = row
    return _table([_mean_cells(list(runs.values())) for runs in groups.values()], CONFIGURATION_COLUMNS)


def filter_rows(table: pl.DataFrame, conditions: Iterable[Condition]) -> pl.DataFrame:
    """Return the rows that fulfil all conditions.

    Raises:
        ResultsError: a column is not in the table, or a condition orders text.
    """
    conditions = list(conditions)
    _check_columns(table, [condition.column for condition in conditions])
    for condition in conditions:
        table = table.filter(condition.expression(table.schema[condition.column]))
    return table


def sort_rows(table: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return the rows sorted by a column: scores from the best, all else ascending, null cells last.

    Args:
        table: the table.
        column: the name of the column; `-` in front of it reverses the order.

    Raises:
        ResultsError: the column is not in the table.
    """
    name = column.removeprefix("-")
    _check_columns(table, [name])
    descending = (name in _LARGEST_FIRST) != column.startswith("-")
    return table.sort(name, descending=descending, nulls_last=True, maintain_order=True)


def main_score(table: pl.DataFrame) -> str:
    """Return the score by which the rows are compared: that of the first kind of target that they have."""
    scores = [f"val_{MAIN_SCORES[kind]}" for kind in MAIN_SCORES]
    return next((score for score in scores if table[score].null_count() < len(table)), scores[0])


def shown_columns(table: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the columns without the scores of targets that no row has."""
    of_targets = [name for name in columns if name.removesuffix("_error") in _LARGEST_FIRST]
    has_any = any(table[name].null_count() < len(table) for name in of_targets)
    left_out = {
        name
        for name in of_targets
        if table[name.removesuffix("_error")].null_count() == len(table)
        and (has_any or name.removesuffix("_error") in {"val_ccc", "val_map"})
    }
    return [name for name in columns if name not in left_out]


def select_columns(table: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the table with these columns, in this order.

    Raises:
        ResultsError: a column is not in the table.
    """
    _check_columns(table, columns)
    return table.select(list(dict.fromkeys(columns)))


def format_table(table: pl.DataFrame) -> str:
    """Return the table as aligned text: text left, numbers right."""
    padded = []
    for column in table:
        cells = [column.name, *(_cell_text(column.name, value) for value in column.to_list())]
        width = max(map(len, cells))
        is_text = column.dtype == pl.String and column.null_count() < len(column)
        padded.append([cell.ljust(width) if is_text else cell.rjust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def export_table(table: pl.DataFrame, path: Path) -> None:
    """Write the table as CSV or Parquet, by the suffix of the path. Numbers keep every digit.

    Raises:
        ResultsError: the suffix is another one, or the folder does not exist.
    """
    if path.suffix not in {".csv", ".parquet"}:
        raise ResultsError(f"{path}: results are exported to .csv or .parquet, by the ending of the name")
    if not path.parent.is_dir():
        raise ResultsError(f"{path}: there is no folder {path.parent} to write to")
    file = io.BytesIO()
    if path.suffix == ".csv":
        table.write_csv(file)
    else:
        table.write_parquet(file)
    replace_file(path, file.getvalue())


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pl.DataFrame:
    """Return cells as a table; variants of streams that are not emofuse's own get columns behind the factors."""
    place = columns.index(_FACTORS[-1]) + 1
    others = sorted({name for row in rows for name in row}.difference(columns))
    names = (*columns[:place], *others, *columns[place:])
    return pl.DataFrame([_series(name, [row.get(name) for row in rows]) for name in names])


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    """Return a column; values that do not fit its type, such as numbers beside text, become text."""
    try:
        return pl.Series(name, values, _DTYPES.get(name))
    except TypeError:
        return pl.Series(name, [None if value is None else str(value) for value in values], pl.String)


def _mean_cells(rows: Sequence[RunRow]) -> dict[str, Any]:
    first = rows[0]
    cells = {name: getattr(first, name) for name in (*_NAMES, "parameters")} | _factor_cells(first)
    for metric in _METRICS:
        cells[f"val_{metric}"], cells[f"val_{metric}_error"] = mean_and_error(rows, metric)
    return {
        **cells,
        "runs": len(rows),
        "diverged": sum(row.ended == "diverged" for row in rows),
        "halved": sum(row.ended == "halved" for row in rows),
        "seconds": sum(row.seconds for row in rows),
    }


def _factor_cells(row: RunRow) -> dict[str, Any]:
    features, head, train = (row.spec.get(part, {}) for part in ("features", "head", "train"))
    return {
        "streams": "+".join(features.get("streams", ())),
        "head": head.get("kind"),
        **{name: head.get(name) for name in _HEAD},
        **{name: train.get(name, NEWER.get(name)) for name in _TRAIN},
        **{name: value for name, value in features.items() if name not in {"streams", "neutral_label"}},
        **_pca_cell(features.get("streams", ())),
    }


def _pca_cell(streams: Any) -> dict[str, Any]:
    """Return the cell of the principal components of the streams, one for all or one for each; nothing without."""
    of_streams = {name: of[PCA] for name, of in streams.items() if PCA in of} if isinstance(streams, Mapping) else {}
    if not of_streams:
        return {}
    if len(of_streams) == len(streams) and len(set(of_streams.values())) == 1:
        return {PCA: next(iter(of_streams.values()))}
    return {PCA: ", ".join(f"{name} {value}" for name, value in of_streams.items())}


def _check_columns(table: pl.DataFrame, columns: Sequence[str]) -> None:
    unknown = [name for name in columns if name not in table.columns]
    if unknown:
        hints = " and ".join(f"{name!r}{did_you_mean(name, table.columns)}" for name in unknown)
        raise ResultsError(f"no such column: {hints} (there are: {', '.join(table.columns)})")


def _cell_text(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column in _DIGESTS:
        return str(value)[:16]
    if isinstance(value, float) and column == "seconds":
        return f"{value:.1f}"
    if isinstance(value, float) and column.startswith("val_"):
        return f"{value:.4f}"
    return str(value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
