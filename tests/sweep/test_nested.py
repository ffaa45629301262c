"""Nested sweeps: every outer fold has its own search, whose choice its test rows do not touch."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small_question import finished_groups, planted, small_sweep

from emofuse.cache.reader import open_cache
from emofuse.errors import SpecError, TrainingError
from emofuse.results import ResultPaths, list_runs, read_predictions, run_dir
from emofuse.sweep.nested import run_nested
from emofuse.sweep.options import SweepOptions
from emofuse.sweep.plan import plan_sweep
from emofuse.sweep.run import run_sweep
from emofuse.training import data as data_module
from emofuse.training.rows import run_splits, targets_of

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

ON_CPU = SweepOptions(device="cpu")
OUTER = 3


def nested_sweep(**changes):
    final = {"best_of": ["streams"], "seeds": [0]}
    factors = {"streams": "all", "learning_rate": [1.0e-3, 1.0e-1]}
    return small_sweep(**{"final": final, "factors": factors, "test": {"folds": OUTER}, "references": "off"} | changes)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    return open_cache(write_cache(tmp_path_factory.mktemp("cache") / "features.zarr", **planted()))


@pytest.fixture(scope="module")
def done(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nested")
    said: list[str] = []
    return run_nested(cache, nested_sweep(), folder, ON_CPU, say=said.append), folder, said


def test_every_row_is_tested_once_by_what_was_chosen_without_it(cache, done):
    summary, folder, _ = done
    names = {record.name for record in summary.records}
    assert names == {"Chosen (streams signal)", "Chosen (streams noise)", "Chosen (streams noise+signal)"}
    for name in names:
        records = [record for record in summary.records if record.name == name]
        ids = [
            sample
            for record in records
            for sample in read_predictions(run_dir(ResultPaths(folder).runs, record.digest)).sample_id
        ]
        assert len(records) == OUTER
        assert sorted(ids) == sorted(cache.sample_ids[cache.labels >= 0])


def test_the_report_has_one_row_for_each_choice_and_says_how_often_each_configuration_won(done):
    summary, _, said = done
    rows = json.loads(summary.report.numbers_json.read_text())["configurations"]
    assert [row["configuration"] for row in rows] == list(dict.fromkeys(record.name for record in summary.records))
    assert {row["repeats"] for row in rows} == {OUTER}
    assert all(0 < row["pooled_accuracy"] < 1 for row in rows)
    assert sum(item.wins for item in summary.search.configurations) == summary.search.outer_folds == OUTER
    assert summary.search.heads == 3 * 2 * 2 * OUTER  # subsets, rates, folds, outer folds
    page = summary.report.page.read_text().replace("<wbr>", "")
    assert f"The whole search was repeated inside each of {OUTER} outer folds" in page
    assert "Best by validation score in an outer fold: " in page
    assert "are those of the first outer fold; a nested sweep chose them anew in every fold" in page
    assert any(line.startswith("choice: Best by validation score in an outer fold: ") for line in said)
    assert f"outer fold {OUTER} of {OUTER}" in said


def test_the_baseline_is_what_was_chosen_with_its_streams(done):
    summary, _, _ = done
    comparisons = json.loads(summary.report.numbers_json.read_text())["comparisons"]
    assert {row["baseline"] for row in comparisons} == {"Chosen (streams noise)"}
    assert {row["test"] for row in comparisons} == {"corrected resampled t"}


def test_a_second_call_trains_nothing(cache, done):
    first, folder, _ = done
    groups = finished_groups(folder)
    second = run_nested(cache, nested_sweep(), folder, ON_CPU)
    assert sum(fold.trained for fold in second.folds) == 0
    assert not second.report_written
    assert [record.digest for record in second.records] == [record.digest for record in first.records]
    assert finished_groups(folder) == groups
    assert len(list_runs(ResultPaths(folder).runs)) == len(first.records)


def test_a_call_without_images_makes_the_report_anew(cache, done):
    _, folder, _ = done
    summary = run_nested(cache, nested_sweep(), folder, replace(ON_CPU, images=False))
    assert summary.report_written
    assert "Pictures were left out when this page was made." in summary.report.page.read_text(encoding="utf-8")


def test_one_choice_in_all_is_one_configuration_whatever_won_in_each_fold(cache, tmp_path):
    spec = nested_sweep(final={"best_of": [], "seeds": [0, 1]}, baseline=["noise"])
    summary = run_nested(cache, spec, tmp_path / "nested", ON_CPU)
    rows = json.loads(summary.report.numbers_json.read_text())["configurations"]
    assert {row["configuration"]: row["repeats"] for row in rows} == {
        "Chosen": 2 * OUTER,
        "Baseline (noise)": 2 * OUTER,
    }


def test_poisoned_rows_of_an_outer_fold_change_no_choice_inside_it(tmp_path, cache, done, write_cache, monkeypatch):
    summary, _, _ = done
    splits = {index: run_splits(cache, fold.split, targets_of(cache)) for index, fold in enumerate(summary.folds)}
    test = splits[0] == "test"
    question = planted()
    question["labels"] = np.where(test & (question["labels"] >= 0), 2 - question["labels"], question["labels"])
    for name, (kind, features, status) in question["streams"].items():
        question["streams"][name] = kind, np.where(test[:, None], 100, features).astype(np.float32), status
    wrong = open_cache(write_cache(tmp_path / "wrong.zarr", **question))
    monkeypatch.setattr(data_module, "run_splits", lambda _, split, __: splits[split.index])
    other = run_nested(wrong, nested_sweep(), tmp_path / "nested", ON_CPU)
    first, poisoned = summary.folds[0], other.folds[0]
    assert [each.score for each in poisoned.scored] == [each.score for each in first.scored]
    assert poisoned.best.configuration.name == first.best.configuration.name


def test_a_plan_shows_the_first_outer_fold_and_how_many_there_are(cache, tmp_path):
    text = plan_sweep(cache, nested_sweep(), tmp_path / "none", ON_CPU)
    assert f"All of this is repeated inside each of {OUTER} outer folds." in text
    assert not (tmp_path / "none").exists()


def test_a_plain_sweep_has_no_outer_folds_and_a_nested_one_is_not_run_as_a_plain_one(cache, tmp_path):
    with pytest.raises(TrainingError, match="sweep 'small' has no outer folds"):
        run_nested(cache, small_sweep(), tmp_path, ON_CPU)
    with pytest.raises(TrainingError, match="sweep 'small' is nested"):
        run_sweep(cache, nested_sweep(), tmp_path, ON_CPU)


def test_outer_folds_decide_the_split_of_a_sweep():
    with pytest.raises(SpecError, match=r"base.split: `test` decides the split, so leave it out \(holdout here\)"):
        nested_sweep(base={"split": {"kind": "holdout"}})
