"""Multinomial logistic regression with an L2 penalty, solved to convergence for a whole path of penalties at once.

The objective is that of scikit-learn's `LogisticRegression` with penalty = 1 / C: the weighted sum of the
cross-entropies plus penalty / 2 times the squared norm of the weights. The intercepts are not penalised.

The features are first rotated onto the eigenvectors of their Gram matrix. This changes neither the penalty nor the
predictions. In this basis the Hessian is nearly diagonal, so conjugate gradients with a diagonal preconditioner solve
each Newton step in a few products, and there are never more unknowns than rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emofuse.errors import TrainingError

_NEWTON_STEPS = 100
_GRADIENT_STEPS = 200
_ENOUGH = 1e-17
"""A problem has converged when its Newton decrement is below this number times the sum of the row weights.

The decrement is quadratic in the error, so the probabilities are then exact to about 1e-8."""


@dataclass(frozen=True)
class LogisticPath:
    """The logistic regressions of a path of L penalties.

    Attributes:
        weights: the coefficients, float64 (L, D, C).
        bias: the intercepts, float64 (L, C), with mean 0 over the classes.
        steps: the number of Newton steps until all of them converged.
    """

    weights: Tensor
    bias: Tensor
    steps: int

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits, float64 (L, n, C), of features (n, D)."""
        return features.to(self.weights.dtype) @ self.weights + self.bias.unsqueeze(1)


def solve_logistic(
    features: Tensor, targets: Tensor, penalties: Sequence[float], *, row_weights: Tensor | None = None
) -> LogisticPath:
    """Solve one problem for each penalty on the same rows.

    Args:
        features: the standardised features, floating point (n, D).
        targets: the targets, floating point (n, C); each row is a distribution over the classes (one-hot for labels).
        penalties: the L penalties, each above 0.
        row_weights: the weights of the rows, (n,), none negative; all 1 by default.

    Returns:
        The regressions, in the order of the penalties.

    Raises:
        TrainingError: a penalty is not above 0, or Newton's method did not converge (it does for finite features).
    """
    return _solve(_rotated(features.to(torch.float64)), targets, penalties, row_weights)


def _solve(
    rotated: tuple[Tensor, Tensor], targets: Tensor, penalties: Sequence[float], row_weights: Tensor | None
) -> LogisticPath:
    if not penalties or min(penalties) <= 0:
        raise TrainingError(f"penalties of a logistic regression must be above 0, got {list(penalties)}")
    basis, rotation = rotated
    problem = _Problem(
        torch.cat([basis, basis.new_ones(len(basis), 1)], dim=1),
        targets.to(torch.float64),
        basis.new_ones(len(basis)) if row_weights is None else row_weights.to(torch.float64),
    )
    solution, steps = _newton(problem, basis.new_tensor(list(penalties)))
    bias = solution[:, -1]
    return LogisticPath(rotation @ solution[:, :-1], bias - bias.mean(dim=1, keepdim=True), steps)


def solve_binary(
    features: Tensor, labels: Tensor, penalties: Sequence[float], *, row_weights: Tensor | None = None
) -> LogisticPath:
    """Solve a binary logistic regression for each of several labels, at each penalty, on the same rows.

    Each of them is that of scikit-learn's `LogisticRegression` with two classes. A label that all rows have, or none,
    gets no coefficients and the intercept of a share of half a row.

    Args:
        features: the standardised features, floating point (n, D).
        labels: 0 or 1, floating point (n, C).
        penalties: the L penalties, each above 0.
        row_weights: the weights of the rows for each label, (n, C), none negative; all 1 by default.

    Returns:
        The regressions, in the order of the penalties; the sigmoid of their logits are probabilities.

    Raises:
        TrainingError: see `solve_logistic`.
    """
    rotated = _rotated(features.to(torch.float64))
    paths = []
    for place, labels_of_rows in enumerate(labels.to(torch.float64).T):
        weights = None if row_weights is None else row_weights[:, place]
        total = float(labels_of_rows.sum())
        if 0 < total < len(labels_of_rows):
            pair = torch.stack([1 - labels_of_rows, labels_of_rows], dim=1)
            # Two softmax weights -w/2 and w/2 have half the squared norm of the one weight w of a binary regression.
            paths.append(_solve(rotated, pair, [2 * penalty for penalty in penalties], weights))
        else:
            logit = math.log((total + 0.5) / (len(labels_of_rows) - total + 0.5))
            empty = features.new_zeros(len(penalties), features.shape[1], 2, dtype=torch.float64)
            bias = empty.new_tensor([0.0, logit]).expand(len(penalties), 2)
            paths.append(LogisticPath(empty, bias, 0))
    return LogisticPath(
        torch.stack([path.weights[..., 1] - path.weights[..., 0] for path in paths], dim=2),
        torch.stack([path.bias[:, 1] - path.bias[:, 0] for path in paths], dim=1),
        max(path.steps for path in paths),
    )


@dataclass(frozen=True)
class _Problem:
    """The rows with a column of ones (n, R), their targets (n, C) and their weights (n,)."""

    rows: Tensor
    targets: Tensor
    weights: Tensor

    def loss(self, theta: Tensor, penalties: Tensor) -> Tensor:
        """Return the objectives (L,) at theta (L, R, C)."""
        log_probs = torch.log_softmax(self.rows @ theta, dim=2)
        fit = -(self.weights.unsqueeze(1) * self.targets * log_probs).sum(dim=(1, 2))
        return fit + 0.5 * penalties * theta[:, :-1].square().sum(dim=(1, 2))

    def curvature(self, probs: Tensor, direction: Tensor, penalty_of: Tensor) -> Tensor:
        """Return the Hessians at probabilities (L, n, C) times the directions (L, R, C)."""
        change = probs * (self.rows @ direction)
        change = change - probs * change.sum(dim=2, keepdim=True)
        return self.rows.T @ (self.weights.unsqueeze(1) * change) + penalty_of * direction


