"""The tables, figures and sentences on the categories of backbones, a part of the section on values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from emofuse.analysis.answers import TestedConfiguration
from emofuse.analysis.categories import CategoryLink, StreamCategories
from emofuse.analysis.plots import plot_matrix
from emofuse.report.analysis import AnalysisTable
from emofuse.report.figures import ReportFigure, draw_figure
from emofuse.report.fonts import choose_lettering_of
from emofuse.report.formats import format_difference
from emofuse.report.tables import Cell, ReportTable, TableColumn

_IN_FIGURE = 15


def categories_table(tested: TestedConfiguration, found: StreamCategories) -> AnalysisTable:
    """Return the table of the strongest categories of one stream, by class."""
    columns = [TableColumn("Class", [Cell(name) for name in tested.classes], "left")]
    for title, sign in (("With it", 1), ("Against it", -1)):
        cells = [
            Cell(_listed([link for link in found.links if link.class_place == place and sign * link.correlation > 0]))
            for place in range(len(tested.classes))
        ]
        columns.append(TableColumn(title, cells, "left"))
    caption = (
        f"Categories of the own classifier of {found.stream} whose score goes along with the contribution of the "
        f"stream to the score of a class, and those against it: correlations over {found.rows:,} tested rows with 95 % "
        "intervals. The strongest of all categories were chosen on the same rows, so their values are too large."
    )
    rows = [
        {
            "class": tested.classes[link.class_place],
            "category": link.category,
            "correlation": link.correlation,
            "low": link.interval.low,
            "high": link.interval.high,
        }
        for link in found.links
    ]
    return AnalysisTable(f"categories_of_{found.stream}", caption, ReportTable(tuple(columns)), rows)


def categories_figure(tested: TestedConfiguration, found: StreamCategories) -> ReportFigure:
    """Return the figure of the categories that differ most between classes."""
    lettering = choose_lettering_of(tested.classes)
    names = [lettering.labels.get(name, name) for name in tested.classes]
    order = np.argsort(-np.abs(found.correlations).max(axis=0), kind="stable")[:_IN_FIGURE]
    caption = (
        f"Categories of the classifier of {found.stream} and the classes: correlation of the score of a category with "
        f"the contribution of the stream to the score of a class, {len(order)} of {len(found.names)} categories. Blue: "
        "such pictures raise the score of the class."
    )
    rows, values = [found.names[place] for place in order], found.correlations[:, order].T.tolist()
    plot: Any = partial(plot_matrix, rows, names, values)
    return draw_figure(f"categories_of_{found.stream}", caption, plot, lettering)


def category_sentences(found: Sequence[StreamCategories], notes: Sequence[str]) -> list[str]:
    """Return what the categories mean, and why some backbones have none."""
    sentences = [f"No categories are shown of {note}." for note in notes]
    if found:
        sentences.append(
            "Categories are the network's own guess of what a picture shows, from the cached vector. They describe "
            "which pictures the stream moves towards a class. The heads see the vector, and no category."
        )
    return sentences


def _listed(links: Sequence[CategoryLink]) -> str:
    return (
        ", ".join(
            f"{link.category} {format_difference(link.correlation, 2)} [{format_difference(link.interval.low, 2)}, "
            f"{format_difference(link.interval.high, 2)}]"
            for link in links
        )
        or "–"
    )
