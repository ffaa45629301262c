"""Figures: readable at every size, the same bytes for the same runs, nothing global touched."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from fnmatch import fnmatch

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from emofuse.analysis.plots import DIVERGING
from emofuse.report.class_plots import plot_change, plot_classes
from emofuse.report.comparisons import measure_uncertainty
from emofuse.report.confusion_plots import plot_confusion
from emofuse.report.detail import Detail, choose_detail
from emofuse.report.drawing import STYLE
from emofuse.report.figures import FIGURE_FILES, draw_figures
from emofuse.report.grouping import group_runs
from emofuse.report.matrices import CHANGE, COUNTS, ink
from emofuse.report.names import file_names, shorten, shorten_all, shorten_middle, wrap, wrap_marked
from emofuse.report.score_plots import plot_overview, plot_progression, plot_search
from emofuse.report.search import SearchedConfiguration, SearchSummary
from emofuse.report.training_plots import plot_training
from emofuse.statistics import Interval

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
def test_names_of_configurations_do_not_overlap(make_results, unmeasured, style, count):
    results = make_results([f"{index} {LONG}" for index in range(count)], repeats=2)
    axes = plot_progression(results, unmeasured).axes[0]
    labels = axes.get_yticklabels()
    assert len(boxes(labels)) == count
    assert not overlapping(labels)
    assert not overlapping(axes.get_legend().get_texts())
    if count > 1:
        assert not overlapping(plot_change(results).axes[0].get_yticklabels())


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 12])
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
    expected = [s.mean for key in ("precision", "recall", "f1") for s in results.baseline.part_metric(key)]
    assert heights == pytest.approx(expected)


def test_bars_of_a_class_have_its_interval_or_else_the_deviation_over_repeats(make_results, unmeasured, style):
    results = make_results(["a"], repeats=3)
    recall = results.baseline.part_metric("recall")[1]

    def ends(uncertainty):
        axes = plot_classes(results.baseline, results.classes, uncertainty=uncertainty).axes[0]
        lines = axes.collections[3].get_segments()  # of each score a white rim, and the lines
        return lines[1][:, 1].tolist()

    assert ends(unmeasured) == pytest.approx([recall.mean - recall.sd, recall.mean + recall.sd])
    measured = replace(unmeasured, intervals={"a": {results.target.part_path(1, "recall"): Interval(0.2, 0.3)}})
    assert ends(measured) == pytest.approx([0.2, 0.3])


@pytest.mark.parametrize("colours", [COUNTS, CHANGE, DIVERGING], ids=["counts", "change", "diverging"])
def test_the_numbers_of_every_cell_contrast_with_its_colour(colours):
    for share in np.linspace(0, 1, 200):
        both = sorted(luminance(to_rgb(each)) for each in (colours(share), ink(colours(share))))
        assert (both[1] + 0.05) / (both[0] + 0.05) >= 4.5


def luminance(colour):
    """Return the relative luminance of WCAG 2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_every_figure_says_that_weights_were_random(make_results, unmeasured, style):
    results = make_results(["a"], random_weights=("resnet50",))
    figures = [plot(results, unmeasured) for plot in (plot_progression, plot_overview)] + [plot_training(results)]
    figures += [plot(results.baseline, results.classes) for plot in (plot_confusion, plot_classes)]
    for figure in figures:
        shown = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert any("random weights: resnet50" in text for text in shown)


def test_reachable_accuracy_is_drawn_where_it_is_known(make_results, unmeasured, style):
    dataset = {"name": "demo", "reachable_accuracy": {"scene": 0.4}, "cue_streams": {"scene": ["resnet50"]}}
    legend = plot_progression(make_results(["a"], dataset=dataset), unmeasured).axes[0].get_legend()
    assert "Reachable accuracy" in [text.get_text() for text in legend.get_texts()]
    legend = plot_progression(make_results(["a"]), unmeasured).axes[0].get_legend()
    assert "Reachable accuracy" not in [text.get_text() for text in legend.get_texts()]


