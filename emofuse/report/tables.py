"""Builds the tables of a report as cells, which are shown as Markdown, as HTML (by the page) and as plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from emofuse.report.comparisons import ReportComparison, Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results, Spread
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
from emofuse.report.targets import ShownScore
from emofuse.specs import EXACT_HEADS

MOST_ACROSS = 20
"""The largest number of classes, columns or labels that are columns of a table."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the text or number.
        spread: the standard deviation of the number.
        interval: both ends of the interval of the number.
        best: whether the number is the best of its column.
        mark: stars for the significance of the number, such as `**`; empty without.
    """

    text: str
    spread: str = ""
    interval: str = ""
    best: bool = False
    mark: str = ""


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
        column
        for score in map(results.in_table, results.target.leading)
        for column in (_measured(results, uncertainty, score), _difference(results, score))
    ]
    if len(results.configurations) == 1:  # there is nothing to subtract
        pairs = pairs[::2]
    return ReportTable((_labels(results), _repeats(results), *pairs, *_reachable(results)))


def pooled_table(results: Results, uncertainty: Uncertainty) -> ReportTable | None:
    """Return the pooled scores of configurations with outer folds, one row for each; None without any."""
    pooled = [
        (item, uncertainty.pooled[item.label]) for item in results.configurations if item.label in uncertainty.pooled
    ]
    if not pooled:
        return None
    scores = [
        TableColumn(
            f"{score.title}, pooled",
            [
                Cell(
                    format_score(of_item.scores[score.path], score.decimals),
                    interval=format_interval(of_item.intervals[score.path], decimals=score.decimals),
                )
                for _, of_item in pooled
            ],
        )
        for score in map(results.in_table, results.target.compared)
    ]
    return ReportTable(
        (
            TableColumn("Configuration", [Cell(item.label) for item, _ in pooled], "left"),
            TableColumn("Outer folds", [Cell(str(of_item.folds)) for _, of_item in pooled]),
            TableColumn("Repeats", [Cell(str(of_item.repeats)) for _, of_item in pooled]),
            TableColumn("Rows", [Cell(f"{of_item.rows:,}") for _, of_item in pooled]),
            *scores,
        )
    )


def comparisons_table(results: Results, uncertainty: Uncertainty) -> ReportTable:
    """Return differences with intervals and corrected p values, one row for each comparison.

    The comparisons are those of every configuration with the baseline, and then those that were asked for.
    """
    rows = comparisons_of(results, uncertainty)
    compared = [one for _, _, one in rows]
    columns = [TableColumn("Configuration", [Cell(first.label) for first, _, _ in rows], "left")]
    if uncertainty.asked_for(results.baseline.label):
        columns.append(TableColumn("Compared with", [Cell(second.label) for _, second, _ in rows], "left"))
    for score in map(results.in_table, results.target.compared):
        path, decimals = score.path, score.decimals
        differences = [
            Cell(
                format_difference(results.difference(first, path, second).mean, decimals),
                interval=format_interval(one.tests[path].interval, signed=True, decimals=decimals) if one else "",
            )
            for first, second, one in rows
        ]
        p_values = [Cell(_p_text(one, path)) for one in compared]
        columns += [TableColumn(score.difference, differences), TableColumn(f"p, {score.name}", p_values)]
    return ReportTable((*columns, *(_mcnemar_columns(compared) if results.target.has_classes else ())))


def _p_text(comparison: ReportComparison | None, path: str) -> str:
    """Return the corrected p value; a dash without a comparison, or where a score is not defined."""
    if comparison is None or math.isnan(comparison.tests[path].difference):
        return UNDEFINED
    return format_p(comparison.corrected[path])


def _mcnemar_columns(compared: Sequence[ReportComparison | None]) -> list[TableColumn]:
    tests = [one.mcnemar if one else None for one in compared]
    corrected = [format_p(one.mcnemar_corrected) if one and one.mcnemar else UNDEFINED for one in compared]
    return [
        TableColumn("Lost", [Cell(f"{test.lost:,}" if test else UNDEFINED) for test in tests]),
        TableColumn("Gained", [Cell(f"{test.gained:,}" if test else UNDEFINED) for test in tests]),
        TableColumn("McNemar p", [Cell(text) for text in corrected]),
    ]


ComparedPair = tuple[ReportedConfiguration, ReportedConfiguration, ReportComparison | None]
"""A configuration, the one that it is compared with, and the comparison; None if it could not be computed."""


def comparisons_of(results: Results, uncertainty: Uncertainty) -> list[ComparedPair]:
    """Return all comparisons of a report in the order of its table."""
    items, baseline = {item.label: item for item in results.configurations}, results.baseline.label
    pairs = [(label, baseline) for label in items if label != baseline] + uncertainty.asked_for(baseline)
    return [(items[first], items[other], uncertainty.comparisons.get((first, other))) for first, other in pairs]


def detail_tables(results: Results, uncertainty: Uncertainty) -> list[ReportTable]:
    """Return the further scores, such as precision and recall, in tables with one row for each configuration.

    Six columns have room for intervals or deviations; intervals come first.
    """
    tables = []
    for scores in results.target.details:
        columns = [_measured(results, uncertainty, results.in_table(score)) for score in scores]
        if any(cell.interval for column in columns for cell in column.cells):
            columns = [_bare(column) for column in columns]
        tables.append(ReportTable((_labels(results), *columns)))
    return tables


def _epochs_cell(item: ReportedConfiguration) -> Cell:
    """Return the best epochs over the repeats; heads that are solved have none."""
    if item.spec["head"]["kind"] in EXACT_HEADS:
        return Cell(UNDEFINED)
    epochs = [[head["best_epoch"] for head in run.heads] or [run.best_epoch] for run in item.runs]
    return Cell(format_range(Spread.of(epoch for of_run in epochs for epoch in of_run)))


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
            TableColumn("Training (s)", [Cell(f"{value:.1f}") for value in seconds]),
        )
    )


def _answers(results: Results) -> list[TableColumn]:
    """Return what answers in each configuration, if there are ensembles or second trainings."""
    texts = answer_texts(results)
    return [TableColumn("Answer", [Cell(text) for text in texts], "left")] if texts else []


def parts_table(results: Results, *, numbered: bool = False) -> ReportTable:
    """Return the main score of every class, column or label and configuration.

    The scores are means without deviations, because there may be twenty of each. Classes are columns or, if there are
    many, rows.

    Args:
        results: the configurations.
        numbered: whether figures show labels by number, so that readers need these numbers.
    """
    score = results.target.main_part
    by_class = list(zip(*(item.part_metric(score.path) for item in results.configurations), strict=True))
    if len(results.classes) > MOST_ACROSS:
        down = TableColumn(results.target.part.capitalize(), [Cell(label) for label in results.classes], "left")
        items = zip(results.configurations, zip(*by_class, strict=True), strict=True)
        number = _class_numbers(results.classes) if numbered else ()
        return ReportTable(
            (
                down,
                *number,
                *(_bare(TableColumn(item.label, [_cell(one, score) for one in spreads])) for item, spreads in items),
            )
        )
    titles = [f"{place}: {label}" if numbered else label for place, label in enumerate(results.classes, start=1)]
    columns = [_scores(title, spreads, score) for title, spreads in zip(titles, by_class, strict=True)]
    return ReportTable((_labels(results), *map(_bare, columns)))


def _bare(column: TableColumn) -> TableColumn:
    """Return a column of means without their deviations."""
    return replace(column, cells=[replace(cell, spread="") for cell in column.cells])


def part_table(
    configuration: ReportedConfiguration,
    classes: Sequence[str],
    uncertainty: Uncertainty,
    *,
    numbered: bool = False,
    ranked: bool = False,
) -> ReportTable:
    """Return the scores of one configuration with their intervals, one row for each class, column or label.

    Args:
        configuration: the configuration.
        classes: the names of its classes, columns or labels.
        uncertainty: the intervals.
        numbered: whether figures show labels by number, so that readers need these numbers.
        ranked: whether a figure shows labels in the order of their main score, so that readers need these ranks.
    """
    target = configuration.target
    columns = [TableColumn(target.part.capitalize(), [Cell(label) for label in classes], "left")]
    columns += _class_numbers(classes) if numbered else ()
    for score in target.part_scores:
        cells = []
        for place, spread in enumerate(configuration.part_metric(score.path)):
            interval = uncertainty.interval(configuration.label, target.part_path(place, score.path))
            cells.append(replace(_cell(spread, score), interval=format_interval(interval, decimals=score.decimals)))
        columns.append(TableColumn(score.title, cells))
    if target.support:
        support = [Cell(format_range(spread)) for spread in configuration.part_metric(target.support.lower())]
        columns.append(TableColumn(target.support, support))
    if ranked:
        ranks = [Cell(str(place)) for place in configuration.part_ranks]
        columns.append(TableColumn(f"Rank by {target.main_part.name}", ranks))
    return ReportTable(tuple(columns))


def _class_numbers(classes: Sequence[str]) -> tuple[TableColumn]:
    """Return the column of the numbers by which figures show labels."""
    return (TableColumn("No.", [Cell(str(place)) for place, _ in enumerate(classes, start=1)]),)


def all_parts_table(
    results: Results, uncertainty: Uncertainty, *, numbered: bool = False, ranked: bool = False
) -> ReportTable:
    """Return the columns of `part_table`, one row for each configuration and class, column or label."""
    tables = [
        part_table(item, results.classes, uncertainty, numbered=numbered, ranked=ranked)
        for item in results.configurations
    ]
    labels = [Cell(item.label) for item in results.configurations for _ in results.classes]
    stacked = zip(*(table.columns for table in tables), strict=True)
    columns = [replace(parts[0], cells=[cell for part in parts for cell in part.cells]) for parts in stacked]
    return ReportTable((TableColumn("Configuration", labels, "left"), *columns))


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


def _measured(results: Results, uncertainty: Uncertainty, score: ShownScore) -> TableColumn:
    """Return a score with its interval in brackets."""
    column = _scores(score.title, [item.metric(score.path) for item in results.configurations], score)
    intervals = [uncertainty.interval(item.label, score.path) for item in results.configurations]
    cells = [
        replace(cell, interval=format_interval(interval, decimals=score.decimals))
        for cell, interval in zip(column.cells, intervals, strict=True)
    ]
    return replace(column, cells=cells)


def _scores(title: str, spreads: Sequence[Spread], score: ShownScore) -> TableColumn:
    """Return a column with its best values marked, as they are printed, unless all are printed alike."""
    cells = [_cell(spread, score) for spread in spreads]
    means = {cell.text: spread.mean for cell, spread in zip(cells, spreads, strict=True) if spread.n}
    best = (max if score.larger_is_better else min)(means, key=means.__getitem__) if len(means) > 1 else None
    return TableColumn(title, [replace(cell, best=cell.text == best) for cell in cells])


def _cell(spread: Spread, score: ShownScore) -> Cell:
    return Cell(format_score(spread.mean, score.decimals), format_sd(spread, score.decimals))


def _difference(results: Results, score: ShownScore) -> TableColumn:
    cells = []
    for item in results.configurations:
        spread = results.difference(item, score.path)
        text, sd = format_difference(spread.mean, score.decimals), format_sd(spread, score.decimals)
        cells.append(Cell(UNDEFINED) if item is results.baseline else Cell(text, sd))
    return TableColumn(score.difference, cells)


def _reachable(results: Results) -> list[TableColumn]:
    values = [results.reachable(item) for item in results.configurations]
    return [TableColumn("Reachable", [Cell(format_score(value)) for value in values])] if any(values) else []


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text = f"**{text}**" if cell.best else text
    text += escape_markdown(cell.mark)
    return text + (f" ± {cell.spread}" if cell.spread else "") + (f" [{cell.interval}]" if cell.interval else "")
