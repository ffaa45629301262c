"""The plots of a report, one function a plot, drawn for the column of a paper.

Every function returns a bare matplotlib figure whose axes have a size in inches; labels hang outside of them, and
saving with a tight box makes room. So text keeps its size and never overlaps, whatever the number and length of names.
Colours are Paul Tol's high-contrast scheme (safe for colour-blind readers and in greyscale).
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from emofuse.report.configurations import Configuration, Results, Spread
from emofuse.report.tables import CLASS_METRICS, format_difference

STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # travels with matplotlib: the same figure on every machine
    "font.size": 6.5,
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "text.color": "#1a1a1a",
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#1a1a1a",
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "xtick.color": "#1a1a1a",
    "ytick.color": "#1a1a1a",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "legend.fontsize": 6.5,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.2,
    "svg.fonttype": "path",
    "svg.hashsalt": "emofuse",
}
COLUMN_IN = 3.5  # one column of a two-column paper
PAGE_IN = 7.2  # both columns
NAVY, ROSE, GOLD, GREY, RED = "#004488", "#BB5566", "#DDAA33", "#8a8a8a", "#b00020"
_COUNTS = LinearSegmentedColormap.from_list("counts", ["#ffffff", "#c9dcef", "#5f97c9", NAVY])
_CHANGE = LinearSegmentedColormap.from_list("change", ["#a8552b", "#e9bb98", "#ffffff", "#9fc2e3", NAVY])
_BARS = {"precision": GOLD, "recall": ROSE, "f1": NAVY}


def plot_confusion(configuration: Configuration, classes: Sequence[str]) -> Figure:
    """True classes down, predicted classes across; colour and percent are shares of the true class."""
    counts = configuration.confusion
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    cell_in = float(np.clip(2.7 / len(classes), 0.28, 0.62))
    figure, axes = _one_plot(len(classes) * cell_in, len(classes) * cell_in)
    axes.imshow(shares, cmap=_COUNTS, vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    for (row, column), share in np.ndenumerate(shares):
        count = int(counts[row, column])
        text = f"{_short_count(count)}\n{_percent(share)}" if count else "0"
        colour = _ink(_COUNTS(share)) if count else "#b4b4b4"
        size = min(6.5, 72 * cell_in * 0.86 / (0.64 * max(map(len, text.split("\n")))))
        _write_cell(axes, (column, row), text, color=colour, fontsize=size, linespacing=1.2)
    names = [_shorten(label) for label in classes]
    _matrix_ticks(axes, names, names, cell_in)
    axes.set(xlabel="Predicted", ylabel="True")
    _note_random(axes, configuration.random_streams)
    return figure


def plot_classes(configuration: Configuration, classes: Sequence[str]) -> Figure:
    """Precision, recall and F1 of every class as grouped bars, with the deviation over repeats."""
    slot_in = float(np.clip(2.95 / len(classes), 0.33, 0.8))
    figure, axes = _one_plot(len(classes) * slot_in, 1.5)
    width = min(0.26, 0.15 / slot_in)
    for index, (key, colour) in enumerate(_BARS.items()):
        spreads = configuration.class_metric(key)
        heights = [0.0 if spread.n == 0 else spread.mean for spread in spreads]
        at = np.arange(len(classes)) + (index - 1) * width
        axes.bar(at, heights, width, color=colour, edgecolor="white", linewidth=0.4, label=CLASS_METRICS[key])
        sds = np.array([spread.sd for spread in spreads])
        if not np.isnan(sds).all():
            axes.errorbar(at, heights, sds, fmt="none", ecolor="#333333", elinewidth=0.6)
    axes.set(xlim=(-0.5 - 0.1, len(classes) - 0.5 + 0.1), ylim=(0, 1), yticks=np.arange(0, 1.01, 0.2))
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    _class_ticks(axes, [_shorten(label) for label in classes], slot_in)
    _despine(axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, borderpad=0)
    _note_random(axes, configuration.random_streams, above_pt=12)
    return figure


def plot_progression(results: Results) -> Figure:
    """Accuracy and macro F1 from configuration to configuration, top to bottom, with the deviation over repeats."""
    items = results.configurations
    labels = [_wrap(_marked(item)) for item in items]
    heights_in = np.array([max(0.27, 0.1 + 0.115 * _most_lines([label])) for label in labels])
    middles_in = np.cumsum(heights_in) - heights_in / 2  # the y axis is in inches: a row is as high as its name
    figure, axes = _one_plot(COLUMN_IN - 0.15 - _width_in(labels), heights_in.sum())
    ends: list[float] = []
    for path, name, colour, marker, shift in (
        ("accuracy", "Accuracy", NAVY, "o", -0.035),
        ("macro.f1", "Macro F1", ROSE, "s", 0.035),
    ):
        spreads = [item.metric(path) for item in items]
        means = np.array([spread.mean for spread in spreads])
        sds = np.nan_to_num([spread.sd for spread in spreads])
        rows = middles_in + shift
        axes.plot(means, rows, color=colour, linewidth=0.7, alpha=0.45)
        axes.hlines(rows, means - sds, means + sds, color=colour, linewidth=0.9)
        axes.plot(means, rows, color=colour, marker=marker, markersize=3.6, linestyle="none", label=name)
        ends += [*(means - sds), *(means + sds)]
    known = [
        (value, row)
        for row, item in zip(middles_in, items, strict=True)
        if (value := results.reachable(item)) is not None
    ]
    if known:
        values = [value for value, _ in known]
        ticks: dict[str, Any] = {"marker": "|", "markersize": 9, "markeredgewidth": 1.4, "color": "#1a1a1a"}
        axes.plot(values, [row for _, row in known], linestyle="none", label="Reachable accuracy", **ticks)
        ends += values
    axes.set(xlim=_limits(ends), ylim=(heights_in.sum(), 0), xlabel="Test score")
    axes.set_yticks(middles_in, labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    _despine(axes)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2, borderpad=0)
    _note_random(axes, results.random_streams, above_pt=12, mark="† ")
    return figure


def plot_change(results: Results) -> Figure:
    """F1 of every class minus the baseline's, one row for each other configuration."""
    others = [item for item in results.configurations if item is not results.baseline]
    base = np.array([spread.mean for spread in results.baseline.class_metric("f1")])
    change = np.array([[spread.mean for spread in item.class_metric("f1")] for item in others]) - base
    labels = [_wrap(_marked(item)) for item in others]
    slot_in = float(np.clip((COLUMN_IN - 0.15 - _width_in(labels)) / len(results.classes), 0.27, 0.6))
    row_in = max(0.24, 0.08 + 0.115 * _most_lines(labels))
    figure, axes = _one_plot(len(results.classes) * slot_in, len(others) * row_in)
    largest = max(0.05, float(np.nanmax(np.abs(change), initial=0.0)))
    axes.imshow(change, cmap=_CHANGE, vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(change):
        text, size = format_difference(value, 2), min(5.8, 72 * slot_in * 0.86 / (0.64 * 5))
        _write_cell(axes, (column, row), text, color=_ink(_CHANGE((value / largest + 1) / 2)), fontsize=size)
    _matrix_ticks(axes, labels, [_shorten(label) for label in results.classes], slot_in)
    _note_random(axes, results.random_streams, mark="† ")
    return figure


def plot_training(results: Results) -> Figure:
    """Validation macro F1 by epoch: a small panel a configuration, a line a repeat; a ring marks the epoch kept."""
    items = results.configurations
    columns = _panel_columns(len(items))
    gap_in, height_in = 0.16, 0.95
    width_in = ((COLUMN_IN if columns <= 2 else PAGE_IN) - 0.5 - gap_in * (columns - 1)) / columns
    titles = [_wrap(_marked(item), int(width_in / 0.056)) for item in items]
    step_in = height_in + 0.34 + 0.11 * _most_lines(titles)
    curves = {run.digest: _numbers(entry["val_macro_f1"] for entry in run.history) for run in results.runs}
    kept = Spread.of(curves[run.digest][run.best_epoch - 1] for run in results.baseline.runs)
    limits = _limits([value for curve in curves.values() for value in curve])
    last_epoch = max(2, *map(len, curves.values()))
    figure = Figure(figsize=(1, 1))
    for index, (item, title) in enumerate(zip(items, titles, strict=True)):
        row, column = divmod(index, columns)
        axes = figure.add_axes((column * (width_in + gap_in), -row * step_in, width_in, height_in))
        axes.axhline(kept.mean, color=GREY, linewidth=0.7, linestyle=(0, (4, 2)))
        for run in item.runs:
            _draw_curve(axes, curves[run.digest], run.best_epoch)
        axes.set(xlim=(1, last_epoch), ylim=limits)
        axes.set_title(title, loc="left", fontsize=6, pad=3)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="y")
        _despine(axes)
        axes.tick_params(labelleft=column == 0)
        if column == 0:
            axes.set_ylabel("Validation macro F1", fontsize=6)
        if index + columns >= len(items):
            axes.set_xlabel("Epoch", fontsize=6)
    _note_random(figure.axes[0], results.random_streams, above_pt=6 + 8 * _most_lines(titles[:columns]), mark="† ")
    return figure


