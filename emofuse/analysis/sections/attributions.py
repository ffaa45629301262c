"""The section on which values of which streams move the heads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from emofuse.analysis.answers import TestedConfiguration
from emofuse.analysis.attributions import Attribution, StreamAttribution
from emofuse.analysis.categories import StreamCategories
from emofuse.analysis.code_plot import pattern_of, plot_codes
from emofuse.analysis.face_plot import plot_faces, shows_sides
from emofuse.analysis.face_regions import by_region, is_of_face, mean_face
from emofuse.analysis.plots import plot_matrix
from emofuse.analysis.sections.categories import categories_figure, categories_table, category_sentences
from emofuse.analysis.sections.words import random_sentence
from emofuse.report.analysis import AnalysisSection, AnalysisTable
from emofuse.report.figures import ReportFigure, draw_figure
from emofuse.report.fonts import choose_lettering_of
from emofuse.report.formats import format_difference, format_score
from emofuse.report.tables import Cell, ReportTable, TableColumn

_MOST_SHOWN = 15
_LEAST_SHOWN = 5e-4
_MOST_IN_CELL = 4
_MOST_FACES = 16
_TOWARDS = {
    "class": "to the score of a class, over the rows of the class",
    "label": "to the score of a label, over the rows that have it",
    "column": "towards high or low answers, over the rows in the highest or lowest quarter of the true values",
}
_SCORE = {
    "class": "the score of the row's class (the logit less the mean of all logits)",
    "label": "the logit of a label that the row has",
    "column": "the answer, in the unit of the column",
}


def attributions_section(
    tested: TestedConfiguration,
    found: Attribution,
    categories: Sequence[StreamCategories] = (),
    notes: Sequence[str] = (),
) -> AnalysisSection:
    """Return the section on contributions to the score of each class.

    Args:
        tested: the configuration.
        found: the contributions.
        categories: the categories of backbones.
        notes: why other backbones have no categories.
    """
    lettering = choose_lettering_of(found.outcomes)
    names = [lettering.labels.get(name, name) for name in found.outcomes]
    towards = _TOWARDS[tested.item.target.part]
    streams, random = tested.item.streams, tested.item.random_streams
    tables = [_totals_table(tested, found, towards)]
    caption = f"Mean contribution of each stream of {tested.label} {towards}."
    plot: Any = partial(plot_matrix, names, streams, found.totals.tolist(), random_streams=random)
    figures = [draw_figure("attribution_of_streams", caption, plot, lettering)]
    for stream, each in found.streams.items():
        tables.append(_values_table(found, stream, each, towards))
        if float(np.abs(each.by_outcome).max(initial=0)) < _LEAST_SHOWN:  # every cell would read 0.000
            continue
        order = np.argsort(-each.strength)[:_MOST_SHOWN]
        columns = [each.columns[place] for place in order]
        caption = (
            f"Mean contribution of the strongest {len(columns)} of {len(each.columns)} values of {stream} "
            f"{towards}. Blue: towards it."
        )
        plot = partial(plot_matrix, columns, names, each.by_outcome[:, order].T.tolist())
        if all(pattern_of(name) for name in columns):
            plot = partial(plot_codes, columns, names, each.by_outcome[:, order].T.tolist())
            caption += (
                " To the right the pattern of each code (r2: the neighbours at distance 2): grey is the centre, white "
                "neighbours are as bright or brighter, black ones darker."
            )
        figures.append(draw_figure(f"attribution_of_{stream}", caption, plot, lettering))
        if is_of_face(each.columns) and len(names) <= _MOST_FACES:
            figures.append(_faces_figure(stream, names, each, lettering, towards))
    for of_stream in categories:
        tables.append(categories_table(tested, of_stream))
        figures.append(categories_figure(tested, of_stream))
    return AnalysisSection(
        "attributions",
        "Which values move the heads",
        [*random_sentence(random), *_sentences(tested, found), *category_sentences(categories, notes)],
        tables,
        figures,
        {
            "configuration": tested.label,
            "rows": found.rows,
            "error": found.error,
            "streams": list(streams),
            "totals": found.totals,
            "values": {
                stream: {"columns": list(each.columns), "by_outcome": each.by_outcome, "strength": each.strength}
                for stream, each in found.streams.items()
            },
            "categories": {
                each.stream: {"names": list(each.names), "correlations": each.correlations} for each in categories
            },
        },
    )


def _faces_figure(stream: str, names: list[str], each: StreamAttribution, lettering: Any, towards: str) -> ReportFigure:
    shares = [by_region(each.columns, values.tolist()) for values in each.by_outcome]
    caption = (
        f"Where {stream} moves the heads: contributions {towards}, summed over the values of each region of the face. "
        "Blue: towards it. Red: against it. Below each face its strongest regions, "
        "with the action units of the value that contributes most there."
    )
    if shows_sides(shares):
        caption += " R and L are the subject's right and left."
    plot: Any = partial(plot_faces, names, shares, mean_face())
    return draw_figure(f"face_of_{stream}", caption, plot, lettering)


def _totals_table(tested: TestedConfiguration, found: Attribution, towards: str) -> AnalysisTable:
    columns = [TableColumn(_heading(found, tested), [Cell(name) for name in found.outcomes], "left")]
    rows: list[dict[str, Any]] = []
    for place, stream in enumerate(tested.item.streams):
        columns.append(TableColumn(stream, [Cell(format_difference(value)) for value in found.totals[:, place]]))
        rows += [
            {"outcome": name, "stream": stream, "contribution": float(value)}
            for name, value in zip(found.outcomes, found.totals[:, place], strict=True)
        ]
    caption = f"Mean contribution of each stream {towards}."
    return AnalysisTable("attribution_of_streams", caption, ReportTable(tuple(columns)), rows)


def _heading(found: Attribution, tested: TestedConfiguration) -> str:
    """Return the heading of the names of outcomes."""
    return "Explained" if found.outcomes != tested.classes else tested.item.target.part.capitalize()


def _values_table(found: Attribution, stream: str, each: StreamAttribution, explained: str) -> AnalysisTable:
    towards, against = [], []
    for values in each.by_outcome:
        order = np.argsort(-values)
        towards.append(Cell(_listed(each, values, [place for place in order[:_MOST_IN_CELL] if values[place] > 0])))
        against.append(
            Cell(_listed(each, values, [place for place in order[::-1][:_MOST_IN_CELL] if values[place] < 0]))
        )
    table = ReportTable(
        (
            TableColumn("Explained", [Cell(name) for name in found.outcomes], "left"),
            TableColumn("Towards it", towards, "left"),
            TableColumn("Against it", against, "left"),
        )
    )
    rows = [
        {"outcome": name, "value": column, "contribution": float(each.by_outcome[place, number])}
        for place, name in enumerate(found.outcomes)
        for number, column in enumerate(each.columns)
    ]
    caption = f"The values of {stream} that contribute most {explained}, and those against it."
    return AnalysisTable(f"attribution_of_{stream}", caption, table, rows)


def _listed(each: StreamAttribution, values: Any, places: list[int]) -> str:
    return ", ".join(f"{each.columns[place]} {format_difference(float(values[place]), 3)}" for place in places) or "–"


def _sentences(tested: TestedConfiguration, found: Attribution) -> list[str]:
    return [
        (
            f"Integrated gradients of the heads of {tested.label} in {found.rows:,} tested rows: the contribution of a "
            f"value is its share in {_SCORE[tested.item.target.part]}, compared with the mean of the training rows."
        ),
        (
            f"The contributions of a row sum to its score less that of the baseline; the largest error of this sum is "
            f"{format_score(found.error)}, the mean size of a score {format_score(found.scale)}."
        ),
        (
            "A contribution says what these heads use, not what causes an emotion. Values that say the same "
            "share their "
            "contribution as the training happened to deal it."
        ),
    ]
