"""Sections of an analysis (`emofuse explain`) as saved tables, figures and sentences, which the page of a report shows.

The analysis itself is made by `emofuse.analysis`. It writes one folder, which this module reads without computing
anything::

    analysis/
        analysis.json    every section: sentences, tables with their cells, captions, and plain numbers
        analysis.md      the same as text
        tables/          each table as CSV (plain numbers), Markdown and LaTeX
        figures/         each figure as SVG, PNG and PDF
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from emofuse.errors import ResultsError
from emofuse.report.figures import ReportFigure
from emofuse.report.tables import Cell, ReportTable, TableColumn

FOLDER = "analysis"
FORMAT = 1


@dataclass(frozen=True)
class AnalysisTable:
    """A table of an analysis.

    Attributes:
        stem: the file name without its ending.
        caption: the caption in full sentences.
        table: the cells.
        rows: the same as plain numbers, one mapping for each row of the CSV file.
    """

    stem: str
    caption: str
    table: ReportTable
    rows: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class AnalysisSection:
    """One question of an analysis and its answer.

    Attributes:
        key: the name of the section in files, such as `suppression`.
        title: the heading.
        sentences: what the numbers say and how they were made.
        tables: the tables.
        figures: the figures.
        numbers: plain JSON, every number that the tables show rounded.
    """

    key: str
    title: str
    sentences: Sequence[str]
    tables: Sequence[AnalysisTable] = ()
    figures: Sequence[ReportFigure] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the section as plain JSON, without the bytes of its figures."""
        return {
            "key": self.key,
            "title": self.title,
            "sentences": list(self.sentences),
            "tables": [
                {
                    "stem": each.stem,
                    "caption": each.caption,
                    "columns": [_column_json(column) for column in each.table.columns],
                }
                for each in self.tables
            ],
            "figures": [
                {"stem": figure.stem, "caption": figure.caption, "width_in": figure.width_in} for figure in self.figures
            ],
            "numbers": dict(self.numbers),
        }


def _column_json(column: TableColumn) -> dict[str, Any]:
    cells = [{key: value for key, value in asdict(cell).items() if value} for cell in column.cells]
    return {"title": column.title, "align": column.align, "cells": cells}


def read_analysis(folder: Path, digests: Sequence[str] = ()) -> list[AnalysisSection]:
    """Read the sections of an analysis; none if there is no analysis, or if it is on other runs.

    Args:
        folder: the folder of the analysis.
        digests: the digests of the runs of a report. An analysis of a run that is not among them is left out.

    Raises:
        ResultsError: a file is damaged or missing.
    """
    path = folder / "analysis.json"
    if not path.is_file():
        return []
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT or (digests and not set(data["runs"]) <= set(digests)):
            return []
        return [_section(each, folder) for each in data["sections"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path}: damaged ({error!r}); make it again with emofuse explain, or delete it") from None


def _section(data: Mapping[str, Any], folder: Path) -> AnalysisSection:
    tables = [
        AnalysisTable(each["stem"], each["caption"], ReportTable(tuple(_column(column) for column in each["columns"])))
        for each in data["tables"]
    ]
    figures = [
        ReportFigure(
            each["stem"],
            each["caption"],
            (folder / "figures" / f"{each['stem']}.svg").read_bytes(),
            b"",
            float(each["width_in"]),
        )
        for each in data["figures"]
    ]
    return AnalysisSection(data["key"], data["title"], data["sentences"], tables, figures, data["numbers"])


def _column(data: Mapping[str, Any]) -> TableColumn:
    cells = [Cell(cell.get("text", ""), **{k: v for k, v in cell.items() if k != "text"}) for cell in data["cells"]]
    return TableColumn(data["title"], cells, data["align"])
