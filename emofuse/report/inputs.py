"""Makes the tables on the inputs of the runs: labels and splits, streams and their weights, rows without a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from emofuse.report.configurations import Results, Spread, shares_rows
from emofuse.report.formats import format_range
from emofuse.report.tables import Cell, ReportTable, TableColumn
from emofuse.report.targets import part_entries
from emofuse.results import RunRecord
from emofuse.specs import is_random

SPLITS = {"train": "Train", "val": "Validation", "test": "Test"}
_SHORT = 12  # hex digits shown of a digest


@dataclass(frozen=True)
class StreamUse:
    """One stream as some runs used it.

    Attributes:
        name: the name in the cache.
        label: the name, with the digest if two caches have streams of this name.
        stream: the record of the stream in the runs.
        runs: the runs that used it.
        widths: the numbers of values that heads saw; they differ if configurations derive different features.
    """

    name: str
    label: str
    stream: Mapping[str, Any]
    runs: tuple[RunRecord, ...]
    widths: tuple[int, ...]

    def missing(self, status: str | None, splits: Iterable[str]) -> Spread:
        """Return the number of rows of the splits that lack the stream with one or any status, over the runs."""
        counts = []
        for run in self._runs_by_split:
            tables = [run.rows[split]["missing"].get(self.name, {}) for split in splits]
            counts.append(sum(sum(table.values()) if status is None else table.get(status, 0) for table in tables))
        return Spread.of(counts)

    def rows(self, splits: Iterable[str]) -> Spread:
        """Return the number of rows of the splits, over the runs."""
        return Spread.of(sum(run.rows[split]["rows"] for split in splits) for run in self._runs_by_split)

    @property
    def _runs_by_split(self) -> list[RunRecord]:
        """The runs that count each row once, or all runs."""
        return [run for run in self.runs if not shares_rows(run)] or list(self.runs)

    @property
    def is_empty(self) -> bool:
        """Whether no row of any run has the stream."""
        return self.missing(None, SPLITS).low == self.rows(SPLITS).high


def stream_uses(results: Results) -> list[StreamUse]:
    """Return every stream of the report, in order of first use."""
    users: dict[tuple[str, str], list[RunRecord]] = {}
    for run in results.runs:
        for name in run.spec["features"]["streams"]:
            users.setdefault((name, run.streams[name]["digest"]), []).append(run)
    names = [name for name, _ in users]
    return [
        StreamUse(
            name=name,
            label=name if names.count(name) == 1 else f"{name} ({digest[:8]})",
            stream=runs[0].streams[name],
            runs=tuple(runs),
            widths=tuple(sorted({run.streams[name]["used_dim"] for run in runs})),
        )
        for (name, digest), runs in users.items()
    ]


def streams_table(uses: Iterable[StreamUse]) -> ReportTable:
    """Return a table with one row for each stream: its kind, its width, its weights and its digests."""
    rows = [(use, use.stream["weights"] or {}) for use in uses]
    return ReportTable(
        (
            TableColumn("Stream", [Cell(use.label) for use, _ in rows], "left"),
            TableColumn("Kind", [Cell(use.stream["kind"]) for use, _ in rows], "left"),
            TableColumn("Values", [Cell(_widths(use)) for use, _ in rows]),
            TableColumn("Weights", [Cell(_weights(use.stream)) for use, _ in rows], "left"),
            TableColumn(
                "SHA-256 of weights", [Cell((weights.get("sha256") or "–")[:_SHORT]) for _, weights in rows], "left"
            ),
            TableColumn("Digest of stream", [Cell(use.stream["digest"][:_SHORT]) for use, _ in rows], "left"),
        )
    )


def missing_table(uses: Iterable[StreamUse]) -> ReportTable:
    """Return a table with one row for each stream and reason: the rows that lack the stream, by split and in all."""
    labels, reasons, counts = [], [], []
    for use in uses:
        seen = {
            status for run in use.runs for split in SPLITS for status in run.rows[split]["missing"].get(use.name, {})
        }
        for status in sorted(seen) or [None]:
            labels.append(Cell(use.label))
            reasons.append(Cell("none missing" if status is None else status.replace("_", " ")))
            counts.append([_share(use, status, [split]) for split in SPLITS] + [_share(use, status, list(SPLITS))])
    titles = [*SPLITS.values(), "All"]
    columns = [TableColumn(title, [Cell(row[index]) for row in counts]) for index, title in enumerate(titles)]
    return ReportTable((TableColumn("Stream", labels, "left"), TableColumn("Reason", reasons, "left"), *columns))


def labels_table(results: Results, *, numbered: bool = False) -> ReportTable:
    """Return a table of rows by split, one row for each label and one for all; with the numbers of labels.

    Numbers have no labels, and all rows have every column: their table has one row.
    """
    if not results.target.support:
        return _all_rows_table(results)
    columns = [TableColumn("Label", [*map(Cell, results.classes), Cell("All")], "left")]
    if numbered:
        columns.append(
            TableColumn("No.", [*(Cell(str(place)) for place, _ in enumerate(results.classes, start=1)), Cell("")])
        )
    for split, title in SPLITS.items():
        key = results.target.support.lower()
        by_run = [_supports(run, split, key) for run in results.runs_by_split]
        if all(by_run):
            spreads = [Spread.of(values) for values in zip(*by_run, strict=True)]
            # A row may have several labels at once, so that their numbers do not add up to that of the rows.
            rows = [run.rows[split]["rows"] for run in results.runs_by_split]
            total = Spread.of(rows if not results.target.has_classes else [sum(values) for values in by_run])
            columns.append(TableColumn(title, [Cell(format_range(spread)) for spread in [*spreads, total]]))
    return ReportTable(tuple(columns))


def _all_rows_table(results: Results) -> ReportTable:
    columns = [TableColumn("Rows", [Cell("All")], "left")]
    for split, title in SPLITS.items():
        spread = Spread.of(run.rows[split]["rows"] for run in results.runs_by_split)
        columns.append(TableColumn(title, [Cell(format_range(spread))]))
    return ReportTable(tuple(columns))


def _supports(run: RunRecord, split: str, key: str) -> list[int]:
    """Return the rows of each label in a split; an empty list if the run was saved without them."""
    metrics = run.metrics.get(split, {})
    entries = part_entries(metrics, tuple(run.classes)) if {"per_class", "columns"} & metrics.keys() else []
    return [entry[key] for entry in entries] if all(key in entry for entry in entries) else []


def _widths(use: StreamUse) -> str:
    stored = use.stream["dim"]
    used = ", ".join(f"{width:,}" for width in use.widths)
    return used if use.widths == (stored,) else f"{used} of {stored:,}"


def _weights(stream: Mapping[str, Any]) -> str:
    weights = stream["weights"]
    if not weights:
        return "none needed"
    if is_random(stream["weights"]):
        return f"RANDOM, seed {weights.get('seed')}"
    return f"{weights.get('name') or 'unnamed'} ({weights['kind']})"


def _share(use: StreamUse, status: str | None, splits: list[str]) -> str:
    """Return rows and percent; the range of rows if splits differ between repeats."""
    missing, rows = use.missing(status, splits), use.rows(splits)
    if missing.high == 0:
        return "0"
    return f"{format_range(missing)} ({100 * missing.mean / rows.mean:.1f} %)"
