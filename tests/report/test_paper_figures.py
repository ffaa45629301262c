"""The figures for a paper: matrices in percent and their differences, bars, ranks, losses, and PDF files."""

from __future__ import annotations

import io
import re
import zlib

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
from matplotlib import colors
from PIL import Image

from emofuse.report.class_plots import MOST_GROUPED_BARS, has_bars, plot_bars
from emofuse.report.comparisons import measure_uncertainty
from emofuse.report.confusion_plots import ConfusionDifference, plot_difference, plot_normalised
from emofuse.report.drawing import PAGE_IN, STYLE
from emofuse.report.figures import draw_figures
from emofuse.report.grouping import group_runs
from emofuse.report.matrices import CHANGE
from emofuse.report.rank_plots import plot_ranks
from emofuse.report.ranking import Ranking, rank_configurations
from emofuse.report.rendering import render_figure
from emofuse.report.training_plots import plot_losses


@pytest.fixture
def style():
    with mpl.style.context(["default", STYLE]):
        yield


@pytest.fixture
def make_results(make_run):
    def make(names=("a", "b"), classes=("joy", "fear", "rage"), **how):
        how = {"classes": classes, "rows": 30 * len(classes), "epochs": 4, **how}
        return group_runs([make_run(name, **how) for name in names], "runs")

    return make


def texts_of(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_rows_of_a_normalised_matrix_sum_to_100_percent(make_results, style):
    item = make_results(["a"], classes=("no", "yes")).baseline
    item.confusion[:] = [[3, 1], [0, 0]]
    figure = plot_normalised(item, ("no", "yes"))
    assert texts_of(figure.axes[0]) == ["75.0", "25.0", "–", "–"]  # no row is a yes, so that it has no shares
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["no", "yes"]
    assert figure.axes[1].get_ylabel() == "Rows of the true class (%)"
    assert figure.axes[1].get_ylim() == (0, 100)


def test_a_difference_has_points_and_counts_around_a_white_zero(make_results, style):
    first, second = make_results(classes=("no", "yes")).configurations
    first.confusion[:] = [[9, 1], [2, 8]]
    second.confusion[:] = [[6, 4], [2, 8]]
    difference = ConfusionDifference.of(first, second)
    np.testing.assert_allclose(difference.points, [[30, -30], [0, 0]])
    figure = plot_difference(difference, ("no", "yes"))
    assert texts_of(figure.axes[0]) == ["+30.0\n(+3)", "−30.0\n(−3)", "0", "0"]
    assert figure.axes[0].images[0].get_clim() == pytest.approx((-30, 30))
    assert CHANGE(0.5)[:3] == pytest.approx((1, 1, 1), abs=0.01)
    # Blue and brown differ in red and blue light, which colour-blind readers of all kinds compare.
    less, more = (colors.to_rgb(CHANGE(end)) for end in (0.0, 1.0))
    assert less[0] > less[2] + 0.3
    assert more[2] > more[0] + 0.3


def test_counts_of_different_rows_are_not_subtracted(make_results, style):
    first, second = make_results(classes=("no", "yes")).configurations
    first.confusion[:] = [[9, 1], [5, 5]]
    second.confusion[:] = [[10, 10], [0, 0]]
    difference = ConfusionDifference.of(first, second)
    assert difference.counts is None
    assert texts_of(plot_difference(difference, ("no", "yes")).axes[0]) == ["+40.0", "−40.0", "–", "–"]


def test_a_difference_of_many_classes_holds_whole_points_so_that_matrices_fit_a_page(make_results, style):
    classes = tuple(f"class number {number}" for number in range(20))
    first, second = make_results(classes=classes, rows=4000).configurations
    difference = plot_difference(ConfusionDifference.of(first, second), classes)
    normalised = plot_normalised(first, classes)
    assert not any("." in text or "(" in text for text in texts_of(difference.axes[0]))
    for figure in (difference, normalised):
        figure.draw_without_rendering()
        assert figure.get_tightbbox().width <= PAGE_IN


def test_few_configurations_are_each_subtracted_and_of_many_the_best_by_validation(
    make_results, unmeasured, blank_figures
):
    few = draw_figures(make_results(["base", "b", "c"]), unmeasured)
    assert [figure.stem for figure in few.differences] == ["difference_b", "difference_c"]
    results = make_results([f"c{number}" for number in range(8)])
    best = next(item for item in results.ranked if item is not results.baseline)
    (figure,) = draw_figures(results, unmeasured).differences
    assert figure.stem == f"difference_{best.label}"
    assert f"Confusion matrix of {best.label}, the best of the others by validation, minus that of c0" in figure.caption
    assert draw_figures(make_results(["only"]), unmeasured).differences == ()


def test_bars_are_the_f1_of_each_class_and_configuration_and_darken(make_results, make_run, style):
    results = make_results(["a", "b", "c"])
    figure = plot_bars(results, measure_uncertainty(results, make_run.folder))
    bars = list(figure.axes[0].patches)
    expected = [spread.mean for item in results.configurations for spread in item.part_metric("f1")]
    assert [bar.get_height() for bar in bars] == pytest.approx(expected)
    grey = [np.dot(bar.get_facecolor()[:3], (0.3, 0.59, 0.11)) for bar in bars[::3]]
    assert np.all(np.diff(grey) < -0.15)  # told apart in greyscale
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a", "b", "c"]
    assert not has_bars(make_results([str(number) for number in range(9)], tuple(map(str, range(20)))))
    assert MOST_GROUPED_BARS < 9 * 20


@pytest.fixture
def ranking(make_run):
    for split_seed in range(8):
        for name, skill in (
            ("a configuration of a rather long name", 0.9),
            ("second", 0.6),
            ("third", 0.6),
            ("last", 0.1),
        ):
            make_run(name, skill=skill, split_seed=split_seed, classes=("x", "y"), rows=200, epochs=2)
    from emofuse.report.records import read_records

    results = group_runs(read_records(make_run.folder), "runs")
    found = rank_configurations(results)
    assert isinstance(found, Ranking)
    return results, found


def test_ranks_are_drawn_at_their_places_with_the_critical_difference_and_the_groups(ranking, style):
    _, ranking = ranking
    figure = plot_ranks(ranking)
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.texts]
    order = ranking.ordered
    best, last = (ranking.test.mean_ranks[place] for place in (order[0], order[-1]))
    assert f"a configuration of a rather long name  {best:.2f}" in names
    assert f"last  {last:.2f}" in names
    assert f"critical difference {ranking.test.critical_difference:.2f}" in names
    places = sorted(line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 3)
    assert places == pytest.approx(sorted(ranking.test.mean_ranks))
    thick = [line for line in axes.lines if line.get_linewidth() > 2]
    assert len(thick) == len(ranking.test.groups) > 0
    assert len({line.get_ydata()[0] for line in thick}) == len(thick)  # bars that overlap are on levels of their own
    figure.draw_without_rendering()
    assert figure.get_tightbbox().width < PAGE_IN
    shown = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for place, one in enumerate(shown) for other in shown[:place])


