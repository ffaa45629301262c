"""Options of the loss and of the updates: every member of a mixed group equals its own plain run in the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from test_engine import EXACT, HEADS, LBP, SMALL, assert_equal, assert_same_run, make_folds, make_members, make_table

from emofuse.errors import TrainingError
from emofuse.heads.dropout import Noise
from emofuse.heads.members import HeadBatch, Members
from emofuse.specs import ConcatHeadSpec, TrainSpec
from emofuse.training.engine import train_group
from emofuse.training.losses import MemberLosses, class_weights
from emofuse.training.machine import Machine
from emofuse.training.members import Member
from emofuse.training.schedule import rate_factor
from emofuse.training.stream_dropout import StreamDropout
from emofuse.training.targets import RowTargets

OPTIONS = [
    {"class_weights": "balanced", "schedule": "cosine", "clip_norm": 0.3, "stream_dropout": 0.4, "mixup": 0.2},
    {"focal_gamma": 2.0, "warmup": 0.3, "ema": 0.9, "mixup": 1.0},
    {"logit_adjustment": 1.0, "class_weights": "sqrt", "schedule": "cosine", "warmup": 0.25, "ema": 0.99, "mixup": 8.0},
    {"class_weights": "effective", "focal_gamma": 0.5, "clip_norm": 1.0, "stream_dropout": 0.7},
    {},
    {"logit_adjustment": 0.5, "ema": 0.5, "clip_norm": 0.01, "schedule": "cosine", "stream_dropout": 0.2},
    {"warmup": 1.0, "focal_gamma": 1.0, "class_weights": "balanced", "logit_adjustment": 2.0, "stream_dropout": 0.5},
]


def rare_table():
    """Four labels, the last of which few rows have."""
    table = make_table(rows=90)
    labels = table.labels.clone()
    labels[(labels == 3) & (torch.arange(90) % 4 > 0)] = 0
    return replace(table, labels=labels)


def mixed_members(head, balancing="off", **changes):
    members = make_members(head, balancing, **changes)
    return [
        replace(member, train=member.train.model_copy(update=options))
        for member, options in zip(members, OPTIONS, strict=True)
    ]


@pytest.mark.parametrize("balancing", ["off", "on"])
@pytest.mark.parametrize("kind", HEADS)
def test_members_of_a_mixed_group_equal_their_own_plain_runs(kind, balancing):
    table = rare_table()
    folds, members = make_folds(table), mixed_members(HEADS[kind], balancing)
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        # Of a late head with one stream, the weight has no effect: Adam makes steps from the rounding of its gradient.
        assert_same_run(result, oracle.train_alone(table, folds, member), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["concat", "attention"])
def test_a_member_with_options_alone_is_the_same_as_in_a_mixed_group(kind):
    table = rare_table()
    folds, members = make_folds(table), mixed_members(HEADS[kind])
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_equal(train_group(table, folds, [member], EXACT)[0], result)


def test_options_hold_where_members_leave_and_where_a_fold_has_no_row_in_a_step():
    table = rare_table()
    folds = make_folds(table, count=2)
    members = [replace(member, fold=min(member.fold, 1)) for member in mixed_members(SMALL, batch_size=2)]
    members = [
        replace(member, train=member.train.model_copy(update={"epochs": 1 + index % 4}))
        for index, member in enumerate(members)
    ]
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), rtol=1e-8)


def test_labels_of_validation_rows_and_of_rows_in_no_fold_weigh_no_class():
    table = rare_table()
    (fold, _, _) = make_folds(table)
    fold = replace(fold, val=fold.val[:5])
    members = [replace(member, fold=0) for member in mixed_members(SMALL, epochs=2)]
    poisoned = table.labels.clone()
    poisoned[np.setdiff1d(np.arange(90), fold.train)] = 3
    before, after = (train_group(each, [fold], members, EXACT) for each in (table, replace(table, labels=poisoned)))
    for ours, theirs in zip(before, after, strict=True):
        assert [e["train_loss"] for e in ours.history] == [e["train_loss"] for e in theirs.history]


def test_members_without_options_have_the_same_bits_beside_members_with_them():
    table = rare_table()
    folds, members = make_folds(table), make_members(SMALL)
    members = [replace(member, train=member.train.model_copy(update={"epochs": 5})) for member in members]
    plain = train_group(table, folds, members, EXACT)
    keep = {"learning_rate", "weight_decay", "optimizer"}
    options = {"class_weights": "balanced", "focal_gamma": 2.0, "logit_adjustment": 1.0, "clip_norm": 0.1, "ema": 0.9}
    beside = [
        replace(member, train=member.train.model_copy(update=options if index % 2 else {}))
        for index, member in enumerate(members)
    ]
    assert keep
    for index, (ours, theirs) in enumerate(zip(train_group(table, folds, beside, EXACT), plain, strict=True)):
        same = all(np.array_equal(ours.weights[name], array) for name, array in theirs.weights.items())
        assert same is (index % 2 == 0)


def test_class_weights_are_those_of_scikit_learn_and_of_the_papers():
    from sklearn.utils.class_weight import compute_class_weight

    counts = np.array([60, 30, 0, 9, 1])
    labels = np.repeat(np.arange(5), counts)
    has_rows = counts > 0
    wanted = compute_class_weight("balanced", classes=np.flatnonzero(has_rows), y=labels)
    np.testing.assert_allclose(class_weights("balanced", counts)[has_rows], wanted)
    for kind, ratio in (("none", 1), ("sqrt", 60**0.5), ("effective", (1 - 0.999**60) / (1 - 0.999))):
        weights = class_weights(kind, counts)
        assert weights[4] / weights[0] == pytest.approx(ratio)
        assert np.average(weights, weights=counts) == pytest.approx(1)


def test_a_focal_loss_of_a_row_that_is_certain_has_a_finite_gradient():
    train = TrainSpec(focal_gamma=0.5)
    losses = MemberLosses([train], np.array([[1, 1]]), device=torch.device("cpu"), dtype=torch.float32)
    logits = torch.tensor([[[200.0, -200.0], [0.0, 0.0]]], requires_grad=True)
    losses.of_rows(logits, RowTargets(torch.tensor([[0, 0]]))).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_a_rate_rises_in_the_warmup_and_falls_as_half_a_cosine():
    train = TrainSpec(epochs=4, warmup=0.25, schedule="cosine")
    factors = [rate_factor(train, step, 10) for step in range(40)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert factors[10:] == pytest.approx((1 + np.cos(np.pi * np.arange(30) / 30)) / 2)
    constant = TrainSpec(epochs=4)
    assert [rate_factor(constant, step, 10) for step in range(40)] == [1.0] * 40


def test_options_with_their_defaults_are_in_no_digest():
    assert not {"ema", "schedule", "class_weights"} & TrainSpec().model_dump(mode="json").keys()
    assert TrainSpec(ema=0.9).model_dump(mode="json")["ema"] == 0.9
    assert TrainSpec.model_validate(TrainSpec(ema=0.9).model_dump()) == TrainSpec(ema=0.9)
    assert LBP


def test_no_row_loses_all_its_streams_and_each_is_lost_as_often_as_asked():
    member = Member(("a", "b"), SMALL, TrainSpec(stream_dropout=0.5))
    alone = Member(("a",), SMALL, TrainSpec(stream_dropout=0.5, seed=1))
    group = [member, alone]
    dropout = StreamDropout(group, Members([each.head_member() for each in group]), ("a", "b"), EXACT.device)
    noise = Noise(0, 4000, EXACT.device)
    noise.advance(0)
    valid = {name: torch.ones(1, 4000, dtype=torch.bool) for name in ("a", "b")}
    valid["b"][0, :1000] = False
    batch = dropout.apply(HeadBatch({}, valid), noise)
    (a, of_alone), (b,) = batch.seen["a"], batch.seen["b"]
    assert of_alone.all()
    assert (a | b).all()
    assert a[:1000].all()
    assert not b[:1000].any()
    lost = 0.25 + 0.5 * 0.25  # the other drew more than half, or both less and the other more
    assert [float((~seen[1000:]).double().mean()) for seen in (a, b)] == pytest.approx([lost, lost], abs=0.03)
    assert dropout.active.tolist() == [True, False]


def test_heads_of_a_plugin_refuse_stream_dropout():
    class Own(ConcatHeadSpec):
        module_class = ""

    member = Member(("type",), Own(embed_dim=4, depth=1, width=4), TrainSpec(stream_dropout=0.5))
    table = make_table()
    with pytest.raises(TrainingError, match="stream_dropout is for the heads of emofuse, a concat head would not know"):
        train_group(table, make_folds(table), [member], EXACT)


@pytest.mark.parametrize("balancing", ["off", "on"])
def test_each_member_has_its_own_optimizer_also_beside_others(balancing):
    table = rare_table()
    folds, members = make_folds(table), make_members(SMALL, balancing)
    options = [
        {"optimizer": "rmsprop", "schedule": "cosine", "warmup": 0.2},
        {"optimizer": "sgd"},
        {"optimizer": "rmsprop"},
        {"optimizer": "sgd", "weight_decay": 0.1, "schedule": "cosine"},
        {"optimizer": "adamw"},
        {"optimizer": "rmsprop", "weight_decay": 0.1},
        {"optimizer": "sgd", "clip_norm": 0.3},
    ]
    members = [
        replace(member, train=member.train.model_copy(update=of_member))
        for member, of_member in zip(members, options, strict=True)
    ]
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), rtol=1e-8, atol=1e-9)
    assert_equal(train_group(table, folds, [members[0]], EXACT)[0], train_group(table, folds, members, EXACT)[0])


@pytest.mark.parametrize(
    ("device", "asked", "products"),
    [
        ("cpu", None, "float32"),
        ("cpu", "bfloat16", "bfloat16"),
        ("cuda", None, "bfloat16"),
        ("cuda", "float32", "float32"),
    ],
)
def test_the_type_of_products_is_that_of_the_device_unless_the_environment_names_another(
    monkeypatch, device, asked, products
):
    monkeypatch.delenv("EMOFUSE_PRODUCTS", raising=False)
    if asked:
        monkeypatch.setenv("EMOFUSE_PRODUCTS", asked)
    assert Machine.of(torch.device(device)).products_name == products


def test_a_type_of_products_that_there_is_not_is_named(monkeypatch):
    monkeypatch.setenv("EMOFUSE_PRODUCTS", "bfloat")
    with pytest.raises(
        TrainingError, match=r"EMOFUSE_PRODUCTS=bfloat: must be float32 or bfloat16, did you mean 'bfloat16'\?"
    ):
        Machine.of(torch.device("cpu"))
