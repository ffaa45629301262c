"""Draws the figures of a report as SVG and PNG, with their captions. The same runs give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure

from emofuse.report.class_plots import plot_change, plot_classes, plot_confusion
from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import MOST_FEATURED, ReportedConfiguration, Results
from emofuse.report.detail import Detail, choose_detail
from emofuse.report.drawing import STYLE
from emofuse.report.fonts import Lettering, choose_lettering, with_drawn_names
from emofuse.report.formats import join_names
from emofuse.report.part_plots import (
    MOST_BARS,
    MOST_PANELS,
    MOST_POINTS,
    AnsweredValues,
    plot_labels,
    plot_residuals,
    plot_values,
)
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
from emofuse.report.uncertainty_notes import SIGNIFICANT
from emofuse.specs import EXACT_HEADS
from emofuse.specs.nouns import Noun

PNG_DPI = 300
_PAD_IN = 0.04
FIGURE_FILES = (
    *("progression", "errors", "*_change", "search", "training"),
    *("confusion_*", "classes_*", "values_*", "residuals_*", "labels_*"),
)
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
    """All figures of a report; `sections` has those of each featured configuration, in order."""

    progression: ReportFigure
    errors: ReportFigure | None
    change: ReportFigure | None
    search: ReportFigure | None
    training: ReportFigure
    sections: tuple[tuple[ReportFigure, ...], ...]

    @property
    def all(self) -> list[ReportFigure]:
        """All figures in the order of the page."""
        overview = (self.progression, self.errors, self.change, self.search, self.training)
        return [figure for figure in overview if figure] + [figure for section in self.sections for figure in section]


def draw_figures(
    results: Results,
    uncertainty: Uncertainty,
    lettering: Lettering | None = None,
    values: Mapping[str, AnsweredValues] | None = None,
) -> ReportFigures:
    """Draw every figure of a report.

    Args:
        results: the configurations.
        uncertainty: their intervals and tests.
        lettering: the fonts, and the names that no font can draw; chosen by `choose_lettering` unless given.
        values: the answers of a regression (see `answered_values`); configurations without them have no figures of
            columns.
    """
    lettering = lettering or choose_lettering(results)
    results, uncertainty = with_drawn_names(results, uncertainty, lettering)
    detail = choose_detail(len(results.featured), len(results.classes))
    with mpl.style.context(["default", STYLE, {"font.family": list(lettering.families)}]):
        slugs = _slugs([item.label for item in results.featured])
        pairs = zip(results.featured, slugs, strict=True)
        return ReportFigures(
            progression=_progression(results, uncertainty),
            errors=_errors(results, uncertainty),
            change=_change(results, detail),
            search=_search(results.search),
            training=_figure("training", _training_caption(results), lambda: plot_training(results)),
            sections=tuple(_section(item, slug, results, uncertainty, values or {}) for item, slug in pairs),
        )


def _section(
    item: ReportedConfiguration,
    slug: str,
    results: Results,
    uncertainty: Uncertainty,
    values: Mapping[str, AnsweredValues],
) -> tuple[ReportFigure, ...]:
    """Draw the figures of one configuration that its target has."""
    names = results.classes
    if results.target.has_classes:
        detail = choose_detail(len(results.featured), len(names))
        return _confusion(item, slug, names, detail, results.noun), _classes(item, slug, names, detail)
    if results.target.kind == "multilabel":
        return (_labels(item, slug, names, uncertainty),)
    of_item = values.get(item.runs[0].digest)
    return () if of_item is None else (_values(item, slug, names, of_item), _residuals(item, slug, names, of_item))


def _labels(item: ReportedConfiguration, slug: str, labels: Sequence[str], uncertainty: Uncertainty) -> ReportFigure:
    shown = f" Shown: the best {MOST_BARS} of {len(labels)} labels." if len(labels) > MOST_BARS else ""
    lines = " Lines are 95 % intervals." if item.label in uncertainty.intervals else ""
    caption = (
        f"Average precision of {item.label} for each label on the test split, the best on top.{lines} Red ticks: the "
        f"share of rows that have the label, which is the average precision of answers by chance.{shown}"
    )
    return _figure(f"labels_{slug}", caption, lambda: plot_labels(item, labels, uncertainty))


def _values(item: ReportedConfiguration, slug: str, columns: Sequence[str], values: AnsweredValues) -> ReportFigure:
    points = "One point for each row." if len(values.true) <= MOST_POINTS else "The darker, the more rows."
    caption = f"Answers of {item.label} over true values on the test split. {points} On the red line both are equal."
    if len(item.runs) > 1:
        caption += " An answer is the mean over the repeats that tested the row; CCC is the mean over repeats."
    return _figure(f"values_{slug}", caption + _shown_columns(columns), lambda: plot_values(item, columns, values))


def _residuals(item: ReportedConfiguration, slug: str, columns: Sequence[str], values: AnsweredValues) -> ReportFigure:
    caption = (
        f"Errors of {item.label} on the test split: predicted less true value. The red line is the mean error, the "
        "dashed line no error."
    )
    return _figure(
        f"residuals_{slug}", caption + _shown_columns(columns), lambda: plot_residuals(item, columns, values)
    )


def _shown_columns(columns: Sequence[str]) -> str:
    return f" Shown: the first {MOST_PANELS} of {len(columns)} columns." if len(columns) > MOST_PANELS else ""


def _confusion(
    item: ReportedConfiguration, slug: str, classes: Sequence[str], detail: Detail, noun: Noun
) -> ReportFigure:
    summed = f", summed over {len(item.runs)} repeats" if len(item.runs) > 1 else ""
    cells = f"number of {noun.many}, and their share of the true class in percent and as colour."
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
    """Draw the change of the main score of each class, column or label; None for a single configuration."""
    if len(results.configurations) < 2:
        return None
    score, part = results.target.main_part, results.target.part
    caption = (
        f"Change of the {score.name} of each {part} against {results.baseline.label}, means over repeats, test split."
        f"{_which_are_shown(results)}{_counted(detail)}"
    )
    return _figure(f"{score.path}_change", caption, lambda: plot_change(results, detail))


def _progression(results: Results, uncertainty: Uncertainty) -> ReportFigure:
    """Draw few configurations one after another, and many as an overview with one row for each."""
    many = len(results.configurations) > MOST_FEATURED
    names = join_names(score.name for score in results.target.plotted)
    caption = _overview_caption(results) if many else f"{_capitalised(names)} on the test split."
    if uncertainty.intervals:
        caption += " Thin lines are 95 % intervals; the notes on the table of scores say what they cover."
    if any(len(item.runs) > 1 for item in results.configurations):
        caption += " Points are means over repeats, thick lines ± one standard deviation."
    if any(results.reachable(item) is not None for item in results.configurations):
        caption += " Black ticks: the accuracy that the cues behind a configuration's streams allow by design."
    plot = plot_overview if many else plot_progression
    return _figure("progression", caption, lambda: plot(results, uncertainty))


def _errors(results: Results, uncertainty: Uncertainty) -> ReportFigure | None:
    """Draw the scores that are compared on another axis; None without any, or if the overview has them."""
    scores = [score for score in results.target.compared if score not in results.target.plotted]
    if not scores or len(results.configurations) > MOST_FEATURED:
        return None
    caption = f"{_capitalised(join_names(score.name for score in scores))} on the test split; smaller is better."
    if uncertainty.intervals:
        caption += " Thin lines are 95 % intervals."
    return _figure("errors", caption, lambda: plot_progression(results, uncertainty, scores))


def _capitalised(text: str) -> str:
    """Return text with a first capital; a name such as mAP stays as it is."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def _overview_caption(results: Results) -> str:
    items = overview_rows(results)
    shown, count = len(items), len(results.configurations)
    which = "All configurations" if shown == count else f"{shown} of {count} configurations"
    dots = ", each with its streams as dots" if has_stream_dots(items) else ""
    names = join_names(score.name for score in results.target.compared)
    return (
        f"{which}{dots}, the best validation {SELECTS[results.select]} on top: {names} on the test "
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
        over = "folds and seeds" if search.folds > 1 else "seeds, which all have the same validation rows"
        caption += f" Points are means over {over}. Lines are ± one {search.error_words.rstrip(',')}."
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
        f"{_capitalised(SELECTS[results.target.curve])} on the validation split by epoch, one line for each repeat. A "
        "ring marks the epoch whose weights "
        f"were kept; the dashed line is the baseline's mean at its rings.{steps}{means}{_which_are_shown(results)}"
    )


def _which_are_shown(results: Results) -> str:
    if results.featured == results.configurations:
        return ""
    return f" Shown: {featured_words(results)}."


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
        return _figure(stem, caption, plot)


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