def _draw_curve(axes: Axes, curve: npt.NDArray[np.float64], best_epoch: int) -> None:
    axes.plot(np.arange(1, len(curve) + 1), curve, color=NAVY, linewidth=0.7, alpha=0.65)
    ring: dict[str, Any] = {"marker": "o", "markersize": 3.4, "markerfacecolor": "white", "markeredgecolor": ROSE}
    axes.plot(best_epoch, curve[best_epoch - 1], zorder=3, clip_on=False, **ring)


def _panel_columns(panels: int) -> int:
    """Two panels fill the column of a paper, three or four its page."""
    return panels if panels <= 2 else 2 if panels <= 4 else 3 if panels <= 6 else 4


def _one_plot(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """A figure that its axes fill."""
    figure = Figure(figsize=(width_in, height_in))
    return figure, figure.add_axes((0, 0, 1, 1))


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
    """Names below their slot, upright if they fit, else slanted."""
    slanted = _width_in(labels) > slot_in - 0.06
    turn: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(labels)), labels, **turn)


def _note_random(axes: Axes, streams: Sequence[str], *, above_pt: float = 4, mark: str = "") -> None:
    """A red line above the axes: a figure is often shown without its page."""
    if streams:
        text = textwrap.fill(f"{mark}random weights: {', '.join(streams)}", 60)
        place: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (0, above_pt)}
        axes.annotate(text, **place, textcoords="offset points", color=RED, fontsize=6, va="bottom")


