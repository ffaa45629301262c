"""The tables of a report for a paper, each with its caption and its plain numbers, for CSV, Markdown and LaTeX.

They are the paper's tables 1 to 5 (every class of one configuration), 6 (efficiency), 7 and 8 (comparison of the
configurations), and those that a reader of the page sees beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emofuse.metrics import Metric
from emofuse.report.choice import choice_caption, choice_table
from emofuse.report.comparisons import ReportComparison, Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.efficiency import efficiency_caption, efficiency_rows, efficiency_table, measure_efficiency
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
from emofuse.report.further import Further, further_rows, further_table
from emofuse.report.inputs import labels_table, missing_table, stream_uses, streams_table
from emofuse.report.latex import latex_document, latex_table
from emofuse.report.numbers import comparison_rows, csv_text, part_rows, search_rows, summary_rows
from emofuse.report.ranking import Ranking, rank_configurations
from emofuse.report.references import references_table
from emofuse.report.score_plots import overview_rows
from emofuse.report.sentences import featured_words
from emofuse.report.tables import (
    Cell,
    ReportTable,
    TableColumn,
    comparisons_of,
    detail_tables,
    markdown,
    part_table,
    parts_table,
    pooled_table,
)
from emofuse.report.targets import ShownScore
from emofuse.report.uncertainty_notes import SIGNIFICANT

STARS = ((0.001, "***"), (0.01, "**"), (SIGNIFICANT, "*"))
"""The largest corrected p value of each mark."""
_STARS_NOTE = "Stars mark p values after Holm's correction: * below 0.05, ** below 0.01, *** below 0.001."
_INTERVALS = "95 % intervals are in brackets."
_MEANS = {"average_precision": "macro.map"}
"""Score of a part -> the place of its mean over parts, where it has another name."""


Rows = Sequence[Mapping[str, Any]]

TABLE_FILES = (
    *("scores", "comparisons", "further_scores*", "pooled_scores", "ranks", "per_class_*", "per_column_*"),
    *("per_label_*", "*_by_class", "*_by_column", "*_by_label", "efficiency", "metrics", "references", "labels"),
    *("streams", "missing", "search", "all_tables"),
)
"""Patterns of the stems of all files of tables."""


@dataclass(frozen=True)
class PaperTable:
    """A table with everything that its files hold.

    Attributes:
        stem: the file name without its ending.
        caption: the caption in full sentences.
        table: the cells.
        rows: the plain numbers of all configurations, one mapping for each row of the CSV file; the cells unless given.
    """

    stem: str
    caption: str
    table: ReportTable
    rows: Sequence[Mapping[str, Any]] = ()

    @property
    def numbers(self) -> Sequence[Mapping[str, Any]]:
        """The rows of the CSV file."""
        return self.rows or [
            {column.title: cell.text for column, cell in zip(self.table.columns, row, strict=True)}
            for row in self.table.rows
        ]


def paper_tables(
    results: Results,
    uncertainty: Uncertainty,
    runs: Path,
    slugs: Mapping[str, str],
    *,
    metrics: Sequence[Metric] = (),
    further: Further | None = None,
    numbered: bool = False,
) -> list[PaperTable]:
    """Return all tables. Of many configurations, tables show the best by validation; their CSV files have all.

    Args:
        results: the configurations.
        uncertainty: their intervals and comparisons.
        runs: the folder of the runs.
        slugs: label of a featured configuration -> its part of file names.
        metrics: the further metrics that were asked for.
        further: their scores.
        numbered: whether figures show labels by number, so that readers need these numbers.
    """
    shown = _bounded(results)
    featured = replace(results, configurations=results.featured)
    of_featured = "" if featured.configurations == results.configurations else f" Shown: {featured_words(results)}."
    summary = summary_rows(results, uncertainty)
    tables = [_scores(results, shown, uncertainty, summary), *_comparisons(results, shown, uncertainty)]
    tables += _details(results, shown, uncertainty, summary)
    tables += _pooled(results, shown, uncertainty, summary)
    ranking = rank_configurations(results)
    if isinstance(ranking, Ranking):
        tables.append(_ranks(ranking, of_featured))
    tables += [_parts_of(item, results, uncertainty, slugs[item.label], numbered=numbered) for item in results.featured]
    score, part = results.target.main_part, results.target.part
    if len(results.configurations) > 1:
        caption = f"{score.title} of each {part} on the test split, means over repeats.{of_featured}"
        caption += f" All are in per_{part}.csv." if of_featured else ""
        rows = part_rows(featured, uncertainty)
        tables.append(PaperTable(f"{score.path}_by_{part}", caption, parts_table(featured, numbered=numbered), rows))
    costs = measure_efficiency(results.configurations, runs)
    labels = {item.label for item in shown.configurations}
    in_table = [cost for cost in costs if cost.item.label in labels]
    caption = efficiency_caption(in_table) + _shown_words(results, shown)
    tables.append(PaperTable("efficiency", caption, efficiency_table(in_table), efficiency_rows(costs)))
    if further is not None and (table := further_table(shown, metrics, further)):
        caption = f"Further metrics on the test split. {_INTERVALS}{_shown_words(results, shown)}"
        tables.append(PaperTable("metrics", caption, table, further_rows(results, metrics, further)))
    tables += _surroundings(results, uncertainty)
    return [replace(table, caption=table.caption + _warning(results)) for table in tables]


def table_files(folder: Path, tables: Sequence[PaperTable], title: str) -> dict[Path, str]:
    """Return path -> content of every table as CSV, Markdown and LaTeX, and of a LaTeX document that shows them all.

    Args:
        folder: the folder of the tables.
        tables: the tables.
        title: the title of the document.
    """
    texts = {}
    for table in tables:
        texts[folder / f"{table.stem}.csv"] = csv_text(table.numbers)
        texts[folder / f"{table.stem}.md"] = f"{escape_markdown(table.caption)}\n\n{markdown(table.table)}"
        texts[folder / f"{table.stem}.tex"] = latex_table(table.table, table.caption, table.stem)
    texts[folder / "all_tables.tex"] = latex_document(title, [f"{table.stem}.tex" for table in tables])
    return texts


def _warning(results: Results) -> str:
    """Return the sentence on random weights, because tables are often shown without their report."""
    streams = results.random_streams
    return f" RANDOM WEIGHTS ({', '.join(streams)}): a demonstration, not a finding." if streams else ""


def _bounded(results: Results) -> Results:
    """Return the configurations that tables have room for: all, or of many the best by validation and the baseline."""
    items = overview_rows(results)
    return results if len(items) == len(results.configurations) else replace(results, configurations=items)


def _shown_words(results: Results, shown: Results) -> str:
    """Return the sentence on which configurations a table shows; an empty text if it shows all."""
    count = len(shown.configurations)
    if count == len(results.configurations):
        return ""
    return f" Shown: {count} of {len(results.configurations)}, the best by validation on top; the CSV file has all."


def _scores(results: Results, shown: Results, uncertainty: Uncertainty, summary: Rows) -> PaperTable:
    """Return the leading scores with intervals, and the marked differences to the baseline."""
    items, target = shown.configurations, results.target
    columns = [_names(items), TableColumn("Repeats", [Cell(str(len(item.runs))) for item in items])]
    for score in map(results.in_table, target.leading):
        columns.append(_with_best(score, [_measured(item, score, uncertainty) for item in items], items))
        if len(results.configurations) > 1:
            cells = [_difference(results, item, score, uncertainty) for item in items]
            columns.append(TableColumn(score.difference, cells))
    stars = any(cell.mark for column in columns for cell in column.cells)
    base = results.baseline.label
    caption = f"Scores on the test split, means over repeats; Δ is the difference to {base}."
    if len(results.configurations) == 1:
        caption = "Scores on the test split, means over repeats."
    caption += f" {_INTERVALS}" * bool(uncertainty.intervals) + f" {_STARS_NOTE}" * stars
    return PaperTable("scores", caption + _shown_words(results, shown), ReportTable(tuple(columns)), summary)


def _names(items: Sequence[ReportedConfiguration]) -> TableColumn:
    return TableColumn("Configuration", [Cell(item.label) for item in items], "left")


def _measured(item: ReportedConfiguration, score: ShownScore, uncertainty: Uncertainty) -> Cell:
    """Return a score with its interval or, without one, with its deviation over repeats."""
    spread = item.metric(score.path)
    interval = format_interval(uncertainty.interval(item.label, score.path), decimals=score.decimals)
    return Cell(
        format_score(spread.mean, score.decimals), "" if interval else format_sd(spread, score.decimals), interval
    )


def _with_best(score: ShownScore, cells: Sequence[Cell], items: Sequence[ReportedConfiguration]) -> TableColumn:
    """Return a column with its best values marked, as they are printed, unless all are printed alike."""
    means = {cell.text: item.metric(score.path).mean for cell, item in zip(cells, items, strict=True)}
    means.pop(UNDEFINED, None)
    best = (max if score.larger_is_better else min)(means, key=means.__getitem__) if len(means) > 1 else None
    return TableColumn(score.title, [replace(cell, best=cell.text == best) for cell in cells])


def _difference(results: Results, item: ReportedConfiguration, score: ShownScore, uncertainty: Uncertainty) -> Cell:
    if item is results.baseline:
        return Cell(UNDEFINED)
    text = format_difference(results.difference(item, score.path).mean, score.decimals)
    return Cell(text, mark=_stars(uncertainty.comparisons.get((item.label, results.baseline.label)), score.path))


def _stars(comparison: ReportComparison | None, path: str) -> str:
    """Return the mark of a comparison; an empty text for a difference that is not significant, or not tested."""
    corrected = comparison.corrected.get(path) if comparison else None
    if corrected is None:
        return ""
    return next((mark for most, mark in STARS if corrected < most), "")


def _comparisons(results: Results, shown: Results, uncertainty: Uncertainty) -> Iterator[PaperTable]:
    """Return the comparisons with their intervals, marks and corrected p values; nothing for one configuration."""
    labels = {item.label for item in shown.configurations}
    rows = [
        (first, second, one)
        for first, second, one in comparisons_of(results, uncertainty)
        if {first.label, second.label} <= labels
    ]
    if not rows:
        return
    columns = [TableColumn("Configuration", [Cell(first.label) for first, _, _ in rows], "left")]
    if uncertainty.asked_for(results.baseline.label):
        columns.append(TableColumn("Compared with", [Cell(second.label) for _, second, _ in rows], "left"))
    for score in map(results.in_table, results.target.compared):
        differences, p_values = [], []
        for first, second, one in rows:
            mean = results.difference(first, score.path, second).mean
            interval = one.tests[score.path].interval if one else None
            shown_interval = format_interval(interval, signed=True, decimals=score.decimals)
            text = format_difference(mean, score.decimals)
            differences.append(Cell(text, interval=shown_interval, mark=_stars(one, score.path)))
            tested = one is not None and text != UNDEFINED
            p_values.append(Cell(format_p(one.corrected[score.path]) if one and tested else UNDEFINED))
        columns += [TableColumn(score.difference, differences), TableColumn("p (Holm)", p_values)]
    count = len(uncertainty.comparisons)
    family = f"the family is the {count} comparisons" if count > 1 else "there is one comparison"
    caption = (
        f"Differences to {results.baseline.label} on the same test {results.noun.many}. {_INTERVALS} {_STARS_NOTE} "
        f"Each column is corrected separately; {family}."
    )
    numbers = comparison_rows(results, uncertainty)
    yield PaperTable("comparisons", caption + _shown_words(results, shown), ReportTable(tuple(columns)), numbers)


def _details(results: Results, shown: Results, uncertainty: Uncertainty, summary: Rows) -> Iterator[PaperTable]:
    words = results.target.words.details
    for number, table in enumerate(detail_tables(shown, uncertainty), start=1):
        stem = "further_scores" if number == 1 else f"further_scores_{number}"
        text = f"{words[number - 1][0]}{_shown_words(results, shown)}"
        yield PaperTable(stem, text, table, summary)


def _pooled(results: Results, shown: Results, uncertainty: Uncertainty, summary: Rows) -> Iterator[PaperTable]:
    table = pooled_table(shown, uncertainty)
    if table is not None:
        caption = (
            f"Scores of the answers of all outer folds together, each row once. {_INTERVALS}"
            f"{_shown_words(results, shown)}"
        )
        yield PaperTable("pooled_scores", caption, table, summary)


def _ranks(ranking: Ranking, of_featured: str) -> PaperTable:
    """Return the mean ranks with the letters of the groups that the test cannot tell apart."""
    test, order = ranking.test, ranking.ordered
    rows = [
        {
            "configuration": ranking.items[place].label,
            "mean_rank": float(test.mean_ranks[place]),
            "groups": ranking.group_letters(place),
            "splits": test.splits,
            "chi_square": test.chi_square,
            "p": test.p,
            "critical_difference": test.critical_difference,
        }
        for place in order
    ]
    columns = (
        TableColumn("Configuration", [Cell(str(row["configuration"])) for row in rows], "left"),
        TableColumn("Mean rank", [Cell(f"{row['mean_rank']:.2f}") for row in rows]),
        TableColumn("Groups", [Cell(str(row["groups"]) or UNDEFINED) for row in rows], "left"),
    )
    caption = (
        f"Mean ranks by {ranking.score.name} over {test.splits} test splits (Friedman: p {_sign(test.p)}; critical "
        f"difference of Nemenyi's test {test.critical_difference:.2f}). Configurations that share a letter are not "
        f"told apart. The splits share training rows, so that the test is liberal.{of_featured}"
    )
    return PaperTable("ranks", caption, ReportTable(columns), rows)


def _sign(p: float) -> str:
    text = format_p(p)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


def _parts_of(
    item: ReportedConfiguration, results: Results, uncertainty: Uncertainty, slug: str, *, numbered: bool
) -> PaperTable:
    """Return the scores of each class, column or label of one configuration, with means below them."""
    target = results.target
    table = part_table(item, results.classes, uncertainty, numbered=numbered)
    columns = [replace(column, cells=[_without_spread(cell) for cell in column.cells]) for column in table.columns]
    means = _mean_rows(item, uncertainty, numbered=numbered)
    stacked = [
        replace(column, cells=[*column.cells, *(row[place] for row in means)]) for place, column in enumerate(columns)
    ]
    caption = f"Scores of {item.label} for each {target.part} on the test split"
    caption += f", means over {len(item.runs)} repeats." if len(item.runs) > 1 else "."
    caption += f" {_INTERVALS}" * any(cell.interval for column in stacked for cell in column.cells)
    if target.has_classes:
        accuracy = _measured(item, target.main, uncertainty)
        caption += f" Accuracy {accuracy.text}" + f" [{accuracy.interval}]" * bool(accuracy.interval) + "."
    rows = part_rows(replace(results, configurations=(item,)), uncertainty)
    return PaperTable(f"per_{target.part}_{slug}", caption, ReportTable(tuple(stacked)), rows)


def _without_spread(cell: Cell) -> Cell:
    return replace(cell, spread="") if cell.interval else cell


def _mean_rows(item: ReportedConfiguration, uncertainty: Uncertainty, *, numbered: bool) -> list[list[Cell]]:
    """Return the rows below the parts: the means over them, which runs have under `macro`, `weighted` or `mean`."""
    target, rows = item.target, []
    for key, title in (("macro", "Macro mean"), ("weighted", "Weighted mean"), ("mean", "Mean")):
        row, known = [Cell(title), *([Cell("")] if numbered else [])], False
        for score in target.part_scores:
            path = _MEANS.get(score.path, f"{key}.{score.path}") if key == "macro" else f"{key}.{score.path}"
            spread = item.metric(path)
            interval = format_interval(uncertainty.interval(item.label, path), decimals=score.decimals)
            text = format_score(spread.mean, score.decimals)
            row.append(Cell(text, "" if interval else format_sd(spread, score.decimals), interval))
            known = known or spread.n > 0
        if target.support:
            row.append(_rows_in_all(item) if target.has_classes else Cell(""))
        if known:
            rows.append(row)
    return rows


def _rows_in_all(item: ReportedConfiguration) -> Cell:
    supports = item.part_metric("support")
    low, high = (sum(getattr(each, end) for each in supports) for end in ("low", "high"))
    return Cell(format_range(replace(supports[0], low=low, high=high)))


def _surroundings(results: Results, uncertainty: Uncertainty) -> Iterator[PaperTable]:
    """Return the tables on references, data, streams and the search."""
    references = references_table(results, uncertainty)
    if references:
        caption = (
            "Reference models on the same features, splits and rows, without a fusion network. Δ is their difference "
            f"to {results.baseline.label}. {_INTERVALS}"
        )
        yield PaperTable("references", caption, references, summary_rows(results.of_references, uncertainty))
    noun, uses = results.noun.many, stream_uses(results)
    yield PaperTable("labels", f"Number of {noun} by split.", labels_table(results))
    yield PaperTable("streams", "Streams, and the weights behind them.", streams_table(uses))
    yield PaperTable("missing", f"Number of {noun} that lack a stream, by split and reason.", missing_table(uses))
    if results.search:
        yield PaperTable(
            "search", choice_caption(results.search), choice_table(results.search), search_rows(results.search)
        )