def test_undefined_validation_scores_are_gaps(make_results, make_run, style):
    history = [
        {"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "val_macro_f1": None},
        {"epoch": 2, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "val_macro_f1": 0.4},
    ]
    run = make_run("a", change={"history": history, "best_epoch": 2})
    line = plot_training(group_runs([run], "runs")).axes[0].lines[0]
    assert np.isnan(line.get_ydata()).tolist() == [True, False]


def test_names_are_wrapped_between_their_parts():
    assert wrap("lbp+action_units+places365+resnet50") == "lbp+action_units+\nplaces365+resnet50"
    assert wrap("LBP + landmarks + FAUs + MobileNetV2") == "LBP + landmarks + FAUs +\nMobileNetV2"
    assert wrap("short") == "short"
    assert max(map(len, wrap("x" * 300).split("\n"))) <= 24
    assert wrap("x" * 300).endswith("…")
    assert len(wrap("x" * 300).split("\n")) == 4


def test_the_dagger_of_random_weights_stands_behind_a_word(make_results):
    for length in range(1, 60):
        (text,) = wrap_marked(make_results(["x" * length], random_weights=("resnet50",)).configurations)
        lines = text.split("\n")
        assert lines[-1].endswith(("x †", "… †"))
        assert max(map(len, lines)) <= 24
    assert shorten("a  very long name of a class") == "a very long name of a…"
    assert shorten_middle("lbp+landmarks+resnet50, learning_rate  0.001", 24) == "lbp+lan…rning_rate 0.001"
    assert shorten_middle("short", 24) == "short"


@pytest.fixture
def many(make_run):
    """Fifteen configurations, every set of four streams once, of two repeats; `resnet50` alone is the baseline."""
    streams = ("lbp", "landmarks", "places365", "resnet50")
    sets = [chosen for size in range(1, 5) for chosen in itertools.combinations(streams, size)]
    how = {"classes": ("no", "yes"), "rows": 900, "epochs": 4, "random_weights": ("places365",)}
    runs = [
        make_run("+".join(chosen), chosen, skill=0.2 * len(chosen), seed=seed, **how)
        for chosen in sets
        for seed in (0, 1)
    ]
    return group_runs(runs, "runs", baseline="resnet50")


def lines_of(axes):
    """Ends of all horizontal lines, one array (2, 2) each."""
    return [segment for drawn in axes.collections if hasattr(drawn, "get_segments") for segment in drawn.get_segments()]


def test_lines_are_intervals_and_deviations(make_results, make_run, style):
    results = make_results(["a"], repeats=3)
    measured = measure_uncertainty(results, make_run.folder)
    ends = [tuple(segment[:, 0]) for segment in lines_of(plot_progression(results, measured).axes[0])]
    expected = []
    for path in ("accuracy", "macro.f1"):
        spread, interval = results.baseline.metric(path), measured.intervals["a"][path]
        expected += [(interval.low, interval.high), (spread.mean - spread.sd, spread.mean + spread.sd)]
    assert ends == [pytest.approx(pair) for pair in expected]


def test_an_overview_has_streams_as_dots_and_scores_in_the_order_of_validation(many, make_run, style):
    measured = measure_uncertainty(many, make_run.folder)
    dots, accuracy, macro_f1 = plot_overview(many, measured).axes
    assert [label.get_text() for label in dots.get_xticklabels()] == ["lbp", "landmarks", "places365 †", "resnet50"]
    drawn = {}
    for line in dots.lines:
        if line.get_marker() == "o" and line.get_color() == "#004488":
            drawn.setdefault(int(line.get_ydata()[0]), []).append(int(line.get_xdata()[0]))
    names = ("lbp", "landmarks", "places365", "resnet50")
    assert [tuple(names[column] for column in drawn[row]) for row in range(15)] == [
        item.streams for item in many.ranked
    ]
    for axes, path, marker in ((accuracy, "accuracy", "o"), (macro_f1, "macro.f1", "s")):
        points = [line for line in axes.lines if line.get_marker() == marker]
        assert [line.get_xdata()[0] for line in points] == [item.metric(path).mean for item in many.ranked]
        sure = [
            (pair := (item.label, many.baseline.label)) in measured.comparisons
            and measured.comparisons[pair].corrected[path] < 0.05
            for item in many.ranked
        ]
        assert [line.get_markerfacecolor() != "white" for line in points] == sure
        assert 0 < sum(sure) < 14
        low, high = axes.get_xlim()
        assert all(low <= end <= high for segment in lines_of(axes) for end in segment[:, 0])
    assert not overlapping(accuracy.get_xticklabels())


def test_an_overview_of_configurations_with_the_same_streams_has_their_names(make_results, unmeasured, style):
    results = make_results([f"{index} {LONG}" for index in range(20)])
    accuracy, macro_f1 = plot_overview(results, unmeasured).axes
    labels = [label.get_text() for label in accuracy.get_yticklabels()]
    assert labels == shorten_all([item.label for item in results.ranked], 52, in_the_middle=True)
    assert not overlapping(accuracy.get_yticklabels())
    assert {label.get_text() for label in macro_f1.get_yticklabels()} == {""}


@pytest.mark.usefixtures("blank_figures")
def test_an_overview_of_hundreds_has_the_best_and_the_baseline(make_results, unmeasured, style, monkeypatch):
    monkeypatch.setattr("emofuse.report.score_plots.MOST_ROWS", 5)
    results = make_results([f"c{index}" for index in range(14)])
    worst = results.ranked[-1]
    results = replace(results, baseline=worst)
    labels = [label.get_text() for label in plot_overview(results, unmeasured).axes[0].get_yticklabels()]
    assert labels == [item.label for item in (*results.ranked[:4], worst)]
    caption = draw_figures(results, unmeasured).progression.caption
    assert caption.startswith("5 of 14 configurations, the best validation macro F1 on top: ")


@pytest.mark.usefixtures("svg_alone")
def test_of_many_configurations_only_the_featured_have_figures(many, unmeasured):
    figures = draw_figures(many, unmeasured)
    assert len(many.featured) == 7
    stems = [section[0].stem for section in figures.sections]
    assert stems == [f"confusion_{item.label.replace('+', '-')}" for item in many.featured]
    assert [len(section) for section in figures.sections] == [3] * 7
    assert figures.progression.caption.startswith(
        "All configurations, each with its streams as dots, the best validation macro F1 on top: accuracy and macro F1 "
        "on the test split. Shaded row and dashed lines: the baseline resnet50. "
    )
    assert figures.training.caption.endswith("Shown: the 6 best by validation macro F1, and the baseline.")
    assert figures.change.caption.endswith("Shown: the 6 best by validation macro F1.")
    assert "one bar for each configuration in the order of validation macro F1, the best first," in figures.bars.caption


SEARCH = SearchSummary(
    "grid",
    "macro_f1",
    (
        SearchedConfiguration("a", {}, 0.5, 0.02, 5),
        SearchedConfiguration("b", {}, 0.7, 0.01, 5, chosen=True),
        SearchedConfiguration("c", {}, None, None, 5, diverged=1),
        SearchedConfiguration("d", {}, 0.6, 0.01, 5),
    ),
    heads=20,
    folds=5,
)


def test_a_search_is_drawn_by_rank_with_the_chosen_apart(style):
    others, chosen = plot_search(SEARCH).axes[0].lines
    assert (others.get_xdata().tolist(), others.get_ydata().tolist()) == ([2, 3], [0.6, 0.5])
    assert (chosen.get_xdata().tolist(), chosen.get_ydata().tolist()) == ([1], [0.7])
    ends = [segment[:, 1].tolist() for segment in lines_of(plot_search(SEARCH).axes[0])]
    assert ends == [pytest.approx(pair) for pair in ([0.59, 0.61], [0.48, 0.52], [0.69, 0.71])]


def test_a_search_by_loss_has_the_smallest_first(style):
    axes = plot_search(replace(SEARCH, select="loss")).axes[0]
    others, chosen = axes.lines
    assert (others.get_ydata().tolist(), chosen.get_xdata().tolist()) == ([0.5, 0.6], [3])
    assert axes.get_ylabel() == "Validation loss"


@pytest.mark.usefixtures("blank_figures")
def test_the_caption_of_a_search_tells_of_those_without_a_score(make_results, unmeasured):
    results = replace(make_results(), search=SEARCH)
    assert draw_figures(results, unmeasured).search.caption == (
        "Validation macro F1 of every configuration of the search, best first. Points are means over folds and seeds. "
        "Lines are ± one standard error, corrected for the training rows that folds share (Nadeau and Bengio, 2003). "
        "Without a score, because a run diverged, and not shown: 1."
    )


@pytest.mark.usefixtures("blank_figures")
def test_a_search_without_any_score_has_no_figure(make_results, unmeasured):
    search = replace(SEARCH, configurations=SEARCH.configurations[2:3])
    assert draw_figures(replace(make_results(), search=search), unmeasured).search is None


def test_the_same_runs_give_the_same_bytes(many, make_run):
    results = replace(many, search=SEARCH)
    measured = measure_uncertainty(results, make_run.folder)
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.grid": True}):
        first = draw_figures(results, measured)
    second = draw_figures(results, measured)
    assert [(p.stem, p.files) for p in first.all] == [(p.stem, p.files) for p in second.all]
    assert all(b"<dc:date>" not in figure.svg for figure in first.all)
    assert all(figure.png.startswith(b"\x89PNG") for figure in first.all)
    assert all(any(fnmatch(figure.stem, pattern) for pattern in FIGURE_FILES) for figure in first.all)


def test_a_single_configuration_has_no_change_against_itself(make_results, unmeasured):
    figures = draw_figures(make_results(["a"]), unmeasured)
    assert figures.change is None
    assert [figure.stem for figure in figures.all] == [
        "progression",
        "training",
        "losses",
        "confusion_a",
        "classes_a",
        "normalised_a",
    ]


def test_labels_become_different_plain_file_names():
    labels = ["lbp+resnet50", "a/b", "A b", "../..", "<script>", "é", "x" * 300]
    slugs = ["lbp-resnet50", "a-b", "A-b-2", "configuration", "script", "configuration-2", "x" * 80]
    assert file_names(labels) == slugs


def test_dollars_and_markup_in_names_are_drawn_as_they_are(make_results, unmeasured):
    figures = draw_figures(make_results(["$x_$ <b>"], classes=("$", "\\alpha^{", "%")), unmeasured)
    assert len(figures.all) == 6


@pytest.mark.usefixtures("blank_figures")
def test_captions_name_repeats_and_intervals_only_where_there_are_some(make_results, make_run, unmeasured):
    results = make_results(["a"])
    single = draw_figures(results, unmeasured)
    repeated = draw_figures(make_results(["a"], repeats=2), unmeasured)
    assert "repeats" not in single.sections[0][0].caption + single.sections[0][1].caption + single.progression.caption
    assert "intervals" not in single.progression.caption
    assert "summed over 2 repeats" in repeated.sections[0][0].caption
    assert "means over 2 repeats" in repeated.sections[0][1].caption
    measured = draw_figures(results, measure_uncertainty(results, make_run.folder))
    assert measured.progression.caption.endswith("the notes on the table of scores say what they cover.")


def test_reports_load_neither_pyplot_nor_torch():
    code = "import sys, emofuse.report; print([m for m in ('matplotlib.pyplot', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def many_labels(make_results):
    return make_results(classes=tuple(f"label number {index}" for index in range(120)), repeats=2)


def test_a_matrix_of_many_labels_is_one_image_without_numbers(many_labels, style):
    axes = plot_confusion(many_labels.featured[0], many_labels.classes).axes[0]
    assert not axes.texts
    counts = many_labels.featured[0].confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    assert np.allclose(axes.images[0].get_array(), 100 * shares)
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["1", "10", "20"]
    assert not overlapping(axes.get_xticklabels())


def test_scores_of_many_labels_are_points_ordered_by_f1(many_labels, style):
    axes = plot_classes(many_labels.featured[0], many_labels.classes).axes[0]
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.get_lines()}
    assert set(lines) == {"Precision", "Recall", "F1"}
    assert np.all(np.diff(lines["F1"]) <= 0)
    assert len(lines["Recall"]) == 120


