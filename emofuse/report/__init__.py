"""Turns saved runs into tables, figures and one page. A report reads results only and never trains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from emofuse.errors import ResultsError
from emofuse.report import sentences
from emofuse.report.analysis import FOLDER, read_analysis
from emofuse.report.choice import choice_caption, choice_sentences, choice_table
from emofuse.report.comparisons import Uncertainty, find_pairs, measure_uncertainty
from emofuse.report.configurations import Results
from emofuse.report.detail import choose_detail
from emofuse.report.figures import ENDINGS, FIGURE_FILES, ReportFigures, draw_figures
from emofuse.report.fonts import choose_lettering
from emofuse.report.foreign import foreign_sentences, map_table
from emofuse.report.formats import escape_markdown
from emofuse.report.further import find_metrics, further_rows, further_table, score_further
from emofuse.report.grouping import group_runs
from emofuse.report.names import file_names
from emofuse.report.numbers import comparison_rows, csv_text, json_text, part_rows, run_rows, search_rows, summary_rows
from emofuse.report.page import gather_samples, gather_value_samples, page_numbers, render_page
from emofuse.report.page.numbers import PAGE_FILES
from emofuse.report.page.pictures import read_pictures
from emofuse.report.paper_tables import TABLE_FILES, paper_tables, table_files
from emofuse.report.part_plots import answered_values
from emofuse.report.records import read_records
from emofuse.report.references import marked_rows, notes_on_references, references_table
from emofuse.report.search import SearchedConfiguration, SearchSummary
from emofuse.report.tables import (
    ReportTable,
    all_parts_table,
    comparisons_table,
    cost_table,
    detail_tables,
    markdown,
    pooled_table,
    scores_table,
)
from emofuse.report.uncertainty_notes import comparison_notes
from emofuse.results import read_reference_notes
from emofuse.stores import replace_file

_NAMES_ON_A_TERMINAL = 5
TABLE_ENDINGS = ("csv", "md", "tex")
PART_FILES = ("per_class", "per_column", "per_label")
"""The names of the tables of classes, columns or labels, of which a report has one."""

__all__ = ["ReportFiles", "SearchSummary", "SearchedConfiguration", "write_report"]


@dataclass(frozen=True)
class ReportFiles:
    """The paths of the parts of a report.

    Attributes:
        page: the HTML file with everything.
        summary_markdown: the table with one row for each configuration.
        summary_csv: the same as plain numbers.
        per_part_markdown: the table with one row for each configuration and class, column or label; the name of the
            file is `per_class.md`, `per_column.md` or `per_label.md`.
        per_part_csv: the same as plain numbers.
        runs_csv: plain numbers, one row for each run.
        comparisons_csv: plain numbers, one row for each comparison; empty for a single configuration.
        numbers_json: scores, intervals and comparisons, with the notes on how to read them.
        search_csv: plain numbers, one row for each configuration of the search behind the runs; None without a search.
        metrics_csv: plain numbers, one row for each configuration and further metric; None without such metrics.
        figures: the folder with every figure as SVG, PNG and PDF.
        tables: the folder with every table as CSV, Markdown and LaTeX.
    """

    page: Path
    summary_markdown: Path
    summary_csv: Path
    per_part_markdown: Path
    per_part_csv: Path
    runs_csv: Path
    comparisons_csv: Path
    numbers_json: Path
    search_csv: Path | None
    metrics_csv: Path | None
    figures: Path
    tables: Path

    @classmethod
    def in_folder(cls, folder: Path, part: str = "class", *, search: bool = False, metrics: bool = False) -> Self:
        """Return the paths of a report in this folder, with or without the parts for a search and further metrics.

        Args:
            folder: the folder of the report.
            part: what has scores of its own: `class`, `column` or `label`.
            search: whether there is a search behind the runs.
            metrics: whether there are further metrics.
        """
        return cls(
            page=folder / "index.html",
            summary_markdown=folder / "summary.md",
            summary_csv=folder / "summary.csv",
            per_part_markdown=folder / f"per_{part}.md",
            per_part_csv=folder / f"per_{part}.csv",
            runs_csv=folder / "runs.csv",
            comparisons_csv=folder / "comparisons.csv",
            numbers_json=folder / "report.json",
            search_csv=folder / "search.csv" if search else None,
            metrics_csv=folder / "metrics.csv" if metrics else None,
            figures=folder / "figures",
            tables=folder / "tables",
        )

    def __iter__(self) -> Iterator[Path]:
        """Iterate over the paths of all parts that the report has, the page first."""
        return (path for field in fields(self) if (path := getattr(self, field.name)) is not None)


def write_report(
    runs: Path,
    out: Path,
    *,
    title: str = "",
    baseline: str | None = None,
    order: Sequence[str] | None = None,
    only: Collection[str] | None = None,
    command: str = "",
    search: SearchSummary | None = None,
    metrics: Sequence[str] = (),
    compare: Sequence[str | tuple[str, str]] = (),
    reference_notes: Sequence[str] | None = None,
    images: bool = True,
    manifest: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> ReportFiles:
    """Write tables, figures and the page of a folder of runs. The same runs give the same bytes.

    Each file is replaced in one step, and the page comes last. Other files in `out` stay, except figures, search and
    metrics of a former report.

    Args:
        runs: the folder of saved runs.
        out: the folder of the report; it is made if it does not exist.
        title: the title of the page; names the dataset unless given.
        baseline: the name of the configuration that others are compared with; the first unless given.
        order: the names of configurations in the order of tables; others follow, the first trained first.
        only: the digests of the runs to report on; all unless given.
        command: the command that made the runs, for readers who want to repeat them.
        search: the search whose finalists the runs are; the report then says how they were chosen.
        metrics: the names of further metrics, computed from the saved predictions (see `emofuse.metrics`).
        compare: further comparisons, each `A=B` or a pair of names: configuration A is compared with configuration B.
        reference_notes: the notes on the reference models; those that were kept beside the runs unless given.
        images: whether the page has thumbnails of samples, at most 160 pixels wide and high.
        manifest: the manifest of the dataset, which names the files of the samples; looked for beside the runs unless
            given.
        say: a function that is given a sentence on names that figures show by number, if there are any.

    Raises:
        SpecError: there is no metric of a name.
        ResultsError: there are no runs, some are damaged, they are of several datasets, or a baseline, digest or
            configuration to compare is unknown.
    """
    records = read_records(runs, only)
    results = group_runs(records, str(runs), baseline=baseline, order=order, search=search)
    plugins = [plugin for record in records for plugin in record.plugins]
    further_metrics = find_metrics(metrics, "report", plugins, results.target.kind)
    if out.exists() and not out.is_dir():
        raise ResultsError(f"{out}: a file is in the place of the report's folder; name another folder")

    title = title or f"Fusion configurations on {results.dataset.get('name', 'a dataset')}"
    uncertainty = measure_uncertainty(results, runs, find_pairs(results, compare, str(runs)))
    of_models = read_reference_notes(runs) if reference_notes is None else reference_notes
    reference_notes = notes_on_references(results, uncertainty, of_models)
    lettering = choose_lettering(results)
    if say is not None and (notice := lettering.notice(_NAMES_ON_A_TERMINAL)):
        say(notice)
    further = score_further(results, runs, further_metrics)
    values = answered_values(results, runs) if results.target.kind == "regression" else None
    figures = draw_figures(results, uncertainty, lettering, values)
    files = ReportFiles.in_folder(out, results.target.part, search=search is not None, metrics=bool(further_metrics))
    # Everything is made before anything is written, so that a failure leaves a former report as it was.
    detail = choose_detail(len(results.featured), len(results.classes))
    keys = {"numbered": bool(lettering.labels) or not detail.names, "ranked": not detail.names}
    classes = all_parts_table(results, uncertainty, **keys)
    texts = _texts(files, results, uncertainty, reference_notes, title=title, classes=classes)
    table = further_table(results, further_metrics, further)
    samples, valued = gather_samples(results, runs), gather_value_samples(results, runs)
    wanted: dict[str, str | tuple[float, ...]] = {}
    if images:
        wanted |= samples.classes_by_rank(results.classes) if samples else {}
        wanted |= valued.values_by_rank() if valued else {}
    pictures = read_pictures(results, runs, wanted, manifest=manifest) if wanted else None
    for name, rows in page_numbers(results, samples, valued).items():
        texts[out / name] = csv_text(rows)
    slugs = dict(zip(labels := [item.label for item in results.featured], file_names(labels), strict=True))
    tables = paper_tables(
        results,
        uncertainty,
        runs,
        slugs,
        metrics=further_metrics,
        further=further,
        numbered=bool(lettering.labels) or not detail.names,
    )
    texts[files.page] = render_page(
        results,
        uncertainty,
        figures,
        title=title,
        command=command,
        lettering=lettering.notice(),
        further=table,
        reference_notes=reference_notes,
        analysis=read_analysis(runs.parent / FOLDER, [record.digest for record in records]),
        papers=tables,
        samples=samples,
        values=valued,
        pictures=pictures,
        **keys,
    )
    if table is not None and files.metrics_csv:
        texts[files.summary_markdown] += "\n" + markdown(table)
        rows = marked_rows(results, lambda of: further_rows(of, further_metrics, further))
        texts[files.metrics_csv] = csv_text(rows)
    texts = table_files(files.tables, tables, title) | texts
    _write_figures(files.figures, figures)
    _remove_former(out, texts)
    files.tables.mkdir(parents=True, exist_ok=True)
    _remove_matching(files.tables, TABLE_FILES, TABLE_ENDINGS, texts)
    for path, text in texts.items():
        replace_file(path, text)
    return files


def _remove_former(out: Path, texts: Mapping[Path, str]) -> None:
    """Remove the tables that only a former report had."""
    parts = [f"{stem}.{ending}" for stem in PART_FILES for ending in ("csv", "md")]
    for name in ("search.csv", "metrics.csv", *PAGE_FILES, *parts):
        if out / name not in texts:
            (out / name).unlink(missing_ok=True)


def _texts(
    files: ReportFiles,
    results: Results,
    uncertainty: Uncertainty,
    reference_notes: Sequence[str],
    *,
    title: str,
    classes: ReportTable,
) -> dict[Path, str]:
    def numbers(rows_of: Callable[[Results, Uncertainty], Sequence[Mapping[str, Any]]]) -> str:
        return csv_text(marked_rows(results, lambda of: rows_of(of, uncertainty)))

    warning = sentences.random_weights_warning(results)
    head = f"# {escape_markdown(title)}\n\n"
    if warning:
        head += f"> **RANDOM WEIGHTS: a demonstration, not a finding.** {escape_markdown(warning)}\n\n"
    head += _foreign_text(results)
    texts = {
        files.summary_markdown: head + "\n".join(_summary_parts(results, uncertainty, reference_notes)),
        files.summary_csv: numbers(summary_rows),
        files.per_part_markdown: head + markdown(classes),
        files.per_part_csv: numbers(part_rows),
        files.runs_csv: numbers(lambda of, _: run_rows(of)),
        files.comparisons_csv: csv_text(comparison_rows(results, uncertainty)),
        files.numbers_json: _json(results, uncertainty, reference_notes),
    }
    if results.search and files.search_csv:
        texts[files.search_csv] = csv_text(search_rows(results.search))
    return texts


def _foreign_text(results: Results) -> str:
    """Return what is said of a test on another dataset, in Markdown; an empty text for a report on runs."""
    of_test, table = foreign_sentences(results), map_table(results)
    if not of_test:
        return ""
    listed = "".join(f"- {escape_markdown(sentence)}\n" for sentence in of_test)
    return f"**Test on foreign data.**\n\n{listed}\n" + (f"{markdown(table)}\n" if table else "")


def _summary_parts(results: Results, uncertainty: Uncertainty, reference_notes: Sequence[str]) -> list[str]:
    """Return the tables and notes of the summary in Markdown, in the order of the page."""

    def listed(notes: Sequence[str]) -> str:
        return "".join(f"- {escape_markdown(note)}\n" for note in notes)

    pooled = pooled_table(results, uncertainty)
    parts = [markdown(scores_table(results, uncertainty)), *([markdown(pooled)] if pooled else [])]
    parts.append(listed(sentences.reading_notes(results, uncertainty)))
    table = references_table(results, uncertainty)
    parts += [markdown(table)] if table else []
    parts += [listed(reference_notes)] if reference_notes else []
    notes = comparison_notes(results, uncertainty)
    if notes:
        parts += [markdown(comparisons_table(results, uncertainty)), listed(notes)]
    parts += [markdown(table) for table in (*detail_tables(results, uncertainty), cost_table(results))]
    if results.search:
        sentences_on_choice = [*choice_sentences(results.search), choice_caption(results.search)]
        parts += [listed(sentences_on_choice), markdown(choice_table(results.search))]
    return parts


def _json(results: Results, uncertainty: Uncertainty, reference_notes: Sequence[str]) -> str:
    notes = [*foreign_sentences(results), *sentences.reading_notes(results, uncertainty)]
    notes += comparison_notes(results, uncertainty)
    rows = summary_rows(results.of_references, uncertainty)
    return json_text(results, uncertainty, [*notes, *reference_notes], rows)


def _write_figures(folder: Path, figures: ReportFigures) -> None:
    """Write all figures, then remove those that only a former report had."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / name: data for figure in figures.all for name, data in figure.files.items()}
    for path, data in files.items():
        replace_file(path, data)
    _remove_matching(folder, FIGURE_FILES, ENDINGS, files)


def _remove_matching(folder: Path, stems: Sequence[str], endings: Sequence[str], files: Container[Path]) -> None:
    """Remove the files of these patterns that only a former report had."""
    former = {path for stem in stems for ending in endings for path in folder.glob(f"{stem}.{ending}")}
    for path in former:
        if path not in files:
            path.unlink()
