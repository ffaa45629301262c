"""Plots the training of configurations by epoch: the validation score, and the losses of training and validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from emofuse.report.configurations import Results, Spread
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
    score_limits,
    with_gaps,
)
from emofuse.report.names import wrap_marked
from emofuse.report.search import SELECTS
from emofuse.results import RunRecord

_GAP_IN, _HEIGHT_IN = 0.16, 0.95
_LOG_FROM = 20.0
"""Losses whose largest value is this many times the smallest have a logarithmic axis."""

Floats = npt.NDArray[np.float64]


def plot_training(results: Results) -> Figure:
    """Plot the validation score by epoch, a panel for each configuration; a ring marks the epoch that was kept."""
    curves = _curves(results, f"val_{results.target.curve}")
    kept = Spread.of(curves[run.digest][run.best_epoch - 1] for run in results.baseline.runs)
    limits = score_limits([value for curve in curves.values() for value in curve])

    def draw(axes: Axes, run: RunRecord) -> None:
        _draw_curve(axes, curves[run.digest], run.best_epoch)

    figure = _panels(results, draw, f"Validation {SELECTS[results.target.curve]}", max(map(len, curves.values())))
    for axes in figure.axes:
        axes.axhline(kept.mean, color=GREY, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
        axes.set_ylim(limits)
    return figure


def has_losses(results: Results) -> bool:
    """Return whether any featured run has a loss of training rows at two or more steps."""
    return any(np.isfinite(curve).sum() > 1 for curve in _curves(results, "train_loss").values())


def plot_losses(results: Results) -> Figure:
    """Plot the loss of training and of validation rows by epoch, a panel for each configuration, a line for each run.

    A ring marks the validation loss of the epoch that was kept.
    """
    train, val = _curves(results, "train_loss"), _curves(results, "val_loss")
    values = np.concatenate([*train.values(), *val.values()])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())

    def draw(axes: Axes, run: RunRecord) -> None:
        dashes: dict[str, Any] = {"color": GOLD, "linewidth": 0.8, "linestyle": (0, (3, 1.2))}
        axes.plot(np.arange(1, len(train[run.digest]) + 1), train[run.digest], **dashes)
        _draw_curve(axes, val[run.digest], run.best_epoch)

    figure = _panels(results, draw, "Loss", max(map(len, val.values())))
    for axes in figure.axes:
        if 0 < low < high / _LOG_FROM:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylim(low / 1.15, high * 1.15)
        else:
            pad = 0.08 * (high - low) or 0.1 * max(abs(high), 1e-6)
            axes.set_ylim(max(0.0, low - pad) if low >= 0 else low - pad, high + pad)
    lines = [
        Line2D([], [], color=GOLD, linewidth=0.9, linestyle=(0, (3, 1.2)), label="Training rows"),
        Line2D([], [], color=NAVY, linewidth=0.9, label="Validation rows"),
    ]
    lowest = figure.axes[-1 - (len(figure.axes) - 1) % _panel_columns(len(figure.axes))]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.4), "borderpad": 0, "borderaxespad": 0}
    lowest.legend(handles=lines, ncols=2, handlelength=2, **place)
    return figure


def _curves(results: Results, key: str) -> dict[str, Floats]:
    """Return the digest of each featured run -> a value by epoch, float64 (epochs,); NaN where it was not recorded."""
    runs = (run for item in results.featured for run in item.runs)
    return {run.digest: with_gaps([entry.get(key) for entry in run.history]) for run in runs}


def _panels(results: Results, draw: Callable[[Axes, RunRecord], None], ylabel: str, last_epoch: int) -> Figure:
    """Make a panel for each featured configuration, and draw each of its runs in it."""
    items = results.featured
    columns = _panel_columns(len(items))
    width_in = ((COLUMN_IN if columns <= 2 else PAGE_IN) - 0.5 - _GAP_IN * (columns - 1)) / columns
    titles = wrap_marked(items, int(width_in / 0.056))
    step_in = _HEIGHT_IN + 0.34 + 0.11 * most_lines(titles)
    figure = Figure(figsize=(1, 1))
    for index, (item, title) in enumerate(zip(items, titles, strict=True)):
        row, column = divmod(index, columns)
        axes = figure.add_axes((column * (width_in + _GAP_IN), -row * step_in, width_in, _HEIGHT_IN))
        for run in item.runs:
            draw(axes, run)
        axes.set_xlim(1, max(2, last_epoch))
        axes.set_title(title, loc="left", fontsize=6, pad=3)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="y")
        despine(axes)
        axes.tick_params(labelleft=column == 0)
        if column == 0:
            axes.set_ylabel(ylabel, fontsize=6)
        if index + columns >= len(items):
            axes.set_xlabel("Epoch", fontsize=6)
    random = tuple(dict.fromkeys(name for item in items for name in item.random_streams))
    note_random(figure.axes[0], random, above_pt=6 + 8 * most_lines(titles[:columns]), mark="† ")
    return figure


def _draw_curve(axes: Axes, curve: Floats, best_epoch: int) -> None:
    axes.plot(np.arange(1, len(curve) + 1), curve, color=NAVY, linewidth=0.7, alpha=0.65)
    ring: dict[str, Any] = {"marker": "o", "markersize": 3.4, "markerfacecolor": "white", "markeredgecolor": ROSE}
    axes.plot(best_epoch, curve[best_epoch - 1], zorder=3, clip_on=False, **ring)


def _panel_columns(panels: int) -> int:
    """Return the number of columns: up to two panels fill the column of a paper, more its page."""
    return panels if panels <= 2 else 2 if panels <= 4 else 3 if panels <= 6 else 4
