"""Saved runs -> tables, figures and one page. Reads results alone and never trains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from emofuse.errors import ResultsError
from emofuse.report import sentences
from emofuse.report.choice import choice_caption, choice_sentences, choice_table
from emofuse.report.comparisons import Uncertainty, measure_uncertainty
from emofuse.report.configurations import Results, group_runs
from emofuse.report.detail import choose_detail
from emofuse.report.figures import FIGURE_FILES, ReportFigures, draw_figures
from emofuse.report.fonts import choose_lettering
from emofuse.report.formats import escape_markdown
from emofuse.report.further import find_metrics, further_rows, further_table, score_further
from emofuse.report.numbers import class_rows, comparison_rows, csv_text, run_rows, search_rows, summary_rows
from emofuse.report.page import render_page
from emofuse.report.records import read_records
from emofuse.report.search import Searched, SearchSummary
from emofuse.report.tables import (
    ReportTable,
    all_classes_table,
    comparisons_table,
    cost_table,
    detail_table,
    markdown,
    scores_table,
)
from emofuse.stores import replace_file

_NAMES_ON_A_TERMINAL = 5

__all__ = ["ReportFiles", "SearchSummary", "Searched", "write_report"]


@dataclass(frozen=True)
class ReportFiles:
    """Where the parts of a report are.

    Attributes:
        page: everything in one HTML file.
        summary_markdown: one row a configuration.
        summary_csv: the same as plain numbers.
        per_class_markdown: one row a configuration and class.
        per_class_csv: the same as plain numbers.
        runs_csv: one row a run, as plain numbers.
        comparisons_csv: one row a configuration but the baseline, as plain numbers; empty if there is no other.
        search_csv: one row a configuration of the search behind the runs, if the report was told of one.
        metrics_csv: one row a configuration and metric that was asked for by name, if some were.
        figures: folder with every figure as SVG and PNG.
    """

    page: Path
    summary_markdown: Path
    summary_csv: Path
    per_class_markdown: Path
    per_class_csv: Path
    runs_csv: Path
    comparisons_csv: Path
    search_csv: Path | None
    metrics_csv: Path | None
    figures: Path

    @classmethod
    def in_folder(cls, folder: Path, *, search: bool = False, metrics: bool = False) -> Self:
        """The parts of a report that is, or will be, in this folder, with or without those of a search or metrics."""
        return cls(
            page=folder / "index.html",
            summary_markdown=folder / "summary.md",
            summary_csv=folder / "summary.csv",
            per_class_markdown=folder / "per_class.md",
            per_class_csv=folder / "per_class.csv",
            runs_csv=folder / "runs.csv",
            comparisons_csv=folder / "comparisons.csv",
            search_csv=folder / "search.csv" if search else None,
            metrics_csv=folder / "metrics.csv" if metrics else None,
            figures=folder / "figures",
        )

    def __iter__(self) -> Iterator[Path]:
        """All parts that the report has, the page first."""
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
    say: Callable[[str], None] | None = None,
) -> ReportFiles:
    """Writes tables, figures and the page of a folder of runs. The same runs give the same bytes.

    Every file is replaced at once and the page comes last; other files in `out` are left alone, except figures and the
    search of a former report.

    Args:
        runs: folder of saved runs.
        out: folder of the report, made if it is not there.
        title: of the page; names the dataset unless given.
        baseline: name of the configuration that others are compared with; the first unless given.
        order: names of configurations in the order of tables; others follow, the one first trained first.
        only: digests of the runs to report on; all unless given.
        command: what made the runs, for readers who want to make them again.
        search: what the runs are the finalists of, if they are; the report then says how they were chosen.
        metrics: names of further metrics, computed from the saved predictions (see `emofuse.metrics`).
        say: is given a sentence on names that figures show by number, if there are some.

    Raises:
        SpecError: names of no metric.
        ResultsError: no runs, damaged ones, several datasets, or an unknown baseline or digest.
    """
    records = read_records(runs, only)
    wanted = find_metrics(metrics, "report", [plugin for record in records for plugin in record.plugins])
    results = group_runs(records, str(runs), baseline=baseline, order=order, search=search)
    if out.exists() and not out.is_dir():
        raise ResultsError(f"{out}: a file is in the place of the report's folder; name another folder")

    title = title or f"Fusion configurations on {results.dataset.get('name', 'a dataset')}"
    uncertainty = measure_uncertainty(results, runs)
    lettering = choose_lettering(results)
    if say is not None and (notice := lettering.notice(_NAMES_ON_A_TERMINAL)):
        say(notice)
    further = score_further(results, runs, wanted)
    figures = draw_figures(results, uncertainty, lettering)
    files = ReportFiles.in_folder(out, search=search is not None, metrics=bool(wanted))
    # Everything is made before anything is written: a failure leaves a former report as it was.
    detail = choose_detail(len(results.featured), len(results.classes))
    keys = {"numbered": bool(lettering.labels) or not detail.names, "ranked": not detail.names}
    texts = _texts(files, results, uncertainty, title, all_classes_table(results, **keys))
    table = further_table(results, wanted, further)
    texts[files.page] = render_page(
        results,
        uncertainty,
        figures,
        title=title,
        command=command,
        lettering=lettering.notice(),
        further=table,
        **keys,
    )
    if table is not None and files.metrics_csv:
        texts[files.summary_markdown] += "\n" + markdown(table)
        texts[files.metrics_csv] = csv_text(further_rows(results, wanted, further))
    _write_figures(files.figures, figures)
    if files.search_csv is None:
        (out / "search.csv").unlink(missing_ok=True)
    if files.metrics_csv is None:
        (out / "metrics.csv").unlink(missing_ok=True)
    for path, text in texts.items():
        replace_file(path, text)
    return files


def _texts(
    files: ReportFiles, results: Results, uncertainty: Uncertainty, title: str, classes: ReportTable
) -> dict[Path, str]:
    warning = sentences.random_weights_warning(results)
    head = f"# {escape_markdown(title)}\n\n"
    if warning:
        head += f"> **RANDOM WEIGHTS: a demonstration, not a finding.** {escape_markdown(warning)}\n\n"
    texts = {
        files.summary_markdown: head + "\n".join(_summary_parts(results, uncertainty)),
        files.summary_csv: csv_text(summary_rows(results, uncertainty)),
        files.per_class_markdown: head + markdown(classes),
        files.per_class_csv: csv_text(class_rows(results)),
        files.runs_csv: csv_text(run_rows(results)),
        files.comparisons_csv: csv_text(comparison_rows(results, uncertainty)),
    }
    if results.search and files.search_csv:
        texts[files.search_csv] = csv_text(search_rows(results.search))
    return texts


def _summary_parts(results: Results, uncertainty: Uncertainty) -> list[str]:
    """Tables and notes of the summary in Markdown, in the order of the page."""

    def listed(notes: Sequence[str]) -> str:
        return "".join(f"- {escape_markdown(note)}\n" for note in notes)

    parts = [markdown(scores_table(results, uncertainty)), listed(sentences.reading_notes(results, uncertainty))]
    notes = sentences.comparison_notes(results, uncertainty)
    if notes:
        parts += [markdown(comparisons_table(results, uncertainty)), listed(notes)]
    parts += [markdown(detail_table(results)), markdown(cost_table(results))]
    if results.search:
        told = [*choice_sentences(results.search), choice_caption(results.search)]
        parts += [listed(told), markdown(choice_table(results.search))]
    return parts


def _write_figures(folder: Path, figures: ReportFigures) -> None:
    """Writes all figures, then removes those of a former report that this one does not have."""
    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for figure in figures.all:
        for ending, data in (("svg", figure.svg), ("png", figure.png)):
            path = folder / f"{figure.stem}.{ending}"
            replace_file(path, data)
            written.add(path)
    former = {path for stem in FIGURE_FILES for ending in ("svg", "png") for path in folder.glob(f"{stem}.{ending}")}
    for path in former - written:
        path.unlink()
