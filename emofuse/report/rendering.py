"""Renders drawn figures as SVG, PNG and PDF. The same figure gives the same bytes.

The PDF is for papers: it is a vector graphic whose fonts are embedded as TrueType (Type 42), as publishers ask for. The
PNG has the resolution of print, and the SVG, whose letters are paths, is the same on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.transforms import BboxBase

from emofuse.report.drawing import STYLE
from emofuse.report.fonts import Lettering
from emofuse.report.vector_text import round_coordinates

PNG_DPI = 300
_PAD_IN = 0.04
_LAYOUT_TABLES = ("GSUB", "GPOS", "GDEF")
_DROPPED = "_drop_tables_default"

_LEFT_OUT = {"svg": ("Date", "Creator"), "png": ("Software",), "pdf": ("CreationDate", "Creator", "Producer")}
"""No file holds a date or version, so that equal runs give equal bytes."""

ENDINGS = ("svg", "png", "pdf")
"""The endings of the files of a figure."""


@dataclass(frozen=True)
class ReportFigure:
    """One figure.

    Attributes:
        stem: the file name without its ending.
        caption: the caption in full sentences.
        svg: the bytes of the SVG file.
        png: the bytes of the PNG file.
        width_in: the width on paper in inches.
        pdf: the bytes of the PDF file; empty for a figure that was read from a folder.
    """

    stem: str
    caption: str
    svg: bytes
    png: bytes
    width_in: float
    pdf: bytes = b""

    @property
    def files(self) -> dict[str, bytes]:
        """The name of each file of the figure -> its bytes; without formats that it lacks."""
        data = zip(ENDINGS, (self.svg, self.png, self.pdf), strict=True)
        return {f"{self.stem}.{ending}": content for ending, content in data if content}


def draw_figure(
    stem: str, caption: str, plot: Callable[[], Figure], lettering: Lettering | None = None
) -> ReportFigure:
    """Draw one figure in the style of reports.

    Args:
        stem: the file name without its ending.
        caption: the caption.
        plot: makes the figure; names that cannot be drawn must have been replaced (`Lettering.labels`).
        lettering: the fonts.
    """
    families = {"font.family": list(lettering.families)} if lettering else {}
    with mpl.style.context(["default", STYLE, families]):
        return render_figure(stem, caption, plot)


def render_figure(stem: str, caption: str, plot: Callable[[], Figure]) -> ReportFigure:
    """Draw one figure in the style that is set, and render it in every format.

    Args:
        stem: the file name without its ending.
        caption: the caption.
        plot: makes the figure.
    """
    figure = plot()
    box = figure.get_tightbbox().padded(_PAD_IN)
    svg, png, pdf = (_bytes(figure, ending, box) for ending in ENDINGS)
    return ReportFigure(stem, caption, svg, png, float(box.width), pdf)


def _bytes(figure: Figure, ending: str, box: BboxBase) -> bytes:
    data = io.BytesIO()
    options: dict[str, Any] = {"dpi": PNG_DPI} if ending == "png" else {}
    with _small_fonts():
        figure.savefig(data, format=ending, metadata=dict.fromkeys(_LEFT_OUT[ending]), bbox_inches=box, **options)
    content = data.getvalue()
    return round_coordinates(content.decode("utf-8")).encode("utf-8") if ending == "svg" else content


@contextmanager
def _small_fonts() -> Iterator[None]:
    """Leave the tables for typesetting out of embedded fonts; a PDF places every letter and does not read them.

    Parsing these tables takes most of the time of a small PDF.
    """
    from fontTools.subset import Options  # loaded here, because only figures need it

    dropped = getattr(Options, _DROPPED, None)
    if dropped is None:  # another version of fontTools, whose PDFs take longer
        yield
        return
    setattr(Options, _DROPPED, [*dropped, *_LAYOUT_TABLES])
    try:
        yield
    finally:
        setattr(Options, _DROPPED, dropped)
