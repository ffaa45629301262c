"""The sections on subgroups of rows and on groups of people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from emofuse.analysis.plots import MOST_SERIES, Series, plot_intervals, row_height_in
from emofuse.analysis.scoring import Scoring
from emofuse.analysis.sections.words import difference_cell, heading_of, score_cell, unit_words
from emofuse.analysis.subgroups import LEAST_UNITS, ComparedSubgroup, Fairness
from emofuse.report.analysis import AnalysisSection, AnalysisTable
from emofuse.report.figures import draw_figure
from emofuse.report.fonts import choose_lettering_of
from emofuse.report.formats import UNDEFINED, format_difference, format_interval, format_p, format_score, join_some
from emofuse.report.tables import Cell, ReportTable, TableColumn
from emofuse.wording import join_names

_SIGNIFICANT = 0.05
_MOST_PLOTTED = 30
_PLOTTED_IN = 8.0
"""The height that a figure has on a page of paper."""


@dataclass(frozen=True)
class SubgroupComparison:
    """Two models in all subgroups.

    Attributes:
        name: what is compared, for the heading of a column: a stream, or a configuration.
        sentence: what the difference is, as a sentence.
        subgroups: the comparisons.
    """

    name: str
    sentence: str
    subgroups: Sequence[ComparedSubgroup]


def subgroups_section(
    comparisons: Sequence[SubgroupComparison],
    *,
    grouped: bool,
    left_out: Sequence[str] = (),
    score: str = "accuracy",
) -> AnalysisSection:
    """Return the section on where streams, or a whole configuration, help and hurt.

    Args:
        comparisons: the comparisons; those of one kind of models have the same subgroups.
        grouped: whether intervals draw whole groups.
        left_out: columns of the manifest that form no subgroups.
        score: the name of the score.
    """
    by_rows: dict[tuple[tuple[str, str, int], ...], list[SubgroupComparison]] = {}
    for each in comparisons:
        key = tuple((one.subgroup.attribute, one.subgroup.name, one.subgroup.count) for one in each.subgroups)
        by_rows.setdefault((*key, (_model_of(each), "", 0)), []).append(each)
    tables, figures = [], []
    for number, same in enumerate(by_rows.values()):
        stem = "subgroups" if number == 0 else f"subgroups_{number + 1}"
        tables.append(_table(stem, same, score))
        room = int(_PLOTTED_IN / row_height_in(min(len(same), MOST_SERIES)))
        shown = [one for one in same[0].subgroups if not one.is_small][: min(_MOST_PLOTTED, room)]
        names = [f"{one.subgroup.attribute}: {one.subgroup.name}" for one in shown]
        lettering = choose_lettering_of(names)
        drawn = [lettering.labels.get(name, name) for name in names]
        places = [same[0].subgroups.index(one) for one in shown]
        series = [
            Series(
                each.name,
                [each.subgroups[place].test.difference for place in places],
                [each.subgroups[place].test.interval for place in places],
            )
            for each in same[:MOST_SERIES]
        ]
        caption = (
            f"Difference of {score} in each subgroup. {_joined_sentences(same)} Lines are 95 % intervals."
            f"{_left_out_words(same, shown)}"
        )
        figures.append(
            draw_figure(
                stem,
                caption,
                partial(plot_intervals, drawn, series, f"Difference of {score}"),
                lettering,
            )
        )
    return AnalysisSection(
        "subgroups",
        "Where streams help and where they hurt",
        _sentences(comparisons, grouped=grouped, left_out=left_out),
        tables,
        figures,
        {"comparisons": [row for each in comparisons for row in _rows(each)], "left_out": list(left_out)},
    )


def _joined_sentences(same: Sequence[SubgroupComparison]) -> str:
    """Return the sentences on what is compared, each of them once."""
    return " ".join(dict.fromkeys(each.sentence for each in same))


def _left_out_words(same: Sequence[SubgroupComparison], shown: Sequence[ComparedSubgroup]) -> str:
    """Return what a figure has no room for; an empty text if it shows everything that was tested."""
    tested = sum(not one.is_small for one in same[0].subgroups)
    streams = f"the first {MOST_SERIES} of {len(same)} streams" if len(same) > MOST_SERIES else ""
    groups = f"the first {len(shown)} of {tested} subgroups" if len(shown) < tested else ""
    left_out = " and ".join(part for part in (streams, groups) if part)
    return f" Shown: {left_out}; the table has all." if left_out else ""


def _model_of(comparison: SubgroupComparison) -> str:
    """Return the accuracies of the first model as a text: comparisons of one model share a table."""
    return ",".join(f"{one.first:.6f}" for one in comparison.subgroups)


def _table(stem: str, same: Sequence[SubgroupComparison], score: str) -> AnalysisTable:
    first = same[0].subgroups
    columns = [
        TableColumn("Attribute", [Cell(one.subgroup.attribute) for one in first], "left"),
        TableColumn("Subgroup", [Cell(one.subgroup.name) for one in first], "left"),
        TableColumn("Rows", [Cell(f"{one.subgroup.count:,}{' *' * one.is_small}") for one in first]),
        TableColumn(heading_of(score), [Cell(format_score(one.first)) for one in first]),
        *(
            TableColumn(
                each.name,
                [
                    Cell(
                        format_difference(one.test.difference),
                        interval=format_interval(one.test.interval, signed=True),
                        best=one.corrected is not None and one.corrected < _SIGNIFICANT,
                    )
                    for one in each.subgroups
                ],
            )
            for each in same
        ),
    ]
    if len(same) == 1:
        p_values = [Cell(UNDEFINED if one.corrected is None else format_p(one.corrected)) for one in first]
        columns.append(TableColumn("p", p_values))
    caption = (
        f"{heading_of(score)} in each subgroup. {_joined_sentences(same)} Bold: p below 0.05 "
        "after Holm's "
        f"correction over the subgroups of the column. *: fewer than {LEAST_UNITS} rows (or groups of rows), not "
        "tested."
    )
    return AnalysisTable(stem, caption, ReportTable(tuple(columns)), [row for each in same for row in _rows(each)])


def _rows(comparison: SubgroupComparison) -> list[dict[str, Any]]:
    return [
        {
            "compared": comparison.name,
            "attribute": one.subgroup.attribute,
            "subgroup": one.subgroup.name,
            "rows": one.subgroup.count,
            "units": one.units,
            "score": one.first,
            "score_of_other": one.second,
            "difference": one.test.difference,
            "low": one.test.interval.low,
            "high": one.test.interval.high,
            "p": one.test.p,
            "p_holm": one.corrected,
        }
        for one in comparison.subgroups
    ]


def _sentences(comparisons: Sequence[SubgroupComparison], *, grouped: bool, left_out: Sequence[str]) -> list[str]:
    sentences = []
    for each in comparisons:
        clear = [one for one in each.subgroups if one.corrected is not None and one.corrected < _SIGNIFICANT]
        helps = [_name(one) for one in clear if one.test.difference > 0]
        hurts = [_name(one) for one in clear if one.test.difference < 0]
        if helps:
            sentences.append(f"{each.name} helps in {join_some(helps)}.")
        if hurts:
            sentences.append(f"{each.name} hurts in {join_some(hurts)}.")
    if not sentences:
        sentences.append("No difference in a class or subgroup is clear after correction for the number of subgroups.")
    sentences.append(
        f"Intervals are a paired bootstrap over {unit_words(grouped=grouped)}. Subgroups overlap and are small: a "
        "difference between two of them needs a test of its own."
    )
    if left_out:
        sentences.append(
            f"Columns of the manifest that form no subgroups, because most values differ: {join_some(left_out)}."
        )
    return sentences


def _name(one: ComparedSubgroup) -> str:
    return f"{one.subgroup.attribute} {one.subgroup.name} ({format_difference(one.test.difference)})"


def fairness_section(label: str, found: Sequence[Fairness], scoring: Scoring) -> AnalysisSection:
    """Return the section on groups of people.

    Args:
        label: the name of the model.
        found: the scores by attribute.
        scoring: the scores of the target.
    """
    tables = [_fair_table(each, label, scoring) for each in found]
    sentences = [_gap_sentence(each, label, scoring) for each in found]
    over_rows = [each.attribute for each in found if each.over_rows]
    if over_rows:
        sentences.append(
            f"Intervals of {join_names(over_rows)} draw rows: each of its groups is one unit, so that they hold for "
            "these people, and say nothing of others."
        )
    sentences.append(
        "The best and the worst group are chosen after the fact, so that a gap is expected even where all groups are "
        "alike; the gap by chance says how large. Groups differ in what they show as well as in who they are: a gap is "
        "no proof of its cause."
    )
    numbers: Mapping[str, Any] = {
        each.attribute: {
            "best": each.best,
            "worst": each.worst,
            "gap": each.gap,
            "gap_low": each.gap_interval.low,
            "gap_high": each.gap_interval.high,
            "gap_by_chance": each.gap_by_chance,
            "p": each.p,
            "groups": _fair_rows(each),
        }
        for each in found
    }
    return AnalysisSection(
        "fairness", "Groups of people", sentences, tables, [], {"model": label, "attributes": numbers}
    )


def _fair_table(each: Fairness, label: str, scoring: Scoring) -> AnalysisTable:
    order = sorted(
        each.groups, key=lambda group: (group.is_small, -np.nan_to_num(group.scores[scoring.main], nan=-1e9))
    )
    columns = (
        TableColumn(each.attribute, [Cell(group.subgroup.name) for group in order], "left"),
        TableColumn("Rows", [Cell(f"{group.subgroup.count:,}{' *' * group.is_small}") for group in order]),
        *(
            TableColumn(
                score.title,
                [score_cell(group.scores[score.column], group.intervals[score.column]) for group in order],
            )
            for score in scoring.scores
        ),
    )
    caption = f"{label} by {each.attribute}, with 95 % intervals. *: fewer than {LEAST_UNITS} rows, not ranked."
    if scoring.target.has_classes:
        caption += " Macro F1 is a mean over the classes that occur in the group."
    return AnalysisTable(f"fairness_{each.attribute}", caption, ReportTable(columns), _fair_rows(each))


def _fair_rows(each: Fairness) -> list[dict[str, Any]]:
    return [
        {
            "attribute": each.attribute,
            "group": group.subgroup.name,
            "rows": group.subgroup.count,
            **{
                key: value
                for score in group.scores
                for key, value in (
                    (score, group.scores[score]),
                    (f"{score}_low", group.intervals[score].low),
                    (f"{score}_high", group.intervals[score].high),
                )
            },
            "ranked": not group.is_small,
        }
        for group in each.groups
    ]


def _gap_sentence(each: Fairness, label: str, scoring: Scoring) -> str:
    if each.best is None or math.isnan(each.gap):
        return f"{each.attribute}: fewer than two groups have {LEAST_UNITS} rows, so that there is no gap to measure."
    cell, name = difference_cell(each.gap, each.gap_interval), scoring.scores[0].name
    return (
        f"{each.attribute}: the {name} of {label} is highest for {each.best} and lowest for {each.worst}, a gap of "
        f"{cell.text} "
        f"[{cell.interval}]; groups dealt at random would show {format_score(each.gap_by_chance)} on average "
        f"(p {format_p(each.p)})."
    )
