"""Logistic regression: scikit-learn's solution, for every penalty, weights of rows and soft targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from emofuse.errors import TrainingError
from emofuse.solvers.logistic import solve_logistic

PENALTIES = [1e-3, 0.1, 10.0, 1e4]


def rows_of(count: int, dim: int, classes: int) -> tuple[torch.Tensor, np.ndarray]:
    features, labels = make_classification(
        count, dim, n_informative=min(10, dim // 2), n_redundant=0, n_classes=classes, flip_y=0.2, random_state=0
    )
    return torch.tensor((features - features.mean(0)) / features.std(0)), labels


def one_hot(labels: np.ndarray) -> torch.Tensor:
    return torch.eye(int(labels.max()) + 1, dtype=torch.float64)[torch.tensor(labels)]


@pytest.mark.parametrize(("count", "dim", "classes"), [(300, 40, 3), (120, 300, 5), (200, 20, 2)])
def test_probabilities_are_those_of_scikit_learn(count, dim, classes):
    features, labels = rows_of(count, dim, classes)
    path = solve_logistic(features, one_hot(labels), PENALTIES)
    for penalty, logits in zip(PENALTIES, path.logits(features), strict=True):
        # Of two classes scikit-learn penalises one vector of weights; the pair +-w/2 has half its square.
        strength = (2 if classes == 2 else 1) / penalty
        reference = LogisticRegression(C=strength, tol=1e-12, max_iter=100_000).fit(features, labels)
        probs = torch.softmax(logits, dim=1).numpy()
        assert np.abs(probs - reference.predict_proba(features)).max() < 1e-6


def test_the_gradient_vanishes_at_the_solution():
    features, labels = rows_of(150, 30, 4)
    targets = one_hot(labels)
    path = solve_logistic(features, targets, PENALTIES)
    for index, penalty in enumerate(PENALTIES):
        weights = path.weights[index].clone().requires_grad_()
        bias = path.bias[index].clone().requires_grad_()
        log_probs = torch.log_softmax(features @ weights + bias, dim=1)
        (-(targets * log_probs).sum() + penalty / 2 * weights.square().sum()).backward()
        assert weights.grad.abs().max() < 1e-5
        assert bias.grad.abs().max() < 1e-5


def test_row_weights_count_a_row_as_often_as_they_say():
    features, labels = rows_of(80, 10, 3)
    weights = torch.tensor(np.random.default_rng(0).integers(0, 4, 80))
    weighted = solve_logistic(features, one_hot(labels), PENALTIES, row_weights=weights)
    repeated = solve_logistic(
        features.repeat_interleave(weights, 0), one_hot(labels).repeat_interleave(weights, 0), PENALTIES
    )
    assert torch.allclose(weighted.logits(features), repeated.logits(features), atol=1e-5)


def test_votes_as_targets_equal_rows_of_every_vote():
    features, _ = rows_of(60, 8, 3)
    votes = torch.tensor(np.random.default_rng(1).integers(1, 4, (60, 3)))
    shares = votes / votes.sum(1, keepdim=True)
    path = solve_logistic(features, shares, PENALTIES, row_weights=votes.sum(1))
    every = solve_logistic(
        features.repeat_interleave(votes.sum(1), 0),
        torch.eye(3).repeat(60, 1).repeat_interleave(votes.flatten(), 0),
        PENALTIES,
    )
    assert torch.allclose(path.logits(features), every.logits(features), atol=1e-5)


def test_the_same_problem_gives_the_same_bits():
    features, labels = rows_of(100, 200, 4)
    first, second = (solve_logistic(features, one_hot(labels), PENALTIES) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(first.bias, second.bias)


def test_features_that_say_nothing_give_the_shares_of_the_classes():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    path = solve_logistic(torch.zeros(10, 4), one_hot(labels), [1.0])
    probs = torch.softmax(path.logits(torch.zeros(1, 4))[0, 0], dim=0)
    assert torch.allclose(probs, torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64), atol=1e-7)


@pytest.mark.parametrize("penalties", [[], [0.0], [1.0, -1.0]])
def test_a_penalty_that_is_not_above_zero_is_refused(penalties):
    with pytest.raises(TrainingError, match="penalties of a logistic regression must be above 0, got"):
        solve_logistic(torch.zeros(4, 2), torch.eye(2).repeat(2, 1), penalties)
