"""Tables as cells, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import json

import pytest

from emofuse.report.comparisons import measure_uncertainty
from emofuse.report.configurations import Spread
from emofuse.report.formats import format_difference, format_range, format_score
from emofuse.report.grouping import group_runs
from emofuse.report.numbers import comparison_rows, csv_text, json_text, part_rows, run_rows, summary_rows
from emofuse.report.tables import (
    Cell,
    ReportTable,
    TableColumn,
    all_parts_table,
    comparisons_table,
    cost_table,
    detail_tables,
    markdown,
    parts_table,
    scores_table,
)
from emofuse.report.targets import CLASS

CLASSES = ("joy", "fear", "rage")
DEMO = {"name": "demo", "reachable_accuracy": {"scene": 0.4}, "cue_streams": {"scene": ["resnet50"]}}


@pytest.fixture
def measured(results, make_run):
    """The uncertainty of these results, from their predictions."""
    return measure_uncertainty(results, make_run.folder)


@pytest.fixture
def results(make_run):
    """Two configurations of three repeats; the second is better and has a stream with random weights."""
    runs = []
    for seed in range(3):
        runs.append(make_run("low", ("lbp",), skill=0.2, seed=seed, classes=CLASSES, rows=300, dataset=DEMO))
        high = {"skill": 0.9, "random_weights": ("resnet50",), "dataset": DEMO}
        runs.append(make_run("high", ("lbp", "resnet50"), seed=seed, classes=CLASSES, rows=300, **high))
    return group_runs(runs, "runs")


def texts(table, title):
    (column,) = [column for column in table.columns if column.title == title]
    return [cell.text for cell in column.cells]


def read_csv(rows):
    return list(csv.DictReader(io.StringIO(csv_text(rows))))


def test_markdown_is_padded_and_aligned():
    cells = [Cell("0.5", "0.1", "0.4, 0.6", best=True), Cell("–")]
    table = ReportTable((TableColumn("Name", [Cell("a"), Cell("longer")], "left"), TableColumn("F1", cells)))
    assert markdown(table) == (
        "| Name   |                       F1 |\n"
        "| ------ | -----------------------: |\n"
        "| a      | **0.5** ± 0.1 [0.4, 0.6] |\n"
        "| longer |                        – |\n"
    )


def test_scores_hold_intervals_and_differences_to_the_baseline_and_mark_the_best(results, measured):
    table = scores_table(results, measured)
    titles = ["Configuration", "Repeats", "Accuracy", "Δ accuracy", "Macro F1", "Δ macro F1", "Reachable"]
    assert [column.title for column in table.columns] == titles
    low, high = table.rows
    spread, interval = results.configurations[1].metric("accuracy"), measured.intervals["high"]["accuracy"]
    ends = f"{interval.low:.3f}, {interval.high:.3f}"
    assert high[2] == Cell(f"{spread.mean:.3f}", f"{spread.sd:.3f}", ends, best=True)
    assert low[3] == Cell("–")
    assert high[3].text == format_difference(spread.mean - results.baseline.metric("accuracy").mean)
    assert (low[2].best, high[3].best) == (False, False)
    assert texts(table, "Reachable") == ["–", "0.400"]


def test_comparisons_hold_differences_intervals_and_corrected_p_values(results, measured):
    table = comparisons_table(results, measured)
    titles = ["Configuration", "Δ accuracy", "p, accuracy", "Δ macro F1", "p, macro F1", "Lost", "Gained", "McNemar p"]
    assert [column.title for column in table.columns] == titles
    (row,) = table.rows
    found = measured.comparisons["high", "low"]
    accuracy = found.tests["accuracy"]
    ends = f"{format_difference(accuracy.interval.low)}, {format_difference(accuracy.interval.high)}"
    assert row[1] == Cell(format_difference(accuracy.difference), interval=ends)
    assert [cell.text for cell in row[5:7]] == [str(found.mcnemar.lost), str(found.mcnemar.gained)]
    assert [row[place].text for place in (0, 2, 4, 7)] == ["high", "<0.001", "<0.001", "<0.001"]


def test_what_could_not_be_compared_has_a_difference_and_no_test(results, unmeasured):
    (row,) = comparisons_table(results, unmeasured).rows
    difference = results.difference(results.configurations[1], "accuracy").mean
    assert row[1] == Cell(format_difference(difference))
    assert [cell.text for cell in (row[2], *row[4:])] == ["–"] * 5


def test_reachable_is_left_out_when_nothing_is_known_of_it(make_run, unmeasured):
    table = scores_table(group_runs([make_run("a")], "runs"), unmeasured)
    assert "Reachable" not in [column.title for column in table.columns]


def test_configurations_that_print_alike_are_both_best_unless_there_is_no_other(make_run, unmeasured):
    change = {"metrics": make_run("x", skill=0.9).metrics}
    runs = [make_run("a", change=change), make_run("b", change=change)]
    assert [row[2].best for row in scores_table(group_runs(runs, "runs"), unmeasured).rows] == [False, False]
    runs.append(make_run("c", skill=0.1))
    assert [row[2].best for row in scores_table(group_runs(runs, "runs"), unmeasured).rows] == [True, True, False]
    single = scores_table(group_runs([make_run("a")], "runs"), unmeasured)
    assert [row[2].best for row in single.rows] == [False]
    titles = [column.title for column in single.columns]
    assert titles == ["Configuration", "Repeats", "Accuracy", "Macro F1"]  # nothing to subtract


def test_one_repeat_has_no_deviation(make_run, unmeasured):
    assert scores_table(group_runs([make_run("a")], "runs"), unmeasured).rows[0][2].spread == ""


def test_detail_and_cost_complete_the_summary(results, measured):
    titles = ["Configuration", "Macro P", "Macro R", "Weighted P", "Weighted R", "Weighted F1", "Specificity"]
    assert [column.title for column in detail_tables(results, measured)[0].columns] == titles
    cost = cost_table(results)
    assert texts(cost, "Streams") == ["lbp", "lbp, resnet50 (random weights)"]
    assert texts(cost, "Parameters") == ["100,000", "200,000"]
    assert texts(cost, "Training (s)") == ["4.5", "4.5"]
    spread = Spread.of(run.best_epoch for run in results.baseline.runs)
    assert texts(cost, "Best epoch")[0] == format_range(spread)


def test_part_tables_agree_with_the_metrics(results, measured):
    f1 = parts_table(results)
    assert [column.title for column in f1.columns] == ["Configuration", *CLASSES]
    assert texts(f1, "fear")[1] == format_score(results.configurations[1].part_metric("f1")[1].mean)
    table = all_parts_table(results, measured)
    assert [row[:2] for row in table.rows] == [(Cell(name), Cell(c)) for name in ("low", "high") for c in CLASSES]
    assert texts(table, "Support") == ["10"] * 6
    (cells,) = [column.cells for column in table.columns if column.title == "F1"]
    interval = measured.intervals["high"]["per_class.1.f1"]
    assert cells[4].interval == f"{interval.low:.3f}, {interval.high:.3f}"


def test_every_score_of_the_report_has_an_interval(results, measured):
    (row,) = [row for row in read_csv(summary_rows(results, measured)) if row["configuration"] == "high"]
    for path in (score.path for score in CLASS.scores):
        name = path.replace(".", "_")
        assert float(row[f"{name}_95_low"]) <= float(row[f"{name}_mean"]) <= float(row[f"{name}_95_high"])
        assert float(row[f"{name}_95_low"]) < float(row[f"{name}_95_high"])
    for row in read_csv(part_rows(results, measured)):
        for name in ("precision", "recall", "f1", "specificity"):
            assert float(row[f"{name}_95_low"]) <= float(row[f"{name}_mean"]) <= float(row[f"{name}_95_high"])
    assert all(cell.interval for column in detail_tables(results, measured)[0].columns[1:] for cell in column.cells)
    assert (row["class"], row["configuration"]) == ("rage", "high")


def test_the_json_has_intervals_and_p_values(results, measured):
    found = json.loads(json_text(results, measured, ["how to read"]))
    (comparison,) = found["comparisons"]
    test = measured.comparisons["high", "low"].tests["accuracy"]
    assert (comparison["configuration"], comparison["baseline"], found["baseline"]) == ("high", "low", "low")
    assert comparison["accuracy_difference_95_low"] == test.interval.low
    assert (comparison["accuracy_p"], comparison["test"], comparison["family"]) == (test.p, "paired bootstrap", 1)
    assert found["configurations"][1]["accuracy_95_high"] == measured.intervals["high"]["accuracy"].high
    assert found["classes"][0]["f1_95_low"] == measured.intervals["low"]["per_class.0.f1"].low
    assert found["notes"] == ["how to read"]


def test_classes_named_like_a_column_keep_their_columns(make_run):
    table = parts_table(group_runs([make_run("a", classes=("Configuration", "yes"))], "runs"))
    assert [column.title for column in table.columns] == ["Configuration", "Configuration", "yes"]
    assert len(table.rows[0]) == 3


def test_summary_csv_has_every_number_of_the_summary(results, measured):
    low, high = read_csv(summary_rows(results, measured))
    assert (high["configuration"], high["streams"], high["repeats"]) == ("high", "lbp resnet50", "3")
    assert (low["random_weights"], high["random_weights"]) == ("", "resnet50")
    for path in ("accuracy", "macro.precision", "macro.recall", "macro.f1", "macro.specificity", "weighted.f1"):
        spread = results.configurations[1].metric(path)
        name = path.replace(".", "_")
        assert float(high[f"{name}_mean"]) == pytest.approx(spread.mean, abs=1e-6)
        assert float(high[f"{name}_sd"]) == pytest.approx(spread.sd, abs=1e-6)
        assert float(high[f"{name}_min"]) == pytest.approx(spread.low, abs=1e-6)
        assert float(high[f"{name}_max"]) == pytest.approx(spread.high, abs=1e-6)
    for path in ("accuracy", "macro.f1"):
        interval, name = measured.intervals["high"][path], path.replace(".", "_")
        assert float(high[f"{name}_95_low"]) == pytest.approx(interval.low, abs=1e-6)
        assert float(high[f"{name}_95_high"]) == pytest.approx(interval.high, abs=1e-6)
    difference = results.difference(results.configurations[1], "macro.f1")
    assert float(high["macro_f1_difference_mean"]) == pytest.approx(difference.mean, abs=1e-6)
    assert (low["accuracy_difference_mean"], low["reachable_accuracy"], high["reachable_accuracy"]) == ("0", "", "0.4")
    assert (high["parameters"], high["train_seconds_mean"]) == ("200000", "4.5")


def test_comparisons_csv_has_the_p_values_before_and_after_correction(results, measured, unmeasured):
    (row,) = read_csv(comparison_rows(results, measured))
    found = measured.comparisons["high", "low"]
    assert (row["configuration"], row["baseline"]) == ("high", "low")
    for path in ("accuracy", "macro.f1"):
        test, name = found.tests[path], path.replace(".", "_")
        assert float(row[f"{name}_difference"]) == pytest.approx(test.difference, abs=1e-6)
        assert float(row[f"{name}_difference_95_low"]) == pytest.approx(test.interval.low, abs=1e-6)
        assert float(row[f"{name}_difference_95_high"]) == pytest.approx(test.interval.high, abs=1e-6)
        assert float(row[f"{name}_p"]) == pytest.approx(test.p, abs=1e-6)
        assert float(row[f"{name}_p_holm"]) == pytest.approx(found.corrected[path], abs=1e-6)
    assert (int(row["lost"]), int(row["gained"])) == (found.mcnemar.lost, found.mcnemar.gained)
    assert float(row["mcnemar_p"]) == pytest.approx(found.mcnemar.p, abs=1e-6)
    assert (row["mcnemar_test"], row["resamples"], row["seed"]) == ("binomial", "2000", "0")
    (row,) = read_csv(comparison_rows(results, unmeasured))
    assert float(row["accuracy_difference"]) == pytest.approx(found.tests["accuracy"].difference, abs=1e-6)
    assert {row[name] for name in ("accuracy_p", "macro_f1_p_holm", "lost", "mcnemar_p", "mcnemar_test")} == {""}


def test_csv_of_no_rows_is_empty():
    assert csv_text([]) == ""


def test_csv_leaves_undefined_numbers_empty_and_quotes_names(make_run, unmeasured):
    (row,) = read_csv(summary_rows(group_runs([make_run('a, "b"')], "runs"), unmeasured))
    assert row["configuration"] == 'a, "b"'
    assert (row["accuracy_sd"], row["accuracy_95_low"]) == ("", "")
    assert float(row["accuracy_mean"]) > 0


def test_class_and_run_csv_have_one_row_each(results, measured):
    classes = read_csv(part_rows(results, measured))
    assert [(row["configuration"], row["class"]) for row in classes] == [
        (n, c) for n in ("low", "high") for c in CLASSES
    ]
    assert {row["support_mean"] for row in classes} == {"10"}
    runs = read_csv(run_rows(results))
    assert [row["digest"] for row in runs] == [run.digest for run in results.runs]
    assert float(runs[0]["macro_f1"]) == pytest.approx(results.runs[0].metrics["test"]["macro"]["f1"], abs=1e-6)
    assert runs[0]["split_seed"] == ""
