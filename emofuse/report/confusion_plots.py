"""Plots confusion matrices: counts, shares of the true class, and the difference of two configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from emofuse.report.configurations import ReportedConfiguration
from emofuse.report.detail import Detail, choose_detail
from emofuse.report.drawing import COLUMN_IN, PAGE_IN, note_random, one_plot, text_width_in
from emofuse.report.formats import format_difference
from emofuse.report.matrices import (
    CHANGE,
    COUNTS,
    MANY_IN,
    NAME_IN,
    count_axis,
    draw_scale,
    ink,
    matrix_ticks,
    write_cell,
)
from emofuse.report.names import shorten_all

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NO_ROWS = "#ececec"
_LEAST_PT, _LETTER, _FILLED = 6.0, 0.64, 0.86
"""The least size of letters, the width of one in units of its size, and the part of a cell that a text may fill."""
_SCALE_IN = 0.55  # the width of the scale of colours with its numbers and title
_LEAST_REACH = 5.0
"""The least end of the scale of a difference in percentage points, so that noise does not look like a finding."""


@dataclass(frozen=True)
class _Scale:
    """The colours of a matrix, the values of the lowest and the highest, and what the values are."""

    colours: Colormap
    low: float
    high: float
    title: str


_SHARES = _Scale(COUNTS, 0, 100, "Rows of the true class (%)")


def plot_confusion(
    configuration: ReportedConfiguration, classes: Sequence[str], detail: Detail | None = None
) -> Figure:
    """Plot the counts, true classes down and predicted classes across; colours are shares of the true class.

    Args:
        configuration: the configuration.
        classes: the names of its labels.
        detail: the detail of the figure; that of a single figure unless given.
    """
    detail = detail or choose_detail(1, len(classes))
    counts, shares = configuration.confusion, np.nan_to_num(_shares(configuration.confusion))
    if not detail.names:
        return _plain_matrix(100 * shares, _SHARES, configuration.random_streams)
    texts = _count_texts(counts, shares) if detail.numbers else None
    return _matrix(100 * shares, texts, _SHARES, classes, configuration.random_streams, scaled=texts is None)


def _count_texts(counts: Ints, shares: Floats) -> list[list[str]]:
    return [
        [f"{_short_count(n)}\n{_percent(share)}" if n else "0" for n, share in zip(row, of_row, strict=True)]
        for row, of_row in zip(counts.tolist(), shares.tolist(), strict=True)
    ]


def plot_normalised(
    configuration: ReportedConfiguration, classes: Sequence[str], detail: Detail | None = None
) -> Figure:
    """Plot the shares of each true class in percent, so that every row sums to 100, with the scale of the colours.

    Args:
        configuration: the configuration.
        classes: the names of its labels.
        detail: the detail of the figure; that of a single figure unless given.
    """
    detail = detail or choose_detail(1, len(classes))
    percent = 100 * _shares(configuration.confusion)
    if not detail.names:
        return _plain_matrix(percent, _SHARES, configuration.random_streams)
    texts = [[_one_decimal(value) for value in row] for row in percent]
    if not _fit_a_page(shorten_all(classes), texts):
        texts = [
            [text if text == "–" else f"{value:.0f}" for text, value in zip(*rows, strict=True)]
            for rows in zip(texts, percent, strict=True)
        ]
    return _matrix(percent, texts if detail.numbers else None, _SHARES, classes, configuration.random_streams)


@dataclass(frozen=True)
class ConfusionDifference:
    """The confusion matrix of one configuration minus that of another.

    Attributes:
        first: the configuration.
        second: the one that is subtracted.
        points: the difference of the shares of each true class in percentage points, float64 (C, C); NaN in the rows of
            classes without test rows.
        counts: the difference of the counts summed over the repeats, int64 (C, C); None if both were not scored on the
            same number of rows of each class, so that counts do not compare.
    """

    first: ReportedConfiguration
    second: ReportedConfiguration
    points: Floats
    counts: Ints | None

    @classmethod
    def of(cls, first: ReportedConfiguration, second: ReportedConfiguration) -> ConfusionDifference:
        """Subtract the confusion matrix of the second configuration from that of the first."""
        points = 100 * (_shares(first.confusion) - _shares(second.confusion))
        same = np.array_equal(first.confusion.sum(axis=1), second.confusion.sum(axis=1))
        return cls(first, second, points, first.confusion - second.confusion if same else None)

    @property
    def reach(self) -> float:
        """The end of the scale of colours in percentage points; the scale is centred at 0."""
        return max(_LEAST_REACH, float(np.nanmax(np.abs(self.points), initial=0.0)))


def plot_difference(difference: ConfusionDifference, classes: Sequence[str], detail: Detail | None = None) -> Figure:
    """Plot the difference of two confusion matrices in percentage points, with the difference of the counts below.

    Where these texts make the matrix wider than a page, cells hold whole percentage points alone.

    Args:
        difference: the difference.
        classes: the names of the labels.
        detail: the detail of the figure; that of a single figure unless given.
    """
    detail = detail or choose_detail(1, len(classes))
    scale = _Scale(CHANGE, -difference.reach, difference.reach, "Difference (percentage points)")
    streams = tuple(dict.fromkeys((*difference.first.random_streams, *difference.second.random_streams)))
    if not detail.names:
        return _plain_matrix(difference.points, scale, streams)
    texts = _difference_texts(difference)
    if not _fit_a_page(shorten_all(classes), texts):
        texts = [
            ["–" if np.isnan(value) else format_difference(value, 0) for value in row] for row in difference.points
        ]
    return _matrix(difference.points, texts if detail.numbers else None, scale, classes, streams)


def _difference_texts(difference: ConfusionDifference) -> list[list[str]]:
    texts = [["–" if np.isnan(value) else format_difference(value, 1) for value in row] for row in difference.points]
    if difference.counts is None:
        return texts
    pairs = zip(texts, difference.counts.tolist(), strict=True)
    return [
        [f"{text}\n({format_difference(n, 0)})" if n else "0" for text, n in zip(row, of, strict=True)]
        for row, of in pairs
    ]


def _matrix(
    values: Floats,
    texts: list[list[str]] | None,
    scale: _Scale,
    classes: Sequence[str],
    random_streams: Sequence[str],
    *,
    scaled: bool = True,
) -> Figure:
    """Plot a matrix (C, C) with names, texts in its cells and the scale of its colours; rows of NaN are grey."""
    names = shorten_all(classes)
    cell_in = _cell_in(names, texts, _SCALE_IN if scaled else 0.0)
    figure, axes = one_plot(len(classes) * cell_in, len(classes) * cell_in)
    axes.set_facecolor(_NO_ROWS)
    axes.imshow(values, cmap=scale.colours, vmin=scale.low, vmax=scale.high, aspect="equal", interpolation="nearest")
    for (row, column), value in np.ndenumerate(values) if texts is not None else ():
        text = texts[row][column] if texts else ""
        colour = (
            "#6a6a6a"
            if np.isnan(value) or text == "0"
            else ink(scale.colours((value - scale.low) / (scale.high - scale.low)))
        )
        style: dict[str, Any] = {"color": colour, "fontsize": _size_pt(text, cell_in), "linespacing": 1.2}
        write_cell(axes, (column, row), text, **style)
    matrix_ticks(axes, names, names, cell_in)
    axes.set(xlabel="Predicted", ylabel="True")
    if scaled:
        draw_scale(figure, axes, scale.colours, (scale.low, scale.high), scale.title)
    note_random(axes, random_streams)
    return figure


def _plain_matrix(values: Floats, scale: _Scale, random_streams: Sequence[str]) -> Figure:
    """Plot a matrix of many classes as one image with counted axes."""
    figure, axes = one_plot(MANY_IN, MANY_IN)
    axes.set_facecolor(_NO_ROWS)
    axes.imshow(values, cmap=scale.colours, vmin=scale.low, vmax=scale.high, aspect="equal", interpolation="nearest")
    count_axis(axes.xaxis, len(values))
    count_axis(axes.yaxis, len(values))
    axes.set(xlabel="Predicted label, by number", ylabel="True label, by number")
    draw_scale(figure, axes, scale.colours, (scale.low, scale.high), scale.title)
    note_random(axes, random_streams)
    return figure


def _shares(counts: Ints) -> Floats:
    """Return the shares of the true class, float64 (C, C); NaN in the rows of classes without test rows."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def _cell_in(names: Sequence[str], texts: list[list[str]] | None, scale_in: float = 0.0) -> float:
    """Return the size of a cell at which the matrix fits one column of a paper, or at least its texts are readable.

    Args:
        names: the names of the classes.
        texts: the texts of the cells; None without any.
        scale_in: the width of the scale of the colours.
    """
    available_in = COLUMN_IN - text_width_in(names) - scale_in - 0.35
    if not texts:
        return float(np.clip(available_in / len(names), NAME_IN, 0.62))
    lines = [text.split("\n") for row in texts for text in row]
    longest, most = max(len(line) for text in lines for line in text), max(map(len, lines))
    least = max(NAME_IN, 0.13 * most, longest * _LEAST_PT * _LETTER / (72 * _FILLED))
    return float(np.clip(available_in / len(names), least, 0.62))


def _fit_a_page(names: Sequence[str], texts: list[list[str]]) -> bool:
    """Return whether a matrix with these texts and the scale of its colours fits both columns of a paper."""
    beside_in = text_width_in(names) + _SCALE_IN + 0.35
    return beside_in + len(names) * _cell_in(names, texts, _SCALE_IN) <= PAGE_IN


def _size_pt(text: str, cell_in: float) -> float:
    """Return the size of letters at which the longest line of a text fits a cell."""
    return min(6.5, 72 * cell_in * _FILLED / (_LETTER * max(map(len, text.split("\n")))))


def _one_decimal(percent: float) -> str:
    if np.isnan(percent):
        return "–"
    return "0" if percent == 0 else f"{percent:.1f}" if percent < 99.95 else "100"


def _short_count(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else f"{100 * share:.0f}%"
