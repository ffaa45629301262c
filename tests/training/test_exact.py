"""Exact heads: scikit-learn's answers, folds and missing streams, the same bits alone as beside others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch.nn import functional

from emofuse.errors import SpecError, TrainingError
from emofuse.heads import load_head_weights
from emofuse.scaling import Scaling
from emofuse.solvers.logistic import solve_logistic
from emofuse.specs import (
    AveragedLogisticHeadSpec,
    KernelRidgeHeadSpec,
    LogisticHeadSpec,
    RunSpec,
    TrainSpec,
    parse_spec,
)
from emofuse.training.exact import is_exact, solve_group
from emofuse.training.losses import class_weights
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member
from emofuse.training.streaming import Blocks
from emofuse.training.trained import head_outputs

N, C = 120, 3
CPU = Machine.of(torch.device("cpu"))


@pytest.fixture
def table() -> FeatureTable:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C, N)
    features = {
        "a": (np.eye(C)[labels] @ rng.normal(size=(C, 5)) + rng.normal(size=(N, 5))).astype(np.float32),
        "b": (np.eye(C)[labels] @ rng.normal(size=(C, 4)) + 2 * rng.normal(size=(N, 4))).astype(np.float32),
    }
    valid = {"a": np.ones(N, bool), "b": rng.random(N) > 0.3}
    return FeatureTable(
        {name: torch.from_numpy(values) for name, values in features.items()},
        {name: torch.from_numpy(values) for name, values in valid.items()},
        torch.from_numpy(labels),
        C,
    )


@pytest.fixture
def folds(table) -> list[Fold]:
    parts = np.array_split(np.random.default_rng(1).permutation(N), 3)
    found = []
    for index, part in enumerate(parts):
        train = np.sort(np.concatenate([other for place, other in enumerate(parts) if place != index]))
        scaling = {
            name: Scaling.fit(values.numpy(), train[table.valid[name].numpy()[train]])
            for name, values in table.features.items()
        }
        found.append(Fold(train, np.sort(part), scaling))
    return found


def member(head, streams=("a", "b"), fold=0, **train) -> Member:
    return Member(streams, head, TrainSpec(**train), fold)


def answers(table, fold, result, head, streams, rows):
    """Probabilities of the saved head, as scores and `predict` get them."""
    dims = {name: table.features[name].shape[1] for name in streams}
    module = load_head_weights(head, dims, C, result.weights)
    valid = {name: table.valid[name].numpy()[rows] for name in streams}
    scaled = {name: fold.scaling[name].apply(table.features[name].numpy()[rows], valid[name]) for name in streams}
    return head_outputs(module, scaled, valid)


def test_a_logistic_head_is_scikit_learns_with_a_column_for_rows_that_lack_a_stream(table, folds):
    head = LogisticHeadSpec(penalties=(3.0,))
    fold = folds[1]
    (result,) = solve_group(table, folds, [member(head, fold=1)], CPU)
    columns = []
    for name in ("a", "b"):
        valid = table.valid[name].numpy()
        columns.append(fold.scaling[name].apply(table.features[name].numpy(), valid))
        if not valid[fold.train].all():
            columns.append(~valid[:, None])
    features = np.hstack(columns).astype(np.float64)
    reference = LogisticRegression(C=1 / 3, tol=1e-12, max_iter=100_000)
    reference.fit(features[fold.train], table.labels.numpy()[fold.train])
    found = answers(table, fold, result, head, ("a", "b"), np.arange(N))
    assert np.abs(found - reference.predict_proba(features)).max() < 1e-5


def test_an_averaged_logistic_head_is_the_mean_of_scikit_learns_on_the_streams_that_a_row_has(table, folds):
    valid = {"a": np.arange(N) % 7 > 0, "b": table.valid["b"].numpy()}
    table = replace(table, valid={name: torch.from_numpy(has) for name, has in valid.items()})
    head, fold, labels = AveragedLogisticHeadSpec(penalties=(0.3, 3.0, 300.0)), folds[1], table.labels.numpy()
    (result,) = solve_group(table, folds, [member(head, fold=1, select="loss")], CPU)
    total, count, chosen = np.zeros((N, C)), np.zeros((N, 1)), {}
    for name, has in valid.items():
        features = fold.scaling[name].apply(table.features[name].numpy(), has).astype(np.float64)
        train, val = (rows[has[rows]] for rows in (fold.train, fold.val))
        models = {}
        for penalty in head.penalties:
            model = LogisticRegression(C=1 / penalty, tol=1e-12, max_iter=100_000)
            models[penalty] = model.fit(features[train], labels[train])
        chosen[name] = min(models, key=lambda each: log_loss(labels[val], models[each].predict_proba(features[val])))
        total += has[:, None] * models[chosen[name]].predict_proba(features)
        count += has[:, None]
    shares = np.bincount(labels[fold.train], minlength=C) / len(fold.train)
    wanted = np.where(count > 0, total / np.maximum(count, 1), shares)
    assert (count == 0).any()
    assert result.history[0]["penalties"] == chosen
    found = answers(table, fold, result, head, ("a", "b"), np.arange(N))
    assert np.abs(found - wanted).max() < 1e-6
    assert result.history[0]["val_loss"] == pytest.approx(log_loss(labels[fold.val], wanted[fold.val]), abs=1e-6)


def test_an_averaged_logistic_head_needs_no_row_of_a_stream(table, folds):
    nowhere = replace(table, valid={**table.valid, "b": torch.zeros(N, dtype=torch.bool)})
    unfitted = replace(folds[0].scaling["b"], fitted=False)
    fold = replace(folds[0], scaling={**folds[0].scaling, "b": unfitted})
    head = AveragedLogisticHeadSpec()
    (both,) = solve_group(nowhere, [fold], [member(head)], CPU)
    (alone,) = solve_group(nowhere, [fold], [member(head, ("a",))], CPU)
    rows = np.arange(N)
    ours = answers(nowhere, fold, both, head, ("a", "b"), rows)
    assert np.array_equal(ours, answers(nowhere, fold, alone, head, ("a",), rows))


def test_a_kernel_ridge_head_is_scikit_learns_on_the_mean_of_centred_kernels(table, folds):
    head = KernelRidgeHeadSpec(kernel="cosine", penalties=7)
    fold = folds[0]
    (result,) = solve_group(table, folds, [member(head)], CPU)
    chosen = result.history[result.best_epoch - 1]
    kernel = np.zeros((N, N))
    for name in ("a", "b"):
        valid = table.valid[name].numpy()
        rows = fold.scaling[name].apply(table.features[name].numpy(), valid).astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
        kernel += rows @ rows.T / 2
    train = fold.train
    inner = kernel[np.ix_(train, train)]
    centring = np.eye(len(train)) - 1 / len(train)
    targets = np.eye(C)[table.labels.numpy()[train]]
    reference = KernelRidge(alpha=chosen["penalty"], kernel="precomputed")
    reference.fit(centring @ inner @ centring, targets - targets.mean(0))
    outer = (kernel[:, train] - inner.mean(0)) @ centring
    scores = reference.predict(outer) + targets.mean(0)
    factor = float(result.weights["factor"])
    wanted = functional.softmax(torch.from_numpy(factor * scores), dim=1).numpy()
    found = answers(table, fold, result, head, ("a", "b"), np.arange(N))
    assert np.abs(found - wanted).max() < 1e-4


@pytest.mark.parametrize(
    "head",
    [LogisticHeadSpec(), AveragedLogisticHeadSpec(), KernelRidgeHeadSpec(), KernelRidgeHeadSpec(landmarks=20)],
)
def test_members_are_the_same_bits_alone_and_beside_others(table, folds, head):
    everyone = [member(head, streams, fold) for fold in (2, 0, 1) for streams in (("b",), ("a", "b"))]
    together = solve_group(table, folds, everyone, CPU)
    for one, beside in zip(everyone, together, strict=True):
        (alone,) = solve_group(table, folds, [one], CPU)
        assert alone.history == beside.history
        assert alone.best_epoch == beside.best_epoch
        for name, values in alone.weights.items():
            assert np.array_equal(values, beside.weights[name]), name


@pytest.mark.parametrize("head", [LogisticHeadSpec(), AveragedLogisticHeadSpec(), KernelRidgeHeadSpec()])
def test_labels_and_features_of_rows_in_no_fold_change_nothing(table, folds, head):
    kept = folds[0]
    some = [replace(kept, train=kept.train[:50], val=kept.val[:20])]
    (before,) = solve_group(table, some, [member(head)], CPU)
    seen = np.zeros(N, bool)
    seen[some[0].train] = seen[some[0].val] = True
    labels = table.labels.clone()
    labels[~torch.from_numpy(seen)] = -1
    features = {
        name: torch.where(torch.from_numpy(seen)[:, None], values, 1e6) for name, values in table.features.items()
    }
    (after,) = solve_group(replace(table, labels=labels, features=features), some, [member(head)], CPU)
    assert before.history == after.history


def test_the_penalty_of_a_logistic_head_is_the_best_on_validation_rows(table, folds):
    for select, best in (("loss", min), ("accuracy", max), ("macro_f1", max)):
        (result,) = solve_group(table, folds, [member(LogisticHeadSpec(), select=select)], CPU)
        scores = [entry[f"val_{select}"] for entry in result.history]
        assert scores[result.best_epoch - 1] == best(scores)
        assert [entry["penalty"] for entry in result.history] == sorted(LogisticHeadSpec().penalties, reverse=True)


def test_the_penalty_of_a_kernel_head_does_not_depend_on_validation_labels(table, folds):
    (before,) = solve_group(table, folds, [member(KernelRidgeHeadSpec())], CPU)
    labels = table.labels.clone()
    labels[torch.from_numpy(folds[0].val)] = (labels[torch.from_numpy(folds[0].val)] + 1) % C
    (after,) = solve_group(replace(table, labels=labels), folds[:1], [member(KernelRidgeHeadSpec())], CPU)
    losses = [entry["leave_one_out_loss"] for entry in before.history]
    assert before.best_epoch == after.best_epoch == 1 + losses.index(min(losses))
    assert np.array_equal(before.weights["coefficients"], after.weights["coefficients"])


def test_as_many_landmarks_as_rows_are_the_exact_kernel(table, folds):
    exact, most = KernelRidgeHeadSpec(), KernelRidgeHeadSpec(landmarks=len(folds[0].train) - 1)
    (whole,) = solve_group(table, folds, [member(exact, ("a",))], CPU)
    (near,) = solve_group(table, folds, [member(most, ("a",))], CPU)
    ours, theirs = (
        answers(table, folds[0], result, head, ("a",), folds[0].val) for result, head in ((whole, exact), (near, most))
    )
    assert np.abs(ours - theirs).max() < 0.05


def test_a_stream_that_was_not_fitted_counts_as_missing(table, folds):
    unfitted = replace(folds[0].scaling["b"], fitted=False)
    fold = replace(folds[0], scaling={**folds[0].scaling, "b": unfitted})
    (result,) = solve_group(table, [fold], [member(KernelRidgeHeadSpec(), ("b",))], CPU)
    head = load_head_weights(KernelRidgeHeadSpec(), {"b": 4}, C, result.weights)
    probs = head_outputs(head, {"b": np.ones((N, 4), np.float32)}, {"b": np.ones(N, bool)})
    shares = np.bincount(table.labels.numpy()[fold.train], minlength=C)
    assert np.allclose(probs, probs[0])
    assert probs[0].argmax() == shares.argmax()


def test_streamed_features_are_refused_with_what_to_do(table, folds):
    streamed = Blocks(read=lambda name, block: np.zeros((10, 5)), block_rows=10, dims={"a": 5, "b": 4})
    with pytest.raises(TrainingError, match=r"exact heads need their features in memory.*--memory-gb"):
        solve_group(replace(table, features=streamed), folds, [member(LogisticHeadSpec())], CPU)


def test_specs_of_exact_heads_are_read_by_kind_and_refuse_penalties_below_zero():
    spec = parse_spec(RunSpec, {"name": "x", "features": {"streams": ["a"]}, "head": "kernel_ridge"}, "x")
    assert is_exact(spec.head)
    for kind in ("logistic", "averaged_logistic"):
        wrong = {"name": "x", "features": {"streams": ["a"]}, "head": {"kind": kind, "penalties": [1.0, -1.0]}}
        with pytest.raises(SpecError, match=r"head\.penalties: must all be above 0, got -1"):
            parse_spec(RunSpec, wrong, "x")


@pytest.mark.parametrize("kind", ["balanced", "sqrt"])
def test_a_logistic_head_with_class_weights_is_scikit_learns(table, folds, kind):
    head, fold = LogisticHeadSpec(penalties=(3.0,)), folds[0]
    weighted = member(head)
    weighted = replace(weighted, train=weighted.train.model_copy(update={"class_weights": kind}))
    (result,) = solve_group(table, folds, [weighted], CPU)
    columns = []
    for name in ("a", "b"):
        valid = table.valid[name].numpy()
        columns.append(fold.scaling[name].apply(table.features[name].numpy(), valid))
        if not valid[fold.train].all():
            columns.append(~valid[:, None])
    features, labels = np.hstack(columns).astype(np.float64), table.labels.numpy()[fold.train]
    counts = np.bincount(labels)
    mean = np.average(counts**-0.5, weights=counts)
    of_classes = "balanced" if kind == "balanced" else dict(enumerate(counts**-0.5 / mean))
    reference = LogisticRegression(C=1 / 3, tol=1e-12, max_iter=100_000, class_weight=of_classes)
    reference.fit(features[fold.train], labels)
    found = answers(table, fold, result, head, ("a", "b"), np.arange(N))
    assert np.abs(found - reference.predict_proba(features)).max() < 1e-5


def test_the_probabilities_of_balanced_rows_are_scikit_learns_to_1e_6():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 200, p=[0.7, 0.2, 0.1])
    features = rng.normal(size=(200, 5)) + labels[:, None]
    weights = class_weights("balanced", np.bincount(labels))[labels]
    path = solve_logistic(
        torch.from_numpy(features), torch.eye(3)[torch.from_numpy(labels)], [2.0], row_weights=torch.from_numpy(weights)
    )
    probs = torch.softmax(path.logits(torch.from_numpy(features))[0], dim=1).numpy()
    reference = LogisticRegression(C=0.5, tol=1e-12, max_iter=100_000, class_weight="balanced").fit(features, labels)
    assert np.abs(probs - reference.predict_proba(features)).max() < 1e-6


def test_averaged_logistic_regressions_take_class_weights_like_a_logistic_head(table, folds):
    whole = replace(table, valid={name: torch.ones_like(valid) for name, valid in table.valid.items()})
    probs = []
    for head in (LogisticHeadSpec(penalties=(3.0,)), AveragedLogisticHeadSpec(penalties=(3.0,))):
        for kind in ("none", "balanced"):
            one = member(head, ("b",))
            one = replace(one, train=one.train.model_copy(update={"class_weights": kind}))
            (result,) = solve_group(whole, folds, [one], CPU)
            probs.append(answers(whole, folds[0], result, head, ("b",), np.arange(N)))
    plain, balanced, averaged, averaged_balanced = probs
    np.testing.assert_allclose(averaged, plain, atol=1e-6)
    np.testing.assert_allclose(averaged_balanced, balanced, atol=1e-6)
    assert np.abs(balanced - plain).max() > 1e-3


@pytest.mark.parametrize("landmarks", [4096, 20])
def test_the_logits_of_a_kernel_ridge_head_are_adjusted_by_the_log_shares_of_the_classes(table, folds, landmarks):
    head, tau = KernelRidgeHeadSpec(landmarks=landmarks), 0.5
    adjusted = member(head, logit_adjustment=tau)
    plain, shifted = solve_group(table, folds, [member(head), adjusted], CPU)
    of_plain, of_shifted = (answers(table, folds[0], each, head, ("a", "b"), np.arange(N)) for each in (plain, shifted))
    shares = np.bincount(table.labels.numpy()[folds[0].train], minlength=C) / len(folds[0].train)
    wanted = of_plain / shares**tau
    assert np.abs(of_shifted - wanted / wanted.sum(1, keepdims=True)).max() < 1e-5
    assert shifted.best_epoch == plain.best_epoch, "the penalty is that of the plain predictions"


def test_a_class_without_training_rows_is_not_favoured_by_adjusted_logits(table, folds):
    labels = torch.where(table.labels == C - 1, 0, table.labels)
    lacking = replace(table, labels=labels)
    head = KernelRidgeHeadSpec()
    adjusted = member(head, logit_adjustment=1.0)
    plain, shifted = solve_group(lacking, folds, [member(head), adjusted], CPU)
    of_plain, of_shifted = (
        answers(lacking, folds[0], each, head, ("a", "b"), np.arange(N)) for each in (plain, shifted)
    )
    assert (of_shifted[:, C - 1] <= of_plain[:, C - 1] + 1e-6).all()
