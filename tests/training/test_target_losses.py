"""Losses, links and weights of every target: every member of a group equals its own plain run in the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from sklearn.metrics import average_precision_score
from test_engine import EXACT, HEADS, SMALL, assert_equal, assert_same_run, make_folds, make_members, make_table

from emofuse.errors import TrainingError
from emofuse.specs import ClassTarget, DistributionTarget, MultilabelTarget, RegressionTarget
from emofuse.training.engine import train_group
from emofuse.training.validation_scores import average_precisions

COLUMNS = ("a", "b", "c", "d")
TARGETS = {
    "distribution": DistributionTarget(columns=COLUMNS),
    "distribution by kl": DistributionTarget(columns=COLUMNS, loss="kl"),
    "regression": RegressionTarget(columns=COLUMNS),
    "regression by ccc": RegressionTarget(columns=COLUMNS, loss="ccc"),
    "multilabel": MultilabelTarget(columns=COLUMNS),
    "class": ClassTarget(),
}
BEST = {"regression": "ccc", "multilabel": "map", "distribution": "macro_f1", "class": "accuracy"}


def table_of(target, *, weighted=True, rows=80):
    """Rows whose targets follow the features; the values of a column lie around 50."""
    table, rng = make_table(rows=rows), np.random.default_rng(7)
    hidden = np.eye(4)[table.labels.numpy()] * 2 + rng.normal(size=(rows, 4))
    values = {
        "distribution": np.exp(hidden) / np.exp(hidden).sum(1, keepdims=True),
        "regression": 50 + 10 * hidden,
        "multilabel": (hidden > 0.8).astype(float),
    }.get(target.kind)
    weights = rng.integers(0, 4, rows) / 2
    labels = table.labels
    if target.kind != "class":
        labels = torch.from_numpy(values.argmax(1) if target.kind == "distribution" else np.zeros(rows, np.int64))
    return replace(
        table,
        labels=labels,
        targets=None if values is None else torch.from_numpy(values.astype(np.float32)),
        weights=torch.from_numpy(weights.astype(np.float32)) if weighted else None,
        target=target,
    )


def members_of(target, head, **changes):
    """Members that differ in all that they may, without the options that the target cannot have."""
    members = make_members(head, **changes)
    if target.kind not in {"class", "distribution"}:
        members = [changed(member, label_smoothing=0.0) for member in members]
    scores = ("loss", BEST[target.kind])
    members = [changed(member, select=scores[place % 2]) for place, member in enumerate(members)]
    if target.kind != "regression":
        kinds = ("none", "balanced", "sqrt", "effective", "none", "balanced", "sqrt")
        members = [changed(member, class_weights=kind) for member, kind in zip(members, kinds, strict=True)]
    return members


def changed(member, **train):
    return replace(member, train=member.train.model_copy(update=train))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", ["concat", "linear", "gated", "late", "attention"])
def test_members_on_any_target_with_weighted_rows_equal_their_own_plain_runs(name, kind):
    target = TARGETS[name]
    table = table_of(target)
    folds, members = make_folds(table), members_of(target, HEADS[kind])
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        # Adam divides a gradient that is nearly 0 by itself, and makes a larger difference of its rounding.
        assert_same_run(result, oracle.train_alone(table, folds, member), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", TARGETS)
def test_mixed_rows_and_batches_in_which_a_fold_has_one_row_equal_the_plain_run(name):
    target = TARGETS[name]
    table = table_of(target, weighted=False)
    folds, members = make_folds(table, count=3), members_of(target, SMALL, batch_size=3)
    members = [changed(member, mixup=0.4 * (place % 2)) for place, member in enumerate(members)]
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["distribution", "regression by ccc", "multilabel"])
def test_a_member_alone_is_the_same_as_in_a_group(name):
    target = TARGETS[name]
    table = table_of(target)
    folds, members = make_folds(table), members_of(target, SMALL)
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_equal(train_group(table, folds, [member], EXACT)[0], result)


def test_weights_that_are_all_equal_change_no_bit_of_the_losses_of_classes():
    table = table_of(TARGETS["class"], weighted=False)
    folds, members = make_folds(table), members_of(TARGETS["class"], SMALL)
    plain = train_group(table, folds, members, EXACT)
    weighted = train_group(replace(table, weights=torch.full((len(table.labels),), 4.0)), folds, members, EXACT)
    for ours, theirs in zip(weighted, plain, strict=True):
        assert ours.history == theirs.history


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": None}, r"fold 0: a regression needs targets \(80, 4\), got None"),
        ({"targets": torch.zeros(80, 3)}, r"a regression needs targets \(80, 4\), got \(80, 3\)"),
        ({"targets": torch.full((80, 4), torch.nan)}, r"80 rows have no finite target, the first is row"),
        ({"weights": torch.full((80,), -1.0)}, r"training rows have no weight of at least 0, the first is row"),
        ({"weights": torch.zeros(80)}, r"training rows have weight 0: nothing to learn from"),
    ],
)
def test_rows_that_cannot_be_learned_are_refused(change, message):
    table = replace(table_of(TARGETS["regression"]), **change)
    with pytest.raises(TrainingError, match=message):
        train_group(table, make_folds(table), members_of(TARGETS["regression"], SMALL)[:1], EXACT)


def test_average_precision_is_scikit_learns_with_equal_probabilities_too():
    rng = np.random.default_rng(0)
    probs, true = rng.integers(0, 6, (50, 3)) / 5, rng.random((50, 3)) < 0.3
    found = average_precisions(torch.from_numpy(probs), torch.from_numpy(true))
    np.testing.assert_allclose(found.numpy(), average_precision_score(true, probs, average=None))
