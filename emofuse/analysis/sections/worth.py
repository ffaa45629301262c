"""The section on what streams are worth to models that are trained on subsets of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from emofuse.analysis.plots import Series, plot_intervals, plot_matrix
from emofuse.analysis.scoring import PART_TITLES
from emofuse.analysis.sections.words import difference_cell, heading_of, random_sentence, score_cell, unit_words
from emofuse.analysis.worth import KINDS, Worth, interaction_rows, subset_rows, worth_rows
from emofuse.report.analysis import AnalysisSection, AnalysisTable
from emofuse.report.figures import ReportFigure, draw_figure
from emofuse.report.fonts import choose_lettering_of
from emofuse.report.formats import format_difference, format_score
from emofuse.report.tables import MOST_ACROSS, Cell, ReportTable, TableColumn
from emofuse.wording import join_names

_NO_STREAM = {
    "class": "the most frequent class",
    "distribution": "the most frequent class",
    "regression": "the mean of the training rows",
    "multilabel": "the share of the training rows that have each label",
}
_TITLES = {"shapley": "Shapley value", "leave_one_out": "Left out", "add_one_in": "Alone"}


def worth_section(
    worth: Worth, planted: Mapping[str, float] | None = None, read: Mapping[str, float] | None = None
) -> AnalysisSection:
    """Return the section on what streams are worth.

    Args:
        worth: the numbers.
        planted: stream -> its Shapley value by design, of generated data.
        read: the same as far as the streams tell the cues of the design (`emofuse.analysis.planted.read_worth`).
    """
    tables = [_streams_table(worth, planted, read), _subsets_table(worth)]
    figures = [_streams_figure(worth, planted)]
    if worth.game.pairs:
        tables.append(_interactions_table(worth))
    if len(worth.answers.classes) <= MOST_ACROSS:
        tables.append(_classes_table(worth))
        figures.append(_classes_figure(worth))
    return AnalysisSection(
        "worth",
        "What each stream is worth",
        [*random_sentence(worth.answers.random_streams), *_sentences(worth, planted, read)],
        tables,
        figures,
        {
            "models": worth.answers.models,
            "rows": worth.answers.rows,
            "streams": worth_rows(worth),
            "subsets": subset_rows(worth),
            "interactions": interaction_rows(worth),
            "by_design": dict(planted) if planted else None,
            "as_read": dict(read) if read else None,
        },
    )


def _scores(worth: Worth) -> list[tuple[str, str]]:
    """Return the key and the name of each score."""
    return [(score.column, score.name) for score in worth.answers.scoring.gains]


def _name(worth: Worth) -> str:
    """Return the name of the main score."""
    return worth.answers.scoring.gains[0].name


def _parts(worth: Worth) -> list[str]:
    """Return the keys of the scores of the classes, columns or labels."""
    return list(worth.answers.scoring.parts)


def _order(worth: Worth) -> list[str]:
    """Return the streams, the most worth first."""
    return sorted(worth.game.players, key=lambda stream: -worth.get(stream).value)


def _streams_table(
    worth: Worth, planted: Mapping[str, float] | None, read: Mapping[str, float] | None
) -> AnalysisTable:
    streams = _order(worth)
    columns = [TableColumn("Stream", [Cell(stream) for stream in streams], "left")]
    for score, title in _scores(worth):
        for kind in KINDS:
            cells = [
                difference_cell(each.value, each.interval)
                for each in (worth.get(stream, kind, score) for stream in streams)
            ]
            columns.append(TableColumn(f"{_TITLES[kind]}, {title}", cells))
    for title, known in (("By design", planted), ("As read", read)):
        if known:
            columns.append(TableColumn(title, [Cell(format_difference(known[stream])) for stream in streams]))
    caption = (
        "What each stream adds: the Shapley value (its mean gain over all orders of adding the streams), the "
        "loss where "
        "it is left out of all streams, and the gain of the stream alone over no stream; with 95 % intervals."
    )
    return AnalysisTable("worth", caption, ReportTable(tuple(columns)), worth_rows(worth))


def _subsets_table(worth: Worth) -> AnalysisTable:
    order = sorted(range(len(worth.game.subsets)), key=lambda place: (-worth.values[worth.main][place].value, place))
    names = [
        " + ".join(name for name in worth.game.players if name in worth.game.subsets[place]) or "no stream"
        for place in order
    ]
    scores = [
        TableColumn(
            heading_of(title),
            [score_cell(worth.values[score][place].value, worth.values[score][place].interval) for place in order],
        )
        for score, title in _scores(worth)
    ]
    table = ReportTable((TableColumn("Streams", [Cell(name) for name in names], "left"), *scores))
    return AnalysisTable(
        "subsets", "Scores of every subset of the streams, with 95 % intervals.", table, subset_rows(worth)
    )


def _interactions_table(worth: Worth) -> AnalysisTable:
    order = sorted(range(len(worth.game.pairs)), key=lambda place: worth.interactions[worth.main][place].value)
    columns = [
        TableColumn("Streams", [Cell(" and ".join(worth.game.pairs[place])) for place in order], "left"),
        *(
            TableColumn(
                f"Interaction, {title}",
                [
                    difference_cell(each.value, each.interval)
                    for each in (worth.interactions[score][place] for place in order)
                ],
            )
            for score, title in _scores(worth)
        ),
    ]
    caption = (
        "Shapley interaction of two streams. Negative: they say the same in part, so that together they add less than "
        "each on its own. Positive: each adds more where the other is there."
    )
    return AnalysisTable("interactions", caption, ReportTable(tuple(columns)), interaction_rows(worth))


def _classes_table(worth: Worth) -> AnalysisTable:
    streams, classes = _order(worth), worth.answers.classes
    columns = [TableColumn(worth.answers.scoring.target.part.capitalize(), [Cell(name) for name in classes], "left")]
    answered = worth.answers.answers[frozenset()][0].classes
    if answered is not None:
        counts = np.bincount(answered.label, minlength=len(classes))
        columns.append(TableColumn("Rows", [Cell(f"{count:,}") for count in counts]))
    for stream in streams:
        numbers = [worth.get(stream, "shapley", part) for part in _parts(worth)]
        columns.append(TableColumn(stream, [difference_cell(each.value, each.interval) for each in numbers]))
    part = worth.answers.scoring.target.part
    of_rows = " in the rows of the class" if part == "class" else ""
    caption = (
        f"Shapley values by {part}, of the {PART_TITLES[part]}{of_rows}: where a stream helps (positive) and where it "
        "hurts."
    )
    if part == "class":
        caption += " Without a stream 1 / C of the rows of a class are right, as by a guess at random among C classes."
    rows = [
        row
        for row in worth_rows(worth)
        if row["score"] == worth.answers.scoring.part_score and row["kind"] == "shapley"
    ]
    return AnalysisTable("worth_per_class", caption, ReportTable(tuple(columns)), rows)


def _streams_figure(worth: Worth, planted: Mapping[str, float] | None) -> ReportFigure:
    streams = _order(worth)
    series = [
        Series(_TITLES[kind], [each.value for each in numbers], [each.interval for each in numbers])
        for kind in KINDS
        for numbers in [[worth.get(stream, kind) for stream in streams]]
    ]
    caption = f"What each stream adds to {_name(worth)}. Lines are 95 % intervals."
    if planted:
        caption += " Black ticks: the Shapley value that the design of the generated data allows."
    return draw_figure(
        "worth",
        caption,
        lambda: plot_intervals(
            streams,
            series,
            f"Gain of {_name(worth)}",
            random_streams=worth.answers.random_streams,
            ticks=[planted[stream] for stream in streams] if planted else (),
            ticks_title="By design",
        ),
    )


def _classes_figure(worth: Worth) -> ReportFigure:
    streams = _order(worth)
    lettering = choose_lettering_of(worth.answers.classes)
    names = [lettering.labels.get(name, name) for name in worth.answers.classes]
    values = [[worth.get(stream, "shapley", part).value for stream in streams] for part in _parts(worth)]
    return draw_figure(
        "worth_per_class",
        (
            f"Shapley value of each stream for each {worth.answers.scoring.target.part} "
            f"({PART_TITLES[worth.answers.scoring.target.part]}). Blue: it helps. Red: it hurts."
        ),
        lambda: plot_matrix(names, streams, values, random_streams=worth.answers.random_streams),
        lettering,
    )


def _sentences(worth: Worth, planted: Mapping[str, float] | None, read: Mapping[str, float] | None) -> list[str]:
    streams = _order(worth)
    best = worth.get(streams[0])
    answers, values = worth.answers, worth.values[worth.main]
    useless = [stream for stream in streams if worth.get(stream).interval.low <= 0]
    sentences = [
        (
            f"{streams[0]} is worth most: {format_difference(best.value)} of {_name(worth)} "
            f"[{format_difference(best.interval.low)}, {format_difference(best.interval.high)}]. All "
            f"{len(streams)} streams together reach {format_score(values[-1].value)}, no stream "
            f"({_NO_STREAM[answers.scoring.kind]}) "
            f"{format_score(values[0].value)}; the Shapley values sum to the difference."
        )
    ]
    if useless:
        sentences.append(
            f"The interval of {join_names(useless)} reaches 0: these rows do not show that "
            f"{'it adds' if len(useless) == 1 else 'they add'} anything."
        )
    sentences += [
        f"{answers.models} All {len(worth.game.subsets)} subsets are treated alike. No choice sees answered rows.",
        (
            f"Intervals are a bootstrap over {unit_words(grouped=answers.grouped)} ({answers.rows:,} rows), the "
            "same for "
            "all subsets. They cover the choice of rows, and not the randomness of training."
        ),
        (
            "A Shapley value shares what streams know in common among them. So a stream can be worth much although "
            "nothing is lost where it is left out: another says the same."
        ),
    ]
    if planted:
        sentences.append("By design: the Shapley values of the accuracies that the cues of the generated data allow.")
    if read:
        sentences.append(
            "As read: the same with the accuracy at which the answers of each stream alone tell each cue, so that "
            "finite training rows and streams that see a little of another cue are part of it."
        )
    return sentences
