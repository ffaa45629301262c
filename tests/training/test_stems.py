"""Every head on sequences and maps: each member of a group equals its own run in the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from test_engine import EXACT, assert_same_run

from emofuse.scaling import Scaling
from emofuse.specs import (
    AttentionHeadSpec,
    ConcatHeadSpec,
    GatedHeadSpec,
    LateHeadSpec,
    LinearHeadSpec,
    TrainSpec,
)
from emofuse.training.engine import train_group
from emofuse.training.members import FeatureTable, Fold, Member

STEPS, ROWS, CLASSES = 4, 40, 3
SHAPES = {"voice": (STEPS, 3), "face": (2, 5, 4), "film": (STEPS, 2, 4, 4), "text": (5,)}
STEMS = [
    ("mean", "mean"),
    ("max", "attention"),
    ("mean_std", "patches"),
    ("attention", "cnn"),
    ("lstm", "patches"),
    ("gru", "attention"),
    ("transformer", "cnn"),
]
ROUNDING = {"rtol": 1e-6, "atol": 1e-7}
"""A bias before a softmax or a batch norm has a gradient of rounding errors alone, which Adam divides by 1e-8."""
SIZES = {"stem_width": 8, "patch_kernels": (1, 3)}
HEADS = {
    "concat": (ConcatHeadSpec, {"embed_dim": 5, "depth": 1, "width": 6}),
    "linear": (LinearHeadSpec, {}),
    "gated": (GatedHeadSpec, {"embed_dim": 5, "gate_dim": 3, "depth": 1, "width": 6}),
    "late": (LateHeadSpec, {"embed_dim": 5, "depth": 1, "width": 6}),
    "attention": (AttentionHeadSpec, {"embed_dim": 6, "attention_heads": 2, "width": 8}),
}


@pytest.fixture(scope="module")
def table():
    """Rows lack streams, sequences lack steps; one row has no step at all. What is not there is NaN."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, ROWS)
    features, valid, steps = {}, {}, {}
    for stream, shape in SHAPES.items():
        x = 1 + 2 * rng.normal(size=(ROWS, *shape)) + rng.normal(size=(CLASSES, *shape))[labels]
        features[stream] = torch.from_numpy(x.astype(np.float32))
        valid[stream] = torch.from_numpy(rng.random(ROWS) >= 0.2)
        if len(shape) in {2, 4}:
            steps[stream] = torch.from_numpy(rng.random((ROWS, STEPS)) >= 0.3)
            steps[stream][0], valid[stream][0] = False, True
            features[stream][~steps[stream]] = torch.nan
        features[stream][~valid[stream]] = torch.nan
    return FeatureTable(features, valid, torch.from_numpy(labels), CLASSES, steps=steps)


@pytest.fixture(scope="module")
def folds(table):
    part = np.random.default_rng(1).integers(0, 2, ROWS)
    made = []
    for fold in range(2):
        train = np.flatnonzero(part != fold)
        scaling = {}
        for stream, x in table.features.items():
            steps = table.steps[stream].numpy() if stream in table.steps else None
            scaling[stream] = Scaling.fit(x.numpy(), train[table.valid[stream][train].numpy()], steps=steps)
        made.append(Fold(train, np.flatnonzero(part == fold), scaling))
    return made


def members_of(head, balancing):
    """Members with other streams, folds, seeds and dropout."""

    def member(streams, fold, dropout, seed):
        own = head.model_copy(update={"dropout": dropout}) if "dropout" in type(head).model_fields else head
        train = TrainSpec(
            epochs=2, batch_size=12, seed=seed, learning_rate=1e-2, select="loss", gradient_balancing=balancing
        )
        return Member(streams, own, train, fold)

    return [
        member(("voice", "face", "film", "text"), 0, 0.3, 0),
        member(("film",), 1, 0.0, 1),
        member(("text", "voice"), 1, 0.2, 0),
        member(("face", "text"), 0, 0.0, 2),
    ]


