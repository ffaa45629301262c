"""Contributions of action units and blendshapes, drawn on a face or on the photograph of one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from emofuse.analysis.face_regions import OUTLINES, OVAL, REGIONS, Points, RegionShare
from emofuse.analysis.plots import DIVERGING
from emofuse.report.drawing import PAGE_IN
from emofuse.report.formats import format_difference
from emofuse.report.names import wrap

_LISTED = 3
_INK = "#555555"


def plot_faces(titles: Sequence[str], shares: Sequence[Sequence[RegionShare]], points: Points) -> Figure:
    """Plot one face for each title, its regions coloured by their contributions, with the strongest listed below.

    Args:
        titles: what each face is of, such as a class.
        shares: the contributions by region, the strongest first.
        points: the face.
    """
    across = min(4, len(titles))
    figure = Figure(figsize=(1, 1))
    limit = max(0.02, *(share.strength for of_face in shares for share in of_face), 0.02)
    box, width = _box(points), min(1.65, (PAGE_IN - 0.1 * (across - 1)) / across)
    height = width * 0.86 * (box[3] - box[2]) / (box[1] - box[0])
    below = 0.11 * _LISTED + 0.2
    for number, (title, of_face) in enumerate(zip(titles, shares, strict=True)):
        row, column = divmod(number, across)
        axes = figure.add_axes((column * (width + 0.1), -row * (height + below + 0.14), width, height))
        draw_face(axes, of_face, points, limit)
        axes.set_title(wrap(title), fontsize=6.5, pad=3)
        lines = [_line(share) for share in of_face[:_LISTED] if share.strength > 0.005 * limit]
        axes.text(0.5, -0.03, "\n".join(lines), transform=axes.transAxes, ha="center", va="top", fontsize=5.2)
    rows = math.ceil(len(titles) / across)
    _scale(figure, limit, -(rows - 1) * (height + below + 0.14) - below - 0.12, across * (width + 0.1) - 0.1)
    return figure


def plot_photograph(
    title: str, shares: Sequence[RegionShare], points: Points, photograph: npt.NDArray[np.uint8]
) -> Figure:
    """Plot the face of a photograph beside the same with its regions coloured, and the strongest listed below.

    Args:
        title: what is explained.
        shares: the contributions by region, the strongest first.
        points: the face in pixels of the photograph.
        photograph: the photograph, (H, W, 3) uint8 RGB.
    """
    limit = max(0.02, *(share.strength for share in shares), 0.02)
    left, right, top, bottom = _box(points)
    grown = 0.25 * (right - left)
    left, top = max(0, round(left - grown)), max(0, round(top - grown))
    right, bottom = round(right + grown), round(bottom + grown)
    part = photograph[top:bottom, left:right]
    width = 2.2
    height = width * part.shape[0] / part.shape[1]
    figure, below = Figure(figsize=(1, 1)), 0.11 * _LISTED + 0.2
    for number in range(2):
        axes = figure.add_axes((number * (width + 0.1), 0, width, height))
        axes.imshow(part, extent=(left, left + part.shape[1], top + part.shape[0], top), interpolation="bilinear")
        if number:
            _draw_regions(axes, shares, points, limit)
        axes.set(xlim=(left, left + part.shape[1]), ylim=(top + part.shape[0], top))
        axes.axis("off")
    figure.axes[0].set_title(wrap(title), fontsize=6.5, pad=3, loc="left")
    lines = [_line(share) for share in shares[:_LISTED] if share.strength > 0.005 * limit]
    figure.axes[1].text(
        0.5, -0.03, "\n".join(lines), transform=figure.axes[1].transAxes, ha="center", va="top", fontsize=5.2
    )
    _scale(figure, limit, -below - 0.12, 2 * width + 0.1)
    return figure


def _draw_regions(axes: Axes, shares: Sequence[RegionShare], points: Points, limit: float) -> None:
    """Draw the regions over a photograph, the more transparent the less they contribute."""
    for share in reversed(shares):
        polygons = REGIONS[share.region]
        values = (share.right, share.left) if len(polygons) > 1 else (share.right,)
        for polygon, value in zip(polygons, values, strict=True):
            shade = _shade(value / limit)
            colour = DIVERGING(0.5 + 0.5 * math.copysign(max(abs(shade), 0.6), shade))[:3]
            axes.add_patch(Polygon(_places(polygon, points), facecolor=(*colour, 0.75 * abs(shade)), edgecolor="none"))
    for line in OUTLINES:
        axes.plot(*_places(line, points).T, color="white", linewidth=0.4, alpha=0.8)


def draw_face(axes: Axes, shares: Sequence[RegionShare], points: Points, limit: float) -> None:
    """Draw a face into axes, with the colours of contributions from -limit to limit."""
    for share in reversed(shares):  # the strongest last, where regions touch
        polygons = REGIONS[share.region]
        values = (share.right, share.left) if len(polygons) > 1 else (share.right,)
        for polygon, value in zip(polygons, values, strict=True):
            colour = to_hex(DIVERGING(0.5 + 0.5 * _shade(value / limit)))
            axes.add_patch(Polygon(_places(polygon, points), facecolor=colour, edgecolor="none"))
    axes.plot(*_places(OVAL, points).T, color=_INK, linewidth=0.7)
    for line in OUTLINES:
        axes.plot(*_places(line, points).T, color=_INK, linewidth=0.5)
    left, right, top, bottom = _box(points)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.axis("off")


def _shade(share: float) -> float:
    """Return the colour of a contribution, -1 to 1: its signed root, so that weak classes do not look white."""
    return math.copysign(math.sqrt(min(1.0, abs(share))), share)


def _places(numbers: Sequence[int], points: Points) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([points[number] for number in numbers], dtype=np.float64)


def _box(points: Points) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom of a face, with a margin."""
    oval = _places(OVAL, points)
    (left, top), (right, bottom) = oval.min(axis=0), oval.max(axis=0)
    margin = 0.03 * (right - left)
    return float(left - margin), float(right + margin), float(top - margin), float(bottom + margin)


def shows_sides(shares: Sequence[Sequence[RegionShare]]) -> bool:
    """Return whether the list below any of these faces names the right and the left side of a region."""
    return any(_differs(share) for of_face in shares for share in of_face[:_LISTED])


def _differs(share: RegionShare) -> bool:
    return not math.isclose(share.right, share.left, abs_tol=5e-4)


def _line(share: RegionShare) -> str:
    """Return a region with its strongest unit and its contribution."""
    units = re.search(r"\((AU [^)]*)\)", share.strongest)
    name = f"{share.region} ({units.group(1).partition(',')[0]})" if units else share.region
    if not _differs(share):
        return f"{name} {format_difference(share.right, 2)}"
    return f"{name} R {format_difference(share.right, 2)}, L {format_difference(share.left, 2)}"


def _scale(figure: Figure, limit: float, bottom: float, width: float) -> None:
    """Draw the scale of the colours below all faces."""
    from matplotlib.cm import ScalarMappable

    axes = figure.add_axes((width / 2 - 0.9, bottom, 1.8, 0.06))
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), DIVERGING), cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    ticks = (-1.0, -0.25, 0.0, 0.25, 1.0)
    bar.set_ticks([_shade(tick) for tick in ticks], labels=[format_difference(tick * limit, 2) for tick in ticks])
    axes.tick_params(labelsize=5.5, length=2)
    axes.set_title("against it                     towards it", fontsize=5.5, pad=2)
