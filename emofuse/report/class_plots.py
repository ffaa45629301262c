"""Plots single classes: confusion matrices, bars of each class, the change of each class against the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

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
from emofuse.report.names import shorten_all, wrap_marked

Floats = npt.NDArray[np.float64]

_COUNTS = LinearSegmentedColormap.from_list("counts", ["#ffffff", "#c9dcef", "#5f97c9", NAVY])
_CHANGE = LinearSegmentedColormap.from_list("change", ["#a8552b", "#e9bb98", "#ffffff", "#9fc2e3", NAVY])
_MANY_IN = 4.5
_NAME_IN = 0.15  # the width of a slanted name
_BARS = {"precision": GOLD, "recall": ROSE, "f1": NAVY}
_BAR_TITLES = {"precision": "Precision", "recall": "Recall", "f1": "F1"}


def plot_confusion(
    configuration: ReportedConfiguration, classes: Sequence[str], detail: Detail | None = None
) -> Figure:
    """Plot a confusion matrix, true classes down and predicted classes across; colours are shares of the true class.

    Args:
        configuration: the configuration.
        classes: the names of its labels.
        detail: the detail of the figure; that of a single figure unless given.
    """
    detail = detail or choose_detail(1, len(classes))
    counts = configuration.confusion
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    if not detail.names:
        return _plain_matrix(shares, configuration.random_streams)
    cell_in = float(np.clip(2.7 / len(classes), 0.28 if detail.numbers else _NAME_IN, 0.62))
    figure, axes = one_plot(len(classes) * cell_in, len(classes) * cell_in)
    axes.imshow(shares, cmap=_COUNTS, vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    for (row, column), share in np.ndenumerate(shares) if detail.numbers else ():
        count = int(counts[row, column])
        text = f"{_short_count(count)}\n{_percent(share)}" if count else "0"
        colour = _ink(_COUNTS(share)) if count else "#b4b4b4"
        size = min(6.5, 72 * cell_in * 0.86 / (0.64 * max(map(len, text.split("\n")))))
        _write_cell(axes, (column, row), text, color=colour, fontsize=size, linespacing=1.2)
    names = shorten_all(classes)
    _matrix_ticks(axes, names, names, cell_in)
    axes.set(xlabel="Predicted", ylabel="True")
    note_random(axes, configuration.random_streams)
    return figure


def _plain_matrix(shares: Floats, random_streams: Sequence[str]) -> Figure:
    """Plot a matrix of many classes as one image with counted axes."""
    figure, axes = one_plot(_MANY_IN, _MANY_IN)
    axes.imshow(shares, cmap=_COUNTS, vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    _count_axis(axes.xaxis, len(shares))
    _count_axis(axes.yaxis, len(shares))
    axes.set(xlabel="Predicted label, by number", ylabel="True label, by number")
    note_random(axes, random_streams)
    return figure


def _count_axis(axis: Axis, classes: int) -> None:
    """Label an axis with the numbers of about ten classes, counted from 1."""
    step = max(1, round(classes / 100) * 10)
    places = [0, *range(step - 1, classes, step)]
    axis.set_ticks(places, [str(place + 1) for place in places])


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


def plot_classes(configuration: ReportedConfiguration, classes: Sequence[str], detail: Detail | None = None) -> Figure:
    """Plot precision, recall and F1 of every class as grouped bars, with the deviation over repeats."""
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
        sds = np.array([spread.sd for spread in spreads])
        if not np.isnan(sds).all():
            axes.errorbar(at, heights, sds, fmt="none", ecolor="#333333", elinewidth=0.6)
    axes.set(xlim=(-0.5 - 0.1, len(classes) - 0.5 + 0.1), ylim=(0, 1), yticks=np.arange(0, 1.01, 0.2))
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    _class_ticks(axes, shorten_all(classes), slot_in)
    despine(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, borderpad=0)
    note_random(axes, configuration.random_streams, above_pt=12)
    return figure


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
        slot_in = float(np.clip(slot_in, 0.27 if detail.numbers else _NAME_IN, 0.6))
    row_in = max(0.24, 0.08 + 0.115 * most_lines(labels))
    figure, axes = one_plot(len(results.classes) * slot_in, len(others) * row_in)
    largest = max(0.05, float(np.nanmax(np.abs(change), initial=0.0)))
    axes.imshow(change, cmap=_CHANGE, vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(change) if detail.numbers else ():
        text, size = format_difference(value, 2), min(5.8, 72 * slot_in * 0.86 / (0.64 * 5))
        _write_cell(axes, (column, row), text, color=_ink(_CHANGE((value / largest + 1) / 2)), fontsize=size)
    if detail.names:
        _matrix_ticks(axes, labels, shorten_all(results.classes), slot_in)
    else:
        axes.set_yticks(range(len(labels)), labels)
        _count_axis(axes.xaxis, len(results.classes))
    if not detail.numbers:
        counted = "" if detail.names else "Label, by number; "
        scale = f"colour from −{largest:.2f} (brown) to +{largest:.2f} (blue)"
        axes.set_xlabel(f"{counted}{scale}" if counted else scale.capitalize())
    note_random(axes, results.random_streams, mark="† ")
    return figure


def _matrix_ticks(axes: Axes, down: Sequence[str], across: Sequence[str], slot_in: float) -> None:
    axes.set_yticks(range(len(down)), down)
    _class_ticks(axes, across, slot_in)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(across) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(down) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)


def _class_ticks(axes: Axes, labels: Sequence[str], slot_in: float) -> None:
    """Write names below their slots, upright if they fit, otherwise slanted."""
    slanted = text_width_in(labels) > slot_in - 0.06
    turn: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(labels)), labels, **turn)


def _write_cell(axes: Axes, at: tuple[int, int], text: str, **style: Any) -> None:
    """Write text into a matrix cell. It never reaches outside, so that the layout need not measure it."""
    axes.text(*at, text, ha="center", va="center", **style).set_in_layout(False)


def _ink(background: tuple[float, float, float, float]) -> str:
    """Return white or near-black, the one that contrasts more with a colour (relative luminance of WCAG 2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in background[:3]]
    return "white" if np.dot(linear, (0.2126, 0.7152, 0.0722)) < 0.2 else "#1a1a1a"


def _short_count(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else f"{100 * share:.0f}%"
