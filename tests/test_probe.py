"""`emofuse probe`: subsets of streams scored by solved models, in folds, without test rows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from typer.testing import CliRunner

from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.cli import app
from emofuse.errors import TrainingError
from emofuse.probe import AVERAGED, KERNEL_FUSION, ProbeOptions, _subsets, _units, probe_cache
from emofuse.probe.rows import stream_rows
from emofuse.scaling import Scaling
from emofuse.specs import FeaturesSpec, FoldSpec, KernelRidgeHeadSpec, OfficialSplit, RunSpec, parse_spec
from emofuse.training.data import TrainingData
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold
from emofuse.training.together import train_together

CLASSES = ("joy", "fear", "calm")
ROWS = 160
FAST = ProbeOptions(folds=4, landmarks=60, penalties=5, resamples=200)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(path, write_cache, test_labels=None):
    """Two streams that each tell one label from the others, and one of noise that a third of the rows lack."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, ROWS)
    splits = np.array((["train", "train", "train", "val", "test"] * ROWS)[:ROWS])
    labels = truth.copy()
    if test_labels is not None:
        labels[splits == "test"] = test_labels
    ok = np.ones(ROWS, np.uint8)
    streams = {
        "a": ("backbone", rng.normal(size=(ROWS, 6)) + 2.5 * (truth == 0)[:, None], ok),
        "b": ("backbone", rng.normal(size=(ROWS, 4)) + 2.5 * (truth == 1)[:, None], ok),
        "noise": ("backbone", rng.normal(size=(ROWS, 5)), np.where(rng.random(ROWS) < 0.3, 2, 1).astype(np.uint8)),
    }
    streams = {name: (kind, array.astype(np.float32), status) for name, (kind, array, status) in streams.items()}
    return write_cache(path, CLASSES, labels, splits.tolist(), streams)


@pytest.fixture(scope="module")
def path(tmp_path_factory, write_cache):
    return write(tmp_path_factory.mktemp("probe") / "features.zarr", write_cache)


@pytest.fixture(scope="module")
def found(path):
    return probe_cache(open_cache(path), options=FAST)


def test_every_subset_is_scored_and_single_streams_by_one_model(found):
    models = [(model.streams, model.model) for model in found.models]
    assert len(set(models)) == len(models) == 3 + 4 * 2
    assert {streams for streams, model in models if model == AVERAGED} == {
        ("a", "b"),
        ("a", "noise"),
        ("b", "noise"),
        ("a", "b", "noise"),
    }


def test_models_are_sorted_and_what_carries_the_labels_is_suggested(found):
    accuracies = [model.scores["accuracy"] for model in found.models]
    assert accuracies == sorted(accuracies, reverse=True)
    assert found.suggestion.streams == ("a", "b")
    noise = next(model for model in found.models if model.streams == ("noise",))
    assert abs(noise.scores["accuracy"] - found.majority) < 0.15
    assert noise.behind_best == found.models[0].scores["accuracy"] - noise.scores["accuracy"] > 0.3
    assert not noise.is_as_good_as_best
    assert found.models[0].is_as_good_as_best
    assert found.models[0].behind_best == 0
    for model in found.models:
        assert model.intervals["accuracy"].low <= model.main_score <= model.intervals["accuracy"].high


def test_a_subset_scores_what_its_kernel_ridge_head_scores_in_the_same_folds(path, found):
    cache = open_cache(path)
    data = TrainingData.of(cache, OfficialSplit())
    specs = [
        RunSpec(
            name="a+noise",
            features=FeaturesSpec(streams=("a", "noise")),
            head=KernelRidgeHeadSpec(landmarks=60, penalties=5),
            fold=FoldSpec(count=4, index=index),
        )
        for index in range(4)
    ]
    trained = train_together(data, specs, Machine(torch.device("cpu")))
    rows = [len(fold.val) for fold in data.folds(specs[0])]
    best = [each.result.history[each.result.best_epoch - 1] for each in trained]
    (model,) = [one for one in found.models if one.streams == ("a", "noise") and one.model == KERNEL_FUSION]
    assert model.scores["accuracy"] == pytest.approx(
        np.average([entry["val_accuracy"] for entry in best], weights=rows)
    )
    assert model.loss == pytest.approx(np.average([entry["val_loss"] for entry in best], weights=rows), rel=1e-6)


