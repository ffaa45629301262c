"""Fusion heads as estimators of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from emofuse.datasets.splits import cross_validation_folds
from emofuse.errors import SpecError
from emofuse.estimators import FusionClassifier, FusionRegressor
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


def weights_and_copies_differ(estimator):
    """A row of weight 2 is one row where folds are dealt and features are standardised; two copies are two."""
    return {"check_sample_weight_equivalence_on_dense_data": "folds and the scaling of features count rows"}


@parametrize_with_checks(
    [
        FusionClassifier(folds=2),
        FusionClassifier("logistic", folds=2),
        FusionRegressor(),
        FusionRegressor(SMALL, FAST, folds=2),
    ],
    expected_failed_checks=weights_and_copies_differ,
)
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
        one._heads = one._heads[place : place + 1]
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


def planted_numbers(rows=120, seed=0):
    """Two streams that each tell one of two numbers, in units far from 0 and 1."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(rows, 2))
    streams = {
        "face": (truth[:, :1] + rng.normal(size=(rows, 6)) * 0.3).astype(np.float32),
        "voice": (truth[:, 1:] + rng.normal(size=(rows, 4)) * 0.3).astype(np.float32),
    }
    return streams, truth * [20, 0.1] + [50, -3]


@pytest.mark.parametrize("head", ["kernel_ridge", {"kind": "kernel_ridge", "kernel": "linear"}, SMALL])
def test_a_regressor_predicts_several_numbers_in_their_units(head):
    streams, numbers = planted_numbers()
    new, truth = planted_numbers(seed=1)
    model = FusionRegressor(head, FAST, folds=3).fit(streams, numbers)
    assert model.predict(new).shape == (120, 2)
    assert model.score(new, truth) > 0.85
    alone = FusionRegressor(head, FAST, folds=3).fit({"face": streams["face"]}, numbers)
    assert r2_score(truth[:, 0], alone.predict({"face": new["face"]})[:, 0]) > 0.85
    assert r2_score(truth[:, 1], alone.predict({"face": new["face"]})[:, 1]) < 0.3
    single = clone(model).fit(streams, numbers[:, 0]).predict(new)
    assert single.shape == (120,)
    assert r2_score(truth[:, 0], single) > 0.85


def test_linear_kernel_ridge_is_scikit_learn_s_ridge_regression():
    streams, numbers = planted_numbers()
    plain = np.hstack(list(streams.values()))
    model = FusionRegressor({"kind": "kernel_ridge", "kernel": "linear"}).fit(plain, numbers)
    (result,) = model.results_
    scaled = StandardScaler().fit_transform(plain.astype(np.float64))
    scaled /= np.sqrt(np.mean(np.sum(scaled**2, axis=1)))  # the kernel of a row with itself is 1 in the mean
    reference = Ridge(alpha=result.history[result.best_epoch - 1]["penalty"]).fit(scaled, numbers)
    np.testing.assert_allclose(model.predict(plain), reference.predict(scaled), rtol=1e-4)


def test_the_loss_of_a_regressor_can_be_the_concordance_correlation():
    streams, numbers = planted_numbers()
    model = FusionRegressor(SMALL, FAST, loss="ccc", folds=2).fit(streams, numbers)
    assert model.results_[0].history[0]["train_loss"] <= 2  # 1 - CCC
    assert model.score(streams, numbers) > 0.8
    with pytest.raises(SpecError, match=r"target.loss: must be mse or ccc, got 'mae'"):
        FusionRegressor(SMALL, loss="mae").fit(streams, numbers)
    with pytest.raises(SpecError, match=r"head.kind: logistic gives probabilities, and the target is a regression"):
        FusionRegressor("logistic").fit(streams, numbers)


def test_the_folds_of_a_regressor_keep_groups_together():
    streams, numbers = planted_numbers()
    groups = np.arange(120) // 10
    model = FusionRegressor(SMALL, FAST, folds=4)
    folds = model._make_folds(model._spec().head, groups, model._read(streams, first=True))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.val])
    assert sorted(np.concatenate([fold.val for fold in folds])) == list(range(120))
    with pytest.raises(ValueError, match="4 folds need as many groups, got 3"):
        model.fit(streams, numbers, groups=groups // 4)


HEADS = ["kernel_ridge", "logistic", "averaged_logistic", SMALL]


@pytest.mark.parametrize("head", HEADS)
def test_rows_of_weight_zero_teach_a_classifier_nothing(head):
    streams, labels = planted()
    wrong = labels.copy()
    wrong[:30] = "joy"
    weights = (np.arange(90) >= 30).astype(float)
    new, truth = planted(seed=1)
    model = FusionClassifier(head, FAST, folds=2)
    misled = clone(model).fit(streams, wrong).score(new, truth)
    assert clone(model).fit(streams, wrong, sample_weight=weights).score(new, truth) > max(0.85, misled)
    equal = clone(model).fit(streams, labels, sample_weight=np.full(90, 7.0)).predict_proba(new)
    np.testing.assert_allclose(equal, clone(model).fit(streams, labels).predict_proba(new), atol=1e-3)


@pytest.mark.parametrize("head", ["kernel_ridge", SMALL])
def test_rows_of_weight_zero_teach_a_regressor_nothing(head):
    streams, numbers = planted_numbers()
    wrong = numbers.copy()
    wrong[:40] = numbers[::-1][:40] + np.array([100, 1])
    new, truth = planted_numbers(seed=1)
    model = FusionRegressor(head, FAST, folds=2)
    weights = (np.arange(120) >= 40).astype(float)
    assert clone(model).fit(streams, wrong).score(new, truth) < 0.5
    assert clone(model).fit(streams, wrong, sample_weight=weights).score(new, truth) > 0.8


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 89, r"sample_weight must have shape \(90,\), as X has that many rows, got \(89,\)"),
        ([1.0] * 89 + [-1.0], "finite and not negative, got -1 in row 89"),
        ([1.0] * 89 + [np.nan], "finite and not negative, got nan in row 89"),
        ([0.0] * 90, "sample_weight is zero in all rows"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights, message):
    streams, labels = planted()
    with pytest.raises(ValueError, match=message):
        FusionClassifier().fit(streams, labels, sample_weight=weights)
    with pytest.raises(ValueError, match=message):
        FusionRegressor().fit(streams, np.arange(90.0), sample_weight=weights)
