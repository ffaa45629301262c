"""Plots single classes: bars of each class, and the change of each class against the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator

from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.detail import Detail, choose_detail
from emofuse.report.drawing import (
    COLUMN_IN,
    GOLD,
    NAVY,
    PAGE_IN,
    ROSE,
    despine,
    most_lines,
    note_random,
    one_plot,
    text_width_in,
)
from emofuse.report.formats import format_difference
from emofuse.report.matrices import CHANGE, NAME_IN, class_ticks, count_axis, ink, matrix_ticks, write_cell
from emofuse.report.names import marked, shorten, shorten_all, wrap_marked

Floats = npt.NDArray[np.float64]

_BARS = {"precision": GOLD, "recall": ROSE, "f1": NAVY}
_BAR_TITLES = {"precision": "Precision", "recall": "Recall", "f1": "F1"}
MOST_GROUPED_BARS = 160
_BAR_IN = 0.055
"""The least width of a bar that is still told from its neighbours."""


def _plot_many_classes(configuration: ReportedConfiguration) -> Figure:
    """Plot precision, recall and F1 of many classes as points, the class with the best F1 first."""
    figure, axes = one_plot(PAGE_IN - 0.5, 1.8)
    order = np.argsort(configuration.part_ranks)
    places = np.arange(1, len(order) + 1)
    for key, colour in _BARS.items():
        scores = np.array([spread.mean if spread.n else 0.0 for spread in configuration.part_metric(key)])
        style: dict[str, Any] = {"marker": "o", "markersize": 2.2, "linestyle": "none", "color": colour}
        axes.plot(places, scores[order], label=_BAR_TITLES[key], **style)
    axes.set(xlim=(0, len(places) + 1), ylim=(-0.02, 1.02), yticks=np.arange(0, 1.01, 0.2))
    axes.set(xlabel="Labels in the order of their F1, the best first: the rank of the table")
    axes.grid(axis="y")
    despine(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, borderpad=0)
    note_random(axes, configuration.random_streams, above_pt=12)
    return figure


def plot_classes(
    configuration: ReportedConfiguration,
    classes: Sequence[str],
    detail: Detail | None = None,
    uncertainty: Uncertainty | None = None,
) -> Figure:
    """Plot precision, recall and F1 of every class as grouped bars, with their intervals.

    Args:
        configuration: the configuration.
        classes: the names of its classes.
        detail: what the figure has room for; chosen unless given.
        uncertainty: the intervals; a score without one has its deviation over repeats.
    """
    detail = detail or choose_detail(1, len(classes))
    if not detail.names:
        return _plot_many_classes(configuration)
    slot_in = float(np.clip(2.95 / len(classes), min(0.33, (PAGE_IN - 0.5) / len(classes)), 0.8))
    figure, axes = one_plot(len(classes) * slot_in, 1.5)
    width = min(0.26, 0.15 / slot_in)
    for index, (key, colour) in enumerate(_BARS.items()):
        spreads = configuration.part_metric(key)
        heights = [0.0 if spread.n == 0 else spread.mean for spread in spreads]
        at = np.arange(len(classes)) + (index - 1) * width
        axes.bar(at, heights, width, color=colour, edgecolor="white", linewidth=0.4, label=_BAR_TITLES[key])
        ends = [_ends(configuration, key, place, uncertainty) for place in range(len(classes))]
        _draw_lines(axes, [(x, *each) for x, each in zip(at, ends, strict=True) if each])
    axes.set(xlim=(-0.5 - 0.1, len(classes) - 0.5 + 0.1), ylim=(0, 1), yticks=np.arange(0, 1.01, 0.2))
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    class_ticks(axes, shorten_all(classes), slot_in)
    despine(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, borderpad=0)
    note_random(axes, configuration.random_streams, above_pt=12)
    return figure


def _ends(
    configuration: ReportedConfiguration, key: str, place: int, uncertainty: Uncertainty | None
) -> tuple[float, float] | None:
    """Return the ends of the line on the bar of a class: of the interval or, without one, of the deviation."""
    path = configuration.target.part_path(place, key)
    interval = uncertainty.interval(configuration.label, path) if uncertainty else None
    if interval is not None and not math.isnan(interval.low):
        return interval.low, interval.high
    spread = configuration.part_metric(key)[place]
    return None if math.isnan(spread.sd) else (spread.mean - spread.sd, spread.mean + spread.sd)


def _draw_lines(axes: Axes, ends: Sequence[tuple[float, float, float]]) -> None:
    """Draw a line at each x from its low to its high end, with a white rim, so that it is seen on dark bars."""
    if ends:
        drawn = tuple(zip(*ends, strict=True))
        axes.vlines(*drawn, color="white", linewidth=1.4)
        axes.vlines(*drawn, color="#1a1a1a", linewidth=0.6)


def has_bars(results: Results) -> bool:
    """Return whether the bars of all featured configurations and classes fit one figure."""
    items, classes = len(results.featured), len(results.classes)
    return items > 1 and items * classes <= MOST_GROUPED_BARS


def plot_bars(results: Results, uncertainty: Uncertainty) -> Figure:
    """Plot the main score of every class, column or label, a group of bars with one for each featured configuration.

    Bars become darker in the order of the configurations, so that they differ in greyscale too. Lines are intervals.
    """
    items, score = results.featured, results.target.main_part
    colours = colormaps["cividis"](np.linspace(0.92, 0.05, len(items)))
    slot_in = float(np.clip((PAGE_IN - 0.4) / len(results.classes), (len(items) + 1) * _BAR_IN, 1.2))
    width = 0.84 / len(items)
    figure, axes = one_plot(len(results.classes) * slot_in, 1.7)
    lows = [0.0]
    for index, (item, colour) in enumerate(zip(items, colours, strict=True)):
        at = np.arange(len(results.classes)) + (index - (len(items) - 1) / 2) * width
        heights = np.array([spread.mean if spread.n else 0.0 for spread in item.part_metric(score.path)])
        axes.bar(at, heights, width, color=colour, edgecolor="white", linewidth=0.3)
        places = range(len(results.classes))
        intervals = [uncertainty.interval(item.label, results.target.part_path(i, score.path)) for i in places]
        ends = [(x, each.low, each.high) for x, each in zip(at, intervals, strict=True) if each]
        _draw_lines(axes, ends)
        lows += [*heights, *(low for _, low, _ in ends if not math.isnan(low))]
    low, high = (math.floor(10 * min(lows)) / 10, score.bounds[1]) if min(lows) < 0 else (0.0, score.bounds[1])
    axes.set(xlim=(-0.55, len(results.classes) - 0.45), ylim=(low, high), ylabel=score.title)
    axes.yaxis.set_major_locator(MultipleLocator(0.2))
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    class_ticks(axes, shorten_all(results.classes), slot_in)
    despine(axes)
    lines = _bars_legend(axes, items, colours, len(results.classes) * slot_in)
    note_random(axes, results.random_streams, above_pt=5 + 9.5 * lines, mark="† ")
    return figure


def _bars_legend(axes: Axes, items: Sequence[ReportedConfiguration], colours: Floats, width_in: float) -> int:
    """Write the names of the bars above them, in as many columns as fit, row by row; return the number of lines."""
    names = shorten_all([marked(item) for item in items], 60, in_the_middle=True)
    across = max(1, min(len(items), int(width_in / (text_width_in(names) + 0.32))))
    lines = -(-len(items) // across)
    order = [place for column in range(across) for place in range(column, len(items), across)]
    patches = [Patch(facecolor=colours[place], label=names[place]) for place in order]
    axes.legend(handles=patches, loc="lower left", bbox_to_anchor=(0, 1), ncols=across, borderaxespad=0.2, borderpad=0)
    return lines


def plot_change(results: Results, detail: Detail | None = None) -> Figure:
    """Plot the main score of every class, column or label minus that of the baseline.

    There is one row for each other featured configuration.
    """
    detail = detail or choose_detail(1, len(results.classes))
    others = [item for item in results.featured if item is not results.baseline]
    key = results.target.main_part.path
    base = np.array([spread.mean for spread in results.baseline.part_metric(key)])
    change = np.array([[spread.mean for spread in item.part_metric(key)] for item in others]) - base
    labels = wrap_marked(others)
    available_in = (COLUMN_IN - 0.15 if detail.numbers else PAGE_IN - 0.3) - text_width_in(labels)
    slot_in = available_in / len(results.classes)
    if detail.names:
        slot_in = float(np.clip(slot_in, 0.27 if detail.numbers else NAME_IN, 0.6))
    row_in = max(0.24, 0.08 + 0.115 * most_lines(labels))
    figure, axes = one_plot(len(results.classes) * slot_in, len(others) * row_in)
    largest = max(0.05, float(np.nanmax(np.abs(change), initial=0.0)))
    axes.imshow(change, cmap=CHANGE, vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(change) if detail.numbers else ():
        text, size = format_difference(value, 2), min(5.8, 72 * slot_in * 0.86 / (0.64 * 5))
        write_cell(axes, (column, row), text, color=ink(CHANGE((value / largest + 1) / 2)), fontsize=size)
    if detail.names:
        matrix_ticks(axes, labels, shorten_all(results.classes), slot_in)
    else:
        axes.set_yticks(range(len(labels)), labels)
        count_axis(axes.xaxis, len(results.classes))
    if detail.numbers:
        axes.set_xlabel(f"Difference of {results.target.main_part.name} to {shorten(results.baseline.label, 40)}")
    else:
        counted = "" if detail.names else "Label, by number; "
        scale = f"colour from −{largest:.2f} (brown) to +{largest:.2f} (blue)"
        axes.set_xlabel(f"{counted}{scale}" if counted else scale.capitalize())
    note_random(axes, results.random_streams, mark="† ")
    return figure
