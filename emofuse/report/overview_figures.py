"""Draws the figures that compare configurations, with their captions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from emofuse.report import rendering
from emofuse.report.class_plots import has_bars, plot_bars, plot_change
from emofuse.report.comparisons import Uncertainty
from emofuse.report.configurations import FEATURED, MOST_FEATURED, ReportedConfiguration, Results
from emofuse.report.confusion_plots import ConfusionDifference, plot_difference
from emofuse.report.detail import Detail, counted_words
from emofuse.report.formats import format_p
from emofuse.report.rank_plots import plot_ranks
from emofuse.report.ranking import Ranking
from emofuse.report.rendering import ReportFigure
from emofuse.report.score_plots import has_stream_dots, overview_rows, plot_overview, plot_progression, plot_search
from emofuse.report.search import SELECTS, SearchSummary
from emofuse.report.sentences import best_words, featured_words
from emofuse.report.training_plots import has_losses, plot_losses, plot_training
from emofuse.report.uncertainty_notes import SIGNIFICANT
from emofuse.specs import EXACT_HEADS
from emofuse.wording import join_names

MOST_DIFFERENCES = 4
"""The largest number of configurations that each have a matrix of differences to the baseline."""


def draw_progression(results: Results, uncertainty: Uncertainty) -> ReportFigure:
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
    return rendering.render_figure("progression", caption, lambda: plot(results, uncertainty))


def draw_errors(results: Results, uncertainty: Uncertainty) -> ReportFigure | None:
    """Draw the scores that are compared on another axis; None without any, or if the overview has them."""
    scores = [score for score in results.target.compared if score not in results.target.plotted]
    if not scores or len(results.configurations) > MOST_FEATURED:
        return None
    caption = f"{_capitalised(join_names(score.name for score in scores))} on the test split; smaller is better."
    if uncertainty.intervals:
        caption += " Thin lines are 95 % intervals."
    if any(len(item.runs) > 1 for item in results.configurations):
        caption += " Points are means over repeats, thick lines ± one standard deviation."
    return rendering.render_figure("errors", caption, lambda: plot_progression(results, uncertainty, scores))


def draw_ranks(ranking: Ranking, results: Results) -> ReportFigure:
    """Draw the mean ranks with the critical difference."""
    test = ranking.test
    splits = "folds" if ranking.folds else "random splits"
    found = (
        "Thick bars join configurations whose mean ranks differ by less than the critical difference of Nemenyi's test"
        if test.is_significant
        else "It finds no difference, so that one thick bar joins all configurations and single pairs are not tested"
    )
    caption = (
        f"Mean ranks of the configurations by {ranking.score.name} over {test.splits} test splits, 1 is the best. "
        f"Friedman's test of equal ranks (F form of Iman and Davenport): chi-square {test.chi_square:.2f}, p "
        f"{_p_words(test.p)}. {found} (level {test.level:g}; Demšar, JMLR 2006). The splits are {splits} of one "
        "dataset and share training rows, which the test ignores: it is liberal and finds differences too often. The "
        "comparisons of pairs with corrected p values are in the tables."
    )
    return rendering.render_figure(
        "critical_difference", caption + _which_are_shown(results), lambda: plot_ranks(ranking)
    )


def _p_words(p: float) -> str:
    text = format_p(p)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


def draw_change(results: Results, detail: Detail) -> ReportFigure | None:
    """Draw the change of the main score of each class, column or label; None for a single configuration."""
    if len(results.configurations) < 2:
        return None
    score, part = results.target.main_part, results.target.part
    caption = (
        f"Change of the {score.name} of each {part} against {results.baseline.label}, means over repeats, test split."
        f"{_which_are_compared(results)}{counted_words(detail)}"
    )
    return rendering.render_figure(f"{score.path}_change", caption, lambda: plot_change(results, detail))


def draw_bars(results: Results, uncertainty: Uncertainty) -> ReportFigure | None:
    """Draw the main score of each class, column or label as grouped bars; None if they do not fit."""
    if not has_bars(results):
        return None
    score, part = results.target.main_part, results.target.part
    lines = " Lines are 95 % intervals." if uncertainty.intervals else ""
    caption = (
        f"{_capitalised(score.name)} of each {part} on the test split, one bar for each configuration in the order of "
        f"{_order_words(results)}, means over repeats.{lines}{_which_are_shown(results)}"
    )
    return rendering.render_figure(f"{score.path}_bars", caption, lambda: plot_bars(results, uncertainty))


def draw_differences(results: Results, slugs: Mapping[str, str], detail: Detail) -> tuple[ReportFigure, ...]:
    """Draw confusion matrices minus that of the baseline: of each configuration, or of many the best by validation."""
    if not results.target.has_classes:
        return ()
    others = [item for item in results.configurations if item is not results.baseline]
    if len(others) > MOST_DIFFERENCES:
        others = [item for item in results.ranked if item is not results.baseline][:1]
    return tuple(_difference(item, slugs[item.label], results, detail) for item in others)


def _difference(item: ReportedConfiguration, slug: str, results: Results, detail: Detail) -> ReportFigure:
    difference = ConfusionDifference.of(item, results.baseline)
    chosen = "" if len(results.configurations) <= MOST_DIFFERENCES + 1 else ", the best of the others by validation,"
    cells = "percentage points of the true class"
    if detail.numbers and difference.counts is not None:
        cells += f", and the number of {results.noun.many} in brackets where cells have room"
    grey = " Grey rows: classes without test rows." if np.isnan(difference.points).any() else ""
    caption = (
        f"Confusion matrix of {item.label}{chosen} minus that of {results.baseline.label} on the test split: {cells}. "
        f"Blue cells are answers that {item.label} gives more often, brown cells those that it gives less often; blue "
        f"on the diagonal and brown elsewhere is better.{grey}{counted_words(detail)}"
    )
    return rendering.render_figure(
        f"difference_{slug}", caption, lambda: plot_difference(difference, results.classes, detail)
    )


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


def draw_search(search: SearchSummary | None) -> ReportFigure | None:
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
    return rendering.render_figure("search", caption, lambda: plot_search(search))


def draw_training(results: Results) -> ReportFigure:
    """Draw the validation score by epoch."""
    return rendering.render_figure("training", _training_caption(results), lambda: plot_training(results))


def draw_losses(results: Results) -> ReportFigure | None:
    """Draw the losses by epoch; None if no run recorded that of its training rows."""
    if not has_losses(results):
        return None
    caption = (
        "Loss of training rows (dashed) and of validation rows (solid) by epoch, one line for each repeat. A ring "
        f"marks the epoch whose weights were kept.{_training_notes(results)}"
    )
    return rendering.render_figure("losses", caption, lambda: plot_losses(results))


def _training_caption(results: Results) -> str:
    return (
        f"{_capitalised(SELECTS[results.target.curve])} on the validation split by epoch, one line for each repeat. A "
        "ring marks the epoch whose weights "
        f"were kept; the dashed line is the baseline's mean at its rings.{_training_notes(results)}"
    )


def _training_notes(results: Results) -> str:
    """Return what a step is where it is no epoch, and which configurations are shown."""
    one_step = {"averaged_logistic"}  # each stream has a penalty, so that there is no common path of them
    solved = sorted({item.spec["head"]["kind"] for item in results.featured} & (set(EXACT_HEADS) - one_step))
    steps = f" Of {' and '.join(solved)} heads a step is a penalty, the strongest first." if solved else ""
    several = any(item.heads > 1 for item in results.featured)
    means = " The line of an ensemble is the mean over its heads, and so is its epoch." if several else ""
    return f"{steps}{means}{_which_are_shown(results)}"


def _which_are_shown(results: Results) -> str:
    if results.featured == results.configurations:
        return ""
    return f" Shown: {featured_words(results)}."


def _which_are_compared(results: Results) -> str:
    """Return which configurations a figure of differences to the baseline shows, which is the baseline of none."""
    if results.featured == results.configurations:
        return ""
    without = ", without the baseline" if results.baseline in results.featured[:FEATURED] else ""
    return f" Shown: {best_words(results)}{without}."


def _order_words(results: Results) -> str:
    """Return the order of the featured configurations: that of training, or of many that of their validation scores."""
    if results.featured == results.configurations:
        return "the tables"
    return f"validation {SELECTS[results.select]}, the best first"


def _capitalised(text: str) -> str:
    """Return text with a first capital; a name such as mAP stays as it is."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]