def test_the_change_of_many_labels_is_an_image_without_numbers(many_labels, style):
    figure = plot_change(many_labels)
    axes = figure.axes[0]
    assert not axes.texts
    assert axes.images[0].get_array().shape == (1, 120)
    figure.draw_without_rendering()
    assert figure.get_tightbbox().width < 7.6


@pytest.mark.usefixtures("svg_alone")
def test_a_report_of_many_labels_is_small(many_labels, unmeasured):
    figures = draw_figures(many_labels, unmeasured)
    assert sum(len(figure.svg) for figure in figures.all) < 1_000_000
    assert "no numbers" in figures.sections[0][0].caption
    assert "in the order of their F1, the best first" in figures.sections[0][1].caption


def test_cells_are_counted_over_all_figures_of_a_report():
    assert choose_detail(12, 12) == Detail(numbers=True, names=True)
    assert choose_detail(5, 8) == Detail(numbers=True, names=True)
    assert choose_detail(1, 25) == Detail(numbers=True, names=True)
    assert choose_detail(1, 26) == Detail(numbers=False, names=True)
    assert choose_detail(12, 13) == Detail(numbers=False, names=True)
    assert choose_detail(12, 40) == Detail(numbers=False, names=False)
    assert choose_detail(1, 41) == Detail(numbers=False, names=False)


