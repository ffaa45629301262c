"""Saved runs -> tables, figures and one page. Reads results alone and never trains."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from emofuse.errors import ResultsError
from emofuse.report import sentences
from emofuse.report.configurations import Results, group_runs
from emofuse.report.figures import FIGURE_FILES, Pictures, draw_pictures
from emofuse.report.numbers import class_rows, csv_text, run_rows, summary_rows
from emofuse.report.page import render_page
from emofuse.report.search import Searched, SearchSummary
from emofuse.report.tables import all_classes_table, cost_table, detail_table, escape_markdown, markdown, scores_table
from emofuse.results import list_runs

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
        figures: folder with every figure as SVG and PNG.
    """

    page: Path
    summary_markdown: Path
    summary_csv: Path
    per_class_markdown: Path
    per_class_csv: Path
    runs_csv: Path
    figures: Path

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """The parts of a report that is, or will be, in this folder."""
        return cls(
            page=folder / "index.html",
            summary_markdown=folder / "summary.md",
            summary_csv=folder / "summary.csv",
            per_class_markdown=folder / "per_class.md",
            per_class_csv=folder / "per_class.csv",
            runs_csv=folder / "runs.csv",
            figures=folder / "figures",
        )

    def __iter__(self) -> Iterator[Path]:
        """All parts, the page first."""
        return (getattr(self, field.name) for field in fields(self))


def write_report(
    runs: Path,
    out: Path,
    *,
    title: str = "",
    baseline: str | None = None,
    order: Sequence[str] | None = None,
    only: Collection[str] | None = None,
    command: str = "",
) -> ReportFiles:
    """Writes tables, figures and the page of a folder of runs. The same runs give the same bytes.

    Every file is replaced at once and the page comes last; other files in `out` are left alone, except figures of a
    former report.

    Args:
        runs: folder of saved runs.
        out: folder of the report, made if it is not there.
        title: of the page; names the dataset unless given.
        baseline: name of the configuration that others are compared with; the first unless given.
        order: names of configurations in the order of tables; others follow, the one first trained first.
        only: digests of the runs to report on; all unless given.
        command: what made the runs, for readers who want to make them again.

    Raises:
        ResultsError: no runs, damaged ones, several datasets, or an unknown baseline or digest.
    """
    records = list_runs(runs)
    if only is not None:
        absent = sorted(set(only) - {record.digest for record in records})
        if absent:
            raise ResultsError(f"{runs}: no run {', '.join(digest[:16] for digest in absent)}; train it again")
        records = [record for record in records if record.digest in only]
    results = group_runs(records, str(runs), baseline=baseline, order=order)
    if out.exists() and not out.is_dir():
        raise ResultsError(f"{out}: a file is in the place of the report's folder; name another folder")

    title = title or f"Fusion configurations on {results.dataset.get('name', 'a dataset')}"
    pictures = draw_pictures(results)
    files = ReportFiles.in_folder(out)
    # Everything is made before anything is written: a failure leaves a former report as it was.
    texts = _texts(files, results, title)
    texts[files.page] = render_page(results, pictures, title=title, command=command)
    _write_figures(files.figures, pictures)
    for path, text in texts.items():
        _replace(path, text.encode())
    return files


def _texts(files: ReportFiles, results: Results, title: str) -> dict[Path, str]:
    warning = sentences.random_weights_warning(results)
    head = f"# {escape_markdown(title)}\n\n"
    if warning:
        head += f"> **RANDOM WEIGHTS: a demonstration, not a finding.** {escape_markdown(warning)}\n\n"
    tables = [markdown(make(results)) for make in (scores_table, detail_table, cost_table)]
    notes = "".join(f"- {escape_markdown(note)}\n" for note in sentences.reading_notes(results))
    return {
        files.summary_markdown: head + "\n".join([tables[0], notes, *tables[1:]]),
        files.summary_csv: csv_text(summary_rows(results)),
        files.per_class_markdown: head + markdown(all_classes_table(results)),
        files.per_class_csv: csv_text(class_rows(results)),
        files.runs_csv: csv_text(run_rows(results)),
    }


def _write_figures(folder: Path, pictures: Pictures) -> None:
    """Writes all figures, then removes those of a former report that this one does not have."""
    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for picture in pictures.all:
        for ending, data in (("svg", picture.svg), ("png", picture.png)):
            path = folder / f"{picture.stem}.{ending}"
            _replace(path, data)
            written.add(path)
    former = {path for stem in FIGURE_FILES for ending in ("svg", "png") for path in folder.glob(f"{stem}.{ending}")}
    for path in former - written:
        path.unlink()


def _replace(path: Path, data: bytes) -> None:
    """Writes a file beside its place and moves it there: readers see the old one or the new one, never half of one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)