def _rotated(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows (n, r) in the eigenbasis of their Gram matrix, and the rotation (D, r) back.

    It holds that features = rows rotation^T.
    """
    count, dim = features.shape
    narrow = dim <= count
    values, vectors = torch.linalg.eigh(features.T @ features if narrow else features @ features.T)
    kept = values > values.max().clamp(min=0) * max(count, dim) * torch.finfo(values.dtype).eps
    values, vectors = values[kept], vectors[:, kept]
    if narrow:
        return features @ vectors, vectors
    length = values.sqrt()
    return vectors * length, features.T @ (vectors / length)


def _newton(problem: _Problem, penalties: Tensor) -> tuple[Tensor, int]:
    """Return theta (L, R, C) at which the gradients vanish, and the number of steps. Solved problems are left out."""
    rows, targets, weights = problem.rows, problem.targets, problem.weights
    theta = rows.new_zeros(len(penalties), rows.shape[1], targets.shape[1])
    active = torch.arange(len(penalties), device=rows.device)
    enough = _ENOUGH * float(weights.sum())
    squared = rows.square().T
    for step in range(_NEWTON_STEPS):
        current, penalty = theta[active], penalties[active]
        penalty_of = penalty[:, None, None].expand(-1, rows.shape[1], 1).clone()
        penalty_of[:, -1] = 0
        probs = torch.softmax(rows @ current, dim=2)
        gradient = rows.T @ (weights.unsqueeze(1) * (probs - targets)) + penalty_of * current
        diagonal = squared @ (weights.unsqueeze(1) * probs * (1 - probs)) + penalty_of
        diagonal = diagonal.clamp(min=torch.finfo(diagonal.dtype).tiny)
        direction = _conjugate_gradients(problem, probs, -gradient, penalty_of, diagonal)
        decrement = -(gradient * direction).sum(dim=(1, 2))
        going = decrement > enough
        if not bool(going.any()):
            return theta, step
        active, current, direction = active[going], current[going], direction[going]
        theta[active] = _descend(problem, current, direction, decrement[going], penalty[going])
    raise TrainingError(
        f"logistic regression did not converge in {_NEWTON_STEPS} Newton steps. Check that the features are finite and "
        "standardised"
    )


def _conjugate_gradients(
    problem: _Problem, probs: Tensor, wanted: Tensor, penalty_of: Tensor, diagonal: Tensor
) -> Tensor:
    """Return the Newton directions (L, R, C), to a precision that grows as the gradients vanish."""
    solution = torch.zeros_like(wanted)
    residual = _centred(wanted)
    scaled = _centred(residual / diagonal)
    direction = scaled.clone()
    product = (residual * scaled).sum(dim=(1, 2), keepdim=True)
    goal = product * torch.clamp((product / problem.weights.sum()).sqrt(), min=1e-12, max=0.01)
    tiny = torch.finfo(wanted.dtype).tiny
    active, part = torch.arange(len(wanted), device=wanted.device), torch.zeros_like(wanted)
    for _ in range(_GRADIENT_STEPS):
        going = (product > goal).flatten()
        if not bool(going.all()):  # a strong penalty is solved in a few steps, a weak one in many
            solution[active] = part
            active = active[going]
            if not len(active):
                return solution
            part, residual, direction, product, goal = (
                each[going] for each in (part, residual, direction, product, goal)
            )
            probs, penalty_of, diagonal = (each[going] for each in (probs, penalty_of, diagonal))
        bent = problem.curvature(probs, direction, penalty_of)
        curved = (direction * bent).sum(dim=(1, 2), keepdim=True)
        is_curved = curved > tiny
        length = torch.where(is_curved, product / curved.clamp(min=tiny), 0.0)
        part.addcmul_(length, direction)
        residual.addcmul_(length, _centred(bent), value=-1)
        scaled = _centred(residual / diagonal)
        following = (residual * scaled).sum(dim=(1, 2), keepdim=True)
        direction = torch.where(is_curved, scaled + following / product.clamp(min=tiny) * direction, direction)
        product = torch.where(is_curved, following, 0.0)
    solution[active] = part
    return solution


def _centred(values: Tensor) -> Tensor:
    """Return values (L, R, C) minus their mean over the classes.

    A part that is common to all classes changes no probability. The objective does not depend on the common part of the
    intercepts, so only rounding would determine it.
    """
    return values - values.mean(dim=2, keepdim=True)


def _descend(problem: _Problem, theta: Tensor, direction: Tensor, decrement: Tensor, penalties: Tensor) -> Tensor:
    """Return the next points. Each problem halves its step until its objective decreases enough.

    Near the solution the decrease is smaller than the rounding of the objective. There the whole step is taken, which
    converges.
    """
    before = problem.loss(theta, penalties)
    near = decrement <= 1e-8 * (before.abs() + problem.weights.sum() * 1e-6)
    length = torch.ones_like(before)
    for _ in range(60):
        after = problem.loss(theta + length[:, None, None] * direction, penalties)
        enough = near | (after <= before - 1e-4 * length * decrement)
        if bool(enough.all()):
            break
        length = torch.where(enough, length, length / 2)
    return theta + length[:, None, None] * direction
