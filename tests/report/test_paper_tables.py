"""The tables for a paper: what they hold, where they are written, and what they leave out."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace

import pytest
from test_latex import check_latex

from emofuse.report.comparisons import measure_uncertainty
from emofuse.report.efficiency import efficiency_caption, efficiency_rows, efficiency_table, measure_efficiency
from emofuse.report.grouping import group_runs
from emofuse.report.names import file_names
from emofuse.report.paper_tables import TABLE_FILES, paper_tables, table_files
from emofuse.report.ranking import Ranking, rank_configurations
from emofuse.report.records import read_records
from emofuse.report.stamp import report_when_needed

CLASSES = ("joy", "fear", "rage")
LEFT_OUT = "Pictures were left out when this page was made."


@pytest.fixture
def made(make_run):
    """Three configurations over five splits: the results, their uncertainty and the folder of runs."""
    for split_seed in range(5):
        for name, skill in (("base", 0.5), ("good & better", 0.9), ("same", 0.5)):
            make_run(name, skill=skill, split_seed=split_seed, classes=CLASSES, rows=300, epochs=3)
    results = group_runs(read_records(make_run.folder), "runs", baseline="base")
    return results, measure_uncertainty(results, make_run.folder), make_run.folder


def tables_of(results, uncertainty, runs):
    labels = [item.label for item in results.featured]
    slugs = dict(zip(labels, file_names(labels), strict=True))
    return {table.stem: table for table in paper_tables(results, uncertainty, runs, slugs)}


def column(table, title):
    return next(column.cells for column in table.columns if column.title == title)


def test_a_report_has_the_tables_of_the_paper_as_csv_markdown_and_latex(made, tmp_path):
    tables = tables_of(*made)
    assert list(tables) == [
        *("scores", "comparisons", "further_scores", "ranks", "per_class_base", "per_class_good-better"),
        *("per_class_same", "f1_by_class", "efficiency", "labels", "streams", "missing"),
    ]
    files = table_files(tmp_path, list(tables.values()), "Title & more")
    assert {path.name for path in files} == {
        *(f"{stem}.{ending}" for stem in tables for ending in ("csv", "md", "tex")),
        "all_tables.tex",
    }
    assert all(any(path.match(f"{pattern}.*") for pattern in TABLE_FILES) for path in files)
    labels = [label for stem in tables for label in check_latex(files[tmp_path / f"{stem}.tex"])]
    assert len(labels) == len(set(labels)) == len(tables)
    document = files[tmp_path / "all_tables.tex"]
    assert all(f"\\input{{{stem}.tex}}" in document for stem in tables)


def test_scores_have_intervals_and_differences_are_marked_after_holm(made):
    _, uncertainty, _ = made
    tables = tables_of(*made)
    scores = tables["scores"].table
    assert [cell.text for cell in column(scores, "Configuration")] == ["base", "good & better", "same"]
    assert all(cell.interval and not cell.spread for cell in column(scores, "Accuracy"))
    base, good, same = column(scores, "Δ accuracy")
    corrected = uncertainty.comparisons["good & better", "base"].corrected["accuracy"]
    assert (base.text, base.mark, same.mark) == ("–", "", "")
    assert good.mark == ("***" if corrected < 0.001 else "**" if corrected < 0.01 else "*")
    assert corrected < 0.05
    marked = column(tables["comparisons"].table, "Δ accuracy")
    assert [cell.mark for cell in marked] == [good.mark, ""]
    assert column(tables["comparisons"].table, "p (Holm)")[0].text.startswith(("<", "0."))
    assert "after Holm's correction" in tables["scores"].caption
    row = next(row for row in tables["comparisons"].numbers if row["configuration"] == "good & better")
    assert row["accuracy_p_holm"] == pytest.approx(corrected)


def test_the_table_of_a_configuration_has_every_class_and_their_means(made):
    results, _, _ = made
    table = tables_of(*made)["per_class_good-better"]
    item = results.configurations[1]
    assert [cell.text for cell in column(table.table, "Class")] == [*CLASSES, "Macro mean", "Weighted mean"]
    f1 = column(table.table, "F1")
    assert f1[-2].text == f"{item.metric('macro.f1').mean:.3f}"
    assert all(cell.interval for cell in f1)
    assert [cell.text for cell in column(table.table, "Support")] == ["10", "10", "10", "30", "30"]
    assert f"Accuracy {item.metric('accuracy').mean:.3f} [" in table.caption
    assert [row["class"] for row in table.numbers] == list(CLASSES)
    assert "f1_95_low" in table.numbers[0]


def test_targets_have_the_means_that_they_define(make_run):
    for kind, stem, last in (("regression", "per_column_a", "Mean"), ("multilabel", "per_label_a", "Macro mean")):
        record = make_run("a", target=kind, rows=120)
        results = group_runs([record], "runs")
        table = tables_of(results, measure_uncertainty(results, make_run.folder), make_run.folder)[stem].table
        rows = [cell.text for cell in table.columns[0].cells]
        assert rows == [*record.classes, last]
        assert all(cell.text not in {"", "–"} for cells in table.columns[1:3] for cell in cells.cells)


def test_of_many_configurations_tables_are_bounded_and_csv_files_have_all(make_run, unmeasured):
    records = [make_run(f"c{number:03}", classes=("a", "b"), rows=40, epochs=2) for number in range(90)]
    results = group_runs(records, "runs")
    tables = tables_of(results, unmeasured, make_run.folder)
    assert len(tables["scores"].table.rows) == 80
    assert len(tables["scores"].numbers) == len(tables["efficiency"].numbers) == 90
    assert "Shown: 80 of 90" in tables["scores"].caption
    assert sum(stem.startswith("per_class_") for stem in tables) == len(results.featured) == 7
    assert len(tables["f1_by_class"].table.rows) == 7
    assert "All are in per_class.csv" in tables["f1_by_class"].caption
    check_latex(table_files(make_run.folder, [tables["scores"]], "")[make_run.folder / "scores.tex"])


def test_random_weights_stand_in_every_caption(make_run, unmeasured):
    results = group_runs([make_run("a", random_weights=("resnet50",), rows=100)], "runs")
    tables = tables_of(results, unmeasured, make_run.folder)
    assert all("RANDOM WEIGHTS (resnet50): a demonstration" in table.caption for table in tables.values())


def test_ranks_have_the_letters_of_their_groups(made):
    results, _, _ = made
    ranking = rank_configurations(results)
    assert isinstance(ranking, Ranking)
    assert ranking.items[ranking.ordered[0]].label == "good & better"
    assert not set(ranking.group_letters(1)) & set(ranking.group_letters(ranking.ordered[-1]))
    table = tables_of(*made)["ranks"]
    assert table.numbers[0]["mean_rank"] == pytest.approx(1.0)
    assert "the test is liberal" in table.caption


def test_ranks_need_three_configurations_and_five_splits(made, make_run):
    results, _, _ = made
    two = replace(results, configurations=results.configurations[:2])
    assert rank_configurations(two) == (
        "There is no diagram of critical differences, because ranks need at least 3 configurations and 5 test splits "
        "on which all of them were scored. The report has 2 configurations and 5 such splits."
    )
    seeds = [make_run(name, seed=seed, rows=40) for name in ("x", "y", "z") for seed in range(6)]
    assert "3 configurations and no such split." in rank_configurations(
        group_runs(seeds, "runs")
    )  # one test split, six trainings


def test_efficiency_comes_from_the_runs_and_from_a_profile_beside_them(make_run):
    record = make_run("a", epochs=5, rows=40)
    (item,) = group_runs([record], "runs").configurations
    (cost,) = measure_efficiency([item], make_run.folder)
    assert cost.epoch_s == pytest.approx(record.seconds / 5)
    assert cost.weights_bytes == (next(make_run.folder.glob("*/weights.safetensors"))).stat().st_size
    titles = [column.title for column in efficiency_table([cost]).columns]
    assert titles == ["Configuration", "Streams", "Parameters", "Weights (MiB)", "Epoch (s)", "Training (s)"]
    assert "emofuse profile PIPELINE --out FOLDER/profile" in efficiency_caption([cost])
    peak = {"rss_bytes": 3 * 2**20, "cuda_bytes": None}
    figures = {
        "name": "a",
        "streams": ["resnet50"],
        "path": {
            "extractors": {"resnet50": {"parameters": 10, "model_bytes": 2**20, "flops": 8_000_000_000}},
            "whole": [{"batch": 64, "median_ms": 128.0}],
            "peaks": [peak],
        },
        "head": {
            "cost": {"parameters": 5, "model_bytes": 1, "flops": 2_000_000},
            "latency": [{"batch": 64, "median_ms": 6.4}],
            "training": peak,
        },
    }
    path = make_run.folder.parent / "profile" / "profile.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"configurations": [figures]}))
    (row,) = efficiency_rows(measure_efficiency([item], make_run.folder))
    assert (row["extractor_flops"], row["head_flops"]) == (8e9, 2e6)
    assert (row["path_ms_per_image"], row["head_ms_per_image"]) == (2.0, pytest.approx(0.1))
    assert row["peak_bytes"] == 3 * 2**20
    figures["streams"] = ["lbp"]  # a configuration of the same name on other streams is another one
    path.write_text(json.dumps({"configurations": [figures]}))
    assert measure_efficiency([item], make_run.folder)[0].profiled == {}
    path.write_text("{damaged")
    assert measure_efficiency([item], make_run.folder)[0].profiled == {}


def test_efficiency_has_what_runs_have_recorded_of_their_cost_and_former_runs_have_nothing(make_run):
    costs = {"flops": 3_000_000, "together": {"heads": 15, "seconds": 9.0}}
    new, former = make_run("new", rows=40, change={"costs": costs}), make_run("former", rows=40)
    items = group_runs([new, former], "runs").configurations
    first, second = efficiency_rows(measure_efficiency(items, make_run.folder))
    assert (first["head_flops"], first["together"]) == (3e6, 15)
    assert (second["head_flops"], second["together"]) == (None, None)
    columns = {each.title: each for each in efficiency_table(measure_efficiency(items, make_run.folder)).columns}
    assert [cell.text for cell in columns["Head (MFLOP)"].cells] == ["3.00", "–"]
    assert [cell.text for cell in columns["Heads at once"].cells] == ["15", "–"]


def test_csv_files_have_one_column_for_each_number(made, tmp_path):
    tables = tables_of(*made)
    text = table_files(tmp_path, list(tables.values()), "")[tmp_path / "efficiency.csv"]
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["configuration"] for row in rows] == ["base", "good & better", "same"]
    assert float(rows[0]["parameters"]) == 100_000
    assert rows[0]["extractor_flops"] == ""  # not known, which is not zero


@pytest.mark.usefixtures("blank_figures")
def test_a_report_without_images_and_one_with_images_are_made_anew_and_not_taken_for_each_other(make_run, tmp_path):
    record, out = make_run("a", rows=40, epochs=2), tmp_path / "report"

    def report(**more):
        how = {"title": "t", "baseline": "a", "order": ["a"], "command": ""}
        files, written = report_when_needed([record], make_run.folder, out, **how, **more)
        return written, LEFT_OUT in files.page.read_text(encoding="utf-8")

    assert [report(), report(), report(images=True)] == [(True, False), (False, False), (False, False)]
    assert [report(images=False), report(images=False)] == [(True, True), (False, True)]
    assert report() == (True, False)


@pytest.mark.usefixtures("blank_figures")
def test_a_profile_that_is_made_later_and_tables_that_are_missing_make_the_report_anew(make_run, tmp_path):
    record, out = make_run("a", rows=40, epochs=2), tmp_path / "report"

    def report():
        how = {"title": "t", "baseline": "a", "order": ["a"], "command": ""}
        return report_when_needed([record], make_run.folder, out, **how)[1]

    assert [report(), report()] == [True, False]
    path = make_run.folder.parent / "profile" / "profile.json"
    path.parent.mkdir()
    path.write_text('{"configurations": []}')
    assert [report(), report()] == [True, False]
    shutil.rmtree(out / "tables")  # as in the report of a release that had none
    assert [report(), report()] == [True, False]
    assert (out / "tables" / "scores.tex").is_file()