def test_linear_kernels_score_about_what_linear_kernel_ridge_heads_score(path):
    cache = open_cache(path)
    found = probe_cache(cache, options=replace(FAST, kernel="linear", penalties=10))
    assert found.kernel == "linear"
    assert found.suggestion.streams == ("a", "b")
    assert len(found.models) == 3 + 4 * 2
    specs = [
        RunSpec(
            name="a+noise",
            features=FeaturesSpec(streams=("a", "noise")),
            head=KernelRidgeHeadSpec(kernel="linear", landmarks=200),
            fold=FoldSpec(count=4, index=index),
        )
        for index in range(4)
    ]
    data = TrainingData.of(cache, OfficialSplit())
    trained = train_together(data, specs, Machine(torch.device("cpu")))
    best = [each.result.history[each.result.best_epoch - 1] for each in trained]
    (model,) = [one for one in found.models if one.streams == ("a", "noise") and one.model == KERNEL_FUSION]
    # The head leaves out one row after another to choose its penalty, the probe one fold after another.
    assert model.scores["accuracy"] == pytest.approx(np.mean([entry["val_accuracy"] for entry in best]), abs=0.06)
    assert model.loss == pytest.approx(np.mean([entry["val_loss"] for entry in best]), abs=0.05)


def test_principal_components_of_each_fold_are_refused_with_linear_kernels(path):
    with pytest.raises(TrainingError, match="a linear probe reads the rows once for all folds"):
        probe_cache(open_cache(path), options=replace(FAST, kernel="linear", pca=2))


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_rows_of_a_group_are_drawn_together(path, tmp_path, write_cache, kernel):
    """Ten rows of each person, all right or all wrong: intervals over persons are wider than over rows."""
    rng = np.random.default_rng(5)
    people, truth = np.repeat(np.arange(16), 10), rng.integers(0, 3, ROWS)
    shown = np.where(np.isin(people, [1, 4, 7, 10]), (truth + 1) % 3, truth)
    streams = {
        "a": (
            "backbone",
            (rng.normal(size=(ROWS, 6)) + 3 * np.eye(3, 6)[shown]).astype(np.float32),
            np.ones(ROWS, np.uint8),
        )
    }
    where = write_cache(tmp_path / "features.zarr", CLASSES, truth, ["train"] * 159 + ["val"], streams)
    cache, found = open_cache(where), {}
    for grouped in (False, True):
        if grouped:
            names = pl.Series("group", [f"person {person}" for person in people], dtype=pl.String)
            manifest = replace(cache.manifest, table=cache.manifest.table.with_columns(names))
            manifest.write(manifest_path(where))
            cache = open_cache(where)
        found[grouped] = probe_cache(cache, options=replace(FAST, kernel=kernel))
    assert (found[False].groups, found[True].groups) == (None, 16)
    widths = {
        grouped: probe.models[0].intervals["accuracy"].high - probe.models[0].intervals["accuracy"].low
        for grouped, probe in found.items()
    }
    assert widths[True] > 1.8 * widths[False]


def test_a_row_without_a_group_is_drawn_alone():
    units, count = _units(np.array(["b", "", "a", "b", "", "a"]))
    assert count == 4
    assert units[0] == units[3]
    assert units[2] == units[5]
    assert len({int(units[place]) for place in (0, 1, 2, 4)}) == 4
    assert _units(np.array(["", ""]))[1] is None


