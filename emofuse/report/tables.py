"""Builds the tables of a report as cells, which are shown as Markdown, as HTML (by the page) and as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from emofuse.report.comparisons import ReportComparison, Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results, Spread, find_metric, repeat_of, split_words
from emofuse.report.ensembles import answer_texts
from emofuse.report.formats import (
    UNDEFINED,
    escape_markdown,
    format_difference,
    format_interval,
    format_p,
    format_range,
    format_score,
    format_sd,
)
from emofuse.report.measures import class_path
from emofuse.results import RunRecord
from emofuse.specs import EXACT_HEADS

METRICS = {
    "accuracy": "Accuracy",
    "macro.precision": "Macro P",
    "macro.recall": "Macro R",
    "macro.f1": "Macro F1",
    "weighted.precision": "Weighted P",
    "weighted.recall": "Weighted R",
    "weighted.f1": "Weighted F1",
    "macro.specificity": "Specificity",
}
"""The metrics of the summary in its order: place in a run's metrics -> heading."""

MOST_ACROSS = 20
"""The largest number of labels that are columns of a table."""

CLASS_METRICS = {"precision": "Precision", "recall": "Recall", "f1": "F1", "specificity": "Specificity"}
COMPARED = {"accuracy": "Δ accuracy", "macro.f1": "Δ macro F1"}


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the text or number.
        spread: the standard deviation of the number.
        interval: both ends of the interval of the number.
        best: whether the number is the best of its column.
    """

    text: str
    spread: str = ""
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class TableColumn:
    """One column of a table, with names to the left or numbers to the right."""

    title: str
    cells: Sequence[Cell]
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class ReportTable:
    """A table of one or more columns of equal length."""

    columns: tuple[TableColumn, ...]

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """The cells row by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))


def scores_table(results: Results, uncertainty: Uncertainty) -> ReportTable:
    """Return the main scores, one row for each configuration."""
    pairs = [
        column for path in COMPARED for column in (_measured(results, uncertainty, path), _difference(results, path))
    ]
    return ReportTable((_labels(results), _repeats(results), *pairs, *_reachable(results)))


def comparisons_table(results: Results, uncertainty: Uncertainty) -> ReportTable:
    """Return differences with intervals and corrected p values, one row for each comparison.

    The comparisons are those of every configuration with the baseline, and then those that were asked for.
    """
    rows = comparisons_of(results, uncertainty)
    compared = [one for _, _, one in rows]
    columns = [TableColumn("Configuration", [Cell(first.label) for first, _, _ in rows], "left")]
    if uncertainty.pairs:
        columns.append(TableColumn("Compared with", [Cell(second.label) for _, second, _ in rows], "left"))
    for path, title in COMPARED.items():
        differences = [
            Cell(
                format_difference(results.difference(first, path, second).mean),
                interval=format_interval(one.tests[path].interval, signed=True) if one else "",
            )
            for first, second, one in rows
        ]
        p_values = [Cell(format_p(one.corrected[path]) if one else UNDEFINED) for one in compared]
        columns += [TableColumn(title, differences), TableColumn("p", p_values)]
    columns += [
        TableColumn("Lost", [Cell(f"{one.mcnemar.lost:,}" if one else UNDEFINED) for one in compared]),
        TableColumn("Gained", [Cell(f"{one.mcnemar.gained:,}" if one else UNDEFINED) for one in compared]),
        TableColumn("McNemar p", [Cell(format_p(one.mcnemar_corrected) if one else UNDEFINED) for one in compared]),
    ]
    return ReportTable(tuple(columns))


ComparedPair = tuple[ReportedConfiguration, ReportedConfiguration, ReportComparison | None]
"""A configuration, the one that it is compared with, and the comparison; None if it could not be computed."""


def comparisons_of(results: Results, uncertainty: Uncertainty) -> list[ComparedPair]:
    """Return all comparisons of a report in the order of its table."""
    items = {item.label: item for item in results.configurations}
    others = [item for item in items.values() if item is not results.baseline]
    rows: list[ComparedPair] = [(item, results.baseline, uncertainty.comparisons.get(item.label)) for item in others]
    return rows + [(items[first], items[second], one) for (first, second), one in uncertainty.pairs.items()]


def detail_table(results: Results, uncertainty: Uncertainty) -> ReportTable:
    """Return precision, recall and specificity, one row for each configuration.

    Six columns have room for intervals or deviations; intervals come first.
    """
    columns = [_measured(results, uncertainty, path) for path in METRICS if path not in COMPARED]
    if any(cell.interval for column in columns for cell in column.cells):
        columns = [_bare(column) for column in columns]
    return ReportTable((_labels(results), *columns))


