"""Fusion heads as estimators of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from emofuse.datasets.splits import cross_validation_folds
from emofuse.errors import SpecError
from emofuse.estimators import FusionClassifier
from emofuse.specs import KernelRidgeHeadSpec, TrainSpec

FAST = {"epochs": 15, "learning_rate": 1e-2, "batch_size": 16}
SMALL = {"kind": "concat", "embed_dim": 8, "depth": 1, "width": 8}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def planted(rows=90, seed=0):
    """Two streams that each tell one of three labels from the others."""
    rng = np.random.default_rng(seed)
    truth = np.arange(rows) % 3
    streams = {
        "face": (rng.normal(size=(rows, 6)) + 2.5 * (truth == 0)[:, None]).astype(np.float32),
        "voice": (rng.normal(size=(rows, 4)) + 2.5 * (truth == 1)[:, None]).astype(np.float32),
    }
    return streams, np.array(["calm", "joy", "fear"])[truth]


@parametrize_with_checks([FusionClassifier(folds=2), FusionClassifier("logistic", folds=2)])
def test_it_keeps_the_rules_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("head", ["kernel_ridge", "logistic", SMALL, {**SMALL, "kind": "late"}])
def test_two_streams_tell_what_neither_tells_alone(head):
    streams, labels = planted()
    new, truth = planted(seed=1)
    model = FusionClassifier(head, FAST, folds=3).fit(streams, labels)
    alone = FusionClassifier(head, FAST, folds=3).fit({"face": streams["face"]}, labels)
    assert model.score(new, truth) > 0.9 > 0.8 > alone.score({"face": new["face"]}, truth)
    probs = model.predict_proba(new)
    assert probs.shape == (90, 3)
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    assert list(model.classes_) == ["calm", "fear", "joy"]


def test_predictions_are_the_mean_of_the_heads_of_the_folds():
    streams, labels = planted()
    model = FusionClassifier(SMALL, FAST, folds=4).fit(streams, labels)
    assert len(model.results_) == 4
    single = []
    for place in range(4):
        one = clone(model).fit(streams, labels)
        one._heads, one._scaling = one._heads[place : place + 1], one._scaling[place : place + 1]
        single.append(one.predict_proba(streams))
    np.testing.assert_allclose(model.predict_proba(streams), np.mean(single, axis=0), atol=1e-6)


def test_logistic_heads_are_scikit_learn_s_logistic_regressions():
    streams, labels = planted()
    head = {"kind": "logistic", "penalties": [3.0]}
    model = FusionClassifier(head, folds=2).fit(streams, labels)
    plain, expected = np.hstack([streams["face"], streams["voice"]]).astype(np.float64), []
    codes = np.searchsorted(model.classes_, labels)
    dealt = np.array(cross_validation_folds([str(code) for code in codes], 2, 0))
    for fold in range(2):
        reference = make_pipeline(StandardScaler(), LogisticRegression(C=1 / 3, tol=1e-10, max_iter=10_000))
        expected.append(reference.fit(plain[dealt != fold], labels[dealt != fold]).predict_proba(plain))
    np.testing.assert_allclose(model.predict_proba(streams), np.mean(expected, axis=0), atol=1e-5)


def test_kernel_ridge_is_solved_once_on_all_rows():
    streams, labels = planted()
    model = FusionClassifier(KernelRidgeHeadSpec(kernel="linear")).fit(streams, labels)
    assert len(model.results_) == 1
    assert model.results_[0].weights["coefficients"].shape == (90, 3)


def test_rows_and_steps_of_nan_are_missing():
    streams, labels = planted()
    rng = np.random.default_rng(2)
    clip = np.repeat(streams["voice"][:, None], 5, axis=1) + rng.normal(size=(90, 5, 4)).astype(np.float32)
    clip[::2, 3:] = np.nan
    face = streams["face"].copy()
    face[::3] = np.nan
    model = FusionClassifier(SMALL, FAST, folds=3).fit({"face": face, "clip": clip}, labels)
    probs = model.predict_proba({"face": face, "clip": clip})
    changed = clip.copy()
    changed[::2, 3:] = np.nan
    np.testing.assert_array_equal(probs, model.predict_proba({"clip": changed, "face": face}))
    assert np.isfinite(probs).all()


def test_a_row_with_some_nan_is_refused_with_its_number():
    streams, labels = planted()
    streams["face"][7, 2] = np.nan
    with pytest.raises(ValueError, match=r"X\['face'\] has NaN or infinity in 1 rows, the first is row 7"):
        FusionClassifier().fit(streams, labels)


def test_groups_are_not_divided_between_training_and_choice():
    streams, labels = planted()
    groups = np.arange(90) // 9
    model = FusionClassifier("logistic", folds=5)
    codes = np.searchsorted(["calm", "fear", "joy"], labels)
    folds = model._make_folds(model._spec().head, codes, groups, model._read(streams, first=True))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.val])
    assert sorted(np.concatenate([fold.val for fold in folds])) == list(range(90))
    model.fit(streams, labels, groups=groups)


def test_kernel_ridge_leaves_whole_groups_out():
    streams, labels = planted()
    losses = []
    for groups in (None, np.arange(90), np.arange(90) // 9):
        model = FusionClassifier("kernel_ridge").fit(streams, labels, groups=groups)
        losses.append([entry["leave_one_out_loss"] for entry in model.results_[0].history])
    assert losses[0] == losses[1]  # a group of one row is that row
    assert losses[0] != losses[2]


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ({}, "X has no stream"),
        ({"a": np.ones((4, 2)), "b": np.ones((5, 2))}, r"same number of rows, got \{'a': 4, 'b': 5\}"),
        ({"a": np.ones(4)}, r"X\['a'\] must have 2 to 5 dimensions, rows first, got shape \(4,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(streams, message):
    with pytest.raises(ValueError, match=message):
        FusionClassifier().fit(streams, ["x", "y", "x", "y"])


def test_other_streams_than_those_of_fit_are_refused():
    streams, labels = planted()
    model = FusionClassifier().fit(streams, labels)
    with pytest.raises(ValueError, match="X must have the streams face, voice, got face"):
        model.predict({"face": streams["face"]})


def test_an_unknown_head_is_named_with_the_nearest():
    streams, labels = planted()
    with pytest.raises(SpecError, match=r"kernel_rige.*did you mean 'kernel_ridge'"):
        FusionClassifier("kernel_rige").fit(streams, labels)


def test_it_can_be_cloned_searched_and_cross_validated():
    streams, labels = planted()
    plain = np.hstack(list(streams.values()))
    model = FusionClassifier(SMALL, TrainSpec(epochs=3, batch_size=16), folds=2)
    assert clone(model).get_params()["head"] == SMALL
    search = GridSearchCV(FusionClassifier("logistic", folds=2), {"head": ["logistic", "kernel_ridge"]}, cv=2)
    assert search.fit(plain, labels).best_score_ > 0.8
    assert cross_val_score(FusionClassifier(), plain, labels, cv=3).mean() > 0.8