def test_labels_of_test_rows_change_nothing(tmp_path, write_cache, path, found):
    poisoned = write(tmp_path / "features.zarr", write_cache, test_labels=2)
    again = probe_cache(open_cache(poisoned), options=FAST)
    assert [replace(model, loss=0) for model in again.models] == [replace(model, loss=0) for model in found.models]
    assert [model.loss for model in again.models] == pytest.approx([model.loss for model in found.models], rel=1e-9)
    assert found.rows == 128  # no row of the test split is answered


def test_sequences_and_maps_are_pooled_over_steps_that_are_there_and_over_places():
    rng = np.random.default_rng(1)
    arrays = {"clip": rng.normal(size=(6, 3, 2)), "map": rng.normal(size=(6, 4, 2, 2))}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    steps = torch.tensor([[True, True, False]] * 6)
    table = FeatureTable(
        {name: torch.from_numpy(array) for name, array in arrays.items()},
        {name: torch.ones(6, dtype=torch.bool) for name in arrays},
        torch.tensor([0, 1] * 3),
        2,
        steps={"clip": steps},
    )
    plain = {
        name: Scaling(np.zeros(width, np.float32), np.ones(width, np.float32))
        for name, width in {"clip": 2, "map": 4}.items()
    }
    fold = Fold(np.arange(4), np.array([4, 5]), plain)
    clip = stream_rows(table, plain["clip"], "clip", fold.val).features.numpy()
    np.testing.assert_allclose(clip, arrays["clip"][4:, :2].mean(axis=1), rtol=1e-6)
    pooled = stream_rows(table, plain["map"], "map", fold.val).features.numpy()
    np.testing.assert_allclose(pooled, arrays["map"][4:].mean(axis=(2, 3)), rtol=1e-6)


def test_many_streams_are_tried_alone_in_pairs_all_but_one_and_all():
    sizes = [len(subset) for subset in _subsets([f"s{index}" for index in range(8)])]
    assert {size: sizes.count(size) for size in set(sizes)} == {1: 8, 2: 28, 7: 8, 8: 1}
    assert len(list(_subsets("abcdef"))) == 63


def test_a_stream_that_is_not_there_is_named_with_the_nearest(path):
    with pytest.raises(
        TrainingError, match=r"has no stream 'noisy', did you mean 'noise'\? \(there are: a, b, noise\)"
    ):
        probe_cache(open_cache(path), options=ProbeOptions(streams=("a", "noisy")))


