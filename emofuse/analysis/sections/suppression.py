"""The section on suppressed streams."""

from __future__ import annotations

from emofuse.analysis.answers import TestedConfiguration
from emofuse.analysis.plots import Series, plot_intervals
from emofuse.analysis.sections.words import difference_cell, random_sentence, unit_words
from emofuse.analysis.suppression import Suppression, drop_rows, methods_of
from emofuse.report.analysis import AnalysisSection, AnalysisTable
from emofuse.report.figures import draw_figure
from emofuse.report.formats import format_score
from emofuse.report.tables import Cell, ReportTable, TableColumn

_TITLES = {
    "missing": "Missing",
    "mean": "Mean",
    "shuffled_in_class": "Shuffled in the class",
    "shuffled_in_stratum": "Shuffled in the stratum",
    "shuffled": "Shuffled",
}


_STRATA = {
    "class": "Shuffled in the class: rows of one class",
    "distribution": "Shuffled in the class: rows of one majority",
    "regression": "Shuffled in the stratum: rows with similar true values (parts of equal size of every column)",
    "multilabel": "Shuffled in the stratum: rows with the same set of labels",
}


def suppression_section(tested: TestedConfiguration, found: Suppression) -> AnalysisSection:
    """Return the section on what a configuration loses without each of its streams."""
    streams, scoring = tested.item.streams, tested.scoring
    methods = methods_of(has_classes=scoring.target.has_classes)
    tables = []
    for shown in scoring.scores:
        score, title = shown.column, shown.name
        missing = [Cell(f"{100 * found.missing[stream]:.1f} %") for stream in streams]
        columns = [
            TableColumn(
                _TITLES[method],
                [
                    difference_cell(drop.drop, drop.interval)
                    for drop in (found.get(stream, method, score) for stream in streams)
                ],
            )
            for method in methods
        ]
        full = found.get(streams[0], methods[0], score).full
        caption = (
            f"What {tested.label} loses of its {title} of {format_score(full)} where one stream is suppressed, "
            "with 95 % "
            "intervals. Positive: the head uses the stream. Lacking: tested rows that have no such stream anyway."
        )
        stem = f"suppression_{score}"
        table = ReportTable(
            (
                TableColumn("Stream", [Cell(stream) for stream in streams], "left"),
                TableColumn("Lacking", missing),
                *columns,
            )
        )
        rows = [row for row in drop_rows(found) if row["score"] == score]
        tables.append(AnalysisTable(stem, caption, table, rows))
    series = [
        Series(_TITLES[method], [drop.drop for drop in drops], [drop.interval for drop in drops])
        for method in methods
        for drops in [[found.get(stream, method) for stream in streams]]
    ]
    caption = (
        f"Loss of {scoring.scores[0].name} of {tested.label} where one stream is suppressed. Lines are 95 % intervals."
    )
    figure = draw_figure(
        "suppression",
        caption,
        lambda: plot_intervals(
            streams, series, f"Loss of {scoring.scores[0].name}", random_streams=tested.item.random_streams
        ),
    )
    return AnalysisSection(
        "suppression",
        "Streams taken away from the trained head",
        [*random_sentence(tested.item.random_streams), *_sentences(tested, found)],
        tables,
        [figure],
        {
            "configuration": tested.label,
            "rows": found.rows,
            "draws": found.draws,
            "lacking": dict(found.missing),
            "drops": drop_rows(found),
        },
    )


def _sentences(tested: TestedConfiguration, found: Suppression) -> list[str]:
    repeats = len(tested.repeats)
    again = f" in each of {repeats} repeats" if repeats > 1 else ""
    return [
        (
            f"The heads of {tested.label} are not trained again: each stream is suppressed in the {found.rows:,} "
            "tested "
            f"rows{again}, and the loss is the score with all streams less that without it."
        ),
        (
            "Missing: the row counts as one without the stream. Mean: every value is the mean of the training rows. "
            f"{_STRATA[tested.item.target.kind]} exchange the stream, so that only what it says about the single row "
            f"is lost. Shuffled: all tested rows exchange it. Shuffles are means over {found.draws} draws."
        ),
        (
            "A loss says how far these heads rely on a stream. Two streams that say the same may both show no "
            "loss; what a "
            "stream is worth to heads that are trained without it is another question."
        ),
        (
            f"Intervals are a paired bootstrap over {unit_words(grouped=found.grouped)}: they cover the choice of test "
            "rows, and not the randomness of training."
        ),
    ]
