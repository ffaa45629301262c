"""The reference models of a report: rows beneath the table of configurations, apart from everything that compares.

They are runs with `reference: true` in their spec (see `emofuse.training.references`). They have scores and intervals.
They are never the baseline, never best, in no test and in no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import Results
from emofuse.report.formats import format_difference, format_interval, format_score, format_sd
from emofuse.report.notes import gather_further_notes
from emofuse.report.tables import Cell, ReportTable, TableColumn, streams_text

RowsOf = Callable[[Results], Sequence[Mapping[str, Any]]]
"""Makes the plain numbers of results, one dict for each row."""


def notes_on_references(results: Results, uncertainty: Uncertainty, of_models: Sequence[str] = ()) -> list[str]:
    """Return the sentences beneath the table of reference models.

    Args:
        results: the configurations and the reference models.
        uncertainty: the intervals of both.
        of_models: sentences on how models were chosen, and on those that could not be solved.
    """
    if not results.references:
        return [*of_models]
    runs_of = ((item.label, run) for item in results.references for run in item.runs)
    further = gather_further_notes(results.runs, runs_of)
    return [_purpose(results), *of_models, *further, *uncertainty.reference_problems]


def marked_rows(results: Results, rows_of: RowsOf) -> list[dict[str, Any]]:
    """Return the plain numbers of configurations, then of reference models; the column `reference` tells them apart."""
    parts = [("false", results)] + [("true", results.of_references)] * bool(results.references)
    return [{**row, "reference": mark} for mark, of in parts for row in rows_of(of)]


def references_table(results: Results, uncertainty: Uncertainty) -> ReportTable | None:
    """Return the scores of the reference models, one row each, of which none is marked as best; None without any."""
    items = results.references
    if not items:
        return None
    columns = [
        TableColumn("Reference model", [Cell(item.label) for item in items], "left"),
        TableColumn("Streams", [Cell(streams_text(item)) for item in items], "left"),
        TableColumn("Repeats", [Cell(str(len(item.runs))) for item in items]),
    ]
    for score in map(results.in_table, results.target.leading):
        decimals, spreads = score.decimals, [item.metric(score.path) for item in items]
        intervals = [uncertainty.interval(item.label, score.path) for item in items]
        cells = [
            Cell(
                format_score(spread.mean, decimals),
                format_sd(spread, decimals),
                format_interval(interval, decimals=decimals),
            )
            for spread, interval in zip(spreads, intervals, strict=True)
        ]
        gains = [results.difference(item, score.path) for item in items]
        differences = [Cell(format_difference(gain.mean, decimals), format_sd(gain, decimals)) for gain in gains]
        columns += [TableColumn(score.title, cells), TableColumn(score.difference, differences)]
    return ReportTable(tuple(columns))


def _purpose(results: Results) -> str:
    """Return what the rows are for, in words for a reader of the report."""
    return (
        "Reference models are what one would do without a fusion network, on the same features, splits and rows: "
        f"{results.target.words.references}; then the same on fewer streams. A configuration that is not above them "
        "gains nothing by its network. They are solved exactly and without randomness, in one run for each split; "
        "their intervals are made like those above. Nothing is chosen by them, they take no part in the comparisons "
        f"and the correction of p values, and Δ is their difference to {results.baseline.label}."
    )
