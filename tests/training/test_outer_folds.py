"""Outer folds: every row is tested once, by a head that nothing of its fold could change; reports pool the folds."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from emofuse.cache.reader import open_cache
from emofuse.errors import TrainingError
from emofuse.report import write_report
from emofuse.results import read_predictions, read_weights, run_dir
from emofuse.specs import OuterFoldsSplit, OuterTestSpec, RunSpec, parse_spec
from emofuse.training import data as data_module
from emofuse.training.data import TrainingData
from emofuse.training.references import plan_references, train_references
from emofuse.training.rows import run_splits, targets_of
from emofuse.training.runs import train_runs

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

CLASSES = ("joy", "fear", "calm")
SMALL = {"kind": "concat", "embed_dim": 8, "width": 8, "depth": 1}
PENALTY = 30.0


def run_spec(split, **changes):
    data = {
        "name": "small",
        "features": {"streams": ["resnet50", "action_units"]},
        "head": SMALL,
        "train": {"epochs": 3, "batch_size": 16, "learning_rate": 1e-2},
        "split": split.model_dump(),
    }
    return parse_spec(RunSpec, data | changes, "test")


@pytest.fixture(scope="module")
def numbers():
    """Standardised numbers of 120 rows and their labels; every row has them."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 120)
    return (np.eye(3)[labels].repeat(2, 1) + rng.normal(size=(120, 6))).astype(np.float32), labels


@pytest.fixture(scope="module")
def logistic(tmp_path_factory, write_cache, numbers):
    """Ten runs of a logistic head on five outer folds, twice, with their folder and cache."""
    features, labels = numbers
    folder = tmp_path_factory.mktemp("outer")
    streams = {"numbers": ("backbone", features, np.ones(120, np.uint8))}
    cache = open_cache(write_cache(folder / "features.zarr", CLASSES, labels, ["train"] * 120, streams))
    head = {"kind": "logistic", "penalties": [PENALTY]}
    specs = [
        run_spec(split, name="logistic", features={"streams": ["numbers"]}, head=head)
        for split in OuterTestSpec(repeats=2).splits()
    ]
    records = [record for record, _ in train_runs(cache, specs, folder / "runs", device="cpu")]
    return cache, folder / "runs", records


def test_every_row_is_tested_once_in_each_repeat(logistic):
    cache, runs, records = logistic
    for repeat in (records[:5], records[5:]):
        ids = [name for record in repeat for name in read_predictions(run_dir(runs, record.digest)).sample_id]
        assert sorted(ids) == sorted(cache.sample_ids)


def test_the_numbers_are_those_of_a_plain_loop_of_scikit_learn_over_the_same_folds(logistic, numbers):
    cache, runs, records = logistic
    features, labels = numbers
    for record, split in zip(records, OuterTestSpec(repeats=2).splits(), strict=True):
        splits = run_splits(cache, split, targets_of(cache))
        train, test = splits == "train", splits == "test"
        scaled = (features - features[train].mean(0)) / features[train].std(0)
        model = LogisticRegression(C=1 / PENALTY, max_iter=10_000, tol=1e-8).fit(scaled[train], labels[train])
        saved = read_predictions(run_dir(runs, record.digest))
        np.testing.assert_allclose(saved.outputs, model.predict_proba(scaled[test]), atol=1e-4)
        assert record.metrics["test"]["accuracy"] == accuracy_score(labels[test], model.predict(scaled[test]))


def test_the_report_pools_the_folds_and_has_their_mean_beside_it(logistic, tmp_path):
    _, runs, records = logistic
    files = write_report(runs, tmp_path / "report")
    (row,) = json.loads(files.numbers_json.read_text())["configurations"]
    pooled = []
    for repeat in (records[:5], records[5:]):
        saved = [read_predictions(run_dir(runs, record.digest)) for record in repeat]
        truth = np.concatenate([each.label for each in saved])
        answers = np.concatenate([each.outputs.argmax(1) for each in saved])
        pooled.append((accuracy_score(truth, answers), f1_score(truth, answers, average="macro")))
    assert (row["repeats"], row["outer_folds"], row["test_splits"]) == (10, 5, 10)
    assert row["pooled_accuracy"] == pytest.approx(np.mean(pooled, axis=0)[0], abs=1e-6)
    assert row["pooled_macro_f1"] == pytest.approx(np.mean(pooled, axis=0)[1], abs=1e-6)
    assert row["pooled_accuracy_95_low"] < row["pooled_accuracy"] < row["pooled_accuracy_95_high"]
    mean = np.mean([record.metrics["test"]["accuracy"] for record in records])
    assert row["accuracy_mean"] == pytest.approx(mean, abs=1e-6)
    assert row["macro_f1_mean"] != row["pooled_macro_f1"]
    page, summary = files.page.read_text(), files.summary_markdown.read_text()
    assert "Pooled scores of the outer folds" in page
    assert "Every row was tested once in each of 2 repeats" in page.replace("<wbr>", "")
    assert "an outer cross-validation: each of 5 folds is the test split once" in page
    assert "Accuracy, pooled" in summary
    assert "outer fold (1, 2, 3, 4, 5)" in summary


