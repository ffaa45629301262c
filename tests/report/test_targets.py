"""Reports of targets that are not one class: numbers, several labels, distributions."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from emofuse.errors import ResultsError, SpecError
from emofuse.metrics.targets import target_metrics
from emofuse.report import write_report
from emofuse.report.comparisons import measure_uncertainty
from emofuse.report.figures import draw_figures
from emofuse.report.grouping import group_runs
from emofuse.report.page.overview import overview
from emofuse.report.part_plots import answered_values, plot_labels, plot_residuals, plot_values
from emofuse.report.records import read_records
from emofuse.report.sentences import method
from emofuse.report.tables import Cell, comparisons_table, detail_tables, part_table, parts_table, scores_table
from emofuse.report.targets import TARGETS
from emofuse.results import read_predictions, run_dir
from emofuse.statistics import Interval
from emofuse.statistics_check import check_statistics

KINDS = ("regression", "multilabel", "distribution")
OTHERS = ("regression", "multilabel")
CLASS_WORDS = ("Confusion", "confusion", "McNemar", "classes", "each class", "softmax", "specificity", "per_class")


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def two_configurations(make_run, kind, *, split_seeds=(None,), **options):
    for split_seed in split_seeds:
        for seed in (0, 1):
            make_run("good", skill=0.7, seed=seed, split_seed=split_seed, target=kind, **options)
            make_run("poor", skill=0.4, seed=seed, split_seed=split_seed, target=kind, **options)
    results = group_runs(read_records(make_run.folder), "runs", baseline="poor")
    return results, measure_uncertainty(results, make_run.folder)


def column(table, title):
    return next(column for column in table.columns if column.title == title)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_saved_answers(make_run, kind):
    results, _ = two_configurations(make_run, kind)
    target = TARGETS[kind]
    for item in results.configurations:
        found = []
        for run in item.runs:
            saved = read_predictions(run_dir(make_run.folder, run.digest))
            labels = saved.label if kind == "distribution" else None
            found.append(target_metrics(kind, saved.target, saved.outputs, run.classes, labels=labels))
        for score in target.scores:
            section, _, key = score.path.rpartition(".")
            values = [(each[section] if section else each)[key] for each in found]
            assert item.metric(score.path).mean == pytest.approx(np.mean(values))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split_seeds", [(None,), (0, 1, 2)])
def test_every_score_has_an_interval_around_it(make_run, kind, split_seeds):
    results, uncertainty = two_configurations(make_run, kind, split_seeds=split_seeds)
    target = TARGETS[kind]
    for item in results.configurations:
        intervals = uncertainty.intervals[item.label]
        assert set(intervals) == set(target.paths(len(results.classes)))
        for score in target.scores:
            interval = intervals[score.path]
            assert interval.low < item.metric(score.path).mean < interval.high
            assert score.bounds[0] <= interval.low
            assert interval.high <= score.bounds[1]
        for place, _ in enumerate(results.classes):
            for score in target.part_scores:
                mean = item.part_metric(score.path)[place].mean
                interval = intervals[target.part_path(place, score.path)]
                assert interval.low <= mean <= interval.high or np.isnan(interval.low)
    comparison = uncertainty.comparisons["good", results.baseline.label]
    assert set(comparison.tests) == {score.path for score in target.compared}
    difference = results.difference(results.configurations[0], target.main.path).mean
    assert comparison.tests[target.main.path].difference == pytest.approx(difference)
    assert difference > 0
    assert comparison.tests[target.main.path].p < 0.05
    assert (comparison.mcnemar is None) == (kind in OTHERS)


def test_groups_of_numbers_are_drawn_as_a_whole(make_run):
    """Forty speakers of two equal rows: the interval is that of forty rows, and so wider than that of eighty."""
    record = make_run("a", skill=0.5, target="regression", rows=800)
    folder = run_dir(make_run.folder, record.digest)
    alone = measure_uncertainty(group_runs(read_records(make_run.folder), "runs"), make_run.folder)
    saved = read_predictions(folder)
    half = len(saved.label) // 2
    twice = {
        name: np.concatenate([array[:half], array[:half]])
        for name, array in (("target", saved.target), ("values", saved.outputs), ("label", saved.label))
    }
    groups = np.array([f"speaker_{place % half}" for place in range(2 * half)])
    np.savez(folder / "predictions.npz", sample_id=saved.sample_id, group=groups, **twice)
    grouped = measure_uncertainty(group_runs(read_records(make_run.folder), "runs"), make_run.folder)

    def width(uncertainty) -> float:
        interval = uncertainty.intervals["a"]["mean.ccc"]
        return interval.high - interval.low

    assert grouped.coverage["a"].groups == half
    assert width(grouped) > 1.2 * width(alone)


def test_errors_are_compared_in_their_own_unit_and_the_smallest_is_best(make_run):
    results, uncertainty = two_configurations(make_run, "regression")
    table = scores_table(results, uncertainty)
    good, poor = column(table, "RMSE").cells
    assert good.best
    assert not poor.best
    assert column(table, "Δ RMSE").cells[0].text.startswith("−")
    assert [each.title for each in table.columns] == ["Configuration", "Repeats", "CCC", "Δ CCC", "RMSE", "Δ RMSE"]
    compared = comparisons_table(results, uncertainty)
    assert [each.title for each in compared.columns] == ["Configuration", "Δ CCC", "p, CCC", "Δ RMSE", "p, RMSE"]


def test_equals_are_tested_by_the_scores_of_their_target(make_run):
    """The A/A check has a test for each compared score, and McNemar's where rows have a class."""
    for seed in range(4):
        for kind in KINDS:
            folder = make_run.folder / kind
            type(make_run)(folder)("a", skill=0.5, seed=seed, target=kind)
    for kind in KINDS:
        folder = make_run.folder / kind
        alarms = check_statistics(group_runs(read_records(folder), "runs"), folder)
        tests = {each.test for each in alarms if each.of == "one run each"}
        expected = {f"bootstrap over images, {score.path}" for score in TARGETS[kind].compared}
        assert tests == (expected if kind in OTHERS else expected | {"McNemar"})


