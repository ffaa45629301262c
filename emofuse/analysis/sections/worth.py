"""The section on what streams are worth to models that are trained on subsets of them."""

from __future__ import annotations

from collections.abc import Mapping

from emofuse.analysis.answers import TITLES
from emofuse.analysis.plots import Series, plot_intervals, plot_matrix
from emofuse.analysis.sections.words import difference_cell, random_sentence, score_cell, unit_words
from emofuse.analysis.worth import KINDS, Worth, interaction_rows, subset_rows, worth_rows
from emofuse.report.analysis import AnalysisSection, AnalysisTable
from emofuse.report.figures import ReportFigure, draw_figure
from emofuse.report.fonts import choose_lettering_of
from emofuse.report.formats import format_difference, format_score, join_names
from emofuse.report.tables import MOST_ACROSS, Cell, ReportTable, TableColumn

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


def _order(worth: Worth) -> list[str]:
    """Return the streams, the most worth first."""
    return sorted(worth.game.players, key=lambda stream: -worth.get(stream).value)


def _streams_table(
    worth: Worth, planted: Mapping[str, float] | None, read: Mapping[str, float] | None
) -> AnalysisTable:
    streams = _order(worth)
    columns = [TableColumn("Stream", [Cell(stream) for stream in streams], "left")]
    for score, title in TITLES.items():
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
    order = sorted(range(len(worth.game.subsets)), key=lambda place: (-worth.values["accuracy"][place].value, place))
    names = [
        " + ".join(name for name in worth.game.players if name in worth.game.subsets[place]) or "no stream"
        for place in order
    ]
    scores = [
        TableColumn(
            title.capitalize() if title.islower() else f"{title[0].upper()}{title[1:]}",
            [score_cell(worth.values[score][place].value, worth.values[score][place].interval) for place in order],
        )
        for score, title in TITLES.items()
    ]
    table = ReportTable((TableColumn("Streams", [Cell(name) for name in names], "left"), *scores))
    return AnalysisTable(
        "subsets", "Scores of every subset of the streams, with 95 % intervals.", table, subset_rows(worth)
    )


def _interactions_table(worth: Worth) -> AnalysisTable:
    order = sorted(range(len(worth.game.pairs)), key=lambda place: worth.interactions["accuracy"][place].value)
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
            for score, title in TITLES.items()
        ),
    ]
    caption = (
        "Shapley interaction of two streams. Negative: they say the same in part, so that together they add less than "
        "each on its own. Positive: each adds more where the other is there."
    )
    return AnalysisTable("interactions", caption, ReportTable(tuple(columns)), interaction_rows(worth))


def _classes_table(worth: Worth) -> AnalysisTable:
    streams, classes = _order(worth), worth.answers.classes
    columns = [TableColumn("Class", [Cell(name) for name in classes], "left")]
    for stream in streams:
        numbers = [worth.get(stream, "shapley", f"recall.{place}") for place in range(len(classes))]
        columns.append(TableColumn(stream, [difference_cell(each.value, each.interval) for each in numbers]))
    caption = (
        "Shapley values by class, of the accuracy in the rows of the class: where a stream helps (positive) and where "
        "it hurts. Without a stream 1 / C of the rows of a class are right, as by a guess at random among C classes."
    )
    rows = [row for row in worth_rows(worth) if row["score"] == "recall" and row["kind"] == "shapley"]
    return AnalysisTable("worth_per_class", caption, ReportTable(tuple(columns)), rows)


def _streams_figure(worth: Worth, planted: Mapping[str, float] | None) -> ReportFigure:
    streams = _order(worth)
    series = [
        Series(_TITLES[kind], [each.value for each in numbers], [each.interval for each in numbers])
        for kind in KINDS
        for numbers in [[worth.get(stream, kind) for stream in streams]]
    ]
    caption = "What each stream adds to accuracy. Lines are 95 % intervals."
    if planted:
        caption += " Black ticks: the Shapley value that the design of the generated data allows."
    return draw_figure(
        "worth",
        caption,
        lambda: plot_intervals(
            streams,
            series,
            "Gain of accuracy",
            random_streams=worth.answers.random_streams,
            ticks=[planted[stream] for stream in streams] if planted else (),
            ticks_title="By design",
        ),
    )


def _classes_figure(worth: Worth) -> ReportFigure:
    streams = _order(worth)
    lettering = choose_lettering_of(worth.answers.classes)
    names = [lettering.labels.get(name, name) for name in worth.answers.classes]
    values = [
        [worth.get(stream, "shapley", f"recall.{place}").value for stream in streams] for place in range(len(names))
    ]
    return draw_figure(
        "worth_per_class",
        "Shapley value of each stream in the rows of each class (accuracy). Blue: it helps. Red: it hurts.",
        lambda: plot_matrix(names, streams, values, random_streams=worth.answers.random_streams),
        lettering,
    )


def _sentences(worth: Worth, planted: Mapping[str, float] | None, read: Mapping[str, float] | None) -> list[str]:
    streams = _order(worth)
    best = worth.get(streams[0])
    answers, values = worth.answers, worth.values["accuracy"]
    useless = [stream for stream in streams if worth.get(stream).interval.low <= 0]
    sentences = [
        (
            f"{streams[0]} is worth most: {format_difference(best.value)} of accuracy "
            f"[{format_difference(best.interval.low)}, {format_difference(best.interval.high)}]. All "
            f"{len(streams)} streams together reach {format_score(values[-1].value)}, no stream (the most "
            "frequent class) "
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