def _epochs_cell(item: ReportedConfiguration) -> Cell:
    """Return the best epochs over the repeats; heads that are solved have none."""
    if item.spec["head"]["kind"] in EXACT_HEADS:
        return Cell(UNDEFINED)
    epochs = [[head["best_epoch"] for head in run.heads] or [run.best_epoch] for run in item.runs]
    return Cell(format_range(Spread.of(epoch for of_run in epochs for epoch in of_run)))


def _epoch_cell(run: RunRecord) -> Cell:
    return Cell(UNDEFINED if run.spec["head"]["kind"] in EXACT_HEADS else str(run.best_epoch))


def streams_text(item: ReportedConfiguration) -> str:
    """Return the streams of a configuration, with a mark of those with random weights."""
    return ", ".join(f"{name} (random weights)" if name in item.random_streams else name for name in item.streams)


def cost_table(results: Results) -> ReportTable:
    """Return the streams and the cost of training, one row for each configuration."""
    items = results.configurations
    seconds = [Spread.of(run.seconds for run in item.runs).mean for item in items]
    return ReportTable(
        (
            _labels(results),
            TableColumn("Streams", [Cell(streams_text(item)) for item in items], "left"),
            *_answers(results),
            TableColumn("Parameters", [Cell(f"{item.runs[0].parameters:,}") for item in items]),
            TableColumn("Best epoch", [_epochs_cell(item) for item in items]),
            TableColumn("Train s", [Cell(f"{value:.1f}") for value in seconds]),
        )
    )


def _answers(results: Results) -> list[TableColumn]:
    """Return what answers in each configuration, if there are ensembles or second trainings."""
    texts = answer_texts(results)
    return [TableColumn("Answer", [Cell(text) for text in texts], "left")] if texts else []


def class_f1_table(results: Results, *, numbered: bool = False) -> ReportTable:
    """Return the F1 of every class and configuration as means without deviations, because there may be twenty of each.

    Classes are columns or, if there are many, rows.

    Args:
        results: the configurations.
        numbered: whether figures show labels by number, so that readers need these numbers.
    """
    by_class = list(zip(*(item.class_metric("f1") for item in results.configurations), strict=True))
    if len(results.classes) > MOST_ACROSS:
        down = TableColumn("Class", [Cell(label) for label in results.classes], "left")
        items = zip(results.configurations, zip(*by_class, strict=True), strict=True)
        number = _class_numbers(results.classes) if numbered else ()
        return ReportTable(
            (
                down,
                *number,
                *(_bare(TableColumn(item.label, [_score(one) for one in spreads])) for item, spreads in items),
            )
        )
    titles = [f"{place}: {label}" if numbered else label for place, label in enumerate(results.classes, start=1)]
    columns = [_scores(title, spreads) for title, spreads in zip(titles, by_class, strict=True)]
    return ReportTable((_labels(results), *map(_bare, columns)))


def _bare(column: TableColumn) -> TableColumn:
    """Return a column of means without their deviations."""
    return replace(column, cells=[replace(cell, spread="") for cell in column.cells])


def per_class_table(
    configuration: ReportedConfiguration,
    classes: Sequence[str],
    uncertainty: Uncertainty,
    *,
    numbered: bool = False,
    ranked: bool = False,
) -> ReportTable:
    """Return the scores of one configuration with their intervals, one row for each class.

    Args:
        configuration: the configuration.
        classes: the names of its labels.
        uncertainty: the intervals.
        numbered: whether figures show labels by number, so that readers need these numbers.
        ranked: whether a figure shows labels in the order of their F1, so that readers need these ranks.
    """
    intervals = uncertainty.intervals.get(configuration.label, {})
    scores = []
    for key, title in CLASS_METRICS.items():
        ends = [format_interval(intervals.get(class_path(label, key))) for label in range(len(classes))]
        spreads = zip(configuration.class_metric(key), ends, strict=True)
        scores.append(TableColumn(title, [replace(_score(spread), interval=end) for spread, end in spreads]))
    support = TableColumn("Support", [Cell(format_range(spread)) for spread in configuration.class_metric("support")])
    number = _class_numbers(classes) if numbered else ()
    rank = [TableColumn("Rank by F1", [Cell(str(place)) for place in configuration.f1_ranks])] if ranked else []
    return ReportTable(
        (TableColumn("Class", [Cell(label) for label in classes], "left"), *number, *scores, support, *rank)
    )


