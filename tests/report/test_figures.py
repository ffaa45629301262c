"""Figures: readable at every size, the same bytes for the same runs, nothing global touched."""

from __future__ import annotations

import itertools
import subprocess
import sys
from fnmatch import fnmatch

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest

from emofuse.report.configurations import group_runs
from emofuse.report.figures import FIGURE_FILES, _slugs, draw_pictures
from emofuse.report.plots import (
    STYLE,
    _ink,
    _shorten,
    _wrap,
    plot_change,
    plot_classes,
    plot_confusion,
    plot_progression,
    plot_training,
)

LONG = "lbp+landmarks+action_units+places365+resnet50 with a very long name of its own"


@pytest.fixture
def make_results(make_run):
    def make(names=("a", "b"), classes=("joy", "fear", "rage"), repeats=1, **how):
        how = {"classes": classes, "rows": 30 * len(classes), "epochs": 4, **how}
        return group_runs([make_run(name, seed=seed, **how) for name in names for seed in range(repeats)], "runs")

    return make


@pytest.fixture
def style():
    with mpl.style.context(["default", STYLE]):
        yield


def boxes(texts):
    """Extents of texts in pixels, once everything has its place."""
    texts[0].figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts if text.get_text().strip()]


def overlapping(texts):
    return [(a, b) for a, b in itertools.combinations(boxes(texts), 2) if a.overlaps(b)]


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_names_of_configurations_do_not_overlap(make_results, style, count):
    results = make_results([f"{index} {LONG}" for index in range(count)], repeats=2)
    axes = plot_progression(results).axes[0]
    labels = axes.get_yticklabels()
    assert len(boxes(labels)) == count
    assert not overlapping(labels)
    assert not overlapping(axes.get_legend().get_texts())
    if count > 1:
        assert not overlapping(plot_change(results).axes[0].get_yticklabels())


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 20])
def test_titles_and_axes_of_the_training_panels_do_not_overlap(make_results, style, count):
    figure = plot_training(make_results([f"{index} {LONG}" for index in range(count)]))
    assert len(figure.axes) == count
    panels = [axes.get_tightbbox() for axes in figure.axes]
    # Tick labels at the ends reach half a number over their panel.
    assert not [(a, b) for a, b in itertools.combinations(panels, 2) if a.padded(-4).overlaps(b.padded(-4))]


@pytest.mark.parametrize("count", [2, 8, 20])
def test_class_names_stand_apart_and_numbers_fit_their_cells(make_results, style, count):
    results = make_results(classes=tuple(f"{index} a class of a long name" for index in range(count)), rows=40_000)
    for plot in (plot_confusion, plot_classes):
        axes = plot(results.baseline, results.classes).axes[0]
        anchors = [box.x1 for box in boxes(axes.get_xticklabels())]
        assert len(anchors) == count
        assert np.diff(anchors).min() > 15  # slanted names are about one line of 6.5 points apart
    axes = plot_confusion(results.baseline, results.classes).axes[0]
    assert not overlapping(axes.get_yticklabels())
    cell = axes.get_window_extent().width / count
    assert max(box.width for box in boxes(axes.texts)) < cell
    assert max(box.height for box in boxes(axes.texts)) < cell


def test_confusion_cells_hold_count_and_share_of_the_true_class(make_results, style):
    results = make_results(["a"], classes=("no", "yes"), repeats=2)
    counts = results.baseline.confusion
    texts = [text.get_text() for text in plot_confusion(results.baseline, results.classes).axes[0].texts]
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    expected = [f"{n}\n{share:.0f}%" if n else "0" for n, share in zip(counts.ravel(), shares.ravel(), strict=True)]
    assert texts == expected


def test_a_class_without_test_rows_has_an_empty_row(make_results, style):
    results = make_results(["a"], classes=("no", "yes"))
    results.baseline.confusion[0] = 0
    texts = [text.get_text() for text in plot_confusion(results.baseline, results.classes).axes[0].texts]
    assert texts[:2] == ["0", "0"]


def test_bars_are_the_mean_scores_of_each_class(make_results, style):
    results = make_results(["a"], repeats=3)
    axes = plot_classes(results.baseline, results.classes).axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    expected = [s.mean for key in ("precision", "recall", "f1") for s in results.baseline.class_metric(key)]
    assert heights == pytest.approx(expected)


