"""Saved predictions: read, checked against their records, grouped by the images they are about."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from emofuse.report.answers import pool_by_images, read_answers
from emofuse.report.grouping import group_runs
from emofuse.results import Predictions, read_predictions, run_dir

CLASSES = ("joy", "fear")


@pytest.fixture
def make(make_run):
    def make(name="a", **how):
        return make_run(name, **{"classes": CLASSES, "rows": 100, "epochs": 2, **how})

    make.folder = make_run.folder
    return make


def read(make, *runs):
    return read_answers(group_runs(runs, "runs").configurations, make.folder)


def rewrite(make, run, **arrays):
    """Puts other arrays into the predictions of a run."""
    path = run_dir(make.folder, run.digest) / "predictions.npz"
    found = read_predictions(path.parent)
    np.savez(path, **{"sample_id": found.sample_id, "label": found.label, "probs": found.probs} | arrays)
    return path


def shuffle(make, run, seed=0):
    found = read_predictions(run_dir(make.folder, run.digest))
    order = np.random.default_rng(seed).permutation(len(found.label))
    rewrite(make, run, sample_id=found.sample_id[order], label=found.label[order], probs=found.probs[order])


def test_answers_are_the_largest_probabilities_ordered_by_sample(make):
    run = make()
    before = read_predictions(run_dir(make.folder, run.digest))
    shuffle(make, run)
    (found,), faults = read(make, run)
    assert faults == {}
    assert found.rows[0].sample_id.tolist() == sorted(before.sample_id.tolist())
    order = np.argsort(before.sample_id)
    assert found.rows[0].label.tolist() == before.label[order].tolist()
    assert found.predicted[0].tolist() == before.probs[order].argmax(axis=1).tolist()


def test_runs_with_the_same_images_share_them_whatever_their_order(make):
    runs = [make("a", seed=0), make("a", seed=1), make("b")]
    shuffle(make, runs[1])
    (a, b), _ = read(make, *runs)
    assert a.rows[0] is a.rows[1] is b.rows[0]
    assert a.images == b.images
    probs = [read_predictions(run_dir(make.folder, run.digest)) for run in runs[:2]]
    summed = sum(one.probs[np.argsort(one.sample_id)].astype(np.float64) for one in probs)
    np.testing.assert_array_equal(a.probs[a.rows[0].key], summed)


def test_configurations_are_pooled_by_their_images(make):
    runs = [make(name, split_seed=seed) for name in ("a", "b") for seed in (3, 4)] + [
        make("c", split_seed=0),
        make("d"),
    ]
    pools, contradicting = pool_by_images(read(make, *runs)[0])
    assert contradicting == []
    assert [[item.label for item in pool.answered] for pool in pools] == [["a", "b"], ["c"], ["d"]]
    rows = pools[0].answered[0].rows
    assert pools[0].sample_id.tolist() == sorted({*rows[0].sample_id.tolist(), *rows[1].sample_id.tolist()})
    assert 10 < len(pools[0].sample_id) < 20  # the two splits share some of their ten test rows
    for part in rows:
        assert pools[0].sample_id[pools[0].units(part)].tolist() == part.sample_id.tolist()
        assert pools[0].label[pools[0].units(part)].tolist() == part.label.tolist()


def test_an_image_is_right_if_the_mean_probabilities_over_all_its_runs_are(make):
    runs = [make("a", split_seed=split, seed=seed, skill=0.5) for split in (3, 4) for seed in (0, 1, 2)]
    (pool,), _ = pool_by_images(read(make, *runs)[0])
    total = {}
    for run in runs:
        found = read_predictions(run_dir(make.folder, run.digest))
        for sample, label, probs in zip(found.sample_id.tolist(), found.label.tolist(), found.probs, strict=True):
            total.setdefault((sample, label), []).append(probs.astype(np.float64))
    expected = [np.mean(probs, axis=0).argmax() == label for (_, label), probs in sorted(total.items())]
    assert pool.right(pool.answered[0]).tolist() == expected
    assert {len(probs) for probs in total.values()} == {3, 6}


def test_labels_that_contradict_each_other_are_pooled_nowhere(make):
    (a, b), _ = read(make, make("a", split_seed=3), make("b", split_seed=4))
    shared = min(set(a.rows[0].sample_id.tolist()) & set(b.rows[0].sample_id.tolist()))
    label = b.rows[0].label.copy()
    label[b.rows[0].sample_id == shared] ^= 1
    rows = (a.rows[0], replace(b.rows[0], label=label))
    item = replace(a, rows=rows, predicted=a.predicted * 2, probs={part.key: np.zeros((10, 2)) for part in rows})
    assert pool_by_images([item]) == ([], [("a",)])


def fault_of(make, run):
    answered, faults = read(make, run)
    assert answered == []
    return faults["a"]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (
            {"probs": np.ones((10, 3))},
            "expected sample_id (n,), label (n,) and probs (n, 2) with n >= 1, got (10,), (10,) and (10, 3)",
        ),
        (
            {"sample_id": np.array("a")},
            "expected sample_id (n,), label (n,) and probs (n, 2) with n >= 1, got (), (10,) and (10, 2)",
        ),
        (
            {"sample_id": np.zeros(0, "U1"), "label": np.zeros(0, int), "probs": np.zeros((0, 2))},
            "expected sample_id (n,), label (n,) and probs (n, 2) with n >= 1, got (0,), (0,) and (0, 2)",
        ),
        ({"label": np.full(10, 0.5)}, "expected str, int and float, got <U12, float64 and float32"),
        ({"label": np.arange(10) - 1}, "labels must be 0 .. 1, got -1 .. 8"),
        ({"probs": np.full((10, 2), np.nan, np.float32)}, "a probability is not finite"),
        ({"sample_id": np.array(["x"] * 10)}, "a sample stands in it twice"),
        ({"probs": np.eye(2, dtype=np.float32)[[0, 1] * 5][::-1]}, "its confusion matrix is not that of run.json"),
    ],
)
def test_predictions_that_do_not_fit_are_damaged(make, damage, fault):
    run = make()
    path = rewrite(make, run, **damage)
    assert fault_of(make, run) == f"{path}: damaged ({fault}); delete the folder and train the run again"


def test_predictions_of_another_run_are_noticed(make):
    run, other = make(skill=0.1), make("other", skill=0.9)
    path = run_dir(make.folder, run.digest) / "predictions.npz"
    path.write_bytes((run_dir(make.folder, other.digest) / "predictions.npz").read_bytes())
    assert "(its confusion matrix is not that of run.json)" in fault_of(make, run)


def test_missing_predictions_are_told(make):
    run = make()
    path = run_dir(make.folder, run.digest) / "predictions.npz"
    path.unlink()
    message = f"{path}: missing or damaged (.*); delete the folder and train the run again"
    assert re.fullmatch(message, fault_of(make, run))


def test_predictions_cut_off_or_overwritten_anywhere_are_told_or_harmless(make):
    """A file cut short never passes; a changed byte is noticed, or it is one that carries no number."""
    run = make()
    path = run_dir(make.folder, run.digest) / "predictions.npz"
    whole = path.read_bytes()
    before = read_predictions(path.parent)
    rng = np.random.default_rng(0)
    for cut in [0, 1, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        assert "missing or damaged" in fault_of(make, run)
    noticed = 0
    for place in rng.choice(len(whole), 300, replace=False).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        answered, faults = read(make, run)
        noticed += bool(faults)
        if answered:
            found = read_predictions(path.parent)
            assert all(np.array_equal(*pair) for pair in zip(arrays(found), arrays(before), strict=True))
    assert noticed > 200


def arrays(predictions: Predictions):
    return predictions.sample_id, predictions.label, predictions.probs


def test_the_records_of_the_fixture_fit_their_predictions(make):
    run = make()
    stored = json.loads((run_dir(make.folder, run.digest) / "run.json").read_text())
    found = read_predictions(run_dir(make.folder, run.digest))
    assert np.mean(found.probs.argmax(axis=1) == found.label) == pytest.approx(stored["metrics"]["test"]["accuracy"])
