"""Tables as cells, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math

import pytest

from emofuse.report.configurations import Spread, group_runs
from emofuse.report.numbers import class_rows, csv_text, run_rows, summary_rows
from emofuse.report.tables import (
    Cell,
    Column,
    Table,
    all_classes_table,
    class_f1_table,
    cost_table,
    detail_table,
    escape_markdown,
    format_difference,
    format_range,
    format_score,
    markdown,
    runs_table,
    scores_table,
)

CLASSES = ("joy", "fear", "rage")
DEMO = {"name": "demo", "reachable_accuracy": {"scene": 0.4}, "cue_streams": {"scene": ["resnet50"]}}


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
    cells = [Cell("0.5", "0.1", best=True), Cell("–")]
    table = Table((Column("Name", [Cell("a"), Cell("longer")], "left"), Column("F1", cells)))
    assert markdown(table) == (
        "| Name   |            F1 |\n"
        "| ------ | ------------: |\n"
        "| a      | **0.5** ± 0.1 |\n"
        "| longer |             – |\n"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("<script>&", "&lt;script&gt;&amp;"),
        ("two\nlines  here", "two lines here"),
        ("*x* [y](z) `c` \\", "\\*x\\* \\[y\\](z) \\`c\\` \\\\"),
        ("action_units + LBP", "action_units + LBP"),
    ],
)
def test_markdown_shows_names_as_they_are(text, shown):
    assert escape_markdown(text) == shown


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "+0.123"), (-0.05, "−0.050"), (0.0, "0.000"), (-0.0001, "0.000"), (math.nan, "–")]
)
def test_differences_carry_their_sign(value, text):
    assert format_difference(value) == text


def test_scores_and_counts_are_short():
    assert [format_score(value) for value in (0.12345, None, math.nan)] == ["0.123", "–", "–"]
    assert [format_range(Spread.of(values)) for values in ([1200, 1200], [3, 5], [])] == ["1,200", "3–5", "–"]


def test_scores_hold_differences_to_the_baseline_and_mark_the_best(results):
    table = scores_table(results)
    titles = ["Configuration", "Repeats", "Accuracy", "Δ accuracy", "Macro F1", "Δ macro F1", "Reachable"]
    assert [column.title for column in table.columns] == titles
    low, high = table.rows
    spread = results.configurations[1].metric("accuracy")
    assert high[2] == Cell(f"{spread.mean:.3f}", f"{spread.sd:.3f}", best=True)
    assert low[3] == Cell("–")
    assert high[3].text == format_difference(spread.mean - results.baseline.metric("accuracy").mean)
    assert (low[2].best, high[3].best) == (False, False)
    assert texts(table, "Reachable") == ["–", "0.400"]


def test_reachable_is_left_out_when_nothing_is_known_of_it(make_run):
    table = scores_table(group_runs([make_run("a")], "runs"))
    assert "Reachable" not in [column.title for column in table.columns]


def test_configurations_that_print_alike_are_both_best_unless_there_is_no_other(make_run):
    change = {"metrics": make_run("x", skill=0.9).metrics}
    runs = [make_run("a", change=change), make_run("b", change=change)]
    assert [row[2].best for row in scores_table(group_runs(runs, "runs")).rows] == [False, False]
    runs.append(make_run("c", skill=0.1))
    assert [row[2].best for row in scores_table(group_runs(runs, "runs")).rows] == [True, True, False]
    single = scores_table(group_runs([make_run("a")], "runs"))
    assert [row[2].best for row in single.rows] == [False]


def test_one_repeat_has_no_deviation(make_run):
    assert scores_table(group_runs([make_run("a")], "runs")).rows[0][2].spread == ""


def test_detail_and_cost_complete_the_summary(results):
    titles = ["Configuration", "Macro P", "Macro R", "Weighted P", "Weighted R", "Weighted F1", "Specificity"]
    assert [column.title for column in detail_table(results).columns] == titles
    cost = cost_table(results)
    assert texts(cost, "Streams") == ["lbp", "lbp, resnet50 (random weights)"]
    assert texts(cost, "Parameters") == ["100,000", "200,000"]
    assert texts(cost, "Train s") == ["4.5", "4.5"]
    spread = Spread.of(run.best_epoch for run in results.baseline.runs)
    assert texts(cost, "Best epoch")[0] == format_range(spread)


def test_per_class_tables_agree_with_the_metrics(results):
    f1 = class_f1_table(results)
    assert [column.title for column in f1.columns] == ["Configuration", *CLASSES]
    assert texts(f1, "fear")[1] == format_score(results.configurations[1].class_metric("f1")[1].mean)
    table = all_classes_table(results)
    assert [row[:2] for row in table.rows] == [(Cell(name), Cell(c)) for name in ("low", "high") for c in CLASSES]
    assert texts(table, "Support") == ["10"] * 6


def test_classes_named_like_a_column_keep_their_columns(make_run):
    table = class_f1_table(group_runs([make_run("a", classes=("Configuration", "yes"))], "runs"))
    assert [column.title for column in table.columns] == ["Configuration", "Configuration", "yes"]
    assert len(table.rows[0]) == 3


def test_runs_are_listed_with_their_seeds(results, make_run):
    table = runs_table(group_runs([make_run("a", split_seed=4, seed=2), make_run("b")], "runs"))
    assert texts(table, "Split") == ["seed 4", "official"]
    assert texts(table, "Seed") == ["2", "0"]
    assert texts(runs_table(results), "Run") == [run.digest[:16] for run in results.runs]


def test_summary_csv_has_every_number_of_the_summary(results):
    low, high = read_csv(summary_rows(results))
    assert (high["configuration"], high["streams"], high["repeats"]) == ("high", "lbp resnet50", "3")
    assert (low["random_weights"], high["random_weights"]) == ("", "resnet50")
    for path in ("accuracy", "macro.precision", "macro.recall", "macro.f1", "macro.specificity", "weighted.f1"):
        spread = results.configurations[1].metric(path)
        name = path.replace(".", "_")
        assert float(high[f"{name}_mean"]) == pytest.approx(spread.mean, abs=1e-6)
        assert float(high[f"{name}_sd"]) == pytest.approx(spread.sd, abs=1e-6)
        assert float(high[f"{name}_min"]) == pytest.approx(spread.low, abs=1e-6)
        assert float(high[f"{name}_max"]) == pytest.approx(spread.high, abs=1e-6)
    difference = results.difference(results.configurations[1], "macro.f1")
    assert float(high["macro_f1_difference_mean"]) == pytest.approx(difference.mean, abs=1e-6)
    assert (low["accuracy_difference_mean"], low["reachable_accuracy"], high["reachable_accuracy"]) == ("0", "", "0.4")
    assert (high["parameters"], high["train_seconds_mean"]) == ("200000", "4.5")


def test_csv_leaves_undefined_numbers_empty_and_quotes_names(make_run):
    (row,) = read_csv(summary_rows(group_runs([make_run('a, "b"')], "runs")))
    assert row["configuration"] == 'a, "b"'
    assert row["accuracy_sd"] == ""
    assert float(row["accuracy_mean"]) > 0


def test_class_and_run_csv_have_one_row_each(results):
    classes = read_csv(class_rows(results))
    assert [(row["configuration"], row["class"]) for row in classes] == [
        (n, c) for n in ("low", "high") for c in CLASSES
    ]
    assert {row["support_mean"] for row in classes} == {"10"}
    runs = read_csv(run_rows(results))
    assert [row["digest"] for row in runs] == [run.digest for run in results.runs]
    assert float(runs[0]["macro_f1"]) == pytest.approx(results.runs[0].metrics["test"]["macro"]["f1"], abs=1e-6)
    assert runs[0]["split_seed"] == ""