def test_errors_of_small_and_large_units_keep_three_digits(make_run):
    results, uncertainty = two_configurations(make_run, "regression", classes=("arousal",))
    for factor, decimals in ((1e-4, 6), (1.0, 2), (1e4, 0)):  # the same for both rows
        for item in results.configurations:
            for run in item.runs:
                run.metrics["test"]["mean"]["rmse"] = factor * (2.345 if item.label == "good" else 3.456)
        cells = column(scores_table(results, uncertainty), "RMSE").cells
        assert [cell.text for cell in cells] == [f"{factor * value:.{decimals}f}" for value in (2.345, 3.456)]


@pytest.mark.parametrize(
    ("kind", "titles", "support"),
    [
        ("regression", ["Column", "CCC", "Pearson r", "RMSE", "MAE"], None),
        ("multilabel", ["Label", "Average precision", "ROC AUC", "F1", "Rows"], "rows"),
    ],
)
def test_columns_and_labels_have_tables_of_their_own(make_run, kind, titles, support):
    results, uncertainty = two_configurations(make_run, kind)
    table = part_table(results.baseline, results.classes, uncertainty)
    assert [each.title for each in table.columns] == titles
    assert all(cell.interval for cell in table.columns[1].cells)
    if support:
        counts = [run["rows"] for run in results.baseline.runs[0].metrics["test"]["columns"].values()]
        assert [cell.text for cell in table.columns[-1].cells] == list(map(str, counts))
    assert [each.title for each in parts_table(results).columns] == ["Configuration", *results.classes]
    assert len(detail_tables(results, uncertainty)) == 1


@pytest.mark.usefixtures("blank_figures")
def test_a_constant_column_has_a_dash_and_no_test(make_run):
    """Every test row has the same arousal: its CCC is undefined everywhere, and never 0."""
    for name in ("a", "b"):
        record = make_run(name, skill=0.5, target="regression", classes=("arousal",))
        folder = run_dir(make_run.folder, record.digest)
        saved = read_predictions(folder)
        constant = np.full_like(saved.target, 3.0)
        np.savez(
            folder / "predictions.npz",
            sample_id=saved.sample_id,
            label=saved.label,
            values=saved.outputs,
            target=constant,
        )
    results = group_runs(read_records(make_run.folder), "runs")
    uncertainty = measure_uncertainty(results, make_run.folder)
    assert column(scores_table(results, uncertainty), "CCC").cells[0] == Cell("–")
    assert np.isnan(uncertainty.intervals["a"]["mean.ccc"].low)
    compared = comparisons_table(results, uncertainty)
    assert [each.cells[0].text for each in compared.columns[1:3]] == ["–", "–"]
    assert "undefined" not in " ".join(overview(results, uncertainty))
    assert write_report(make_run.folder, make_run.folder / "report").page.is_file()