def test_the_command_prints_a_table_a_suggestion_and_writes_json(path, tmp_path):
    out = tmp_path / "probe.json"
    asked = ["probe", str(path), "--streams", "a,b", "--folds", "3", "--landmarks", "40", "--out", str(out)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert (
        "128 training and validation rows of 3 labels, each answered by a model of the other 2 of 3 folds"
        in done.output
    )
    assert "Try a + b next: no smaller subset is as accurate." in done.output
    assert "features: {streams: [a, b]}, head: {kind: kernel_ridge}}" in done.output
    runs = yaml.safe_load(done.stdout[done.stdout.index("runs:") :])["runs"]
    assert [parse_spec(RunSpec, run, "printed").head.kind for run in runs] == ["kernel_ridge", "late"]
    written = json.loads(out.read_text())
    assert [entry["streams"] for entry in written["models"]].count(["a", "b"]) == 2
    assert written["suggestion"]["streams"] == ["a", "b"]
    assert set(written["models"][0]["accuracy_interval"]) == {"low", "high"}


TARGETS = {
    "regression": (("--numbers", "valence,arousal"), ("ccc", "rmse")),
    "distribution": (("--votes", "joy_votes,fear_votes,calm_votes"), ("accuracy", "macro_f1")),
    "multilabel": (("--labels", "happy,tense"), ("map", "macro_f1")),
}


@pytest.mark.parametrize("weight_column", [None, "weight"])
@pytest.mark.parametrize("kind", TARGETS)
def test_streams_are_probed_for_any_target_as_its_kernel_ridge_head_learns_it(
    plant_targets, tmp_path, kind, weight_column
):
    cache, (option, names) = plant_targets(tmp_path / "features.zarr"), TARGETS[kind]
    target = {"kind": kind, "columns": option[1].split(",")}
    plain = {"name": "a", "features": {"streams": ["net"]}, "head": {"kind": "kernel_ridge", "landmarks": 60}}
    spec = parse_spec(RunSpec, plain | {"target": target, "weight_column": weight_column}, "test")
    found = probe_cache(cache, None, replace(FAST, penalties=25), spec.target, weight_column)
    assert found.kind == kind
    assert tuple(found.models[0].scores) == names
    assert "net" in found.models[0].streams
    (model,) = [one for one in found.models if one.streams == ("net",)]
    specs = [spec.model_copy(update={"fold": FoldSpec(count=4, index=index)}) for index in range(4)]
    data = TrainingData.of_run(cache, specs[0])
    trained = train_together(data, specs, Machine(torch.device("cpu")))
    rows = [len(fold.val) for fold in data.folds(specs[0])]
    best = [each.result.history[each.result.best_epoch - 1] for each in trained]
    if kind != "regression":  # its loss is in the unit of each column here, and standardised there
        assert model.loss == pytest.approx(np.average([entry["val_loss"] for entry in best], weights=rows), rel=1e-6)
    else:
        assert 0.3 < model.main_score <= 1
        assert model.scores["rmse"] == pytest.approx(np.average([e["val_rmse"] for e in best], weights=rows), rel=0.1)


@pytest.mark.parametrize("kind", TARGETS)
def test_linear_kernels_answer_any_target_in_its_own_unit(plant_targets, tmp_path, kind):
    cache, (option, names) = plant_targets(tmp_path / "features.zarr"), TARGETS[kind]
    plain = {"name": "a", "features": {"streams": ["net"]}, "target": {"kind": kind, "columns": option[1].split(",")}}
    spec = parse_spec(RunSpec, plain | {"weight_column": "weight"}, "test")
    linear, rbf = (
        probe_cache(cache, None, replace(FAST, kernel=kernel, penalties=10), spec.target, "weight")
        for kernel in ("linear", "rbf")
    )
    assert tuple(linear.models[0].scores) == names
    for ours, theirs in zip(
        *([m for m in each.models if m.streams == ("net",)] for each in (linear, rbf)), strict=True
    ):
        assert ours.main_score == pytest.approx(theirs.main_score, abs=0.1)
        assert ours.loss == pytest.approx(theirs.loss, rel=0.35)


def test_two_targets_at_once_are_refused(path):
    done = CliRunner().invoke(app, ["probe", str(path), "--numbers", "a", "--labels", "b"])
    assert done.exit_code == 2
    assert "give one of them: there is one target" in " ".join(done.output.replace("│", " ").split())


def test_a_column_that_is_not_there_is_named(path):
    done = CliRunner().invoke(app, ["probe", str(path), "--numbers", "valence"])
    assert done.exit_code != 0
    assert "there is no column 'valence'" in " ".join(f"{done.output} {done.exception}".split())


def test_a_column_of_weights_that_is_not_there_is_named(path):
    done = CliRunner().invoke(app, ["probe", str(path), "--weight-column", "trust"])
    assert done.exit_code != 0
    assert "there is no column 'trust'" in " ".join(f"{done.output} {done.exception}".split())


def test_a_seed_without_a_drawn_split_is_refused(path):
    done = CliRunner().invoke(app, ["probe", str(path), "--split-seed", "3"])
    assert done.exit_code == 2
    assert "--split stratified or --split holdout" in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize("pca", ["1.5", "0", "-2"])
def test_components_that_are_no_share_and_no_number_are_refused(path, pca):
    done = CliRunner().invoke(app, ["probe", str(path), "--pca", pca])
    assert done.exit_code == 2
    assert f"must be a share of the variance above 0 and below 1, or a number of components, got {pca}" in " ".join(
        done.output.replace("│", " ").split()
    )