def test_every_figure_says_that_weights_were_random(make_results, style):
    results = make_results(["a"], random_weights=("resnet50",))
    figures = [plot_progression(results), plot_training(results)]
    figures += [plot(results.baseline, results.classes) for plot in (plot_confusion, plot_classes)]
    for figure in figures:
        shown = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert any("random weights: resnet50" in text for text in shown)


def test_reachable_accuracy_is_drawn_where_it_is_known(make_results, style):
    dataset = {"name": "demo", "reachable_accuracy": {"scene": 0.4}, "cue_streams": {"scene": ["resnet50"]}}
    legend = plot_progression(make_results(["a"], dataset=dataset)).axes[0].get_legend()
    assert "Reachable accuracy" in [text.get_text() for text in legend.get_texts()]
    legend = plot_progression(make_results(["a"])).axes[0].get_legend()
    assert "Reachable accuracy" not in [text.get_text() for text in legend.get_texts()]


def test_undefined_validation_scores_are_gaps(make_results, make_run, style):
    history = [
        {"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "val_macro_f1": None},
        {"epoch": 2, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "val_macro_f1": 0.4},
    ]
    run = make_run("a", change={"history": history, "best_epoch": 2})
    line = plot_training(group_runs([run], "runs")).axes[0].lines[1]
    assert np.isnan(line.get_ydata()).tolist() == [True, False]


def test_names_are_wrapped_between_their_parts():
    assert _wrap("lbp+action_units+places365+resnet50") == "lbp+action_units+\nplaces365+resnet50"
    assert _wrap("LBP + landmarks + FAUs + MobileNetV2") == "LBP + landmarks + FAUs +\nMobileNetV2"
    assert _wrap("short") == "short"
    assert max(map(len, _wrap("x" * 300).split("\n"))) <= 24
    assert _wrap("x" * 300).endswith("…")
    assert len(_wrap("x" * 300).split("\n")) == 4
    assert _shorten("a  very long name of a class") == "a very long name of a…"


@pytest.mark.parametrize("colour", [(1, 1, 1, 1), (0, 0, 0, 1), (0, 0.27, 0.53, 1), (0.6, 0.75, 0.9, 1)])
def test_text_contrasts_with_its_cell(colour):
    def luminance(parts):
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    ink = mpl.colors.to_rgb(_ink(colour))
    high, low = sorted((luminance(ink), luminance(colour[:3])), reverse=True)
    assert (high + 0.05) / (low + 0.05) > 4.0


def test_the_same_runs_give_the_same_bytes(make_results):
    results = make_results(["a"], classes=("no", "yes"))
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.grid": True}):
        first = draw_pictures(results)
    second = draw_pictures(results)
    assert [(p.stem, p.svg, p.png) for p in first.all] == [(p.stem, p.svg, p.png) for p in second.all]
    assert all(b"<dc:date>" not in picture.svg for picture in first.all)
    assert all(picture.png.startswith(b"\x89PNG") for picture in first.all)
    assert all(any(fnmatch(picture.stem, pattern) for pattern in FIGURE_FILES) for picture in first.all)


def test_a_single_configuration_has_no_change_against_itself(make_results):
    pictures = draw_pictures(make_results(["a"]))
    assert pictures.change is None
    assert [picture.stem for picture in pictures.all] == ["progression", "training", "confusion_a", "classes_a"]


def test_labels_become_different_plain_file_names():
    labels = ["lbp+resnet50", "a/b", "A b", "../..", "<script>", "é", "x" * 300]
    slugs = ["lbp-resnet50", "a-b", "A-b-2", "configuration", "script", "configuration-2", "x" * 80]
    assert _slugs(labels) == slugs


def test_dollars_and_markup_in_names_are_drawn_as_they_are(make_results):
    pictures = draw_pictures(make_results(["$x_$ <b>"], classes=("$", "\\alpha^{", "%")))
    assert len(pictures.all) == 4


def test_captions_name_repeats_only_where_there_are_some(make_results):
    single, repeated = draw_pictures(make_results(["a"])), draw_pictures(make_results(["a"], repeats=2))
    assert "repeats" not in single.confusion[0].caption + single.classes[0].caption + single.progression.caption
    assert "summed over 2 repeats" in repeated.confusion[0].caption
    assert "means over 2 repeats" in repeated.classes[0].caption


def test_reports_load_neither_pyplot_nor_torch():
    code = "import sys, emofuse.report; print([m for m in ('matplotlib.pyplot', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
