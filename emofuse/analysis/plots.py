"""Plots of an analysis, in the style of the figures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emofuse.analysis.answers import Ints
from emofuse.analysis.calibration import ReliabilityBin, Selective
from emofuse.analysis.feature_space import Space
from emofuse.report.drawing import (
    COLUMN_IN,
    GOLD,
    GREY,
    NAVY,
    PAGE_IN,
    ROSE,
    despine,
    note_random,
    one_plot,
    text_width_in,
)
from emofuse.report.formats import format_difference
from emofuse.report.matrices import ink
from emofuse.report.names import wrap
from emofuse.statistics import Interval

_MARKS = ((NAVY, "o"), (ROSE, "s"), (GOLD, "D"), (GREY, "^"), ("#33a0c4", "v"), ("#1a1a1a", "P"))
MOST_SERIES = len(_MARKS)
_CLASS_MARKS = "os^DvPX"
"""The markers of classes, fewer by one than the colours, so that the first 56 classes differ in one of them or both."""
_CLASSES = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#555555", "#EE9944")
"""The colours of classes: Paul Tol's bright scheme, which is safe for colour-blind readers, and an orange."""
DIVERGING = LinearSegmentedColormap.from_list("worth", [ROSE, "#f6f6f6", NAVY])
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One value with its interval for each row of a plot.

    Attributes:
        title: the name in the legend.
        values: the values.
        intervals: their intervals.
    """

    title: str
    values: Sequence[float]
    intervals: Sequence[Interval]


def row_height_in(series: int) -> float:
    """Return the least height of a row of `plot_intervals` with this number of series, in inches."""
    return 0.14 + 0.08 * series


def plot_intervals(
    names: Sequence[str],
    series: Sequence[Series],
    xlabel: str,
    *,
    random_streams: Sequence[str] = (),
    ticks: Sequence[float | None] = (),
    ticks_title: str = "",
) -> Figure:
    """Plot values with their intervals, one row for each name from top to bottom, around a line at 0.

    Args:
        names: the names of the rows.
        series: one to `MOST_SERIES` series.
        xlabel: the name of the axis.
        random_streams: the streams with random weights, which are named above the plot.
        ticks: a black tick for each row, such as a known true value; None for a row without one.
        ticks_title: the name of the ticks in the legend.
    """
    labels = [f"{wrap(name)} †" if name in random_streams else wrap(name) for name in names]
    lines = np.array([label.count("\n") + 1 for label in labels])
    heights = np.maximum(row_height_in(len(series)), 0.1 + 0.115 * lines)
    middles = np.cumsum(heights) - heights / 2  # the y axis is in inches
    figure, axes = one_plot(COLUMN_IN - 0.15 - text_width_in(labels), float(heights.sum()))
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    for place, (each, (colour, marker)) in enumerate(zip(series, _MARKS, strict=False)):
        rows = middles + 0.085 * (place - (len(series) - 1) / 2)
        low, high = (np.array([getattr(interval, end) for interval in each.intervals]) for end in ("low", "high"))
        axes.hlines(rows, low, high, color=colour, linewidth=0.9)
        axes.plot(each.values, rows, color=colour, marker=marker, markersize=3.4, linestyle="none", label=each.title)
    known = [(value, middle) for value, middle in zip(ticks, middles, strict=False) if value is not None]
    if known:
        values, at = zip(*known, strict=True)
        axes.plot(
            values, at, linestyle="none", marker="|", markersize=9, markeredgewidth=1.4, color="#1a1a1a",
            label=ticks_title,
        )  # fmt: skip
    axes.set(ylim=(float(heights.sum()), 0), xlabel=xlabel)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.set_yticks(middles, labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    despine(axes)
    several = len(series) + bool(known) > 1
    if several:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2, borderpad=0)
    shown = [name for name in random_streams if name in names]
    above = 4 + (10 * -(-(len(series) + bool(known)) // 2) if several else 0)
    note_random(axes, shown, above_pt=above, mark="† ")
    return figure


def plot_matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    random_streams: Sequence[str] = (),
) -> Figure:
    """Plot signed numbers as coloured cells, blue above 0 and red below, with the numbers in them.

    Args:
        rows: the names of the rows.
        columns: the names of the columns.
        values: a list of numbers for each row.
        random_streams: the columns with random weights.
    """
    numbers = np.array(values, dtype=np.float64).reshape(len(rows), len(columns))
    labels = ["\n(".join(wrap(part) for part in name.split(" (", 1)) if len(name) > 20 else wrap(name) for name in rows]
    cell_in = min(0.62, max(0.34, (COLUMN_IN - 0.1 - text_width_in(labels)) / max(1, len(columns))))
    figure, axes = one_plot(cell_in * len(columns), 0.24 * len(rows))
    limit = max(0.02, float(np.nanmax(np.abs(numbers), initial=0)))
    axes.imshow(numbers, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(numbers):
        if not np.isnan(value):
            text = format_difference(float(value), 2 if limit >= 0.1 else 3)
            colour = ink(DIVERGING((value / limit + 1) / 2))
            axes.text(column, row, text, ha="center", va="center", fontsize=5.8, color=colour)
    axes.set_yticks(range(len(rows)), labels)
    shown = [f"{name} †" if name in random_streams else name for name in columns]
    axes.set_xticks(range(len(columns)), shown, rotation=40, ha="left", rotation_mode="anchor", fontsize=6)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    return figure


def plot_reliability(series: Sequence[tuple[str, Sequence[ReliabilityBin]]]) -> Figure:
    """Plot accuracy over confidence with a point for each bin, and the diagonal."""
    figure, axes = one_plot(2.6, 2.6)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    for place, ((title, bins), (colour, marker)) in enumerate(zip(series, _MARKS, strict=False)):
        # Beside each other, because bins before and after scaling have about the same confidence.
        beside = 0.008 * (place - (len(series) - 1) / 2)
        confidence = [each.confidence + beside for each in bins]
        axes.vlines(
            confidence, [each.interval.low for each in bins], [each.interval.high for each in bins],
            color=colour, linewidth=0.7, alpha=0.7,
        )  # fmt: skip
        most = max(each.rows for each in bins)
        sizes = [6 + 26 * each.rows / most for each in bins]
        axes.plot(confidence, [each.accuracy for each in bins], color=colour, linewidth=0.7, alpha=0.5)
        axes.scatter(confidence, [each.accuracy for each in bins], s=sizes, color=colour, marker=marker, label=title)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Confidence", ylabel="Accuracy")
    axes.grid()
    despine(axes)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2, borderpad=0)
    return figure


def plot_risk(selective: Selective) -> Figure:
    """Plot the accuracy in the most confident rows over their share."""
    figure, axes = one_plot(2.9, 2.0)
    count = len(selective.curve)
    first = max(1, count // 50)  # a share of a few rows says nothing
    shares = np.arange(1, count + 1) / count
    axes.plot(shares[first - 1 :], selective.curve[first - 1 :], color=NAVY, linewidth=1)
    axes.axhline(selective.curve[-1], color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    at = [each.share for each in selective.coverages]
    axes.vlines(
        at, [each.interval.low for each in selective.coverages], [each.interval.high for each in selective.coverages],
        color=NAVY, linewidth=0.9,
    )  # fmt: skip
    axes.plot(at, [each.accuracy for each in selective.coverages], "o", color=NAVY, markersize=3.4)
    axes.set(xlim=(0, 1.02), xlabel="Share of rows that are answered", ylabel="Accuracy")
    axes.grid()
    despine(axes)
    return figure


def plot_maps(
    names: Sequence[str], label: Ints, spaces: Sequence[Space], *, random_streams: Sequence[str] = ()
) -> Figure:
    """Plot maps of rows, a panel for each space, with a colour and a marker for each class.

    Args:
        names: the names of the classes.
        label: the class of each analysed row, int64 (n,).
        spaces: the spaces that have a map.
        random_streams: the streams with random weights.
    """
    shown = [each for each in spaces if each.places is not None]
    columns = min(3, len(shown))
    side, gap, step = (PAGE_IN - 0.2 * (columns - 1)) / columns if columns == 3 else 2.4, 0.2, 0.34
    figure = Figure(figsize=(1, 1), dpi=250)  # of points, which are pixels in the SVG file too: they may be thousands
    colours = [_CLASSES[place % len(_CLASSES)] for place in range(len(names))]
    for number, each in enumerate(shown):
        row, column = divmod(number, columns)
        axes = figure.add_axes((column * (side + gap), -row * (side * 0.8 + step), side, side * 0.8))
        places = np.empty((0, 2)) if each.places is None else each.places
        for place, name in enumerate(names):
            here = label[each.rows] == place
            marker = _CLASS_MARKS[place % len(_CLASS_MARKS)]
            axes.scatter(
                places[here, 0], places[here, 1], s=7, color=colours[place], marker=marker, linewidths=0, alpha=0.8,
                rasterized=True,
                label=name if not number else None,
            )  # fmt: skip
        mark = " †" if each.name in random_streams else ""
        axes.set_title(f"{each.name}{mark}, purity {each.purity:.2f}", loc="left", fontsize=6, pad=3)
        axes.set_xticks([])
        axes.set_yticks([])
    if shown:
        wide = min(len(names), 8)
        figure.axes[0].legend(
            loc="lower left", bbox_to_anchor=(0, 1.1), ncols=wide, markerscale=2, borderaxespad=0.2, borderpad=0
        )
        note_random(
            figure.axes[0], [name for name in random_streams if name in {each.name for each in shown}],
            above_pt=16 + 9 * -(-len(names) // wide), mark="† ",
        )  # fmt: skip
    return figure