def test_the_caption_of_ranks_says_that_the_test_is_liberal_and_a_report_without_them_says_why(
    ranking, make_results, unmeasured, blank_figures
):
    results, _ = ranking
    figures = draw_figures(results, unmeasured)
    assert "it is liberal and finds differences too often" in figures.ranks.caption
    assert "random splits of one dataset" in figures.ranks.caption
    assert figures.absent == ()
    without = draw_figures(make_results(), unmeasured)
    assert without.ranks is None
    assert without.absent[0].startswith("There is no diagram of critical differences, because")


def test_losses_show_training_and_validation_of_every_run_and_the_epoch_that_was_kept(make_run, style):
    runs = []
    for seed in (0, 1):
        history = [
            {"epoch": n, "train_loss": 1 / n, "val_loss": 0.5 + seed, "val_accuracy": 0.5, "val_macro_f1": 0.5}
            for n in (1, 2, 3)
        ]
        runs.append(make_run("a", seed=seed, change={"history": history, "best_epoch": 2}))
    axes = plot_losses(group_runs(runs, "runs")).axes[0]
    curves = [line.get_ydata().tolist() for line in axes.lines if len(np.atleast_1d(line.get_ydata())) == 3]
    assert curves == [pytest.approx([1, 0.5, 1 / 3]), [0.5] * 3, pytest.approx([1, 0.5, 1 / 3]), [1.5] * 3]
    rings = [(line.get_xdata(), line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
    assert [tuple(np.ravel(ring)) for ring in rings] == [(2, 0.5), (2, 1.5)]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Training rows", "Validation rows"]


def test_losses_of_very_different_size_have_a_logarithmic_axis(make_run, style):
    history = [{"epoch": n, "train_loss": 10.0**-n, "val_loss": 1.0, "val_macro_f1": 0.5} for n in (1, 2, 3)]
    run = make_run("a", change={"history": history, "best_epoch": 1})
    assert plot_losses(group_runs([run], "runs")).axes[0].get_yscale() == "log"


def test_a_figure_is_an_svg_a_png_for_print_and_a_pdf_with_truetype_fonts_and_no_date(make_results, style):
    item = make_results(["a"]).baseline
    first, second = (render_figure("x", "", lambda: plot_normalised(item, ("joy", "fear", "rage"))) for _ in range(2))
    assert first.files.keys() == {"x.svg", "x.png", "x.pdf"}
    assert first == second
    pdf = first.pdf
    assert pdf.startswith(b"%PDF-")
    assert b"/CIDFontType2" in pdf  # TrueType
    assert b"/FontFile2" in pdf  # embedded
    assert b"/Type3" not in pdf
    assert not re.search(rb"CreationDate|Producer|Matplotlib", pdf)
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    assert any(b" Tf" in zlib.decompress(each) for each in streams if each[:1] == b"x")  # text and not outlines
    picture = Image.open(io.BytesIO(first.png))
    assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert picture.width == pytest.approx(300 * first.width_in, abs=2)
