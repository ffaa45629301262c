"""Runs on targets that are no class: votes, numbers, several labels, and weights of rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from emofuse.errors import SpecError, TrainingError
from emofuse.metrics.targets import target_metrics
from emofuse.results import read_predictions, read_weights, run_dir
from emofuse.specs import RunSpec, parse_spec
from emofuse.training.data import TrainingData
from emofuse.training.references import plan_references, train_references
from emofuse.training.runs import train_runs
from emofuse.training.trained import load_head

VOTES = {"kind": "distribution", "columns": {"joy": "joy_votes", "fear": "fear_votes", "calm": "calm_votes"}}
NUMBERS = {"kind": "regression", "columns": ["valence", "arousal"]}
LABELS = {"kind": "multilabel", "columns": ["happy", "tense"]}
TARGETS = {"distribution": VOTES, "regression": NUMBERS, "multilabel": LABELS}


@pytest.fixture(scope="module")
def cache(plant_targets, tmp_path_factory):
    return plant_targets(tmp_path_factory.mktemp("targets") / "features.zarr")


def spec(target, **changes):
    plain = {
        "name": "a",
        "features": {"streams": ["net", "face"]},
        "head": {"kind": "concat", "embed_dim": 8, "depth": 1, "width": 8},
        "train": {"epochs": 12, "batch_size": 16, "learning_rate": 0.01},
        "target": target,
    }
    return parse_spec(RunSpec, plain | changes, "test")


def answers(cache, folder, rows):
    """What the saved run answers for rows of the cache."""
    read = {name: cache.streams[name].read() for name in ("net", "face")}
    features = {name: stored[rows] for name, (stored, _) in read.items()}
    return load_head(folder).outputs(features, {name: status[rows] for name, (_, status) in read.items()})


def truth_of(cache, kind):
    """The targets (N, C) of all rows, NaN for none, from the columns themselves."""
    names = TARGETS[kind]["columns"]
    names = list(names.values()) if isinstance(names, dict) else names
    values = np.stack([cache.manifest.table[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in names], 1)
    if kind == "distribution":
        values = np.where(values.sum(1, keepdims=True) > 0, values, np.nan)
        values = values / values.sum(1, keepdims=True)
    values[np.isnan(values).any(axis=1)] = np.nan
    return values.astype(np.float32)


HEADS = ["concat", "linear", "gated", "late", "attention"]


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_learns_every_target_and_a_loaded_one_answers_as_it_was_scored(cache, tmp_path, kind, head):
    sizes = {"linear": {}, "attention": {"embed_dim": 8, "attention_heads": 2, "width": 8}}
    options = {"kind": head} | sizes.get(head, {"embed_dim": 8, "depth": 1, "width": 8})
    ((record, _),) = train_runs(cache, [spec(TARGETS[kind], head=options)], tmp_path, device="cpu")
    folder = run_dir(tmp_path, record.digest)
    saved = read_predictions(folder)
    truth = truth_of(cache, kind)
    rows = np.flatnonzero((cache.splits == "test") & ~np.isnan(truth).any(axis=1))
    assert saved.sample_id.tolist() == cache.sample_ids[rows].tolist()
    np.testing.assert_array_equal(saved.target, truth[rows])
    np.testing.assert_array_equal(answers(cache, folder, rows), saved.outputs)
    assert record.target_kind == kind
    columns = TARGETS[kind]["columns"]
    assert record.classes == list(columns)
    labels = saved.label if kind == "distribution" else None
    assert record.metrics["test"] == target_metrics(kind, truth[rows], saved.outputs, columns, labels=labels)
    if kind == "distribution":
        np.testing.assert_allclose(saved.probs.sum(axis=1), 1, atol=1e-6)
        assert record.metrics["train"]["accuracy"] > 0.6
        assert record.metrics["train"]["distribution"]["cross_entropy"] < np.log(3) - 0.1
    elif kind == "regression":
        assert (saved.label == -1).all()
        assert record.metrics["train"]["mean"]["ccc"] > 0.4
        assert 30 < saved.outputs[:, 0].mean() < 70  # in the unit of the column
    else:
        assert (saved.label == -1).all()
        assert ((saved.outputs > 0) & (saved.outputs < 1)).all()
        assert record.metrics["train"]["macro"]["map"] > 0.6


KEYS = {
    "distribution": {"val_loss", "val_accuracy", "val_macro_f1"},
    "regression": {"val_loss", "val_ccc", "val_rmse"},
    "multilabel": {"val_loss", "val_map"},
}
CHOICES = [
    ("distribution", "loss", {}),
    ("distribution", "macro_f1", {"loss": "kl"}),
    ("regression", "loss", {}),
    ("regression", "ccc", {"loss": "ccc"}),
    ("multilabel", "loss", {}),
    ("multilabel", "map", {}),
]


@pytest.mark.parametrize(("kind", "select", "changes"), CHOICES)
def test_the_best_epoch_has_the_best_score_and_its_scores_are_those_of_the_saved_head(
    cache, tmp_path, kind, select, changes
):
    run = spec(TARGETS[kind] | changes)
    run = run.model_copy(update={"train": run.train.model_copy(update={"select": select})})
    ((record, _),) = train_runs(cache, [run], tmp_path, device="cpu")
    assert all(set(entry) == {"epoch", "train_loss"} | KEYS[kind] for entry in record.history)
    sign = -1 if select == "loss" else 1
    scores = [(sign * entry[f"val_{select}"], -entry["val_loss"]) for entry in record.history]
    assert record.best_epoch == max(range(12), key=lambda place: scores[place]) + 1
    best, val = record.history[record.best_epoch - 1], record.metrics["val"]
    if kind == "distribution":
        wanted = {"val_accuracy": val["accuracy"], "val_macro_f1": val["macro"]["f1"]}
        wanted["val_loss"] = val["distribution"]["kl" if changes else "cross_entropy"]
    elif kind == "regression":
        wanted = {"val_ccc": val["mean"]["ccc"], "val_rmse": val["mean"]["rmse"]}
        if changes:
            wanted["val_loss"] = 1 - val["mean"]["ccc"]
    else:
        wanted = {"val_map": val["macro"]["map"], "val_loss": val["loss"]}
    for key, value in wanted.items():
        assert best[key] == pytest.approx(value, abs=1e-5), key


def test_a_regression_is_learned_in_the_standard_of_its_training_rows_and_saved_with_it(cache, tmp_path):
    ((record, _),) = train_runs(cache, [spec(NUMBERS)], tmp_path, device="cpu")
    truth = truth_of(cache, "regression")
    train = truth[(cache.splits == "train") & ~np.isnan(truth).any(axis=1)].astype(np.float64)
    weights = read_weights(run_dir(tmp_path, record.digest))
    np.testing.assert_allclose(weights["target.center"], train.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(weights["target.scale"], train.std(axis=0), rtol=1e-6)


def test_rows_without_a_target_neither_train_nor_are_scored_and_a_note_counts_them(cache, tmp_path):
    runs = [spec(VOTES), spec(NUMBERS), spec(LABELS)]
    for target, (record, _) in zip(TARGETS, train_runs(cache, runs, tmp_path, device="cpu"), strict=True):
        counts = [
            int((~np.isnan(truth_of(cache, target)).any(axis=1) & (cache.splits == split)).sum()) for split in SPLITS
        ]
        assert [record.rows[split]["rows"] for split in SPLITS] == counts
        assert "1 of 160 rows are in no split of this run: 1 without a target, 0 with a target but no split." in (
            record.notes
        )


SPLITS = ("train", "val", "test")


def poisoned(columns, splits):
    """Other votes, numbers, labels and weights in all test rows."""
    rng = np.random.default_rng(9)
    for name, values in columns.items():
        drawn = rng.permutation(len(values))
        for row in np.flatnonzero(splits == "test"):
            values[row] = values[int(drawn[row])]
            if name in {"valence", "arousal"}:
                values[row] = 1000.0 * row


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("head", ["concat", "logistic", "averaged_logistic", "kernel_ridge"])
def test_poisoned_test_targets_and_weights_change_no_weight_and_no_choice(cache, plant_targets, tmp_path, kind, head):
    if kind == "regression" and "logistic" in head:
        pytest.skip("a regression has no logistic head")
    other = plant_targets(tmp_path / "poisoned.zarr", poisoned)
    run = spec(TARGETS[kind], head=head, weight_column="weight")
    records = [
        train_runs(each, [run], tmp_path / name, device="cpu")[0][0] for name, each in (("a", cache), ("b", other))
    ]
    weights = [read_weights(run_dir(tmp_path / name, each.digest)) for name, each in zip("ab", records, strict=True)]
    assert records[0].history == records[1].history
    assert records[0].best_epoch == records[1].best_epoch
    assert records[0].metrics["val"] == records[1].metrics["val"]
    assert records[0].metrics["test"] != records[1].metrics["test"]
    for name, array in weights[0].items():
        assert np.array_equal(array, weights[1][name]), name
    assert records[0].digest != records[1].digest  # the digest covers all targets


def test_what_chooses_sees_no_target_and_no_weight_of_a_test_row(cache):
    for kind, target in TARGETS.items():
        data = TrainingData.of_run(cache, spec(target, weight_column="weight"))
        test = data.splits == "test"
        assert (data.labels[test] == -1).all()
        assert np.isnan(data.values[test]).all()
        assert (data.weights[test] == 0).all()
        assert not np.isnan(data.values[data.labels >= 0]).any(), kind


def test_runs_that_differ_in_target_or_weights_have_digests_and_results_of_their_own(cache, tmp_path):
    runs = [spec({"kind": "class"}), *(spec(target) for target in TARGETS.values())]
    runs += [spec(VOTES | {"loss": "kl"}), spec(NUMBERS, weight_column="weight")]
    records = [record for record, _ in train_runs(cache, runs, tmp_path, device="cpu")]
    assert len({record.digest for record in records}) == len(runs)
    assert "target" not in records[0].spec
    again = train_runs(cache, runs, tmp_path, device="cpu")
    assert [trained for _, trained in again] == [False] * len(runs)


def test_folds_and_ensembles_and_second_trainings_of_numbers_average_values_in_their_unit(cache, tmp_path):
    ensemble = spec(NUMBERS, ensemble={"folds": 3})
    refit = spec(NUMBERS, refit="train_val", name="b")
    (mean, _), (again, _) = train_runs(cache, [ensemble, refit], tmp_path, device="cpu")
    heads = [spec(NUMBERS, fold={"count": 3, "index": index}) for index in range(3)]
    alone = [record for record, _ in train_runs(cache, heads, tmp_path, device="cpu")]
    parts = [read_predictions(run_dir(tmp_path, record.digest)).outputs for record in alone]
    found = read_predictions(run_dir(tmp_path, mean.digest))
    np.testing.assert_allclose(found.outputs, np.mean(parts, axis=0), rtol=1e-4)
    rows = np.flatnonzero(np.isin(cache.sample_ids, found.sample_id))
    np.testing.assert_array_equal(answers(cache, run_dir(tmp_path, mean.digest), rows), found.outputs)
    assert {"val_loss", "val_ccc", "val_rmse"} < set(mean.history[0])
    truth = truth_of(cache, "regression")
    both = np.isin(cache.splits, ["train", "val"]) & ~np.isnan(truth).any(axis=1)
    center = read_weights(run_dir(tmp_path, again.digest))["target.center"]
    np.testing.assert_allclose(center, truth[both].astype(np.float64).mean(axis=0), rtol=1e-6)


CONTRADICTIONS = [
    (NUMBERS, {"train": {"select": "macro_f1"}}, r"select: macro_f1 is no score of a regression \(there are: loss"),
    (LABELS, {"train": {"select": "ccc"}}, r"select: ccc is no score of several labels \(there are: loss, map\)"),
    (VOTES, {"train": {"select": "map"}}, r"train\.select: map is no score of a distribution"),
    ({}, {"train": {"select": "ccc"}}, r"select: ccc is no score of a class \(there are: loss, macro_f1, accuracy\)"),
    (NUMBERS, {"train": {"class_weights": "balanced"}}, r"class, distribution, multilabel, and the target is a regr"),
    (VOTES, {"train": {"focal_gamma": 2}}, r"focal_gamma: is for targets of kind class, and the target is a distr"),
    (LABELS, {"train": {"logit_adjustment": 1}}, r"train\.logit_adjustment: .* the target is several labels"),
    (LABELS, {"train": {"label_smoothing": 0.1}}, r"train\.label_smoothing: .* the target is several labels"),
    (NUMBERS, {"head": "logistic"}, r"head\.kind: logistic gives probabilities, .* Take kernel_ridge"),
    (NUMBERS, {"head": "averaged_logistic"}, r"head\.kind: averaged_logistic gives probabilities"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "changes", "message"), CONTRADICTIONS)
def test_an_option_that_a_target_cannot_have_is_one_clear_error(target, changes, message):
    with pytest.raises(SpecError, match=message) as error:
        spec(target or {"kind": "class"}, **changes)
    assert str(error.value).count(" | ") == 0


def test_a_column_of_one_value_in_training_rows_is_refused(plant_targets, tmp_path):
    def flat(columns, splits):
        for row in np.flatnonzero(splits == "train"):
            columns["arousal"][row] = 2.5

    cache = plant_targets(tmp_path / "flat.zarr", flat)
    with pytest.raises(TrainingError, match=r"'arousal' is 2\.5 in all \d+ training rows: there is nothing to learn"):
        train_runs(cache, [spec(NUMBERS)], tmp_path, device="cpu")


def test_a_column_of_one_value_in_validation_or_test_rows_is_noted_and_left_out_of_means(plant_targets, tmp_path):
    def flat(columns, splits):
        for row in np.flatnonzero(splits != "train"):
            columns["arousal"][row] = 2.5

    cache = plant_targets(tmp_path / "flat.zarr", flat)
    ((record, _),) = train_runs(cache, [spec(NUMBERS)], tmp_path, device="cpu")
    text = " ".join(record.notes)
    assert "Every validation row has arousal 2.5: it has no CCC, and that of the validation rows is over" in text
    assert "Every test row has arousal 2.5: it has no CCC and no correlation, and the means of the test rows" in text
    scores = record.metrics["test"]
    assert scores["columns"]["arousal"]["ccc"] is None
    assert scores["mean"]["ccc"] == scores["columns"]["valence"]["ccc"]


def test_labels_without_rows_are_named(plant_targets, tmp_path):
    def rare(columns, splits):
        for row in np.flatnonzero(splits != "train"):
            columns["happy"][row] = False

    cache = plant_targets(tmp_path / "rare.zarr", rare)
    ((record, _),) = train_runs(cache, [spec(LABELS)], tmp_path, device="cpu")
    text = " ".join(record.notes)
    assert "No validation row is labelled 'happy': average precision of the validation rows is over the other" in text
    assert "No test row is labelled 'happy': macro scores of the test rows are over the other labels." in text
    assert record.metrics["test"]["columns"]["happy"]["average_precision"] is None


@pytest.mark.parametrize("kind", TARGETS)
def test_reference_models_learn_the_target_of_the_runs(cache, tmp_path, kind):
    """Their target, weights and score are those of the runs; of numbers there are no logistic models."""
    score = {"distribution": "macro_f1", "regression": "ccc", "multilabel": "map"}[kind]
    runs = [
        spec(TARGETS[kind], name=name, features={"streams": streams}, train={"select": score}, weight_column="weight")
        for name, streams in (("face", ["face"]), ("both", ["net", "face"]))
    ]
    records, notes = train_references(cache, plan_references(cache, runs, "face"), tmp_path, device="cpu")
    first = ["kernel_ridge"] if kind == "regression" else ["logistic", "averaged_logistic", "kernel_ridge"]
    others = [head for head in first if head != "averaged_logistic"]
    assert [record.spec["head"]["kind"] for record in records] == [*first, *others, *others]
    assert all(record.spec["target"]["kind"] == kind for record in records)
    assert all(record.spec["weight_column"] == "weight" for record in records)
    model = "kernel ridge regression" if kind == "regression" else "logistic regression"
    words = {"macro_f1": "macro F1", "ccc": "CCC", "map": "mean average precision"}[score]
    assert notes[0].startswith(f"The best single stream is net: its {model} has the highest {words} on the validation")


def test_labels_of_another_annotator_are_learned_tested_and_counted(plant_targets, tmp_path):
    def add(columns, _):
        happy = columns["happy"]
        columns["perceived"] = ["glad" if is_happy else "sad" for is_happy in happy]
        columns["perceived"][20] = None

    cache = plant_targets(tmp_path / "perceived.zarr", add)
    runs = [
        spec({"kind": "class", "column": "perceived"}, head=head) for head in ("linear", "logistic", "kernel_ridge")
    ]
    for record, _ in train_runs(cache, runs, tmp_path / "runs", device="cpu"):
        assert record.classes == ["glad", "sad"]
        assert record.target_kind == "class"
        assert (
            "1 of 160 rows are in no split of this run: 1 without a label, 0 with a label but no split." in record.notes
        )
        saved = read_predictions(run_dir(tmp_path / "runs", record.digest))
        perceived = dict(zip(cache.sample_ids.tolist(), cache.manifest.table["perceived"], strict=True))
        assert [record.classes[label] for label in saved.label] == [
            perceived[each] for each in saved.sample_id.tolist()
        ]
        assert saved.target is None
        assert record.metrics["train"]["accuracy"] > 0.6
