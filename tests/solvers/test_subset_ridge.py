"""Ridge regression on every subset of streams equals scikit-learn's on the same standardised columns."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from emofuse.errors import TrainingError
from emofuse.solvers import subset_ridge
from emofuse.solvers.subset_ridge import SubsetRidge, SubsetRows

ROWS, FOLDS = 240, 3
DIMS = {"small": 3, "wide": 40, "middle": 9}
SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(DIMS, size)]
PENALTIES = (1e-5, 1e-3, 1.0)


def make_rows(seed=0, weights=False):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(ROWS, 4))
    there = {name: torch.from_numpy(rng.random(ROWS) < (0.7 if name == "middle" else 1.1)) for name in DIMS}
    features = {}
    for name, dim in DIMS.items():
        values = rng.normal(size=(ROWS, dim)) * rng.uniform(0.5, 2, dim) + rng.normal(size=dim)
        values = (values + targets @ rng.normal(size=(4, dim)) / 3).astype(np.float32)
        values[:, 0] = 2.5  # a constant
        values[~there[name].numpy()] = 0
        features[name] = torch.from_numpy(values)
    fold_of = torch.from_numpy(rng.integers(0, FOLDS, ROWS))
    return SubsetRows(
        read=lambda rows: {name: (features[name][rows], there[name][rows]) for name in DIMS},
        dims=DIMS,
        folds=[torch.nonzero(fold_of == fold).flatten() for fold in range(FOLDS)],
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(rng.uniform(0, 2, ROWS)) if weights else None,
    )


def by_sklearn(rows, subset, penalty, fold):
    """Answers for the rows of a fold by a Ridge on the other folds."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    train = torch.cat([own for index, own in enumerate(rows.folds) if index != fold])
    weights = None if rows.weights is None else rows.weights[train].numpy()
    columns = []
    for name in subset:
        values, there = (part.numpy() for part in rows.read(torch.arange(ROWS))[name])
        values, inside = values.astype(np.float64), there[train.numpy()]
        own = values[train.numpy()][inside]
        shares = None if weights is None else weights[inside]
        mean = np.average(own, axis=0, weights=shares)
        deviation = np.sqrt(np.average((own - mean) ** 2, axis=0, weights=shares))
        scaled = (values - mean) / np.where(deviation < 1e-6, np.inf, deviation) / np.sqrt(DIMS[name])
        columns.append(scaled * there[:, None])
    both = np.concatenate(columns, axis=1)
    total = len(train) if weights is None else weights.sum()
    model = linear_model.Ridge(alpha=penalty * total, solver="cholesky")
    model.fit(both[train.numpy()], rows.targets.numpy()[train.numpy()], sample_weight=weights)
    return model.predict(both[rows.folds[fold].numpy()])


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("weights", [False, True])
def test_every_subset_penalty_and_fold_answers_as_scikit_learn_does(monkeypatch, by_rows, weights):
    rows = make_rows(weights=weights)
    ridge = SubsetRidge(rows, SUBSETS, PENALTIES)
    monkeypatch.setattr(ridge, "_by_rows", lambda count: by_rows)
    for fold, fit in enumerate(ridge.fits()):
        answers = ridge.outputs(fit, rows.folds[fold])
        chosen = torch.arange(len(SUBSETS)) % len(PENALTIES)
        some = ridge.outputs(fit, rows.folds[fold], chosen)
        for number, subset in enumerate(SUBSETS):
            for place, penalty in enumerate(PENALTIES):
                expected = by_sklearn(rows, subset, penalty, fold)
                np.testing.assert_allclose(answers[:, number, place].numpy(), expected, atol=2e-4)
            torch.testing.assert_close(some[:, number, 0], answers[:, number, chosen[number]])


def test_subsets_that_are_no_prefix_of_each_other_are_solved_alone():
    rows = make_rows()
    everything = SubsetRidge(rows, SUBSETS, PENALTIES)
    some = [("small", "middle"), ("wide", "small")]
    few = SubsetRidge(rows, some, PENALTIES)
    for ridge in (everything, few):
        ridge._by_rows = lambda count: False
    for whole, part in zip(everything.fits(), few.fits(), strict=True):
        for place, subset in enumerate(some):
            same = next(number for number, each in enumerate(SUBSETS) if set(each) == set(subset))
            torch.testing.assert_close(part.weights[place], whole.weights[same])


def test_few_rows_are_solved_by_their_products_and_many_by_those_of_columns():
    ridge = SubsetRidge(make_rows(), SUBSETS, PENALTIES)
    assert ridge._by_rows(8)
    assert not ridge._by_rows(ROWS)


def test_columns_that_are_large_beside_their_deviation_keep_their_signal():
    """Products are rounded to float32, so what is read must be about standardised: a mean of 30 deviations still is."""
    rows = make_rows()
    read = rows.read
    far = SubsetRows(
        lambda places: {name: (x + 30 * v.unsqueeze(1), v) for name, (x, v) in read(places).items()},
        DIMS, rows.folds, rows.targets,
    )  # fmt: skip
    near_ridge, far_ridge = (SubsetRidge(each, SUBSETS, (1e-2,)) for each in (rows, far))
    for ridge in (near_ridge, far_ridge):
        ridge._by_rows = lambda count: False
    for fold, (near, away) in enumerate(zip(near_ridge.fits(), far_ridge.fits(), strict=True)):
        one, other = near_ridge.outputs(near, rows.folds[fold]), far_ridge.outputs(away, rows.folds[fold])
        assert (one - other).abs().max() < 2e-2


def test_many_rows_are_answered_part_by_part(monkeypatch):
    rows = make_rows()
    ridge = SubsetRidge(rows, SUBSETS, PENALTIES)
    fit = next(ridge.fits())
    whole = ridge.outputs(fit, torch.arange(ROWS))
    monkeypatch.setattr(subset_ridge, "ROWS_AT_ONCE", 50)
    torch.testing.assert_close(ridge.outputs(fit, torch.arange(ROWS)), whole, rtol=0, atol=1e-5)


def test_one_fold_is_refused():
    rows = make_rows()
    with pytest.raises(TrainingError, match="a fold is answered by a model of the other folds, and there is one"):
        SubsetRidge(SubsetRows(rows.read, DIMS, rows.folds[:1], rows.targets), SUBSETS, PENALTIES)
