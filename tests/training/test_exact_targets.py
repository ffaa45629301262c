"""Exact heads on votes, numbers, several labels and weighted rows, held against scikit-learn and plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss

from emofuse.heads import load_head_weights
from emofuse.scaling import Scaling
from emofuse.solvers.ridge import Spectrum
from emofuse.solvers.temperature import fit_sigmoids, fit_temperatures
from emofuse.specs import (
    AveragedLogisticHeadSpec,
    ClassTarget,
    DistributionTarget,
    KernelRidgeHeadSpec,
    LogisticHeadSpec,
    MultilabelTarget,
    RegressionTarget,
    TrainSpec,
)
from emofuse.training.exact import solve_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member
from emofuse.training.targets import in_units
from emofuse.training.trained import head_outputs

N = 90
CPU = Machine.of(torch.device("cpu"))
VOTES = DistributionTarget(columns=("a", "b", "c"))
NUMBERS = RegressionTarget(columns=("x", "y"))
LABELS = MultilabelTarget(columns=("p", "q"))


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return {"a": rng.normal(size=(N, 5)).astype(np.float32), "b": rng.normal(size=(N, 4)).astype(np.float32)}


def values_of(target, features):
    """Targets that follow the features."""
    rng = np.random.default_rng(1)
    both = np.hstack(list(features.values()))
    hidden = both @ rng.normal(size=(9, 3)) * 0.5 + rng.normal(size=(N, 3)) * 0.5
    if target.kind == "distribution":
        votes = np.stack([rng.multinomial(10, row) for row in np.exp(hidden) / np.exp(hidden).sum(1, keepdims=True)])
        return votes / 10
    if target.kind == "regression":
        return hidden[:, :2] * [1, 20] + [5, -40]
    return (hidden[:, :2] > [0, 0.8]).astype(float)


def table_of(target, features, *, weights=None, valid=None):
    values = values_of(target, features)
    labels = values.argmax(1) if target.kind == "distribution" else np.zeros(N, np.int64)
    valid = valid or {name: np.ones(N, bool) for name in features}
    return FeatureTable(
        {name: torch.from_numpy(array) for name, array in features.items()},
        {name: torch.from_numpy(array) for name, array in valid.items()},
        torch.from_numpy(labels),
        values.shape[1],
        targets=torch.from_numpy(values.astype(np.float32)),
        weights=None if weights is None else torch.from_numpy(weights.astype(np.float32)),
        target=target,
    )


def fold_of(table):
    train, val = np.flatnonzero(np.arange(N) % 3 > 0), np.flatnonzero(np.arange(N) % 3 == 0)
    scaling = {
        name: Scaling.fit(array.numpy(), train[table.valid[name].numpy()[train]])
        for name, array in table.features.items()
    }
    return Fold(train, val, scaling)


def solve(table, head, streams=("a", "b"), **train):
    fold = fold_of(table)
    (result,) = solve_group(table, [fold], [Member(streams, head, TrainSpec(**train))], CPU)
    dims = {name: table.features[name].shape[1] for name in streams}
    module = load_head_weights(head, dims, table.classes, result.weights, table.link)
    valid = {name: table.valid[name].numpy() for name in streams}
    scaled = {name: fold.scaling[name].apply(table.features[name].numpy(), valid[name]) for name in streams}
    return in_units(head_outputs(module, scaled, valid, link=table.link), result.target_scale), result, fold


def scaled_features(table, fold):
    parts = [fold.scaling[name].apply(table.features[name].numpy(), np.ones(N, bool)) for name in ("a", "b")]
    return np.hstack(parts).astype(np.float64)


def test_a_logistic_head_on_votes_is_scikit_learns_on_a_row_for_each_class_weighted_by_its_share(features):
    table = table_of(VOTES, features)
    found, _, fold = solve(table, LogisticHeadSpec(penalties=(2.0,)))
    x, shares = scaled_features(table, fold), table.targets.numpy().astype(np.float64)
    reference = LogisticRegression(C=0.5, tol=1e-12, max_iter=100_000)
    rows = np.repeat(fold.train, 3)
    reference.fit(x[rows], np.tile(np.arange(3), len(fold.train)), shares[fold.train].ravel())
    np.testing.assert_allclose(found, reference.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_logistic_head_on_several_labels_is_one_of_scikit_learns_for_each(features, weights):
    sample = np.random.default_rng(4).random(N) + 0.1
    table = table_of(LABELS, features, weights=sample)
    found, result, fold = solve(table, LogisticHeadSpec(penalties=(0.5, 2.0)), class_weights=weights)
    x, labels = scaled_features(table, fold), table.targets.numpy()
    penalty = result.history[result.best_epoch - 1]["penalty"]
    for place in range(2):
        y = labels[fold.train, place]
        rows = sample[fold.train].astype(np.float32).astype(np.float64)
        rows = rows / rows.mean()
        if weights == "balanced":
            rows = np.where(y > 0, rows * (y == 0).sum() / (y > 0).sum(), rows)
        reference = LogisticRegression(C=1 / penalty, tol=1e-12, max_iter=100_000).fit(x[fold.train], y, rows)
        np.testing.assert_allclose(found[:, place], reference.predict_proba(x)[:, 1], atol=1e-6)


def test_averaged_logistic_regressions_of_several_labels_average_the_probabilities_of_streams(features):
    rng = np.random.default_rng(2)
    valid = {"a": rng.random(N) > 0.2, "b": rng.random(N) > 0.2}
    valid["a"][0] = valid["b"][0] = False
    table = table_of(LABELS, features, valid=valid)
    found, _, fold = solve(table, AveragedLogisticHeadSpec(penalties=(3.0,)))
    labels, total, count = table.targets.numpy(), np.zeros((N, 2)), np.zeros((N, 1))
    for name, there in valid.items():
        x = fold.scaling[name].apply(features[name], there).astype(np.float64)
        train = fold.train[there[fold.train]]
        probs = [
            LogisticRegression(C=1 / 3, tol=1e-12, max_iter=100_000)
            .fit(x[train], labels[train, place])
            .predict_proba(x)[:, 1]
            for place in range(2)
        ]
        total += there[:, None] * np.stack(probs, axis=1)
        count += there[:, None]
    wanted = np.where(count > 0, total / np.maximum(count, 1), labels[fold.train].mean(axis=0))
    assert (count == 0).any()
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_ridge_regression_is_scikit_learns_at_the_penalty_of_the_least_error_of_rows_left_out(features):
    table = table_of(NUMBERS, features)
    head = KernelRidgeHeadSpec(kernel="linear", penalties=7)
    found, result, fold = solve(table, head)
    x, values = scaled_features(table, fold), table.targets.numpy().astype(np.float64)
    # The kernel is the mean of two linear kernels, each of which is divided by its width and its mean square.
    scales = [float(result.weights[f"support.of_{name}.scale"]) for name in ("a", "b")]
    x = x * np.sqrt(np.repeat(scales, [5, 4]) / 2 / np.repeat([5, 4], [5, 4]))
    center, scale = result.target_scale.center, result.target_scale.scale
    y = (values - center) / scale
    errors = {}
    for entry in result.history:
        left_out = [
            Ridge(entry["penalty"])
            .fit(x[np.delete(fold.train, place)], y[np.delete(fold.train, place)])
            .predict(x[[row]])
            for place, row in enumerate(fold.train)
        ]
        errors[entry["penalty"]] = float(np.square(np.concatenate(left_out) - y[fold.train]).mean())
        assert entry["leave_one_out_loss"] == pytest.approx(errors[entry["penalty"]], rel=1e-6)
    best = min(errors, key=errors.get)
    assert result.history[result.best_epoch - 1]["penalty"] == best
    reference = Ridge(best).fit(x[fold.train], values[fold.train])
    np.testing.assert_allclose(found, reference.predict(x), rtol=1e-4)


def brute_left_out(kernel, targets, weights, penalty, groups):
    """Predictions of each row by the weighted fit to the rows of other groups, with an intercept without penalty."""
    found = np.zeros_like(targets)
    for row in range(len(targets)):
        rest = np.flatnonzero(groups != groups[row])
        p = weights[rest] / weights[rest].sum()
        center = kernel[np.ix_(rest, rest)]
        means = center @ p
        centred = center - means - means[:, None] + p @ means
        mean = p @ targets[rest]
        duals = np.linalg.solve(centred + penalty * np.diag(1 / weights[rest]), targets[rest] - mean)
        line = kernel[row, rest] - means - kernel[row, rest] @ p + p @ means
        found[row] = line @ duals + mean
    return found


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_weighted_rows_are_left_out_exactly(explicit, grouped):
    rng = np.random.default_rng(5)
    x, targets = rng.normal(size=(30, 6)), rng.normal(size=(30, 2))
    weights, groups = rng.random(30) + 0.2, np.arange(30)
    if grouped:
        groups = np.arange(30) // 4
    kernel = x @ x.T
    tensors = torch.from_numpy(x if explicit else kernel.copy()), torch.from_numpy(weights)
    spectrum = Spectrum.from_features(*tensors) if explicit else Spectrum.from_kernel(*tensors)
    given = torch.from_numpy(groups) if grouped else None
    left_out = spectrum.leave_one_out(torch.from_numpy(targets), [0.3, 4.0], given)
    for place, penalty in enumerate((0.3, 4.0)):
        wanted = brute_left_out(kernel, targets, weights, penalty, groups)
        np.testing.assert_allclose(left_out[place].numpy(), wanted, atol=1e-8)
        coefficients, bias = spectrum.coefficients(torch.from_numpy(targets), penalty)
        whole = (x if explicit else kernel) @ coefficients.numpy() + bias.numpy()
        reference = Ridge(penalty).fit(x, targets, sample_weight=weights)
        np.testing.assert_allclose(whole, reference.predict(x), atol=1e-8)


def test_a_weighted_kernel_ridge_regression_is_that_of_repeated_rows(features):
    weights = np.random.default_rng(3).integers(0, 3, N).astype(float)
    table = table_of(NUMBERS, features, weights=weights)
    found, result, fold = solve(table, KernelRidgeHeadSpec())
    assert len(result.weights["coefficients"]) == int((weights[fold.train] > 0).sum())
    twice = np.concatenate([fold.train[weights[fold.train] > 0], fold.train[weights[fold.train] == 2]])
    penalty = result.history[result.best_epoch - 1]["penalty"] * weights[fold.train].mean()
    gram = np.zeros((N, N))
    for name in ("a", "b"):
        x = fold.scaling[name].apply(features[name], np.ones(N, bool)).astype(np.float64)
        gamma, scale = (float(result.weights[f"support.of_{name}.{key}"]) for key in ("gamma", "scale"))
        gram += 0.5 * scale * np.exp(-gamma * np.square(x[:, None] - x[None]).sum(2))
    part = gram[np.ix_(twice, twice)]
    means = part.mean(1)
    y = table.targets.numpy()[twice].astype(np.float64)
    reference = KernelRidge(alpha=penalty, kernel="precomputed")
    reference.fit(part - means - means[:, None] + means.mean(), y - y.mean(0))
    lines = gram[:, twice] - gram[:, twice].mean(1, keepdims=True) - means + means.mean()
    np.testing.assert_allclose(found, reference.predict(lines) + y.mean(0), rtol=2e-4)


def test_kernel_ridge_on_votes_and_labels_is_calibrated_on_rows_left_out(features):
    votes, _, fold = solve(table_of(VOTES, features), KernelRidgeHeadSpec())
    np.testing.assert_allclose(votes.sum(axis=1), 1, atol=1e-6)
    table = table_of(LABELS, features)
    probs, result, _ = solve(table, KernelRidgeHeadSpec())
    labels = table.targets.numpy()
    for place in range(2):
        share = labels[fold.train, place].mean()
        assert log_loss(labels[fold.val, place], probs[fold.val, place].astype(float)) < log_loss(
            labels[fold.val, place], np.full(len(fold.val), share)
        )
    assert all(0 < entry["leave_one_out_loss"] < 1 for entry in result.history)
    assert {"val_loss", "val_map", "train_loss"} < set(result.history[0])


def test_a_label_that_no_training_row_has_gets_a_small_probability_from_every_exact_head(features):
    table = table_of(LABELS, features)
    values = table.targets.clone()
    values[:, 1] = 0
    values[0, 1] = 1  # a validation row
    for head in (LogisticHeadSpec(), AveragedLogisticHeadSpec(), KernelRidgeHeadSpec()):
        found, result, _ = solve(replace(table, targets=values), head)
        assert (found[:, 1] < 0.05).all()
        assert all(np.isfinite(array).all() for array in result.weights.values())


def test_sigmoids_are_platts():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(1, 200, 1)), (rng.random((200, 1)) < 0.3).astype(float)
    scores += labels * 1.5
    from sklearn.calibration import _sigmoid_calibration

    a, b = _sigmoid_calibration(scores[0, :, 0], labels[:, 0])
    slope, offset = fit_sigmoids(torch.from_numpy(scores), torch.from_numpy(labels))
    assert slope.item() == pytest.approx(-a, abs=1e-4)
    assert offset.item() == pytest.approx(-b, abs=1e-4)


def test_the_factor_of_weighted_rows_is_that_of_repeated_rows():
    rng = np.random.default_rng(0)
    scores, labels = torch.from_numpy(rng.normal(size=(2, 40, 3))), rng.integers(0, 3, 40)
    targets = torch.from_numpy(np.eye(3)[labels])
    scores += targets
    weights = torch.from_numpy(rng.integers(0, 3, 40))
    repeated = torch.repeat_interleave(torch.arange(40), weights)
    wanted = fit_temperatures(scores[:, repeated], targets[repeated])
    torch.testing.assert_close(fit_temperatures(scores, targets, weights), wanted)


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_weights_of_rows_and_of_classes_are_multiplied_in_logistic_regression(features, weights):
    sample = np.random.default_rng(4).integers(0, 3, N) / 2
    table = table_of(VOTES, features, weights=sample)
    table = replace(table, targets=None, target=ClassTarget())
    found, _, fold = solve(table, LogisticHeadSpec(penalties=(2.0,)), class_weights=weights)
    labels, rows = table.labels.numpy()[fold.train], sample[fold.train] / sample[fold.train].mean()
    if weights == "balanced":
        kept = np.bincount(labels[rows > 0], minlength=3)
        rows = rows * (kept.sum() / (3 * kept))[labels]
    x = scaled_features(table, fold)
    reference = LogisticRegression(C=0.5, tol=1e-12, max_iter=100_000).fit(x[fold.train], labels, rows)
    np.testing.assert_allclose(found, reference.predict_proba(x), atol=1e-6)
