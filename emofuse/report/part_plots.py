"""Plots the columns of a regression, and the labels of rows that may have several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emofuse.errors import ResultsError
from emofuse.report.answers import pool_by_images, read_answers
from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.drawing import GREY, NAVY, PAGE_IN, ROSE, despine, note_random, one_plot, text_width_in
from emofuse.report.formats import format_score
from emofuse.report.names import shorten, shorten_all
from emofuse.report.targets import decimals_of

MOST_POINTS = 1500
"""The largest number of rows that are drawn one by one."""
MOST_PANELS = 12
MOST_BARS = 60
_PANEL_IN = 1.55
_GAP_IN = 0.5
_BINS = 60
_DENSITY = LinearSegmentedColormap.from_list("density", ["#dbe6f2", "#5f97c9", NAVY, "#001a33"])

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AnsweredValues:
    """The true values of the test rows of a configuration, and its answers.

    Attributes:
        true: the true values, float64 (n, C).
        answered: the answers, float64 (n, C); the mean over the runs that tested the row.
    """

    true: Floats
    answered: Floats


def answered_values(results: Results, runs: Path) -> dict[str, AnsweredValues]:
    """Return digest of the first run of a featured configuration -> its values; without those that cannot be read.

    Args:
        results: the configurations.
        runs: the folder of the saved runs.
    """
    values = {}
    for item in results.featured:
        answered, _ = read_answers([item], runs)
        pools, _ = pool_by_images(answered)
        for pool in pools:
            total = np.zeros((len(pool.sample_id), len(results.classes)))
            times, true = np.zeros(len(total)), np.zeros_like(total)
            counts = [rows.key for rows in pool.answered[0].rows]
            for rows in {rows.key: rows for rows in pool.answered[0].rows}.values():
                if rows.target is None:
                    raise ResultsError(f"{item.label}: the runs have no true values")
                images = pool.images(rows)
                total[images] += pool.answered[0].probs[rows.key]
                times[images] += counts.count(rows.key)
                true[images] = rows.target
            values[item.runs[0].digest] = AnsweredValues(true, total / times[:, None])
    return values


def plot_values(configuration: ReportedConfiguration, columns: Sequence[str], values: AnsweredValues) -> Figure:
    """Plot answers over true values, a panel for each column, with the line where both are equal and the CCC."""
    ccc = configuration.part_metric("ccc")
    figure, panels = _panels(len(columns))
    for place, (axes, name) in enumerate(zip(panels, shorten_all(columns, 26), strict=False)):
        true, answered = values.true[:, place], values.answered[:, place]
        low, high = _limits(np.concatenate([true, answered]))
        if len(true) <= MOST_POINTS:
            axes.plot(true, answered, linestyle="none", marker="o", markersize=2, color=NAVY, alpha=0.35, mew=0)
        else:
            _draw_density(axes, true, answered, (low, high))
        axes.plot([low, high], [low, high], color=ROSE, linewidth=0.8, zorder=3)
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="True value")
        axes.set_aspect("equal")
        axes.set_title(f"{name}\nn = {len(true):,}, CCC {format_score(ccc[place].mean)}", loc="left", fontsize=6, pad=3)
        _few_ticks(axes)
    panels[0].set_ylabel("Predicted value")
    note_random(panels[0], configuration.random_streams, above_pt=22)
    return figure


def plot_residuals(configuration: ReportedConfiguration, columns: Sequence[str], values: AnsweredValues) -> Figure:
    """Plot how often each error occurs, a panel for each column, with the mean error and the line of no error."""
    figure, panels = _panels(len(columns), height_in=1.0)
    for place, (axes, name) in enumerate(zip(panels, shorten_all(columns, 26), strict=False)):
        errors = values.answered[:, place] - values.true[:, place]
        reach = float(np.abs(errors).max()) or 1.0
        bins = int(np.clip(math.sqrt(len(errors)), 8, 40))
        axes.hist(errors, bins=bins, range=(-reach, reach), color="#9fb8d4", edgecolor="white", linewidth=0.3)
        axes.axvline(0, color=GREY, linewidth=0.7, linestyle=(0, (4, 2)))
        axes.axvline(float(errors.mean()), color=ROSE, linewidth=0.9)
        mean, deviation = (format_score(value, decimals_of(errors.std())) for value in (errors.mean(), errors.std()))
        texts = f"mean {mean}, deviation {deviation}"
        axes.set_title(f"{name}\n{texts}", loc="left", fontsize=6, pad=3)
        axes.set(xlim=(-reach, reach), xlabel="Predicted minus true value")
        _few_ticks(axes)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(visible=False, axis="x")
        despine(axes)
    panels[0].set_ylabel("Rows")
    note_random(panels[0], configuration.random_streams, above_pt=22)
    return figure


def plot_labels(configuration: ReportedConfiguration, labels: Sequence[str], uncertainty: Uncertainty) -> Figure:
    """Plot the average precision of every label as bars, the best on top, with intervals and the share of rows."""
    scores = np.array([spread.mean for spread in configuration.part_metric("average_precision")])
    order = np.argsort(configuration.part_ranks)[:MOST_BARS]
    shares = [spread.mean for spread in configuration.part_metric("rows")]
    rows = np.mean([run.metrics["test"]["rows"] for run in configuration.runs])
    intervals = uncertainty.intervals.get(configuration.label, {})
    names = [shorten(labels[place], 30) for place in order]
    height_in = 0.17
    figure, axes = one_plot(PAGE_IN * 0.62 - text_width_in(names), len(order) * height_in)
    for row, place in enumerate(order):
        axes.barh(row, scores[place], 0.66, color="#9fb8d4", linewidth=0)
        interval = intervals.get(configuration.target.part_path(int(place), "average_precision"))
        if interval is not None and not math.isnan(interval.low):
            axes.plot([interval.low, interval.high], [row, row], color=NAVY, linewidth=0.8)
        share = shares[place] / rows
        axes.plot([share, share], [row - 0.42, row + 0.42], color=ROSE, linewidth=1.2)
        if math.isnan(scores[place]):
            axes.text(0.01, row, "no test row has it", va="center", fontsize=5.8, color=GREY)
    axes.set(xlim=(0, 1), ylim=(len(order) - 0.4, -0.6), xlabel="Average precision")
    axes.set_yticks(range(len(order)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    despine(axes)
    note_random(axes, configuration.random_streams)
    return figure


def _panels(columns: int, height_in: float = _PANEL_IN) -> tuple[Figure, list[Axes]]:
    """Make a panel for each column, at most `MOST_PANELS`, in rows of up to three."""
    count = min(columns, MOST_PANELS)
    across = min(count, 3)
    figure, panels = Figure(figsize=(1, 1)), []
    for place in range(count):
        row, column = divmod(place, across)
        left, bottom = column * (_PANEL_IN + _GAP_IN), -row * (height_in + 0.75)
        panels.append(figure.add_axes((left, bottom, _PANEL_IN, height_in)))
    return figure, panels


def _draw_density(axes: Axes, true: Floats, answered: Floats, limits: tuple[float, float]) -> None:
    """Draw many rows as one image: the darker, the more rows."""
    counts, _, _ = np.histogram2d(answered, true, bins=_BINS, range=(limits, limits))
    shown = np.where(counts > 0, np.sqrt(counts), np.nan)  # NaN is drawn as nothing
    extent: Any = (*limits, *limits)
    axes.imshow(shown, origin="lower", extent=extent, cmap=_DENSITY, interpolation="nearest", aspect="equal", zorder=2)


def _limits(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.04 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - pad, high + pad


def _few_ticks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid()