def _marked(item: Configuration) -> str:
    return f"{item.label} †" if item.random_streams else item.label


def _write_cell(axes: Axes, at: tuple[int, int], text: str, **style: Any) -> None:
    """Text in the middle of a matrix cell; it never reaches outside, so the layout need not measure it."""
    axes.text(*at, text, ha="center", va="center", **style).set_in_layout(False)


def _ink(background: tuple[float, float, float, float]) -> str:
    """White or near-black, whichever contrasts more with a colour (relative luminance of WCAG 2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in background[:3]]
    return "white" if np.dot(linear, (0.2126, 0.7152, 0.0722)) < 0.2 else "#1a1a1a"


def _despine(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _wrap(label: str, width: int = 24, lines: int = 4) -> str:
    """Breaks a name after `+`, `/`, `,` or a space; what is beyond the last line becomes an ellipsis."""
    wrapped = [""]
    for part in re.findall(r"[^+/,\s]*[+/,\s]?", label):
        for piece in textwrap.wrap(part, width, drop_whitespace=False) or [""]:
            if len(wrapped[-1]) + len(piece.rstrip()) > width:
                wrapped.append("")
            wrapped[-1] += piece
    kept = [line.rstrip() for line in wrapped[:lines]]
    if len(wrapped) > lines:
        kept[-1] = kept[-1][: width - 1] + "…"
    return "\n".join(kept)


def _most_lines(labels: Sequence[str]) -> int:
    return max(label.count("\n") + 1 for label in labels)


def _shorten(label: str, width: int = 22) -> str:
    flat = " ".join(label.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _width_in(labels: Sequence[str], size: float = 6.5) -> float:
    """Width of the widest line of any label in inches."""
    lines = [line for label in labels for line in label.split("\n") if line.strip()]
    return max((TextPath((0, 0), line, size=size).get_extents().width / 72 for line in lines), default=0.0)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """An axis around scores, at least a tenth wide."""
    known = [value for value in values if not math.isnan(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    pad = max(0.03, 0.08 * (high - low), (0.1 - (high - low)) / 2)
    return low - pad, high + pad


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _short_count(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else f"{100 * share:.0f}%"
