"""Parts that plots of matrices share: their colours, the names on their axes, the texts in their cells, their scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from emofuse.report.drawing import NAVY, text_width_in

COUNTS = LinearSegmentedColormap.from_list("counts", ["#ffffff", "#c9dcef", "#5f97c9", NAVY])
CHANGE = LinearSegmentedColormap.from_list("change", ["#a8552b", "#e9bb98", "#ffffff", "#9fc2e3", NAVY])
"""Brown for less and blue for more, which colour-blind readers tell apart."""
MANY_IN = 4.5
NAME_IN = 0.15  # the width of a slanted name


def matrix_ticks(axes: Axes, down: Sequence[str], across: Sequence[str], slot_in: float) -> None:
    """Write names down and across, and part the cells by white lines.

    Args:
        axes: the axes of a matrix.
        down: the names of its rows.
        across: the names of its columns.
        slot_in: the width of a column in inches.
    """
    axes.set_yticks(range(len(down)), down)
    class_ticks(axes, across, slot_in)
    axes.tick_params(length=0)
    # Lines are drawn much faster than the grid of minor ticks.
    line: dict[str, Any] = {"color": "white", "linewidth": 0.8, "zorder": 1.5}
    axes.vlines(np.arange(len(across) + 1) - 0.5, -0.5, len(down) - 0.5, **line)
    axes.hlines(np.arange(len(down) + 1) - 0.5, -0.5, len(across) - 0.5, **line)
    axes.spines[:].set_visible(False)


def class_ticks(axes: Axes, labels: Sequence[str], slot_in: float) -> None:
    """Write names below their slots, upright if they fit, otherwise slanted."""
    slanted = text_width_in(labels) > slot_in - 0.06
    turn: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(labels)), labels, **turn)


def count_axis(axis: Axis, classes: int) -> None:
    """Label an axis with the numbers of about ten classes, counted from 1."""
    step = max(1, round(classes / 100) * 10)
    places = [0, *range(step - 1, classes, step)]
    axis.set_ticks(places, [str(place + 1) for place in places])


def write_cell(axes: Axes, at: tuple[int, int], text: str, **style: Any) -> None:
    """Write text into a matrix cell. It never reaches outside, so that the layout need not measure it."""
    axes.text(*at, text, ha="center", va="center", **style).set_in_layout(False)


def ink(background: npt.ArrayLike) -> str:
    """Return white or black, the one that contrasts more with a colour (WCAG 2): at least 4.58 to 1 on any colour."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in np.asarray(background)[:3]
    ]
    return "white" if np.dot(linear, (0.2126, 0.7152, 0.0722)) < 0.179 else "black"


def draw_scale(figure: Figure, axes: Axes, colours: Colormap, limits: tuple[float, float], title: str) -> None:
    """Draw the scale of the colours to the right of a matrix, as high as the matrix.

    Args:
        figure: the figure.
        axes: the axes of the matrix.
        colours: the colours.
        limits: the values of the lowest and the highest colour.
        title: what the values are, with their unit.
    """
    place, inch = axes.get_position(), 1 / figure.get_size_inches()[0]
    scale = figure.add_axes((place.x1 + 0.08 * inch, place.y0, 0.1 * inch, place.height))
    steps = np.linspace(*limits, 128)[:, None]
    scale.imshow(steps, cmap=colours, aspect="auto", origin="lower", extent=(0, 1, *limits))
    scale.set_xticks([])
    scale.yaxis.tick_right()
    scale.yaxis.set_label_position("right")
    scale.set_ylabel(title)
    scale.spines[:].set_linewidth(0.4)
