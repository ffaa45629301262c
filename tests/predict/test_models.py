"""Which saved runs a folder means: chosen by validation scores, alone or as the mean of all repeats."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from emofuse.cache.reader import open_cache
from emofuse.errors import ResultsError
from emofuse.predict.models import find_model, load_model
from emofuse.results import read_record
from emofuse.specs import RunSpec, parse_spec
from emofuse.training.runs import train_runs
from emofuse.training.trained import load_head

CLASSES = ("calm", "glad", "sad")


def _spec(name, stream, seed, **changes):
    data = {
        "name": name,
        "features": {"streams": [stream]},
        "head": {"embed_dim": 4, "width": 4, "depth": 1},
        "train": {"epochs": 3, "batch_size": 32, "seed": seed, "learning_rate": 0.02, "select": "accuracy"},
    }
    return parse_spec(RunSpec, {**data, **changes}, name)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    clear = np.eye(3, dtype=np.float32)[labels] + rng.normal(0, 0.1, (120, 3)).astype(np.float32)
    noise = rng.normal(size=(120, 3)).astype(np.float32)
    splits = np.array(["train", "val", "test"])[np.arange(120) // 3 % 3]
    ok = np.ones(120, np.uint8)
    path = tmp_path_factory.mktemp("cache") / "features.zarr"
    streams = {"clear": ("custom", clear, ok), "noise": ("custom", noise, ok)}
    return open_cache(write_cache(path, CLASSES, labels, splits, streams))


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """The folder of a pipeline: two seeds of a good and of a bad configuration."""
    out = tmp_path_factory.mktemp("pipeline")
    specs = [_spec(name, stream, seed) for name, stream in (("bad", "noise"), ("good", "clear")) for seed in (0, 1)]
    train_runs(cache, specs, out / "runs", device="cpu")
    return out


@pytest.fixture
def pipeline(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "pipeline")


def _set_score(folder, name, seed, value):
    """Change the validation accuracy that a saved run was chosen by."""
    for path in (folder / "runs").glob("*/run.json"):
        data = json.loads(path.read_text())
        if data["name"] == name and data["spec"]["train"]["seed"] == seed:
            data["history"][data["best_epoch"] - 1]["val_accuracy"] = value
            path.write_text(json.dumps(data))


def _write_search(folder, rows):
    (folder / "report").mkdir()
    lines = ["rank,configuration,chosen,final_diverged", *rows]
    (folder / "report" / "search.csv").write_text("\n".join(lines) + "\n")


def test_the_folder_of_a_run_means_this_run(pipeline):
    run = next((pipeline / "runs").glob("*/run.json")).parent
    model = find_model(run)
    assert (model.folders, model.records, model.reason) == ((run,), (read_record(run),), "")


@pytest.mark.parametrize("inside", ["", "runs"])
def test_the_folder_of_a_pipeline_means_the_best_run_on_validation_rows(pipeline, inside):
    for seed, value in ((0, 0.5), (1, 0.75)):
        _set_score(pipeline, "good", seed, value)
        _set_score(pipeline, "bad", seed, 0.25)
    model = find_model(pipeline / inside)
    assert (model.record.name, model.record.spec["train"]["seed"]) == ("good", 1)
    assert model.reason == (
        "Model: good, its mean validation accuracy of 0.625 is the highest of 2 configurations; of its 2 runs the one "
        f"with the highest validation accuracy, 0.750 (split official, seed 1): {model.folders[0]}"
    ).replace("split official, ", "")


def test_test_scores_choose_nothing(pipeline):
    for path in (pipeline / "runs").glob("*/run.json"):
        data = json.loads(path.read_text())
        data["metrics"]["test"]["accuracy"] = 1.0 if data["name"] == "bad" else 0.0
        path.write_text(json.dumps(data))
    assert find_model(pipeline).record.name == "good"


def test_reference_models_are_not_chosen(pipeline):
    for path in (pipeline / "runs").glob("*/run.json"):
        data = json.loads(path.read_text())
        data["spec"]["reference"] = data["name"] == "good"
        path.write_text(json.dumps(data))
    assert find_model(pipeline).record.name == "bad"


def test_the_folder_of_a_sweep_means_the_choice_of_its_search(pipeline):
    _write_search(pipeline, ["1,lost,yes,1", "2,bad,fallback,0", "3,good,no,0"])
    model = find_model(pipeline)
    assert model.record.name == "bad"
    assert model.reason.startswith(
        "Model: bad, the choice of the search on validation rows; of its 2 runs the one with the highest validation "
    )


def test_a_choice_whose_runs_are_gone_is_passed_over(pipeline):
    _write_search(pipeline, ["1,gone,yes,0", "2,bad,yes,0"])
    reason = find_model(pipeline).reason
    assert reason.startswith(
        "Model: bad, the choice of the search on validation rows; 1 better ranked ones diverged or"
    )


def test_a_damaged_search_is_an_error(pipeline):
    _write_search(pipeline, ["one,good,yes,0"])
    with pytest.raises(ResultsError, match=r"search.csv: damaged .*; start the same sweep again, which writes it anew"):
        find_model(pipeline)


def test_an_ensemble_averages_the_probabilities_of_all_seeds(pipeline, cache):
    model = find_model(pipeline, ensemble=True)
    assert [record.spec["train"]["seed"] for record in model.records] == [0, 1]
    assert "Model: the mean of the 2 runs of good (seeds 0, 1), its mean validation accuracy" in model.reason
    features, status = cache.streams["clear"].read(dtype="float32")
    rows = {"clear": features}, {"clear": status}
    alone = [load_head(folder).outputs(*rows) for folder in model.folders]
    np.testing.assert_allclose(load_model(model).outputs(*rows), (alone[0] + alone[1]) / 2, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 1e-4


def test_an_ensemble_of_a_run_has_its_siblings(pipeline):
    (bad, _) = sorted(path.parent for path in (pipeline / "runs").glob("*/run.json") if '"bad"' in path.read_text())
    model = find_model(bad, ensemble=True)
    assert {record.name for record in model.records} == {"bad"}
    assert model.reason.startswith("Model: the mean of the 2 runs of bad (seeds 0, 1): ")


def test_an_ensemble_of_several_splits_names_them(pipeline):
    for path in (pipeline / "runs").glob("*/run.json"):
        data = json.loads(path.read_text())
        data["spec"]["split"] = {"kind": "stratified", "seed": data["spec"]["train"]["seed"] + 5}
        path.write_text(json.dumps(data))
    reason = find_model(pipeline, ensemble=True).reason
    assert "(split seed 5, seed 0; split seed 6, seed 1)" in reason


def test_an_ensemble_of_one_run_is_this_run(pipeline):
    for path in (pipeline / "runs").glob("*/run.json"):
        if '"bad"' in path.read_text() or json.loads(path.read_text())["spec"]["train"]["seed"] == 1:
            shutil.rmtree(path.parent)
    model = find_model(pipeline, ensemble=True)
    assert len(model.folders) == 1
    assert "the only configuration; it has one run, so there is nothing to average" in model.reason


def test_runs_with_other_features_are_not_averaged(pipeline):
    model = find_model(pipeline, ensemble=True)
    path = model.folders[1] / "run.json"
    data = json.loads(path.read_text())
    data["spec"]["features"]["lbp_bins"] = 128
    data["spec"]["chosen_by"], data["spec"]["split"] = "best", {"kind": "stratified", "seed": 1}
    changed = type(model)(model.folders, (model.records[0], type(model.record)(**data)))
    with pytest.raises(ResultsError, match=r"--ensemble: runs \w+ and \w+ have different variants of streams \("):
        load_model(changed)


def test_runs_that_cannot_be_compared_are_named_with_the_way_out(pipeline):
    path = next((pipeline / "runs").glob("*/run.json"))
    data = json.loads(path.read_text())
    data["dataset"]["name"] = "other"
    path.write_text(json.dumps(data))
    with pytest.raises(ResultsError, match=r"runs of different datasets .* Or name the folder of one run: .*/DIGEST"):
        find_model(pipeline)


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(ResultsError, match="no run here"):
        find_model(tmp_path)


def test_an_evaluation_is_no_model(pipeline):
    path = next((pipeline / "runs").glob("*/run.json"))
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "evaluation": {"models": ["runs/abc"]}}))
    with pytest.raises(
        ResultsError, match=r"evaluation of a model on other data, .* Name the folder of its run: runs/abc"
    ):
        find_model(path.parent)
