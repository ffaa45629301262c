"""The reference models of a report: rows beneath the table of configurations, apart from everything that compares.

They are runs with `reference: true` in their spec (see `emofuse.training.references`). They have scores and intervals.
They are never the baseline, never best, in no test and in no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emofuse.report.comparisons import Uncertainty, measure_uncertainty
from emofuse.report.configurations import Results
from emofuse.report.formats import format_difference, format_interval, format_score, format_sd
from emofuse.report.notes import gather_further_notes
from emofuse.report.tables import Cell, ReportTable, TableColumn, streams_text

RowsOf = Callable[[Results, Uncertainty], Sequence[Mapping[str, Any]]]
"""Makes the plain numbers of results, one dict for each row."""


@dataclass(frozen=True)
class ReportedReferences:
    """The reference models of a report.

    Attributes:
        results: the results with the reference models in the place of the configurations, and the same baseline.
        uncertainty: their intervals; no comparison.
        notes: the sentences beneath their table.
    """

    results: Results
    uncertainty: Uncertainty
    notes: tuple[str, ...]


def report_references(
    results: Results, uncertainty: Uncertainty, runs: Path, notes_on_models: Sequence[str] = ()
) -> ReportedReferences | None:
    """Return the reference models of a report; None if there are none and nothing is to be said of them.

    Args:
        results: the configurations, with the reference models.
        uncertainty: the intervals of the configurations.
        runs: the folder of the saved runs.
        notes_on_models: sentences on how models were chosen, and on those that could not be solved.
    """
    if not results.references and not notes_on_models:
        return None
    of_references = replace(results, configurations=results.references, references=())
    notes = list(notes_on_models)
    if results.references:
        uncertainty = measure_uncertainty(replace(of_references, baseline=results.references[0]), runs)
        without_interval = [problem for problem in uncertainty.problems if "no interval" in problem]
        runs_of = ((item.label, run) for item in results.references for run in item.runs)
        notes = [_purpose(results), *notes_on_models, *gather_further_notes(results.runs, runs_of), *without_interval]
    intervals = uncertainty.intervals if results.references else {}
    uncertainty = replace(uncertainty, intervals=intervals, comparisons={}, problems=())
    return ReportedReferences(of_references, uncertainty, tuple(notes))


def with_references(
    rows_of: RowsOf,
    results: Results,
    uncertainty: Uncertainty,
    references: ReportedReferences | None,
) -> list[dict[str, Any]]:
    """Return the plain numbers of configurations, then of reference models; the column `reference` tells them apart."""
    rows = [{**row, "reference": "false"} for row in rows_of(results, uncertainty)]
    if references is None:
        return rows
    return rows + [{**row, "reference": "true"} for row in rows_of(references.results, references.uncertainty)]


def references_table(references: ReportedReferences) -> ReportTable | None:
    """Return the scores of the reference models, one row each, of which none is marked as best; None without any."""
    items, results = references.results.configurations, references.results
    if not items:
        return None
    columns = [
        TableColumn("Reference model", [Cell(item.label) for item in items], "left"),
        TableColumn("Streams", [Cell(streams_text(item)) for item in items], "left"),
        TableColumn("Repeats", [Cell(str(len(item.runs))) for item in items]),
    ]
    for score in map(results.in_table, results.target.leading):
        decimals, spreads = score.decimals, [item.metric(score.path) for item in items]
        intervals = [references.uncertainty.intervals.get(item.label, {}).get(score.path) for item in items]
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
