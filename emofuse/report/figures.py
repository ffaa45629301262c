"""The figures of a report as SVG and PNG with their captions; the same runs give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure

from emofuse.report.configurations import Configuration, Results
from emofuse.report.plots import (
    STYLE,
    plot_change,
    plot_classes,
    plot_confusion,
    plot_progression,
    plot_training,
)

PNG_DPI = 300
_PAD_IN = 0.04
FIGURE_FILES = ("progression", "f1_change", "training", "confusion_*", "classes_*")
"""Stems of all files this module can write, as patterns."""


@dataclass(frozen=True)
class Picture:
    """One figure.

    Attributes:
        stem: file name without its ending.
        caption: what it shows, in full sentences.
        svg: the file's bytes.
        png: the file's bytes.
        width_in: width on paper in inches.
    """

    stem: str
    caption: str
    svg: bytes
    png: bytes
    width_in: float


@dataclass(frozen=True)
class Pictures:
    """All figures of a report; `confusion` and `classes` have one for each configuration, in order."""

    progression: Picture
    change: Picture | None
    training: Picture
    confusion: tuple[Picture, ...]
    classes: tuple[Picture, ...]

    @property
    def all(self) -> list[Picture]:
        """In the order of the page."""
        overview = [self.progression, *([self.change] if self.change else []), self.training]
        return overview + [picture for pair in zip(self.confusion, self.classes, strict=True) for picture in pair]


def draw_pictures(results: Results) -> Pictures:
    """Draws every figure of a report."""
    with mpl.style.context(["default", STYLE]):
        slugs = _slugs([item.label for item in results.configurations])
        pairs = list(zip(results.configurations, slugs, strict=True))
        return Pictures(
            progression=_picture("progression", _progression_caption(results), lambda: plot_progression(results)),
            change=_change(results),
            training=_picture("training", _TRAINING_CAPTION, lambda: plot_training(results)),
            confusion=tuple(_confusion(item, slug, results.classes) for item, slug in pairs),
            classes=tuple(_classes(item, slug, results.classes) for item, slug in pairs),
        )


def _confusion(item: Configuration, slug: str, classes: Sequence[str]) -> Picture:
    summed = f", summed over {len(item.runs)} repeats" if len(item.runs) > 1 else ""
    caption = (
        f"Confusion matrix of {item.label} on the test split{summed}: number of images, and their share of the true "
        "class in percent and as colour."
    )
    return _picture(f"confusion_{slug}", caption, lambda: plot_confusion(item, classes))


def _classes(item: Configuration, slug: str, classes: Sequence[str]) -> Picture:
    bars = (
        f" Bars are means over {len(item.runs)} repeats, lines ± one standard deviation." if len(item.runs) > 1 else ""
    )
    caption = f"Precision, recall and F1 of {item.label} for each class on the test split.{bars}"
    return _picture(f"classes_{slug}", caption, lambda: plot_classes(item, classes))


def _change(results: Results) -> Picture | None:
    """The change of F1 against the baseline; a single configuration has none."""
    if len(results.configurations) < 2:
        return None
    caption = f"Change of the F1 of each class against {results.baseline.label}, means over repeats, test split."
    return _picture("f1_change", caption, lambda: plot_change(results))


def _progression_caption(results: Results) -> str:
    caption = "Accuracy and macro F1 on the test split from configuration to configuration."
    if any(len(item.runs) > 1 for item in results.configurations):
        caption += " Points are means over repeats, lines ± one standard deviation."
    if any(results.reachable(item) is not None for item in results.configurations):
        caption += " Black ticks: the accuracy that the cues behind a configuration's streams allow by design."
    return caption


_TRAINING_CAPTION = (
    "Macro F1 on the validation split by epoch, one line for each repeat. A ring marks the epoch whose weights were "
    "kept; the dashed line is the baseline's mean at its rings."
)


def _picture(stem: str, caption: str, plot: Callable[[], Figure]) -> Picture:
    figure = plot()
    box = figure.get_tightbbox().padded(_PAD_IN)
    svg, png = io.BytesIO(), io.BytesIO()
    # Neither file tells when or by which version it was drawn: equal runs give equal bytes.
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches=box)
    figure.savefig(png, format="png", metadata={"Software": None}, bbox_inches=box, dpi=PNG_DPI)
    return Picture(stem, caption, svg.getvalue(), png.getvalue(), float(box.width))


def _slugs(labels: Sequence[str]) -> list[str]:
    """File names from labels, all different on file systems that ignore case too."""
    slugs: list[str] = []
    for label in labels:
        base = re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-.")[:80] or "configuration"
        slug, count = base, 1
        while slug.lower() in (taken.lower() for taken in slugs):
            count += 1
            slug = f"{base}-{count}"
        slugs.append(slug)
    return slugs
