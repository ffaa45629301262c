"""Draws the figures of a report as SVG and PNG, with their captions. The same runs give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure

from emofuse.report.class_plots import plot_change, plot_classes, plot_confusion
from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import MOST_FEATURED, ReportedConfiguration, Results
from emofuse.report.coverage import SIGNIFICANT
from emofuse.report.detail import Detail, choose_detail
from emofuse.report.drawing import STYLE
from emofuse.report.fonts import Lettering, choose_lettering, with_drawn_names
from emofuse.report.score_plots import (
    has_stream_dots,
    overview_rows,
    plot_overview,
    plot_progression,
    plot_search,
    plot_training,
)
from emofuse.report.search import SELECTS, SearchSummary
from emofuse.report.sentences import featured_words
from emofuse.specs import EXACT_HEADS

PNG_DPI = 300
_PAD_IN = 0.04
FIGURE_FILES = ("progression", "f1_change", "search", "training", "confusion_*", "classes_*")
"""Patterns of the stems of all files that this module can write."""


@dataclass(frozen=True)
class ReportFigure:
    """One figure.

    Attributes:
        stem: the file name without its ending.
        caption: the caption in full sentences.
        svg: the bytes of the SVG file.
        png: the bytes of the PNG file.
        width_in: the width on paper in inches.
    """

    stem: str
    caption: str
    svg: bytes
    png: bytes
    width_in: float


@dataclass(frozen=True)
class ReportFigures:
    """All figures of a report; `confusion` and `classes` have one for each featured configuration, in order."""

    progression: ReportFigure
    change: ReportFigure | None
    search: ReportFigure | None
    training: ReportFigure
    confusion: tuple[ReportFigure, ...]
    classes: tuple[ReportFigure, ...]

    @property
    def all(self) -> list[ReportFigure]:
        """All figures in the order of the page."""
        overview = [figure for figure in (self.progression, self.change, self.search, self.training) if figure]
        return overview + [figure for pair in zip(self.confusion, self.classes, strict=True) for figure in pair]


def draw_figures(results: Results, uncertainty: Uncertainty, lettering: Lettering | None = None) -> ReportFigures:
    """Draw every figure of a report.

    Args:
        results: the configurations.
        uncertainty: their intervals and tests.
        lettering: the fonts, and the names that no font can draw; chosen by `choose_lettering` unless given.
    """
    lettering = lettering or choose_lettering(results)
    results, uncertainty = with_drawn_names(results, uncertainty, lettering)
    detail = choose_detail(len(results.featured), len(results.classes))
    with mpl.style.context(["default", STYLE, {"font.family": list(lettering.families)}]):
        slugs = _slugs([item.label for item in results.featured])
        pairs = list(zip(results.featured, slugs, strict=True))
        return ReportFigures(
            progression=_progression(results, uncertainty),
            change=_change(results, detail),
            search=_search(results.search),
            training=_figure("training", _training_caption(results), lambda: plot_training(results)),
            confusion=tuple(_confusion(item, slug, results.classes, detail) for item, slug in pairs),
            classes=tuple(_classes(item, slug, results.classes, detail) for item, slug in pairs),
        )


def _confusion(item: ReportedConfiguration, slug: str, classes: Sequence[str], detail: Detail) -> ReportFigure:
    summed = f", summed over {len(item.runs)} repeats" if len(item.runs) > 1 else ""
    cells = "number of images, and their share of the true class in percent and as colour."
    if not detail.numbers:
        cells = f"the share of the true class as colour; this many cells show no numbers.{_counted(detail)}"
    caption = f"Confusion matrix of {item.label} on the test split{summed}: {cells}"
    return _figure(f"confusion_{slug}", caption, lambda: plot_confusion(item, classes, detail))


def _classes(item: ReportedConfiguration, slug: str, classes: Sequence[str], detail: Detail) -> ReportFigure:
    bars = (
        f" Bars are means over {len(item.runs)} repeats, lines ± one standard deviation." if len(item.runs) > 1 else ""
    )
    if not detail.names:
        bars = (
            " Labels stand in the order of their F1, the best first; the table of these numbers has the rank of each."
        )
    caption = f"Precision, recall and F1 of {item.label} for each class on the test split.{bars}"
    return _figure(f"classes_{slug}", caption, lambda: plot_classes(item, classes, detail))


def _counted(detail: Detail) -> str:
    """Return the sentence on where to find the names of counted labels."""
    return "" if detail.names else " Labels are shown by number; the tables of classes list the numbers."


def _change(results: Results, detail: Detail) -> ReportFigure | None:
    """Draw the change of F1 against the baseline; None for a single configuration."""
    if len(results.configurations) < 2:
        return None
    caption = (
        f"Change of the F1 of each class against {results.baseline.label}, means over repeats, test split."
        f"{_which_are_shown(results)}{_counted(detail)}"
    )
    return _figure("f1_change", caption, lambda: plot_change(results, detail))


def _progression(results: Results, uncertainty: Uncertainty) -> ReportFigure:
    """Draw few configurations one after another, and many as an overview with one row for each."""
    many = len(results.configurations) > MOST_FEATURED
    caption = _overview_caption(results) if many else "Accuracy and macro F1 on the test split."
    if uncertainty.intervals:
        caption += " Thin lines are 95 % intervals; the notes on the table of scores say what they cover."
    if any(len(item.runs) > 1 for item in results.configurations):
        caption += " Points are means over repeats, thick lines ± one standard deviation."
    if any(results.reachable(item) is not None for item in results.configurations):
        caption += " Black ticks: the accuracy that the cues behind a configuration's streams allow by design."
    plot = plot_overview if many else plot_progression
    return _figure("progression", caption, lambda: plot(results, uncertainty))


def _overview_caption(results: Results) -> str:
    items = overview_rows(results)
    shown, count = len(items), len(results.configurations)
    which = "All configurations" if shown == count else f"{shown} of {count} configurations"
    dots = ", each with its streams as dots" if has_stream_dots(items) else ""
    return (
        f"{which}{dots}, the best validation {SELECTS[results.select]} on top: accuracy and macro F1 on the test "
        f"split. Shaded row and dashed lines: the baseline {results.baseline.label}. Filled: the difference to it has "
        f"a p below {SIGNIFICANT:g} after Holm's correction."
    )


def _search(search: SearchSummary | None) -> ReportFigure | None:
    """Draw the scores of a search; None if no configuration has a score."""
    if search is None or all(item.score is None for item in search.configurations):
        return None
    unscored = sum(item.score is None for item in search.configurations)
    caption = f"Validation {SELECTS[search.select]} of every configuration of the search, best first."
    if any(item.error is not None for item in search.configurations):
        caption += " Points are means over folds and seeds, lines ± one standard error."
    if unscored:
        caption += f" Without a score, because a run diverged, and not shown: {unscored:,}."
    return _figure("search", caption, lambda: plot_search(search))


def _training_caption(results: Results) -> str:
    one_step = {"averaged_logistic"}  # each stream has a penalty, so that there is no common path of them
    solved = sorted({item.spec["head"]["kind"] for item in results.featured} & (set(EXACT_HEADS) - one_step))
    steps = f" Of {' and '.join(solved)} heads a step is a penalty, the strongest first." if solved else ""
    several = any(item.heads > 1 for item in results.featured)
    means = " The line of an ensemble is the mean over its heads, and so is its epoch." if several else ""
    return (
        "Macro F1 on the validation split by epoch, one line for each repeat. A ring marks the epoch whose weights "
        f"were kept; the dashed line is the baseline's mean at its rings.{steps}{means}{_which_are_shown(results)}"
    )


def _which_are_shown(results: Results) -> str:
    if results.featured == results.configurations:
        return ""
    return f" Shown: {featured_words(results)}."


def _figure(stem: str, caption: str, plot: Callable[[], Figure]) -> ReportFigure:
    figure = plot()
    box = figure.get_tightbbox().padded(_PAD_IN)
    svg, png = io.BytesIO(), io.BytesIO()
    # Neither file holds a date or version, so that equal runs give equal bytes.
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches=box)
    figure.savefig(png, format="png", metadata={"Software": None}, bbox_inches=box, dpi=PNG_DPI)
    return ReportFigure(stem, caption, svg.getvalue(), png.getvalue(), float(box.width))


def _slugs(labels: Sequence[str]) -> list[str]:
    """Return file names from labels, all different even where file systems ignore case."""
    slugs: list[str] = []
    for label in labels:
        base = re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-.")[:80] or "configuration"
        slug, count = base, 1
        while slug.lower() in (taken.lower() for taken in slugs):
            count += 1
            slug = f"{base}-{count}"
        slugs.append(slug)
    return slugs
