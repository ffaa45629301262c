"""The section on what streams are worth for targets without classes."""

from __future__ import annotations

from emofuse.analysis.plots import Series, plot_intervals
from emofuse.analysis.sections.words import difference_cell, random_sentence, score_cell, unit_words
from emofuse.analysis.target_worth import TargetWorth, stream_rows, subset_rows
from emofuse.analysis.worth import KINDS
from emofuse.report.analysis import AnalysisSection, AnalysisTable
from emofuse.report.figures import draw_figure
from emofuse.report.formats import format_difference, format_score
from emofuse.report.tables import Cell, ReportTable, TableColumn

_TITLES = {"shapley": "Shapley value", "leave_one_out": "Left out", "add_one_in": "Alone"}


def target_worth_section(worth: TargetWorth) -> AnalysisSection:
    """Return the section on what streams are worth by the score of a target."""
    streams = sorted(worth.game.players, key=lambda stream: -worth.get(stream).value)
    columns = [TableColumn("Stream", [Cell(stream) for stream in streams], "left")]
    for kind in KINDS:
        numbers = [worth.get(stream, kind) for stream in streams]
        columns.append(TableColumn(_TITLES[kind], [difference_cell(each.value, each.interval) for each in numbers]))
    caption = (
        f"What each stream adds to the {worth.title} of {', '.join(worth.outputs.names)}: the Shapley value, the loss "
        "where it is left out of all streams, and the gain of the stream alone; with 95 % intervals."
    )
    order = sorted(range(len(worth.game.subsets)), key=lambda place: (-worth.values[place].value, place))
    names = [
        " + ".join(name for name in worth.game.players if name in worth.game.subsets[place]) or "no stream"
        for place in order
    ]
    of_subsets = ReportTable(
        (
            TableColumn("Streams", [Cell(name) for name in names], "left"),
            TableColumn(
                f"{worth.title[0].upper()}{worth.title[1:]}",
                [score_cell(worth.values[place].value, worth.values[place].interval) for place in order],
            ),
        )
    )
    series = [
        Series(_TITLES[kind], [each.value for each in numbers], [each.interval for each in numbers])
        for kind in KINDS
        for numbers in [[worth.get(stream, kind) for stream in streams]]
    ]
    figure = draw_figure(
        "worth",
        f"What each stream adds to the {worth.title}. Lines are 95 % intervals.",
        lambda: plot_intervals(streams, series, f"Gain of {worth.title}", random_streams=worth.outputs.random_streams),
    )
    return AnalysisSection(
        "worth",
        "What each stream is worth",
        [*random_sentence(worth.outputs.random_streams), *_sentences(worth, streams)],
        [
            AnalysisTable("worth", caption, ReportTable(tuple(columns)), stream_rows(worth)),
            AnalysisTable(
                "subsets", "Scores of every subset of the streams, with 95 % intervals.", of_subsets, subset_rows(worth)
            ),
        ],
        [figure],
        {
            "models": worth.outputs.models,
            "rows": len(worth.outputs.rows),
            "streams": stream_rows(worth),
            "subsets": subset_rows(worth),
        },
    )


def _sentences(worth: TargetWorth, streams: list[str]) -> list[str]:
    best = worth.get(streams[0])
    interval = f"[{format_difference(best.interval.low)}, {format_difference(best.interval.high)}]"
    return [
        (
            f"{streams[0]} is worth most: {format_difference(best.value)} of {worth.title} {interval}. All streams "
            f"together reach {format_score(worth.values[-1].value)}, no stream (the mean of the training rows) "
            f"{format_score(worth.values[0].value)}; the Shapley values sum to the difference."
        ),
        (
            f"{worth.outputs.models} Intervals are a bootstrap over {unit_words(grouped=worth.outputs.grouped)} "
            f"({len(worth.outputs.rows):,} rows)."
        ),
    ]
