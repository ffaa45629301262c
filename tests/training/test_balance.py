"""`train.balance`: training rows drawn so that classes are even, and no row of validation or test among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from test_engine import EXACT, HEADS, SMALL, assert_equal, assert_same_run, make_folds, make_members
from test_options import rare_table
from test_streaming import BLOCK, Reader

from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_views
from emofuse.cache.writer import write_block
from emofuse.errors import IncompleteCacheError, TrainingError
from emofuse.specs import RunSpec, SweepSpec, TrainSpec, parse_spec
from emofuse.sweep.configurations import StreamType, expand
from emofuse.training.batches import Order
from emofuse.training.data import TrainingData
from emofuse.training.engine import train_group
from emofuse.training.planning import plan_runs
from emofuse.training.row_draws import BalancedDraws, RowSet
from emofuse.training.runs import train_runs
from emofuse.training.streaming import Resident, Window

VIEWS = 3
RUN = {"name": "a", "features": {"streams": ["x"]}, "head": {"kind": "linear"}}


def table_with_views(rows=90):
    """A table with rare labels, whose augmented views differ from the pictures and lack the streams elsewhere."""
    table = rare_table()
    rng = np.random.default_rng(5)
    features = {
        name: torch.cat([x, *(x + torch.from_numpy(rng.normal(size=x.shape).astype(np.float32)) for _ in range(2))])
        for name, x in table.features.items()
    }
    valid = {name: torch.from_numpy(rng.random(VIEWS * rows) > 0.2) for name in features}
    for name, there in valid.items():
        there[:rows] = table.valid[name]
        features[name][~there] = torch.nan
    return replace(table, features=features, valid=valid, views=VIEWS)


def balanced_members(head, kinds, **changes):
    members = make_members(head, **changes)
    kinds = (kinds * len(members))[: len(members)]
    return [
        replace(member, train=member.train.model_copy(update={"balance": kind, "views": changes.get("views", 1)}))
        for member, kind in zip(members, kinds, strict=True)
    ]


# --------------------------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("balance", ["sampling", "views"])
def test_an_epoch_has_as_many_rows_as_before_and_as_many_of_each_class(balance):
    labels = torch.tensor([0] * 60 + [1] * 25 + [2] * 4 + [3] * 11 + [0] * 20)
    rows = torch.arange(100)
    draws = BalancedDraws(balance, rows, labels, VIEWS, torch.Generator().manual_seed(0))
    further = set()
    for _ in range(20):
        drawn = draws.of_epoch()
        assert len(drawn) == 100
        assert (drawn % 120 < 100).all()  # no row that does not train
        counts = torch.bincount(labels[drawn % 120], minlength=4)
        assert counts.tolist() == [25] * 4
        further.add(tuple(drawn.tolist()))
    assert len(further) == 20
    odd = BalancedDraws(balance, rows[:98], labels, VIEWS, torch.Generator().manual_seed(0))
    epochs = torch.stack([torch.bincount(labels[odd.of_epoch() % 120], minlength=4) for _ in range(40)])
    assert epochs.sum(1).tolist() == [98] * 40
    assert set(epochs.flatten().tolist()) == {24, 25}
    assert (epochs == 25).any(0).all()  # the rest goes to other classes in other epochs


def test_views_show_frequent_classes_once_and_as_they_are_and_rare_ones_in_further_views():
    labels = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)
    draws = BalancedDraws("views", torch.arange(100), labels, 4, torch.Generator().manual_seed(0))
    drawn = draws.of_epoch()
    views, rows = drawn // 100, drawn % 100
    frequent = labels[rows] == 0
    assert not views[frequent].any()
    assert len(set(rows[frequent].tolist())) == int(frequent.sum())
    for label, count in ((1, 20), (2, 10)):
        of_label = labels[rows] == label
        assert sorted(rows[of_label & (views == 0)].tolist()) == torch.nonzero(labels == label).flatten().tolist()
        augmented = drawn[of_label & (views > 0)].tolist()
        assert len(set(augmented)) == len(augmented) >= 33 - count  # no view twice while there are others


def test_views_begin_again_where_a_class_has_too_few():
    labels = torch.tensor([0] * 39 + [1])
    drawn = BalancedDraws("views", torch.arange(40), labels, 3, torch.Generator().manual_seed(0)).of_epoch()
    of_rare = drawn[labels[drawn % 40] == 1] // 40
    assert torch.bincount(of_rare).tolist() in ([1, 10, 9], [1, 9, 10])


def test_sampling_draws_with_replacement_and_every_row_in_the_end():
    labels = torch.tensor([0] * 50 + [1] * 10)
    draws = BalancedDraws("sampling", torch.arange(60), labels, 1, torch.Generator().manual_seed(0))
    counts = torch.stack([torch.bincount(draws.of_epoch(), minlength=60) for _ in range(200)]).float()
    assert (counts[:, :50] > 1).any()
    assert counts[:, :50].mean(0).numpy() == pytest.approx(np.full(50, 0.6), abs=0.25)
    assert counts[:, 50:].mean(0).numpy() == pytest.approx(np.full(10, 3.0), abs=0.5)


# ------------------------------------------------------------------------------------------ members, alone and not


@pytest.mark.parametrize("kind", ["concat", "attention", "late"])
def test_members_of_a_group_with_and_without_balance_equal_their_own_plain_runs(kind):
    table = rare_table()
    folds, members = make_folds(table), balanced_members(HEADS[kind], ["sampling", "none"])
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), rtol=1e-8, atol=1e-9)


def test_members_that_draw_from_views_equal_their_own_plain_runs():
    table = table_with_views()
    folds = make_folds(rare_table())
    members = balanced_members(SMALL, ["views", "sampling"], views=VIEWS)
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), rtol=1e-8, atol=1e-9)


def test_a_balanced_member_alone_is_the_same_as_in_a_mixed_group():
    table, folds = table_with_views(), make_folds(rare_table())
    members = balanced_members(SMALL, ["views", "sampling", "none"], views=VIEWS)
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_equal(train_group(table, folds, [member], EXACT)[0], result)


def test_members_of_several_balances_may_leave_and_others_go_on():
    table, folds = rare_table(), make_folds(rare_table(), count=2)
    members = [replace(member, fold=min(member.fold, 1)) for member in balanced_members(SMALL, ["none", "sampling"])]
    members = [
        replace(member, train=member.train.model_copy(update={"epochs": 1 + index % 4}))
        for index, member in enumerate(members)
    ]
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), rtol=1e-8)


@pytest.mark.parametrize("balance", ["sampling", "views"])
def test_rows_of_validation_and_test_are_never_drawn(balance):
    table = table_with_views()
    rows = np.random.default_rng(0).permutation(90)
    (fold, *_) = make_folds(rare_table())
    fold = replace(fold, train=np.sort(rows[:50]), val=np.sort(rows[50:70]))
    members = [replace(m, fold=0) for m in balanced_members(SMALL, [balance], views=VIEWS, epochs=3)]
    plain = train_group(table, [fold], members, EXACT)
    poisoned = {name: x.clone() for name, x in table.features.items()}
    labels = table.labels.clone()
    for x in poisoned.values():
        x.view(VIEWS, 90, -1)[:, rows[70:]] = torch.nan  # test rows, in every view
        x.view(VIEWS, 90, -1)[1:, rows[50:70]] = torch.nan  # augmented views of validation rows
    labels[rows[70:]] = -1
    valid = {name: there | ~torch.isin(torch.arange(3 * 90) % 90, torch.tensor(rows[:50])) for name, there in
             table.valid.items()}  # fmt: skip
    for name, there in valid.items():
        there[rows[50:70]] = table.valid[name][rows[50:70]]
    after = train_group(replace(table, features=poisoned, labels=labels, valid=valid), [fold], members, EXACT)
    for ours, theirs in zip(after, plain, strict=True):
        assert ours.history == theirs.history


# -------------------------------------------------------------------------------------------------------- streaming


def streamed_table():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.choice(3, size=103, p=[0.7, 0.2, 0.1]))
    features = {s: torch.from_numpy(rng.normal(size=(103, d)).astype(np.float32)) for s, d in {"a": 4, "b": 6}.items()}
    table = replace(rare_table(), features=features, labels=labels, classes=3)
    return replace(table, valid={name: torch.ones(103, dtype=torch.bool) for name in features})


def test_sampling_from_blocks_is_sampling_from_tensors_and_even():
    table, window = streamed_table(), Window(BLOCK, 4)
    folds = make_folds(table)
    train = {"epochs": 3, "batch_size": 8, "balance": "sampling"}
    members = [
        replace(member, streams=("a", "b"), train=TrainSpec(**train, seed=index))
        for index, member in enumerate(make_members(SMALL)[:3])
    ]
    resident = train_group(table, folds, members, EXACT, window=window)
    blocks = replace(table, features=Reader(table.features).blocks())
    for ours, theirs in zip(train_group(blocks, folds, members, EXACT, window=window), resident, strict=True):
        assert ours.history == theirs.history
    order = Order(
        folds[:1], [RowSet(0, "sampling")], count=103, batch_size=8, seed=0, window=window, fixed_width=False,
        labels=table.labels,
    )  # fmt: skip
    steps = list(order.epoch(Resident(table.features, ("a",), EXACT.device), EXACT.device))
    rows = torch.cat([step.rows[0][step.present[0]] for step in steps])
    counts = torch.bincount(table.labels[rows])
    assert len(rows) == len(folds[0].train)
    assert counts.max() - counts.min() <= 1
    assert torch.isin(rows, torch.from_numpy(folds[0].train)).all()


def test_streamed_members_of_several_balances_are_planned_apart():
    table = streamed_table()
    members = [replace(m, streams=("a",), fold=0) for m in balanced_members(SMALL, ["none", "sampling"])]
    with pytest.raises(TrainingError, match=r"streamed must share `train\.balance`; plan them first"):
        train_group(table, make_folds(table), members, EXACT, window=Window(BLOCK, 4))


# --------------------------------------------------------------------------------------------------- runs and sweeps


@pytest.fixture
def cache(tmp_path, write_cache):
    rng = np.random.default_rng(3)
    labels = rng.choice(3, size=90, p=[0.7, 0.2, 0.1])
    x = (rng.normal(size=(90, 5)) + np.eye(3, 5)[labels] * 3).astype(np.float32)
    splits = ["train", "train", "val", "train", "test"] * 18
    path = write_cache(
        tmp_path / "c.zarr", ["a", "b", "c"], labels, splits, {"x": ("backbone", x, np.ones(90, np.uint8))}
    )
    ones, zeros = np.ones(90, np.uint8), np.zeros(90, np.uint8)
    add_views(path, "x", 2, {"seed": 0})
    write_block(path, "x", 0, features=x + 0.1, status=ones, flags=zeros, view=1)
    return open_cache(path)


@pytest.mark.parametrize(
    "changes",
    [{}, {"fold": {"count": 3}}, {"refit": "train_val"}, {"ensemble": {"folds": 3}}, {"ensemble": {"seeds": [0, 1]}}],
)
@pytest.mark.parametrize("train", [{"balance": "sampling"}, {"balance": "views", "views": 2}])
def test_runs_with_folds_refits_and_ensembles_balance_their_rows(tmp_path, cache, changes, train):
    options = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2}
    specs = [
        parse_spec(RunSpec, {**RUN, **changes, "name": name, "train": options | more}, "test")
        for name, more in (("plain", {}), ("balanced", train))
    ]
    (plain, _), (balanced, _) = train_runs(cache, specs, tmp_path / "runs", device="cpu")
    assert plain.digest != balanced.digest
    assert plain.history[0]["train_loss"] != balanced.history[0]["train_loss"]


def test_balance_is_in_the_digest_only_where_it_is_given():
    assert "balance" not in TrainSpec().model_dump(mode="json")
    assert TrainSpec(balance="sampling").model_dump(mode="json")["balance"] == "sampling"


def test_balance_is_a_factor_of_sweeps_whose_heads_train_in_one_group(cache):
    spec = parse_spec(
        SweepSpec,
        {
            "name": "s",
            "base": {"head": {"kind": "linear"}, "train": {"epochs": 2}},
            "factors": {"balance": ["none", "sampling"], "class_weights": ["none", "balanced"]},
        },
        "test",
    )
    configurations = expand(spec, {"x": StreamType("backbone")})
    names = [each.name for each in configurations]
    assert names == ["balance=none, class_weights=none", "balance=none, class_weights=balanced", "balance=sampling"]
    runs = [each.run for each in configurations]
    assert len(plan_runs(TrainingData.of_run(cache, runs[0]), runs, machine=EXACT).groups) == 1


# ----------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": {"balance": "views"}},
            r"train: balance: views draws .*`views` is 1\. .*`views: 5`, or take balance",
        ),
        (
            {"train": {"balance": "sampling", "class_weights": "balanced"}},
            r"train: balance: sampling makes the classes .* even, and class_weights would correct .* Give either",
        ),
        (
            {"train": {"balance": "sampling", "logit_adjustment": 1.0}},
            r"and logit_adjustment would correct for them a second time",
        ),
        ({"train": {"balance": "weights"}}, r"weights of classes are an option of their own: class_weights: balanced"),
        (
            {"train": {"balance": "sampling"}, "target": {"kind": "regression", "columns": ["v"]}},
            r"train\.balance: is for targets of kind class, distribution, and the target is a regression\. Leave",
        ),
        (
            {"train": {"balance": "sampling"}, "target": {"kind": "multilabel", "columns": ["v", "w"]}},
            r"train\.balance: is for targets of kind class, distribution, and the target is several labels",
        ),
        (
            {"train": {"balance": "sampling"}, "head": {"kind": "logistic"}},
            r"train\.balance: .* a logistic head is solved on all rows at once\. Weight the rows by class_weights: bal",
        ),
        (
            {"train": {"balance": "sampling"}, "head": {"kind": "kernel_ridge"}},
            r"train\.balance: .* a kernel_ridge head is solved on all rows at once\. Leave it out",
        ),
    ],
)
def test_what_contradicts_balance_is_one_clear_error(changes, message):
    from emofuse.errors import SpecError

    with pytest.raises(SpecError, match=message):
        parse_spec(RunSpec, {**RUN, **changes}, "test")


def test_a_cache_without_the_views_is_named(tmp_path, cache):
    spec = parse_spec(RunSpec, {**RUN, "train": {"balance": "views", "views": 5}}, "test")
    with pytest.raises(IncompleteCacheError, match=r"'x' has 2 of 5 views of each sample\. Build the cache with"):
        train_runs(cache, [spec], tmp_path / "runs", device="cpu")
