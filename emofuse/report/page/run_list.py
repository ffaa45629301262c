"""The list of runs that a reader sorts and filters: one row for each run, with what tells configurations apart."""

from __future__ import annotations

from emofuse.report.configurations import (
    ReportedConfiguration,
    Results,
    find_metric,
    repeat_of,
    split_words,
    validation_score,
)
from emofuse.report.formats import UNDEFINED, format_score
from emofuse.report.search import SELECTS
from emofuse.report.tables import Cell, ReportTable, TableColumn
from emofuse.results import RunRecord
from emofuse.specs import EXACT_HEADS

FILTERED = ("Configuration", "Streams", "Head", "Split")
"""The columns that have a menu of their values."""


def run_list(results: Results) -> ReportTable:
    """Return the runs of the configurations, then those of the reference models."""
    pairs = [(item, run) for item in (*results.configurations, *results.references) for run in item.runs]
    runs = [run for _, run in pairs]
    repeats = [repeat_of(run) for run in runs]
    validations = [validation_score(run, results.select) for run in runs]
    return ReportTable(
        (
            TableColumn("Configuration", [Cell(item.label) for item, _ in pairs], "left"),
            TableColumn("Streams", [Cell(", ".join(item.streams)) for item, _ in pairs], "left"),
            TableColumn("Head", [Cell(head_text(item)) for item, _ in pairs], "left"),
            TableColumn("Split", [Cell(split_words(split)) for split, _ in repeats], "left"),
            TableColumn("Seed", [Cell(str(seed)) for _, seed in repeats]),
            TableColumn(f"Validation {SELECTS[results.select]}", [Cell(format_score(value)) for value in validations]),
            *(
                TableColumn(
                    f"Test {score.name}",
                    [Cell(format_score(find_metric(run, score.path), score.decimals)) for run in runs],
                )
                for score in map(results.in_table, results.target.leading)
            ),
            TableColumn("Best epoch", [Cell(_epoch(run)) for run in runs]),
            TableColumn("Parameters", [Cell(f"{run.parameters:,}") for run in runs]),
            TableColumn("Training (s)", [Cell(f"{run.seconds:.1f}") for run in runs]),
            TableColumn("Run", [Cell(run.digest[:16]) for run in runs], "left"),
        )
    )


def head_text(item: ReportedConfiguration) -> str:
    """Return the kind of the head, and how many of them answer together."""
    kind = str(item.spec["head"]["kind"])
    return f"{kind}, {item.heads} heads" if item.heads > 1 else kind


def _epoch(run: RunRecord) -> str:
    return UNDEFINED if run.spec["head"]["kind"] in EXACT_HEADS else str(run.best_epoch)
