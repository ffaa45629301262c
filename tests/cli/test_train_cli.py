"""`emofuse train` from its options to its saved run."""

from __future__ import annotations

import re

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from emofuse.cli.train import train
from emofuse.errors import SpecError, TrainingError
from emofuse.results import list_runs, run_dir
from emofuse.specs import ConcatHeadSpec, FeaturesSpec, TrainSpec

CLASSES = ("joy", "fear")
FAST = ["--epochs", "3", "--width", "8", "--depth", "1", "--batch-size", "16", "--device", "cpu"]


@pytest.fixture
def app():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("train")(train)
    return app


@pytest.fixture
def cache(tmp_path, write_cache):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    features = (rng.normal(size=(60, 4)) + labels[:, None] * 3).astype(np.float32)
    status = np.ones(60, np.uint8)
    streams = {"places365": ("places365", features, status), "resnet50": ("backbone", features, status)}
    splits = ["train", "train", "train", "val", "test"] * 12
    random = {"kind": "random", "name": None, "sha256": None, "seed": 0}
    return write_cache(tmp_path / "features.zarr", CLASSES, labels, splits, streams, weights={"resnet50": random})


def call(app, cache, tmp_path, *options, streams="resnet50", **how):
    arguments = ["--cache", str(cache), "--streams", streams, "--runs", str(tmp_path / "runs"), *FAST, *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False, **how)


def test_train_prints_scores_and_folder_and_trains_once(app, cache, tmp_path):
    done = call(app, cache, tmp_path)
    assert done.exit_code == 0
    (record,) = list_runs(tmp_path / "runs")
    lines = [line for line in done.stdout.splitlines() if line not in record.notes]
    assert len(lines) == len(done.stdout.splitlines()) - len(record.notes)
    assert re.fullmatch(r"resnet50: trained in \d+\.\d s", lines[0])
    assert lines[1] == f"best epoch {record.best_epoch} of 3, {record.parameters:,} parameters"
    assert lines[2] == "RANDOM WEIGHTS in resnet50: a demonstration, not a finding."
    assert lines[3].split() == ["split", "rows", "accuracy", "macro", "F1"]
    for line, split in zip(lines[4:6], ("val", "test"), strict=True):
        metrics = record.metrics[split]
        assert line.split() == [split, "12", f"{metrics['accuracy']:.3f}", f"{metrics['macro']['f1']:.3f}"]
    assert lines[6] == str(run_dir(tmp_path / "runs", record.digest))

    again = call(app, cache, tmp_path)
    assert again.stdout.splitlines()[0] == "resnet50: already trained"
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[1:]
    assert len(list_runs(tmp_path / "runs")) == 1


def test_options_reach_the_spec_and_the_rest_is_the_paper_s(app, cache, tmp_path):
    options = ["--name", "mine", "--seed", "5", "--learning-rate", "0.01", "--patience", "2", "--lbp-bins", "128"]
    options += ["--action-units", "30", "--split", "stratified", "--split-seed", "4"]
    assert call(app, cache, tmp_path, *options, streams="places365, resnet50").exit_code == 0
    (record,) = list_runs(tmp_path / "runs")
    assert record.name == "mine"
    assert record.spec["features"] == {
        "streams": ["places365", "resnet50"],
        "lbp_bins": 128,
        "action_units": 30,
        "neutral_label": None,
    }
    assert record.spec["head"] == ConcatHeadSpec(depth=1, width=8).model_dump(mode="json")
    expected = TrainSpec(epochs=3, batch_size=16, learning_rate=0.01, seed=5, patience=2)
    assert record.spec["train"] == expected.model_dump(mode="json")
    assert (record.spec["split"]["kind"], record.spec["split"]["seed"]) == ("stratified", 4)


def test_numbers_votes_or_labels_may_be_learned_and_rows_be_weighted(app, plant_targets, tmp_path, monkeypatch):
    cache = plant_targets(tmp_path / "features.zarr")
    monkeypatch.setattr("emofuse.cache.reader.open_cache", lambda _: cache)
    options = ["--numbers", "valence, arousal", "--weight-column", "weight", "--select", "ccc"]
    done = call(app, cache.path, tmp_path, *options, streams="net")
    (record,) = list_runs(tmp_path / "runs")
    assert record.target_kind == "regression"
    assert record.spec["weight_column"] == "weight"
    lines = done.stdout.splitlines()
    assert lines[-4].split() == ["split", "rows", "CCC", "RMSE"]
    mean = record.metrics["test"]["mean"]
    assert lines[-2].split()[:3] == ["test", str(record.rows["test"]["rows"]), f"{mean['ccc']:.3f}"]


def test_two_targets_at_once_are_refused(app, cache, tmp_path):
    with pytest.raises(typer.BadParameter, match="give one of them: there is one target"):
        call(app, cache, tmp_path, "--numbers", "a", "--votes", "b,c", standalone_mode=False)


def test_a_configuration_without_a_name_is_called_by_its_streams(app, cache, tmp_path):
    call(app, cache, tmp_path, streams="places365,resnet50")
    assert [record.name for record in list_runs(tmp_path / "runs")] == ["places365+resnet50"]


def test_the_defaults_that_the_help_shows_are_the_specs_own(app):
    shown = {option.name: option.show_default for option in typer.main.get_command(app).params}
    specs = dict.fromkeys(("depth", "width"), ConcatHeadSpec())
    specs |= dict.fromkeys(("epochs", "batch_size", "learning_rate", "seed"), TrainSpec())
    expected = {option: float(getattr(spec, option)) for option, spec in specs.items()}
    expected |= {option: float(value) for option, value in FeaturesSpec(streams=("x",)).factors.items()}
    assert {option: float(shown[option]) for option in expected} == expected


def test_all_wrong_options_are_named_together(app, cache, tmp_path):
    with pytest.raises(SpecError, match=r"emofuse train, 3 problems: .*lbp_bins.*depth.*learning_rate: must be > 0"):
        call(app, cache, tmp_path, "--lbp-bins", "100", "--depth", "99", "--learning-rate", "0")


def test_a_seed_of_the_split_needs_a_stratified_split(app, cache, tmp_path):
    with pytest.raises(
        typer.BadParameter, match="the official split has no seed; add --split stratified or --split holdout"
    ):
        call(app, cache, tmp_path, "--split-seed", "1", standalone_mode=False)


def test_memory_is_what_the_run_must_fit(app, cache, tmp_path):
    with pytest.raises(
        TrainingError, match=r"run 'resnet50' \(concat, resnet50\) needs .* there are 0.0001 GB\. Give mo"
    ):
        call(app, cache, tmp_path, "--memory-gb", "0.0001")
    assert call(app, cache, tmp_path, "--memory-gb", "1").exit_code == 0
    assert call(app, cache, tmp_path, "--memory-gb", "0").exit_code == 2


def test_progress_goes_to_the_error_stream_and_results_to_the_output(app, cache, tmp_path):
    done = call(app, cache, tmp_path)
    assert done.stderr.splitlines()[0] == "0 of 1 runs, epoch 0 of 3"
    (record,) = list_runs(tmp_path / "runs")
    best = min(entry["val_loss"] for entry in record.history)
    assert re.fullmatch(
        rf"1 of 1 runs, .* heads/s, .* rows/s, best so far: resnet50 \(val loss {best:.3f}\)",
        done.stderr.splitlines()[-1],
    )
    assert "runs" not in done.stdout.replace(str(tmp_path / "runs"), "")
    again = call(app, cache, tmp_path)
    assert again.stderr == ""
