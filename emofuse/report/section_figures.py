"""Draws the figures of one configuration that its target has, with their captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emofuse.report import rendering
from emofuse.report.class_plots import plot_classes
from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.confusion_plots import plot_confusion, plot_normalised
from emofuse.report.detail import Detail, choose_detail, counted_words
from emofuse.report.part_plots import (
    MOST_BARS,
    MOST_PANELS,
    MOST_POINTS,
    AnsweredValues,
    plot_labels,
    plot_residuals,
    plot_values,
)
from emofuse.report.rendering import ReportFigure
from emofuse.specs.nouns import Noun

NORMALISED = "normalised_"
"""The first part of the name of a confusion matrix in percent."""


def draw_section(
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
        figures = (
            _confusion(item, slug, names, detail, results.noun),
            _classes(item, slug, names, detail, uncertainty),
        )
        return (*figures, _normalised(item, slug, names, detail))
    if results.target.kind == "multilabel":
        return (_labels(item, slug, names, uncertainty),)
    of_item = values.get(item.runs[0].digest)
    return () if of_item is None else (_values(item, slug, names, of_item), _residuals(item, slug, names, of_item))


def _confusion(
    item: ReportedConfiguration, slug: str, classes: Sequence[str], detail: Detail, noun: Noun
) -> ReportFigure:
    summed = f", summed over {len(item.runs)} repeats" if len(item.runs) > 1 else ""
    cells = f"number of {noun.many}, and their share of the true class in percent and as colour."
    if not detail.numbers:
        cells = f"the share of the true class as colour; this many cells show no numbers.{counted_words(detail)}"
    caption = f"Confusion matrix of {item.label} on the test split{summed}: {cells}"
    return rendering.render_figure(f"confusion_{slug}", caption, lambda: plot_confusion(item, classes, detail))


def _normalised(item: ReportedConfiguration, slug: str, classes: Sequence[str], detail: Detail) -> ReportFigure:
    summed = f" of all {len(item.runs)} repeats" if len(item.runs) > 1 else ""
    caption = (
        f"Row-normalised confusion matrix of {item.label} on the test split: the answers{summed} in percent of the "
        f"rows of the true class, so that every row sums to 100.{counted_words(detail)}"
    )
    return rendering.render_figure(f"{NORMALISED}{slug}", caption, lambda: plot_normalised(item, classes, detail))


def _classes(
    item: ReportedConfiguration, slug: str, classes: Sequence[str], detail: Detail, uncertainty: Uncertainty
) -> ReportFigure:
    bars = f" Bars are means over {len(item.runs)} repeats." if len(item.runs) > 1 else ""
    if uncertainty.interval(item.label, item.target.part_path(0, "f1")):
        bars += " Lines are 95 % intervals."
    elif len(item.runs) > 1:
        bars += " Lines are ± one standard deviation."
    if not detail.names:
        bars = (
            " Labels stand in the order of their F1, the best first; the table of these numbers has the rank of each."
        )
    caption = f"Precision, recall and F1 of {item.label} for each class on the test split.{bars}"
    return rendering.render_figure(f"classes_{slug}", caption, lambda: plot_classes(item, classes, detail, uncertainty))


def _labels(item: ReportedConfiguration, slug: str, labels: Sequence[str], uncertainty: Uncertainty) -> ReportFigure:
    shown = f" Shown: the best {MOST_BARS} of {len(labels)} labels." if len(labels) > MOST_BARS else ""
    lines = " Lines are 95 % intervals." if item.label in uncertainty.intervals else ""
    caption = (
        f"Average precision of {item.label} for each label on the test split, the best on top.{lines} Red ticks: the "
        f"share of rows that have the label, which is the average precision of answers by chance.{shown}"
    )
    return rendering.render_figure(f"labels_{slug}", caption, lambda: plot_labels(item, labels, uncertainty))


def _values(item: ReportedConfiguration, slug: str, columns: Sequence[str], values: AnsweredValues) -> ReportFigure:
    points = "One point for each row." if len(values.true) <= MOST_POINTS else "The darker, the more rows."
    caption = f"Answers of {item.label} over true values on the test split. {points} On the red line both are equal."
    if len(item.runs) > 1:
        caption += " An answer is the mean over the repeats that tested the row; CCC is the mean over repeats."
    return rendering.render_figure(
        f"values_{slug}", caption + _shown_columns(columns), lambda: plot_values(item, columns, values)
    )


def _residuals(item: ReportedConfiguration, slug: str, columns: Sequence[str], values: AnsweredValues) -> ReportFigure:
    caption = (
        f"Errors of {item.label} on the test split: predicted minus true value. The red line is the mean error, the "
        "dashed line no error."
    )
    return rendering.render_figure(
        f"residuals_{slug}", caption + _shown_columns(columns), lambda: plot_residuals(item, columns, values)
    )


def _shown_columns(columns: Sequence[str]) -> str:
    return f" Shown: the first {MOST_PANELS} of {len(columns)} columns." if len(columns) > MOST_PANELS else ""