def _class_numbers(classes: Sequence[str]) -> tuple[TableColumn]:
    """Return the column of the numbers by which figures show labels."""
    return (TableColumn("No.", [Cell(str(place)) for place, _ in enumerate(classes, start=1)]),)


def all_classes_table(
    results: Results, uncertainty: Uncertainty, *, numbered: bool = False, ranked: bool = False
) -> ReportTable:
    """Return the columns of `per_class_table`, one row for each configuration and class."""
    tables = [
        per_class_table(item, results.classes, uncertainty, numbered=numbered, ranked=ranked)
        for item in results.configurations
    ]
    labels = [Cell(item.label) for item in results.configurations for _ in results.classes]
    stacked = zip(*(table.columns for table in tables), strict=True)
    columns = [replace(parts[0], cells=[cell for part in parts for cell in part.cells]) for parts in stacked]
    return ReportTable((TableColumn("Configuration", labels, "left"), *columns))


def runs_table(results: Results) -> ReportTable:
    """Return the scores of single runs, one row for each run."""
    runs = results.runs
    labels = [Cell(item.label) for item in results.configurations for _ in item.runs]
    seeds = [repeat_of(run) for run in runs]
    return ReportTable(
        (
            TableColumn("Configuration", labels, "left"),
            TableColumn("Run", [Cell(run.digest[:16]) for run in runs], "left"),
            TableColumn("Split", [Cell(split_words(split)) for split, _ in seeds], "left"),
            TableColumn("Seed", [Cell(str(seed)) for _, seed in seeds]),
            TableColumn("Accuracy", [Cell(format_score(find_metric(run, "accuracy"))) for run in runs]),
            TableColumn("Macro F1", [Cell(format_score(find_metric(run, "macro.f1"))) for run in runs]),
            TableColumn("Best epoch", [_epoch_cell(run) for run in runs]),
            TableColumn("Train s", [Cell(f"{run.seconds:.1f}") for run in runs]),
        )
    )


def markdown(table: ReportTable) -> str:
    """Return a table in GitHub's Markdown, aligned as plain text, with escaped names."""
    columns = []
    for column in table.columns:
        texts = [escape_markdown(column.title), *map(_markdown_cell, column.cells)]
        width = max(3, *map(len, texts))
        rule = "-" * (width - 1) + ":" if column.align == "right" else "-" * width
        padded = [text.rjust(width) if column.align == "right" else text.ljust(width) for text in texts]
        columns.append([padded[0], rule, *padded[1:]])
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*columns, strict=True))


def _labels(results: Results) -> TableColumn:
    return TableColumn("Configuration", [Cell(item.label) for item in results.configurations], "left")


def _repeats(results: Results) -> TableColumn:
    return TableColumn("Repeats", [Cell(str(len(item.runs))) for item in results.configurations])


def _measured(results: Results, uncertainty: Uncertainty, path: str) -> TableColumn:
    """Return a metric with its interval in brackets."""
    column = _scores(METRICS[path], [item.metric(path) for item in results.configurations])
    intervals = [uncertainty.intervals.get(item.label, {}).get(path) for item in results.configurations]
    cells = [
        replace(cell, interval=format_interval(interval))
        for cell, interval in zip(column.cells, intervals, strict=True)
    ]
    return replace(column, cells=cells)


def _scores(title: str, spreads: Sequence[Spread]) -> TableColumn:
    """Return a column with its largest values marked, as they are printed, unless all are printed alike."""
    shown = [round(spread.mean, 3) for spread in spreads if spread.n]
    best = max(shown) if len(set(shown)) > 1 else None
    return TableColumn(title, [replace(_score(spread), best=round(spread.mean, 3) == best) for spread in spreads])


def _score(spread: Spread) -> Cell:
    return Cell(format_score(spread.mean), format_sd(spread))


def _difference(results: Results, path: str) -> TableColumn:
    cells = []
    for item in results.configurations:
        spread = results.difference(item, path)
        is_baseline = item is results.baseline
        cells.append(Cell(UNDEFINED) if is_baseline else Cell(format_difference(spread.mean), format_sd(spread)))
    return TableColumn(COMPARED[path], cells)


def _reachable(results: Results) -> list[TableColumn]:
    values = [results.reachable(item) for item in results.configurations]
    return [TableColumn("Reachable", [Cell(format_score(value)) for value in values])] if any(values) else []


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text = f"**{text}**" if cell.best else text
    return text + (f" ± {cell.spread}" if cell.spread else "") + (f" [{cell.interval}]" if cell.interval else "")