def test_reference_models_are_solved_in_the_same_folds_and_pooled(logistic, tmp_path):
    cache, runs, records = logistic
    shutil.copytree(runs, tmp_path / "runs")
    specs = [parse_spec(RunSpec, record.spec, "test") for record in records]
    plan = plan_references(cache, specs, "logistic")
    references, notes = train_references(cache, plan, tmp_path / "runs", device="cpu")
    assert notes == []
    assert [record.name for record in references] == ["Logistic regression"] * 10 + ["Kernel ridge regression"] * 10
    assert [record.spec["split"] for record in references[:10]] == [record.spec["split"] for record in records]
    numbers = json.loads(write_report(tmp_path / "runs", tmp_path / "report").numbers_json.read_text())
    for row in numbers["references"]:
        assert (row["repeats"], row["outer_folds"], row["test_splits"]) == (10, 5, 10)
        assert row["pooled_accuracy_95_low"] < row["pooled_accuracy"] < row["pooled_accuracy_95_high"]


def test_an_incomplete_repeat_is_not_pooled(logistic, tmp_path):
    _, runs, records = logistic
    files = write_report(runs, tmp_path / "report", only={record.digest for record in records[:4]})
    (row,) = json.loads(files.numbers_json.read_text())["configurations"]
    assert "pooled_accuracy" not in row
    assert row["repeats"] == 4


def test_a_second_call_trains_nothing(logistic):
    cache, runs, records = logistic
    specs = [parse_spec(RunSpec, record.spec, "test") for record in records]
    again = train_runs(cache, specs, runs, device="cpu")
    assert [(record.digest, trained_now) for record, trained_now in again] == [
        (record.digest, False) for record in records
    ]


@pytest.mark.parametrize("head", [SMALL, {"kind": "kernel_ridge"}], ids=["concat", "kernel_ridge"])
def test_poisoned_labels_and_features_of_the_tested_fold_change_no_weight(tmp_path, plant_cache, monkeypatch, head):
    split = OuterFoldsSplit(count=3, index=1)
    cache = plant_cache(tmp_path / "features.zarr")
    splits = run_splits(cache, split, targets_of(cache))
    test = splits == "test"
    features, status = cache.streams["resnet50"].read()
    streams = {"resnet50": ("backbone", np.where(test[:, None], 100, features).astype(np.float16), status)}
    wrong = np.where(test & (cache.labels >= 0), 2 - cache.labels, cache.labels)
    poisoned = plant_cache(tmp_path / "wrong.zarr", labels=wrong, streams=streams)
    monkeypatch.setattr(data_module, "run_splits", lambda *_: splits)  # the folds themselves follow from all labels
    weights = []
    for each in (cache, poisoned):
        runs = tmp_path / each.path.stem
        ((record, _),) = train_runs(each, [run_spec(split, head=head)], runs, device="cpu")
        weights.append(read_weights(run_dir(runs, record.digest)))
    assert all(np.array_equal(array, weights[1][name]) for name, array in weights[0].items())


def test_training_data_of_an_outer_fold_holds_no_label_of_its_test_rows(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "features.zarr")
    data = TrainingData.of(cache, OuterFoldsSplit(index=2))
    assert (data.labels[data.splits == "test"] == -1).all()
    assert set(data.splits[cache.labels >= 0]) == {"train", "val", "test"}


def test_a_label_with_fewer_rows_than_outer_folds_is_refused(tmp_path, plant_cache):
    labels = np.arange(150) % 2
    labels[:3] = 2
    cache = plant_cache(tmp_path / "features.zarr", labels=labels)
    with pytest.raises(
        TrainingError, match=r"5 folds need as many rows of each label in the dataset.*'calm' \(3 rows\)"
    ):
        TrainingData.of(cache, OuterFoldsSplit())