@pytest.mark.usefixtures("svg_alone")
def test_a_dozen_configurations_of_forty_labels_make_a_small_report(make_results, unmeasured):
    results = make_results([f"c{index}" for index in range(12)], tuple(f"label {index}" for index in range(40)))
    figures = draw_figures(results, unmeasured)
    assert sum(len(figure.svg) for figure in figures.all) < 3_000_000  # several times as much with all numbers
    assert len(figures.sections) == 12


def test_matrices_without_numbers_still_name_their_labels(make_results, style):
    classes = tuple(f"{index} of a long name of its own" for index in range(30))
    results = make_results(classes=classes)
    for figure in (plot_confusion(results.baseline, classes), plot_change(results)):
        axes = figure.axes[0]
        assert not axes.texts
        assert [label.get_text() for label in axes.get_xticklabels()] == shorten_all(classes)
        assert np.diff([box.x1 for box in boxes(axes.get_xticklabels())]).min() > 14.4


def test_shortened_names_are_as_different_as_the_names():
    begun = [f"a very long common beginning, number {index}" for index in range(8)]
    assert shorten_all(begun) == [f"a very …ning, number {index}" for index in range(8)]
    inside = [f"the very same beginning {letter} and the same ending" for letter in "xyz"]
    assert shorten_all(inside) == [f"the v… same ending ({count})" for count in (1, 2, 3)]
    assert shorten_all(["short", "a very long name of a class"]) == ["short", "a very long name of a…"]
    taken = ["the v… same ending (1)", *inside]
    assert shorten_all(taken)[1:] == [f"the v… same ending ({count})" for count in (2, 3, 4)]


def test_names_of_configurations_in_lines_are_as_different_as_the_names(make_results):
    names = ["lbp+landmarks+" * 9 + f"rate {index}" for index in range(3)]
    names += ["lbp+landmarks+" * 9 + f"{index}" + "+resnet50" * 12 for index in range(3)]
    wrapped = wrap_marked(make_results(names).configurations)
    assert len(set(wrapped)) == 6
    assert wrapped[1].endswith("rate 1")
    assert max(len(line) for text in wrapped for line in text.split("\n")) <= 24
