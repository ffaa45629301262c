"""Draws the figures of a report as SVG, PNG and PDF, with their captions. The same runs give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.style

from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import Results
from emofuse.report.detail import choose_detail
from emofuse.report.drawing import STYLE
from emofuse.report.fonts import Lettering, choose_lettering, with_drawn_names
from emofuse.report.names import file_names
from emofuse.report.overview_figures import (
    draw_bars,
    draw_change,
    draw_differences,
    draw_errors,
    draw_losses,
    draw_progression,
    draw_ranks,
    draw_search,
    draw_training,
)
from emofuse.report.part_plots import AnsweredValues
from emofuse.report.ranking import rank_configurations
from emofuse.report.rendering import ENDINGS, ReportFigure, draw_figure
from emofuse.report.section_process import drawing_sections

FIGURE_FILES = (
    *("progression", "errors", "*_change", "*_bars", "critical_difference", "difference_*", "search", "training"),
    *("losses", "confusion_*", "normalised_*", "classes_*", "values_*", "residuals_*", "labels_*"),
)
"""Patterns of the stems of all files that this module can write."""
__all__ = ["ENDINGS", "FIGURE_FILES", "ReportFigure", "ReportFigures", "draw_figure", "draw_figures"]


@dataclass(frozen=True)
class ReportFigures:
    """All figures of a report.

    Attributes:
        progression: the scores of all configurations.
        errors: the scores that have another axis; None without any.
        change: the change of each class, column or label against the baseline; None for a single configuration.
        search: the scores of the search behind the configurations; None without one.
        training: the validation score by epoch.
        sections: the figures of each featured configuration, in their order.
        bars: the main score of each class, column or label, a bar for each configuration; None for a single one, or for
            more bars than a figure has room for.
        ranks: the mean ranks with the critical difference; None if they cannot be tested (see `absent`).
        differences: confusion matrices minus that of the baseline.
        losses: the losses of training and validation rows by epoch; None if no run has them.
        absent: one sentence on each figure that the runs do not allow, with the reason.
    """

    progression: ReportFigure
    errors: ReportFigure | None
    change: ReportFigure | None
    search: ReportFigure | None
    training: ReportFigure
    sections: tuple[tuple[ReportFigure, ...], ...]
    bars: ReportFigure | None = None
    ranks: ReportFigure | None = None
    differences: tuple[ReportFigure, ...] = ()
    losses: ReportFigure | None = None
    absent: tuple[str, ...] = ()

    @property
    def all(self) -> list[ReportFigure]:
        """All figures in the order of the page."""
        overview = (self.progression, self.errors, self.ranks, self.change, self.bars, *self.differences)
        figures = (*overview, self.search, self.training, self.losses)
        return [figure for figure in figures if figure] + [figure for section in self.sections for figure in section]


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
    ranking = rank_configurations(results)
    with mpl.style.context(["default", STYLE, {"font.family": list(lettering.families)}]):
        slugs = file_names([item.label for item in results.featured])
        pairs = list(zip(results.featured, slugs, strict=True))
        with drawing_sections(pairs, results, uncertainty, values or {}, lettering) as sections:
            return ReportFigures(
                progression=draw_progression(results, uncertainty),
                errors=draw_errors(results, uncertainty),
                ranks=None if isinstance(ranking, str) else draw_ranks(ranking, results),
                change=draw_change(results, detail),
                bars=draw_bars(results, uncertainty),
                differences=draw_differences(results, {item.label: slug for item, slug in pairs}, detail),
                search=draw_search(results.search),
                training=draw_training(results),
                losses=draw_losses(results),
                sections=sections(),
                absent=(ranking,) if isinstance(ranking, str) else (),
            )
