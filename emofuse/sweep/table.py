"""Rows of searched runs as a table: filtered, sorted, averaged over folds and seeds, shown as text or exported."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from emofuse.errors import ResultsError, did_you_mean
from emofuse.specs.sweeps import Metric
from emofuse.sweep.choice import mean_and_error
from emofuse.sweep.store import RunRow

Value = str | int | float | None

HEAD = (
    "embed_dim",
    "depth",
    "width",
    "gate_dim",
    "attention_heads",
    "temporal",
    "spatial",
    "stem_width",
    "dropout",
)
TRAIN = ("learning_rate", "weight_decay", "label_smoothing", "batch_size", "optimizer", "gradient_balancing", "epochs")
FEATURES = ("lbp_bins", "action_units")
_NO_VARIANTS = ("streams", "neutral_label")
FACTORS = ("streams", "head", *HEAD, *TRAIN, *FEATURES)
"""Columns that say what a configuration is; a head without a setting has none in its column."""

METRICS: tuple[Metric, ...] = ("macro_f1", "accuracy", "loss")
SCORES = ("val_macro_f1", "val_accuracy", "val_loss")
SHOWN_RUNS = ("name", "fold", "seed", *SCORES, "best_epoch", "ended", "seconds")
SHOWN_CONFIGURATIONS = (
    "name",
    "runs",
    "val_macro_f1",
    "val_macro_f1_error",
    "val_accuracy",
    "val_accuracy_error",
    "val_loss",
    "diverged",
    "halved",
    "parameters",
    "seconds",
)
_DIGESTS = ("digest", "configuration")  # shown by their first 16 digits, found by any first ones
_BEST_IS_LARGEST = ("val_macro_f1", "val_accuracy")
_CONDITION = re.compile(r"\s*(\w+)\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*")
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": lambda found, given: found > given,
    "<": lambda found, given: found < given,
    ">=": lambda found, given: found >= given,
    "<=": lambda found, given: found <= given,
}


@dataclass(frozen=True)
class Condition:
    """`column=value`, or another comparison: what rows must fulfil.

    Attributes:
        column: its name.
        comparison: `=`, `!=`, `>`, `<`, `>=` or `<=`.
        value: as text; `none` is an empty cell.
    """

    column: str
    comparison: str
    value: str

    def holds(self, found: Value) -> bool:
        """Whether a cell fulfils it. Numbers are compared as numbers, `1e-4` is 0.0001; an empty cell is in no order.

        Raises:
            ResultsError: an order asked of text.
        """
        if (compare := _COMPARISONS.get(self.comparison)) is not None:
            number = _number(self.value)
            if isinstance(found, str) or number is None:
                raise ResultsError(f"{self.column}{self.comparison}{self.value}: only numbers are in an order")
            return found is not None and compare(found, number)
        if found is None:
            equal = self.value.lower() == "none"
        elif isinstance(found, str):
            equal = found.startswith(self.value) if self.column in _DIGESTS else found == self.value
        else:
            equal = _number(self.value) == found
        return equal == (self.comparison == "=")


@dataclass(frozen=True)
class ResultsTable:
    """Rows of plain values under named columns.

    Attributes:
        columns: their names.
        rows: column -> value, None for an empty cell.
    """

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Value], ...]

    @classmethod
    def of_runs(cls, rows: Sequence[RunRow]) -> Self:
        """One row a run."""
        variants = _other_variants(rows)
        return cls(_with(_RUN_COLUMNS, variants), tuple({**dict.fromkeys(variants), **_run_cells(row)} for row in rows))

    @classmethod
    def of_configurations(cls, rows: Sequence[RunRow]) -> Self:
        """One row a configuration: means over its folds and seeds, with their standard errors (`..._error`).

        Where a folder has one fold and seed of a configuration twice (of two caches, or two brackets of successive
        halving), the run that ended last counts.
        """
        groups: dict[str, dict[tuple[int | None, int], RunRow]] = {}
        for row in rows:
            groups.setdefault(row.configuration, {})[row.fold, row.seed] = row
        variants = _other_variants(rows)
        cells = (_mean_cells(list(own.values())) for own in groups.values())
        return cls(
            _with(_CONFIGURATION_COLUMNS, variants), tuple({**dict.fromkeys(variants), **each} for each in cells)
        )

    def where(self, conditions: Sequence[Condition]) -> Self:
        """The rows that fulfil all conditions.

        Raises:
            ResultsError: a column that is not there, or an order asked of text.
        """
        self._check([condition.column for condition in conditions])
        kept = tuple(row for row in self.rows if all(each.holds(row[each.column]) for each in conditions))
        return type(self)(self.columns, kept)

    def sorted_by(self, column: str) -> Self:
        """Rows by a column, empty cells last: scores from the best, all else ascending; `-column` turns it round.

        Raises:
            ResultsError: a column that is not there.
        """
        name = column.removeprefix("-")
        self._check([name])
        downwards = (name in _BEST_IS_LARGEST) != column.startswith("-")
        filled = [row for row in self.rows if row[name] is not None]
        empty = [row for row in self.rows if row[name] is None]
        filled.sort(key=lambda row: _sort_key(row[name]), reverse=downwards)
        return type(self)(self.columns, (*filled, *empty))

    def select(self, columns: Sequence[str]) -> Self:
        """Some columns, in this order.

        Raises:
            ResultsError: a column that is not there.
        """
        self._check(columns)
        return type(self)(tuple(columns), tuple({name: row[name] for name in columns} for row in self.rows))

    def top(self, count: int) -> Self:
        """The first so many rows."""
        return type(self)(self.columns, self.rows[:count])

    def text(self) -> str:
        """Aligned columns: names left, numbers right."""
        texts = {name: [_cell_text(name, row[name]) for row in self.rows] for name in self.columns}
        padded = []
        for name, cells in texts.items():
            width = max(map(len, [name, *cells]))
            left = any(isinstance(row[name], str) for row in self.rows)
            padded.append([cell.ljust(width) if left else cell.rjust(width) for cell in [name, *cells]])
        return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))

    def export(self, path: Path) -> None:
        """Writes CSV or Parquet, by the ending of the name; numbers are written exactly.

        Raises:
            ResultsError: another ending, or a folder that is not there.
        """
        if path.suffix not in {".csv", ".parquet"}:
            raise ResultsError(f"{path}: results are exported to .csv or .parquet, by the ending of the name")
        if not path.parent.is_dir():
            raise ResultsError(f"{path}: there is no folder {path.parent} to write to")
        import polars as pl

        data = {name: [row[name] for row in self.rows] for name in self.columns}
        frame = pl.DataFrame(data, schema={name: _type_of(name, data[name]) for name in self.columns})
        partial = path.with_name(f".{path.name}.partial")
        if path.suffix == ".csv":
            frame.write_csv(partial)
        else:
            frame.write_parquet(partial)
        partial.replace(path)

    def _check(self, columns: Sequence[str]) -> None:
        unknown = [name for name in columns if name not in self.columns]
        if unknown:
            hints = " and ".join(f"{name!r}{did_you_mean(name, self.columns)}" for name in unknown)
            raise ResultsError(f"no such column: {hints} (there are: {', '.join(self.columns)})")


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """`["head=concat,fold=0", "val_macro_f1>=0.4"]`: conditions, with commas or one a text.

    Raises:
        ResultsError: a text that is no condition.
    """
    conditions = []
    for part in (part for text in texts for part in text.split(",")):
        match = _CONDITION.fullmatch(part)
        if match is None:
            raise ResultsError(f"{part!r} is no condition; write column=value (or != > < >= <=), with commas between")
        conditions.append(Condition(*match.groups()))
    return conditions


def _run_cells(row: RunRow) -> dict[str, Value]:
    return {
        "digest": row.digest,
        "configuration": row.configuration,
        "sweep": row.sweep,
        "name": row.name,
        **_factor_cells(row),
        **{name: getattr(row, name) for name in ("fold", "seed", *SCORES)},
        **{name: getattr(row, name) for name in ("best_epoch", "last_epoch", "ended", "parameters", "seconds")},
        "device": row.device,
        "created": row.created,
    }


def _mean_cells(rows: Sequence[RunRow]) -> dict[str, Value]:
    first = rows[0]
    scores: dict[str, Value] = {}
    for name, metric in zip(SCORES, METRICS, strict=True):
        scores[name], scores[f"{name}_error"] = mean_and_error(rows, metric)
    return {
        "configuration": first.configuration,
        "sweep": first.sweep,
        "name": first.name,
        **_factor_cells(first),
        "runs": len(rows),
        **scores,
        "diverged": sum(row.ended == "diverged" for row in rows),
        "halved": sum(row.ended == "halved" for row in rows),
        "parameters": first.parameters,
        "seconds": sum(row.seconds for row in rows),
    }


def _factor_cells(row: RunRow) -> dict[str, Value]:
    features, head, train = (row.spec.get(part, {}) for part in ("features", "head", "train"))
    return {
        "streams": "+".join(features.get("streams", ())),
        "head": head.get("kind"),
        **{name: head.get(name) for name in HEAD},
        **{name: train.get(name) for name in TRAIN},
        **{name: features.get(name) for name in FEATURES},
        **{name: value for name, value in features.items() if name not in _NO_VARIANTS},
    }


def _other_variants(rows: Sequence[RunRow]) -> tuple[str, ...]:
    """Factors of streams of kinds that are not emofuse's, as far as some row has them."""
    found = {name for row in rows for name in row.spec.get("features", {})}
    return tuple(sorted(found - {*_NO_VARIANTS, *FEATURES}))


