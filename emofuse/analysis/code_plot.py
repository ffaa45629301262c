"""Contributions of local binary patterns, with a picture of each code."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emofuse.analysis.plots import plot_matrix

_CODE = re.compile(r"r([0-9]+)_([0-9]{3})")
_NEIGHBOURS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
"""Row and column of each neighbour, clockwise from the top left; neighbour k has weight 2**k (`LbpStream`)."""
_ICON_IN = 0.19


def pattern_of(column: str) -> tuple[bool, ...] | None:
    """Return whether each of eight neighbours, clockwise from the top left, is as bright as the centre or brighter.

    Args:
        column: the name of a value of the stream `lbp`, such as `r1_030`; None for other names.
    """
    found = _CODE.fullmatch(column)
    return None if found is None else tuple(bool(int(found.group(2)) >> bit & 1) for bit in range(8))


def plot_codes(columns: Sequence[str], classes: Sequence[str], values: Sequence[Sequence[float]]) -> Figure:
    """Plot a matrix of contributions, one row for each code, with the pattern of the code to its right.

    Args:
        columns: the names of R codes.
        classes: the names of the C classes.
        values: the contributions, (R, C).
    """
    figure = plot_matrix(columns, classes, values)
    width, height = figure.get_size_inches()
    for row, column in enumerate(columns):
        bits = pattern_of(column)
        if bits is None:
            continue
        middle = 1 - (row + 0.5) / len(columns)
        across, up = _ICON_IN / width, _ICON_IN / height
        axes = figure.add_axes((1 + 0.07 / width, middle - up / 2, across, up))
        for (line, place), bright in zip(_NEIGHBOURS, bits, strict=True):
            colour = "#ffffff" if bright else "#222222"
            axes.add_patch(Rectangle((place, line), 1, 1, facecolor=colour, edgecolor="#8a8a8a", linewidth=0.3))
        axes.add_patch(Rectangle((1, 1), 1, 1, facecolor="#b4b4b4", edgecolor="#8a8a8a", linewidth=0.3))
        axes.set(xlim=(-0.1, 3.1), ylim=(3.1, -0.1), aspect="equal")
        axes.axis("off")
    return figure