@pytest.mark.parametrize(("temporal", "spatial"), STEMS)
@pytest.mark.parametrize("kind", HEADS)
def test_every_member_with_stems_equals_its_own_plain_run_alone_and_in_a_group(table, folds, kind, temporal, spatial):
    make, sizes = HEADS[kind]
    head = make(temporal=temporal, spatial=spatial, **SIZES, **sizes)
    members = members_of(head, "on" if kind in {"concat", "attention"} else "off")
    together = train_group(table, folds, members, EXACT)
    assert any(".stem." in name for name in together[0].weights) == ((temporal, spatial) != STEMS[0])
    for member, result in zip(members, together, strict=True):
        expected = oracle.train_alone(table, folds, member)
        assert_same_run(result, expected, **ROUNDING)
        assert_same_run(train_group(table, folds, [member], EXACT)[0], expected, **ROUNDING)


@pytest.mark.parametrize("kind", HEADS)
def test_stream_dropout_and_mixup_of_sequences_and_maps_are_those_of_its_own_plain_run_for_each_member(
    table, folds, kind
):
    make, sizes = HEADS[kind]
    head = make(temporal="lstm", spatial="mean", **SIZES, **sizes)
    members = [
        replace(member, train=member.train.model_copy(update={"stream_dropout": share, "mixup": alpha}))
        for member, share, alpha in zip(
            members_of(head, "off"), (0.5, 0.5, 0.0, 0.3), (0.0, 0.4, 1.0, 0.2), strict=True
        )
    ]
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), **ROUNDING)


@pytest.mark.parametrize("kind", ["concat", "linear"])
@pytest.mark.parametrize(("temporal", "spatial"), [("lstm", "cnn"), ("transformer", "patches"), ("mean", "mean")])
def test_dropout_of_stems_is_that_of_its_own_plain_run_for_each_member(table, folds, kind, temporal, spatial):
    make, sizes = HEADS[kind]
    head = make(temporal=temporal, spatial=spatial, **SIZES, **sizes)
    members = [
        replace(member, head=member.head.model_copy(update={"stem_dropout": share}))
        for member, share in zip(members_of(head, "off"), (0.25, 0.5, 0.0, 0.1), strict=True)
    ]
    results = train_group(table, folds, members, EXACT)
    for member, result in zip(members, results, strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), **ROUNDING)
    without = train_group(table, folds, members_of(head, "off"), EXACT)
    same = [one.history == other.history for one, other in zip(results, without, strict=True)]
    assert same == ([True] * 4 if temporal == "mean" else [False, False, True, False])


def test_dropout_of_stems_is_in_the_digest_only_where_it_is_given():
    assert "stem_dropout" not in ConcatHeadSpec().model_dump(mode="json")
    assert ConcatHeadSpec(stem_dropout=0.25).model_dump(mode="json")["stem_dropout"] == 0.25


@pytest.mark.parametrize(("kind", "temporal"), [("concat", "mean"), ("linear", "lstm"), ("late", "transformer")])
def test_batch_norm_of_a_cnn_is_that_of_its_own_plain_run_for_each_member(table, folds, kind, temporal):
    make, sizes = HEADS[kind]
    head = make(temporal=temporal, spatial="cnn", stem_norm="batch", **SIZES, **sizes)
    members = members_of(head, "off")
    members[0] = replace(members[0], train=members[0].train.model_copy(update={"ema": 0.9, "stream_dropout": 0.3}))
    results = train_group(table, folds, members, EXACT)
    assert any(name.endswith("norms.0.running_mean") for name in results[0].weights)
    for member, result in zip(members, results, strict=True):
        expected = oracle.train_alone(table, folds, member)
        assert_same_run(result, expected, **ROUNDING)
        assert_same_run(train_group(table, folds, [member], EXACT)[0], expected, **ROUNDING)
