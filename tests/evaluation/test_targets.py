"""Tests on other data of models of numbers, several labels and votes, on a cache that exists."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from emofuse.cache.layout import manifest_path
from emofuse.errors import SpecError
from emofuse.evaluation import EvaluationOptions, evaluate
from emofuse.results import run_dir
from emofuse.specs import LabelMapSpec, RunSpec, parse_spec
from emofuse.training.runs import train_runs

TARGETS = {
    "distribution": {
        "kind": "distribution",
        "columns": {"joy": "joy_votes", "fear": "fear_votes", "calm": "calm_votes"},
    },
    "regression": {"kind": "regression", "columns": ["valence", "arousal"]},
    "multilabel": {"kind": "multilabel", "columns": ["happy", "tense"]},
}


@pytest.fixture(scope="module")
def cache(plant_targets, tmp_path_factory):
    made = plant_targets(tmp_path_factory.mktemp("targets") / "features.zarr")
    made.manifest.write(manifest_path(made.path))
    return made


@pytest.fixture(scope="module")
def folders(cache, tmp_path_factory):
    """Kind of target -> the folder of a run of it."""
    runs = tmp_path_factory.mktemp("runs")
    plain = {
        "features": {"streams": ["net", "face"]},
        "head": {"embed_dim": 8, "depth": 1, "width": 8},
        "train": {"epochs": 12, "batch_size": 16, "learning_rate": 0.01},
    }
    found = {}
    for kind, target in TARGETS.items():
        spec = parse_spec(RunSpec, {"name": kind, "target": target, **plain}, "run")
        ((record, _),) = train_runs(cache, [spec], runs, device="cpu")
        found[kind] = run_dir(runs, record.digest), record
    return found


def _evaluate(folders, kind, cache, tmp_path, **options):
    return evaluate(EvaluationOptions(run=folders[kind][0], cache=cache.path, out=tmp_path / "out", **options))


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_numbers_and_labels_have_the_scores_of_the_run_on_the_same_rows(folders, cache, tmp_path, kind):
    result = _evaluate(folders, kind, cache, tmp_path)
    of_run = folders[kind][1].metrics["test"]
    assert result.record.metrics["test"]["loss"] == pytest.approx(of_run["loss"], rel=1e-4)
    assert result.record.rows["test"]["rows"] == of_run["rows"]
    assert "This is a test on foreign data" in result.report.page.read_text(encoding="utf-8")
    table = pl.read_csv(result.predictions)
    assert {f"output_{name}" for name in TARGETS[kind]["columns"]} <= set(table.columns)


def test_a_model_of_votes_is_scored_on_labels(folders, cache, tmp_path):
    result = _evaluate(folders, "distribution", cache, tmp_path)
    assert result.record.target_kind == "class"
    assert result.record.classes == ["joy", "fear", "calm"]
    assert result.record.metrics["test"]["accuracy"] > 0.5


def test_a_map_is_for_classes(folders, cache, tmp_path):
    used = LabelMapSpec(name="mine", **{"from": "A", "to": "B"}, labels={"a": "b"})
    message = "label map mine, 1 problem: a map is for classes, and this model predicts a regression; leave out --map"
    with pytest.raises(SpecError, match=message):
        _evaluate(folders, "regression", cache, tmp_path, label_map=used)


def test_columns_that_the_other_data_lacks_are_named(folders, write_cache, cache, tmp_path):
    arrays = {name: cache.streams[name].read() for name in ("net", "face")}
    streams = {name: ("backbone", features, status) for name, (features, status) in arrays.items()}
    path = write_cache(tmp_path / "plain.zarr", cache.classes, cache.labels, cache.splits, streams)
    with pytest.raises(SpecError, match="'valence'"):
        evaluate(EvaluationOptions(run=folders["regression"][0], cache=path, out=tmp_path / "out"))


def test_outputs_are_those_of_the_saved_predictions(folders, cache, tmp_path):
    from emofuse.results import read_predictions

    result = _evaluate(folders, "regression", cache, tmp_path)
    saved, new = read_predictions(folders["regression"][0]), read_predictions(result.folder)
    assert saved.sample_id.tolist() == new.sample_id.tolist()
    np.testing.assert_allclose(new.outputs, saved.outputs, atol=1e-4)
