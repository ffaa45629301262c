"""Style, sizes and text layout that all plots of a report share.

A plot is one function. It returns a matplotlib figure whose axes have a size in inches. Labels stand outside of the
axes, and saving with a tight box makes room for them, so that text keeps its size and never overlaps. Colours are Paul
Tol's high-contrast scheme, which is safe for colour-blind readers and in greyscale.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that figures are the same on every machine
    "font.size": 6.5,
    "text.parse_math": False,  # a dollar sign in a label begins no formula
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
    "pdf.fonttype": 42,  # TrueType, which publishers ask for, and not Type 3
}
COLUMN_IN = 3.5  # one column of a two-column paper
PAGE_IN = 7.2  # both columns
NAVY, ROSE, GOLD, GREY, RED = "#004488", "#BB5566", "#DDAA33", "#8a8a8a", "#b00020"


def one_plot(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """Make a figure that its axes fill."""
    figure = Figure(figsize=(width_in, height_in))
    return figure, figure.add_axes((0, 0, 1, 1))


def note_random(axes: Axes, streams: Sequence[str], *, above_pt: float = 4, mark: str = "") -> None:
    """Write a red line above the axes, because figures are often shown without their page."""
    if streams:
        text = textwrap.fill(f"{mark}random weights: {', '.join(streams)}", 60)
        place: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (0, above_pt)}
        axes.annotate(text, **place, textcoords="offset points", color=RED, fontsize=6, va="bottom")


def despine(axes: Axes) -> None:
    """Remove the upper and the right edge."""
    axes.spines[["top", "right"]].set_visible(False)


def most_lines(labels: Sequence[str]) -> int:
    """Return the number of lines of the tallest label."""
    return max(label.count("\n") + 1 for label in labels)


def text_width_in(labels: Sequence[str], size: float = 6.5) -> float:
    """Return the width of the widest line of all labels in inches."""
    lines = [line for label in labels for line in label.split("\n") if line.strip()]
    families = tuple(rcParams["font.family"])
    return max((_line_width_in(line, size, families) for line in lines), default=0.0)


@lru_cache(maxsize=4096)
def _line_width_in(line: str, size: float, _families: tuple[str, ...]) -> float:
    """Return the width in the fonts that are set; cached, because many figures have the same names."""
    return float(TextPath((0, 0), line, size=size).get_extents().width / 72)


def score_limits(values: Sequence[float], of_errors: bool = False) -> tuple[float, float]:
    """Return the limits of an axis around scores, at least a tenth wide (of errors: a tenth of the largest)."""
    defined = [value for value in values if not math.isnan(value)] or [0.0, 1.0]
    low, high = min(defined), max(defined)
    scale = (max(abs(low), abs(high)) or 1.0) if of_errors else 1.0
    pad = max(0.03 * scale, 0.08 * (high - low), (0.1 * scale - (high - low)) / 2)
    return low - pad, high + pad


def with_gaps(values: Iterable[float | None]) -> npt.NDArray[np.float64]:
    """Return numbers as an array (n,), NaN for None, where a line has a gap."""
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