def test_a_label_that_no_test_row_has_is_left_out_and_shown_with_a_dash(make_run):
    record = make_run("a", skill=0.5, target="multilabel", rows=200)
    folder = run_dir(make_run.folder, record.digest)
    saved = read_predictions(folder)
    target = saved.target.copy()
    target[:, -1] = 0
    np.savez(
        folder / "predictions.npz", sample_id=saved.sample_id, label=saved.label, probs=saved.outputs, target=target
    )
    results = group_runs(read_records(make_run.folder), "runs")
    table = part_table(results.baseline, results.classes, measure_uncertainty(results, make_run.folder))
    assert [each.cells[-1].text for each in table.columns] == ["peace", "–", "–", "–", "0"]
    precisions = [spread.mean for spread in results.baseline.part_metric("average_precision")[:-1]]
    assert results.baseline.metric("macro.map").mean == pytest.approx(np.mean(precisions))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("svg_alone")
def test_a_report_has_all_parts_and_no_words_of_another_target(make_run, tmp_path, kind):
    two_configurations(make_run, kind)
    files = write_report(make_run.folder, tmp_path / "report", compare=["good=poor"])
    target = TARGETS[kind]
    assert all(path.exists() for path in files)
    page = files.page.read_text(encoding="utf-8")
    visible = page.partition("<body>")[2].partition("<dialog")[0]
    for name in group_runs(read_records(make_run.folder), "runs").classes:
        assert name in visible
    if kind in OTHERS:
        text = visible + files.summary_markdown.read_text(encoding="utf-8")
        assert [word for word in CLASS_WORDS if word in text] == []
        assert files.per_part_csv.name == f"per_{target.part}.csv"
    rows = read_csv(files.summary_csv)
    assert {f"{score.column}_mean" for score in target.scores} <= set(rows[0])
    assert {f"{score.column}_95_low" for score in target.scores} <= set(rows[0])
    parts = read_csv(files.per_part_csv)
    assert len(parts) == 2 * len({row[target.part] for row in parts})
    assert {f"{score.path}_mean" for score in target.part_scores} <= set(parts[0])
    (comparison,) = [row for row in read_csv(files.comparisons_csv) if row["configuration"] == "poor"]
    assert float(comparison[f"{target.main.column}_p"]) < 0.05
    assert ("mcnemar_p" in comparison) == target.has_classes
    numbers = json.loads(files.numbers_json.read_text(encoding="utf-8"))
    assert {"configurations", target.parts, "comparisons", "notes", "baseline"} <= set(numbers)
    runs = read_csv(files.runs_csv)
    assert {score.column for score in target.run_scores} <= set(runs[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("svg_alone")
def test_the_same_runs_give_the_same_report(make_run, tmp_path, kind):
    two_configurations(make_run, kind)
    first, second = (write_report(make_run.folder, tmp_path / name) for name in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        if one.is_file():
            assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("kind", "stems"),
    [
        ("regression", "progression errors ccc_change ccc_bars training losses values_good residuals_good"),
        ("multilabel", "progression average_precision_change average_precision_bars training losses labels_good"),
        (
            "distribution",
            (
                "progression errors f1_change f1_bars difference_good training losses confusion_good classes_good "
                "normalised_good"
            ),
        ),
    ],
)
@pytest.mark.usefixtures("svg_alone")
def test_each_target_has_its_figures(make_run, kind, stems):
    results, uncertainty = two_configurations(make_run, kind)
    values = answered_values(results, make_run.folder) if kind == "regression" else None
    figures = draw_figures(results, uncertainty, values=values)
    assert [figure.stem for figure in figures.all][: len(stems.split())] == stems.split()


def test_points_of_a_regression_are_the_mean_answers_of_the_repeats_that_tested_a_row(make_run):
    results, _ = two_configurations(make_run, "regression")
    values = answered_values(results, make_run.folder)
    for item in results.configurations:
        saved = [read_predictions(run_dir(make_run.folder, run.digest)) for run in item.runs]
        order = np.argsort(saved[0].sample_id)
        found = values[item.runs[0].digest]
        np.testing.assert_allclose(found.true, saved[0].target[order])
        np.testing.assert_allclose(found.answered, np.mean([each.outputs for each in saved], axis=0)[order], rtol=1e-6)


def test_overlapping_splits_count_a_row_once_in_the_points_of_a_regression(make_run):
    results, _ = two_configurations(make_run, "regression", split_seeds=(0, 1, 2))
    found = answered_values(results, make_run.folder)[results.baseline.runs[0].digest]
    answers: dict[str, list[np.ndarray]] = {}
    for run in results.baseline.runs:
        saved = read_predictions(run_dir(make_run.folder, run.digest))
        for sample, output in zip(saved.sample_id, saved.outputs, strict=True):
            answers.setdefault(str(sample), []).append(output)
    expected = np.array([np.mean(answers[sample], axis=0) for sample in sorted(answers)])
    np.testing.assert_allclose(found.answered, expected, rtol=1e-5)


def test_answers_are_drawn_over_true_values_with_the_line_where_both_are_equal(make_run):
    results, _ = two_configurations(make_run, "regression")
    item = results.baseline
    values = answered_values(results, make_run.folder)[item.runs[0].digest]
    figure = plot_values(item, results.classes, values)
    for place, (axes, name) in enumerate(zip(figure.axes, ("valence", "arousal"), strict=True)):
        points, line = axes.lines
        np.testing.assert_allclose(points.get_xdata(), values.true[:, place])
        np.testing.assert_allclose(points.get_ydata(), values.answered[:, place])
        assert list(line.get_xdata()) == list(line.get_ydata())
        ccc = item.part_metric("ccc")[place].mean
        assert axes.get_title(loc="left") == f"{name}\nn = {len(values.true)}, CCC {ccc:.3f}"
    errors = plot_residuals(item, results.classes, values)
    heights = [patch.get_height() for patch in errors.axes[1].patches]
    assert sum(heights) == len(values.true)
    assert errors.axes[1].lines[1].get_xdata()[0] == pytest.approx(np.mean(values.answered[:, 1] - values.true[:, 1]))


def test_many_rows_are_drawn_as_densities(make_run):
    make_run("a", target="regression", rows=20_000)
    results = group_runs(read_records(make_run.folder), "runs")
    values = answered_values(results, make_run.folder)[results.baseline.runs[0].digest]
    (axes, _) = plot_values(results.baseline, results.classes, values).axes
    (image,) = axes.images
    assert np.nansum(np.square(np.asarray(image.get_array().filled(np.nan)))) == pytest.approx(len(values.true))


def test_bars_of_labels_have_their_average_precision_interval_and_share_of_rows(make_run):
    results, uncertainty = two_configurations(make_run, "multilabel")
    item = results.baseline
    (axes,) = plot_labels(item, results.classes, uncertainty).axes
    scores = {
        name: spread.mean for name, spread in zip(results.classes, item.part_metric("average_precision"), strict=True)
    }
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == sorted(scores, key=scores.__getitem__, reverse=True)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([scores[name] for name in names])
    place = results.classes.index(names[0])
    interval = uncertainty.intervals[item.label][f"columns.{place}.average_precision"]
    assert list(axes.lines[0].get_xdata()) == [interval.low, interval.high]
    metrics = item.runs[0].metrics["test"]
    assert axes.lines[1].get_xdata()[0] == metrics["columns"][names[0]]["rows"] / metrics["rows"]


def test_losses_of_two_definitions_do_not_rank(make_run):
    """One minus the CCC and a squared error are both losses, and no scale is common to them."""
    for name, loss, ccc, value in (("mse", "mse", 0.9, 1.5), ("ccc", "ccc", 0.5, 0.5)):
        target = {"kind": "regression", "columns": ["valence", "arousal"], "loss": loss}
        record = make_run(name, target="regression")
        history = [{"epoch": 1, "train_loss": 1.0, "val_loss": value, "val_ccc": ccc}]
        spec = {**record.spec, "target": target}
        path = run_dir(make_run.folder, record.digest) / "run.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(data | {"spec": spec, "history": history, "best_epoch": 1}), encoding="utf-8")
    results = group_runs(read_records(make_run.folder), "runs")
    assert results.select == "ccc"
    assert [item.label for item in results.ranked] == ["mse", "ccc"]
    same = group_runs(read_records(make_run.folder)[:1], "runs")
    assert same.select == "loss"


def test_runs_of_two_kinds_of_targets_are_one_error(make_run, tmp_path):
    make_run("numbers", target="regression")
    make_run("more numbers", target="regression")
    make_run("labels")
    with pytest.raises(ResultsError, match=r"different kinds of targets .*: 1 of class, 2 of regression\. Move"):
        write_report(make_run.folder, tmp_path / "report")


def test_an_unknown_kind_of_target_is_named_with_its_run(make_run, tmp_path):
    make_run("later", target="regression", change={})
    (path,) = make_run.folder.glob("*/run.json")
    path.write_text(path.read_text(encoding="utf-8").replace('"kind": "regression"', '"kind": "ranking"'))
    with pytest.raises(ResultsError, match=r"spec.target.kind: 'ranking' is unknown, expected class, distribution"):
        write_report(make_run.folder, tmp_path / "report")


@pytest.mark.usefixtures("blank_figures")
def test_further_metrics_must_score_the_target(make_run, tmp_path):
    make_run("a", target="regression")
    with pytest.raises(SpecError, match=r"'kappa' scores a class, the target of the runs is a regression \(there are:"):
        write_report(make_run.folder, tmp_path / "report", metrics=["kappa", "mae"])
    files = write_report(make_run.folder, tmp_path / "report", metrics=["mae"])
    (row,) = read_csv(files.metrics_csv)
    assert float(row["low"]) < float(row["mean"]) < float(row["high"])


@pytest.mark.usefixtures("blank_figures")
def test_metrics_of_classes_and_of_distributions_score_distributions(make_run, tmp_path):
    make_run("a", target="distribution")
    files = write_report(make_run.folder, tmp_path / "report", metrics=["kappa", "js"])
    (record,) = read_records(make_run.folder)
    means = {row["metric"]: float(row["mean"]) for row in read_csv(files.metrics_csv)}
    assert means["js"] == pytest.approx(record.metrics["test"]["distribution"]["js"], abs=1e-6)
    assert 0 < means["kappa"] < 1


def test_predictions_without_true_values_have_no_interval_and_the_reason_is_said(make_run):
    record = make_run("a", target="regression")
    folder = run_dir(make_run.folder, record.digest)
    saved = read_predictions(folder)
    np.savez(folder / "predictions.npz", sample_id=saved.sample_id, label=saved.label, values=saved.outputs)
    results = group_runs(read_records(make_run.folder), "runs")
    uncertainty = measure_uncertainty(results, make_run.folder)
    assert uncertainty.intervals == {}
    assert "it has no true values (target), which a regression is scored by" in uncertainty.problems[0]
    assert draw_figures(results, uncertainty, values=answered_values(results, make_run.folder)).sections == ((),)


def test_true_values_that_differ_between_splits_are_not_pooled(make_run):
    for split_seed in (0, 1):
        make_run("a", target="regression", split_seed=split_seed)
    record = read_records(make_run.folder)[0]
    folder = run_dir(make_run.folder, record.digest)
    saved = read_predictions(folder)
    np.savez(
        folder / "predictions.npz",
        sample_id=saved.sample_id,
        label=saved.label,
        values=saved.outputs,
        target=saved.target + 1,
    )
    results = group_runs(read_records(make_run.folder), "runs")
    (problem,) = measure_uncertainty(results, make_run.folder).problems
    assert "an image has different labels" in problem


@pytest.mark.usefixtures("blank_figures")
def test_a_report_of_another_target_removes_the_tables_of_a_former_one(make_run, tmp_path):
    record = make_run("labels")
    out = tmp_path / "report"
    write_report(make_run.folder, out)
    assert (out / "per_class.csv").is_file()
    assert (out / "figures/confusion_labels.svg").is_file()
    for path in run_dir(make_run.folder, record.digest).iterdir():
        path.unlink()
    run_dir(make_run.folder, record.digest).rmdir()
    make_run("numbers", target="regression")
    write_report(make_run.folder, out)
    assert not (out / "per_class.csv").exists()
    assert not (out / "figures/confusion_labels.svg").exists()
    assert (out / "per_column.md").is_file()
    assert (out / "figures/values_numbers.png").is_file()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("regression", "a linear output for each of 2 columns. Training minimises 1 − CCC of a batch"),
        ("multilabel", "a sigmoid for each of 5 labels. Training minimises the binary cross-entropy of each label"),
        ("distribution", "a softmax over 4 classes. Training minimises the Kullback-Leibler divergence from the"),
    ],
)
def test_the_method_says_what_is_learned(make_run, kind, words):
    make_run("a", target=kind)
    assert words in " ".join(method(group_runs(read_records(make_run.folder), "runs")))


def test_a_score_of_no_known_range_has_no_bounds_of_a_share():
    regression = TARGETS["regression"]
    assert regression.bounds("mean.rmse") == (0.0, np.inf)
    assert regression.bounds("columns.1.ccc") == (-1.0, 1.0)
    assert TARGETS["distribution"].bounds("distribution.l1") == (0.0, 2.0)
    assert TARGETS["class"].bounds("per_class.3.f1") == (0.0, 1.0)
    assert Interval(0.0, 1.0) == Interval(*TARGETS["multilabel"].bounds("macro.map"))
