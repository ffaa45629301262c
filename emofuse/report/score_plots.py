"""Plots whole configurations: their scores with intervals, and the search that found them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.drawing import (
    COLUMN_IN,
    GOLD,
    GREY,
    NAVY,
    PAGE_IN,
    ROSE,
    despine,
    most_lines,
    note_random,
    one_plot,
    score_limits,
    text_width_in,
    with_gaps,
)
from emofuse.report.names import marked, shorten_all, wrap_marked
from emofuse.report.search import SELECTS, SearchSummary
from emofuse.report.targets import ShownScore
from emofuse.report.uncertainty_notes import SIGNIFICANT

MOST_ROWS = 80  # rows of the overview that fit on a page
_MARKS = ((NAVY, "o"), (ROSE, "s"), (GOLD, "D"))
"""The colours and markers of scores, in their order."""
_ROW_IN = 0.135
_DOT_IN = 0.15

Floats = npt.NDArray[np.float64]


def plot_progression(results: Results, uncertainty: Uncertainty, scores: Sequence[ShownScore] = ()) -> Figure:
    """Plot scores of each configuration on one axis, top to bottom, with interval and deviation.

    Args:
        results: the configurations.
        uncertainty: their intervals.
        scores: the scores; those of the target that share an axis unless given.
    """
    items = results.configurations
    labels = wrap_marked(items)
    heights_in = np.array([max(0.27, 0.1 + 0.115 * most_lines([label])) for label in labels])
    middles_in = np.cumsum(heights_in) - heights_in / 2  # the y axis is in inches, so that a row is as high as its name
    figure, axes = one_plot(COLUMN_IN - 0.15 - text_width_in(labels), heights_in.sum())
    ends: list[float] = []
    plotted = scores or results.target.plotted
    for place, (score, (colour, marker)) in enumerate(zip(plotted, _MARKS, strict=False)):
        rows = middles_in + (0.08 * place - 0.04 if len(plotted) > 1 else 0)
        ends += _draw_lines(axes, items, uncertainty, score.path, rows, colour=colour)
        means = [item.metric(score.path).mean for item in items]
        axes.plot(means, rows, color=colour, linewidth=0.7, alpha=0.45)
        axes.plot(means, rows, color=colour, marker=marker, markersize=3.6, linestyle="none", label=score.title)
    ends += [] if scores else _draw_reachable(axes, results, items, middles_in)
    name = f"Test {plotted[0].name}" if len(plotted) == 1 else "Test score"
    axes.set(xlim=score_limits(ends, not plotted[0].larger_is_better), ylim=(heights_in.sum(), 0), xlabel=name)
    axes.set_yticks(middles_in, labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    despine(axes)
    if len(plotted) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2, borderpad=0)
    note_random(axes, results.random_streams, above_pt=12, mark="† ")
    return figure


def overview_rows(results: Results) -> tuple[ReportedConfiguration, ...]:
    """Return the configurations of the overview: the best by validation first, and always the baseline."""
    best = results.ranked[:MOST_ROWS]
    return best if results.baseline in best else (*best[:-1], results.baseline)


def has_stream_dots(items: Sequence[ReportedConfiguration]) -> bool:
    """Return whether all configurations differ in their streams, so that dots can replace names."""
    return len({frozenset(item.streams) for item in items}) == len(items)


def plot_overview(results: Results, uncertainty: Uncertainty) -> Figure:
    """Plot many configurations, one row each, with their streams as dots and a panel for each score that is compared.

    The dots are those of an UpSet plot (Lex et al., TVCG 2014). If configurations share their streams, names replace
    the dots.
    """
    items = overview_rows(results)
    rows = np.arange(len(items), dtype=np.float64)
    figure = Figure(figsize=(1, 1))
    dots = has_stream_dots(items)
    names = [] if dots else shorten_all([marked(item) for item in items], 52, in_the_middle=True)
    left_in = _draw_streams(figure, results, items) + 0.12 if dots else text_width_in(names, 5.8) + 0.1
    compared = results.target.compared
    width_in = (PAGE_IN - left_in - 0.2 * (len(compared) - 1)) / len(compared)
    for place, (score, (colour, marker)) in enumerate(zip(compared, _MARKS, strict=False)):
        path = score.path
        box = (left_in + place * (width_in + 0.2), 0, width_in, _ROW_IN * len(items))
        axes = figure.add_axes(box)
        ends = _draw_lines(axes, items, uncertainty, path, rows, colour=colour)
        for row, item in zip(rows, items, strict=True):
            comparison = uncertainty.comparisons.get((item.label, results.baseline.label))
            significant = comparison is not None and comparison.corrected[path] < SIGNIFICANT
            fill = colour if significant else "white"
            point: dict[str, Any] = {"markersize": 3.4, "markeredgewidth": 0.8, "markeredgecolor": colour}
            axes.plot(item.metric(path).mean, row, marker=marker, markerfacecolor=fill, **point)
        if score == results.target.main:
            ends += _draw_reachable(axes, results, items, rows)
        axes.axvline(results.baseline.metric(path).mean, color=GREY, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
        axes.axhspan(*_row_of_baseline(results, items), color="#f3ead2", linewidth=0, zorder=0)
        limits = score_limits(ends, not score.larger_is_better)
        axes.set(xlim=limits, ylim=(len(items) - 0.5, -0.5), xlabel=f"Test {score.name}")
        axes.set_yticks(rows, names if names and not place else [""] * len(items), fontsize=5.8)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", top=True, labeltop=True)
        axes.grid(axis="x")
        despine(axes)
    note_random(figure.axes[-1], results.random_streams, above_pt=14, mark="† ")  # beside the names of the streams
    return figure


def plot_search(search: SearchSummary) -> Figure:
    """Plot the validation score of every configuration of a search, best first, with its standard errors."""
    scored = [item for item in search.ranked if item.score is not None]
    scores, errors = with_gaps(item.score for item in scored), with_gaps(item.error for item in scored)
    ranks = np.arange(1, len(scored) + 1)
    chosen = np.array([item.chosen for item in scored], dtype=bool)
    figure, axes = one_plot(PAGE_IN - 0.5, 2.2)
    for which, colour, size, label in ((~chosen, GREY, 2.2, "Not chosen"), (chosen, ROSE, 3.2, "Chosen")):
        if which.any():
            axes.vlines(ranks[which], (scores - errors)[which], (scores + errors)[which], color=colour, linewidth=0.5)
            style: dict[str, Any] = {"marker": "o", "markersize": size, "linestyle": "none", "color": colour}
            axes.plot(ranks[which], scores[which], label=label, **style)
    axes.set(xlim=(0, len(scored) + 1), xlabel="Rank", ylabel=f"Validation {SELECTS[search.select]}")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.grid(axis="y")
    despine(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, borderpad=0)
    return figure


def _draw_lines(
    axes: Axes,
    items: Sequence[ReportedConfiguration],
    uncertainty: Uncertainty,
    path: str,
    rows: Floats,
    *,
    colour: str,
) -> list[float]:
    """Draw thin intervals and thick deviations over repeats; return the ends of all lines."""
    spreads = [item.metric(path) for item in items]
    means, sds = with_gaps(spread.mean for spread in spreads), np.nan_to_num([spread.sd for spread in spreads])
    intervals = [uncertainty.interval(item.label, path) for item in items]
    low = with_gaps(None if interval is None else interval.low for interval in intervals)
    high = with_gaps(None if interval is None else interval.high for interval in intervals)
    axes.hlines(rows, low, high, color=colour, linewidth=0.7)
    axes.hlines(rows, means - sds, means + sds, color=colour, linewidth=2, alpha=0.45)
    return [*(means - sds), *(means + sds), *low, *high]


def _draw_reachable(axes: Axes, results: Results, items: Sequence[ReportedConfiguration], rows: Floats) -> list[float]:
    """Draw black ticks at the accuracy that the design allows, where it is known; return their places."""
    reachable = [(results.reachable(item), row) for item, row in zip(items, rows, strict=True)]
    values = [(value, row) for value, row in reachable if value is not None]
    if values:
        ticks: dict[str, Any] = {"marker": "|", "markersize": 9, "markeredgewidth": 1.4, "color": "#1a1a1a"}
        axes.plot(*zip(*values, strict=True), linestyle="none", label="Reachable accuracy", **ticks)
    return [value for value, _ in values]


def _draw_streams(figure: Figure, results: Results, items: Sequence[ReportedConfiguration]) -> float:
    """Draw the streams of each row as dots; return the width in inches."""
    names = tuple(dict.fromkeys(name for item in results.configurations for name in item.streams))
    axes = figure.add_axes((0, 0, _DOT_IN * len(names), _ROW_IN * len(items)))
    for row, item in enumerate(items):
        used = [names.index(name) for name in item.streams]
        axes.plot([min(used), max(used)], [row, row], color=NAVY, linewidth=0.9)
        for column in range(len(names)):
            colour = NAVY if column in used else "#dfe2e6"
            axes.plot(column, row, marker="o", markersize=3.6, color=colour, markeredgewidth=0)
    axes.axhspan(*_row_of_baseline(results, items), color="#f3ead2", linewidth=0, zorder=0)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(items) - 0.5, -0.5))
    shown = zip(names, shorten_all(names), strict=True)
    marks = [f"{short} †" if name in results.random_streams else short for name, short in shown]
    turn: dict[str, Any] = {"rotation": 60, "ha": "left", "va": "bottom", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), marks, fontsize=5.8, **turn)
    axes.set_yticks([])
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return _DOT_IN * len(names)


def _row_of_baseline(results: Results, items: Sequence[ReportedConfiguration]) -> tuple[float, float]:
    place = items.index(results.baseline)
    return place - 0.5, place + 0.5
