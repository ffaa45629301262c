"""Plots mean ranks with the critical difference of Nemenyi's test (Demšar, JMLR 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emofuse.report.drawing import NAVY, PAGE_IN, ROSE, note_random, text_width_in
from emofuse.report.names import marked, shorten_all
from emofuse.report.ranking import Ranking

_ROW_IN, _BAR_IN, _GAP_IN = 0.17, 0.085, 0.08
_MOST_LETTERS = 44


def plot_ranks(ranking: Ranking) -> Figure:
    """Plot the mean ranks on one axis, the best to the left; thick bars join what the tests cannot tell apart.

    The line above the axis is as long as the critical difference.
    """
    order, ranks = ranking.ordered, ranking.test.mean_ranks
    names = [f"{name}  {ranks[place]:.2f}" for name, place in zip(_names(ranking, order), order, strict=True)]
    left, right = names[: (len(names) + 1) // 2], names[(len(names) + 1) // 2 :]
    sides_in = [text_width_in(side) + 0.12 for side in (left, right)]
    width_in = min(3.2, max(1.6, PAGE_IN - 0.2 - sum(sides_in)))
    levels = _bar_levels(ranking, order)
    names_in = 0.1 + _BAR_IN * (max(levels, default=0) + 1) + _GAP_IN  # below the axis
    height_in = names_in + _ROW_IN * len(left)
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, width_in, height_in))
    axes.set(xlim=(1, len(order)), ylim=(height_in, 0))
    _draw_axis(axes, len(order))
    _draw_critical_difference(axes, ranking, height_in)
    for level, group in zip(levels, _ordered_groups(ranking, order), strict=True):
        ends = [ranks[order[group[0]]], ranks[order[group[-1]]]]
        margin = 0.03 * (len(order) - 1) / width_in
        at_in = 0.1 + _BAR_IN * level
        bar: dict[str, Any] = {"color": ROSE, "linewidth": 2.6, "solid_capstyle": "butt", "clip_on": False}
        axes.plot([ends[0] - margin, ends[1] + margin], [at_in, at_in], zorder=3, **bar)
    for row, name in enumerate(left):
        _draw_name(axes, name, float(ranks[order[row]]), names_in + _ROW_IN * row, left=True)
    for row, name in enumerate(reversed(right)):
        place = order[len(order) - 1 - row]
        _draw_name(axes, name, float(ranks[place]), names_in + _ROW_IN * row, left=False)
    streams = tuple(dict.fromkeys(name for item in ranking.items for name in item.random_streams))
    note_random(axes, streams, above_pt=32, mark="† ")
    return figure


def _names(ranking: Ranking, order: Sequence[int]) -> list[str]:
    return shorten_all([marked(ranking.items[place]) for place in order], _MOST_LETTERS, in_the_middle=True)


def _draw_axis(axes: Axes, models: int) -> None:
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xticks(range(1, models + 1))
    axes.set_yticks([])
    axes.spines[["left", "right", "bottom"]].set_visible(False)


def _draw_critical_difference(axes: Axes, ranking: Ranking, height_in: float) -> None:
    """Draw the critical difference as a line above the axis, from rank 1 on; a longer one ends at the last rank."""
    above = -0.3  # inches
    difference, last = ranking.test.critical_difference, len(ranking.items)
    end = min(1 + difference, float(last))
    line: dict[str, Any] = {"color": "#1a1a1a", "linewidth": 0.9, "clip_on": False}
    axes.plot([1, end], [above, above], **line)
    for x in (1.0, end):
        axes.plot([x, x], [above - 0.035, above + 0.035], **line)
    more = " (longer than the axis)" if 1 + difference > last else ""
    text = f"critical difference {difference:.2f}{more}"
    axes.text(1, above - 0.06, text, ha="left", va="bottom", fontsize=6)
    axes.set_ylim(height_in, 0)


def _draw_name(axes: Axes, name: str, rank: float, row_in: float, *, left: bool) -> None:
    """Draw the line from a rank down to the row of its name, and to the side where the name stands."""
    low, high = axes.get_xlim()
    side = low if left else high
    axes.plot([rank, rank, side], [0, row_in, row_in], color=NAVY, linewidth=0.7, clip_on=False)
    offset: dict[str, Any] = {"xytext": (-3 if left else 3, 0), "textcoords": "offset points"}
    axes.annotate(name, (side, row_in), ha="right" if left else "left", va="center", **offset)


def _ordered_groups(ranking: Ranking, order: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the groups as places in the order of the mean ranks."""
    position = {place: number for number, place in enumerate(order)}
    return [tuple(sorted(position[place] for place in group)) for group in ranking.test.groups]


def _bar_levels(ranking: Ranking, order: Sequence[int]) -> list[int]:
    """Return the level of each group's bar, so that bars on one level do not touch."""
    ends: list[int] = []  # of the last bar on each level
    levels = []
    for group in _ordered_groups(ranking, order):
        level = next((each for each, end in enumerate(ends) if end < group[0]), len(ends))
        ends[level : level + 1] = [group[-1]]
        levels.append(level)
    return levels