def _with(columns: tuple[str, ...], variants: tuple[str, ...]) -> tuple[str, ...]:
    """The columns, with those of further variants behind the factors."""
    place = columns.index(FACTORS[-1]) + 1
    return (*columns[:place], *variants, *columns[place:])


_RUN_COLUMNS = (
    *("digest", "configuration", "sweep", "name"),
    *FACTORS,
    *("fold", "seed", *SCORES, "best_epoch", "last_epoch", "ended", "parameters", "seconds", "device", "created"),
)
_CONFIGURATION_COLUMNS = (
    *("configuration", "sweep", "name"),
    *FACTORS,
    *("runs", *(f"{name}{ending}" for name in SCORES for ending in ("", "_error"))),
    *("diverged", "halved", "parameters", "seconds"),
)
_INTEGERS = (
    "embed_dim",
    "depth",
    "width",
    "gate_dim",
    "attention_heads",
    "stem_width",
    "batch_size",
    "epochs",
    *FEATURES,
)
_COUNTS = ("fold", "seed", "best_epoch", "last_epoch", "parameters", "runs", "diverged", "halved")
_NUMBERS = ("dropout", "learning_rate", "weight_decay", "label_smoothing", "seconds")
_TYPES: dict[str, type] = {
    **dict.fromkeys((*_INTEGERS, *_COUNTS), int),
    **dict.fromkeys((*_NUMBERS, *SCORES, *(f"{name}_error" for name in SCORES)), float),
}


def _type_of(column: str, values: Sequence[Value]) -> type:
    """Of a column's cells; those of further variants are what their values are."""
    if column in _TYPES:
        return _TYPES[column]
    kinds = {type(value) for value in values if value is not None}
    return kinds.pop() if len(kinds) == 1 else str


def _cell_text(column: str, value: Value) -> str:
    if value is None:
        return "-"
    if column in _DIGESTS:
        return str(value)[:16]
    if isinstance(value, float):
        if column == "seconds":
            return f"{value:.1f}"
        return f"{value:.4f}" if column.startswith("val_") else f"{value!r}"
    return str(value)


def _sort_key(value: Value) -> tuple[str, float]:
    return (value, 0.0) if isinstance(value, str) else ("", 0.0 if value is None else value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
