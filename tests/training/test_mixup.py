"""Mixup: every member of a group equals its own plain run in the oracle, and no row that is not there is a partner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import scipy.stats
import torch
from test_engine import (
    EXACT,
    HEADS,
    SMALL,
    assert_equal,
    assert_same_run,
    make_fold,
    make_folds,
    make_members,
    make_table,
)

from emofuse.errors import TrainingError
from emofuse.heads.dropout import Noise
from emofuse.heads.members import HeadMember, Members
from emofuse.heads.mixing import RowMix
from emofuse.specs import ConcatHeadSpec, LateHeadSpec, TrainSpec
from emofuse.training.engine import train_group
from emofuse.training.members import Member
from emofuse.training.mixup import SHARES, Mixup, beta_quantiles

ALPHAS = (0.2, 1.0, 0.0, 0.4, 2.0, 8.0, 0.2)


def mixing_members(head, balancing="off", alphas=ALPHAS, **changes):
    return [
        replace(member, train=member.train.model_copy(update={"mixup": alpha}))
        for member, alpha in zip(make_members(head, balancing, **changes), alphas, strict=True)
    ]


@pytest.mark.parametrize("balancing", ["off", "on"])
@pytest.mark.parametrize("kind", HEADS)
def test_every_member_equals_its_own_plain_run(kind, balancing):
    table = make_table()
    folds, members = make_folds(table), mixing_members(HEADS[kind], balancing)
    # A late head of one stream has a weight without effect: Adam makes tiny steps from the rounding of its gradient.
    atol = 1e-9 if kind == "late" else 1e-12
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), atol=atol)


@pytest.mark.parametrize("stream_dropout", [0.5, 0.9])
@pytest.mark.parametrize("kind", ["concat", "linear", "late"])
def test_rows_that_lose_streams_are_mixed_with_what_stands_for_a_missing_stream(kind, stream_dropout):
    table = make_table(missing=0.5)
    folds, members = make_folds(table), mixing_members(HEADS[kind], stream_dropout=stream_dropout)
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), atol=1e-9)


def test_a_member_alone_is_the_same_as_in_a_mixed_group():
    table = make_table()
    folds, members = make_folds(table), mixing_members(SMALL)
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_equal(train_group(table, folds, [member], EXACT)[0], result)


@pytest.mark.parametrize("batch_size", [2, 1000])
def test_batches_of_one_row_of_a_fold_and_of_all_rows_equal_the_oracle(batch_size):
    table = make_table(rows=45)
    folds = make_folds(table, count=2)
    members = mixing_members(SMALL, batch_size=batch_size, epochs=2)
    members = [replace(member, fold=min(member.fold, 1)) for member in members]
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member), rtol=1e-8)


def test_members_without_mixup_have_the_same_bits_beside_members_with_it():
    table = make_table()
    folds, members = make_folds(table), make_members(SMALL)
    plain = train_group(table, folds, members, EXACT)
    beside = train_group(table, folds, mixing_members(SMALL, alphas=(0, 1.0, 0, 1.0, 0, 1.0, 0)), EXACT)
    for index, (ours, theirs) in enumerate(zip(beside, plain, strict=True)):
        same = all(np.array_equal(ours.weights[name], array) for name, array in theirs.weights.items())
        assert same is (index % 2 == 0)


def test_partners_are_all_rows_that_are_there_once_and_no_other():
    trains = [TrainSpec(mixup=1.0, seed=0), TrainSpec(mixup=1.0, seed=1), TrainSpec(), TrainSpec(mixup=0.2, seed=0)]
    mixup, noise = Mixup(trains, device=EXACT.device, dtype=EXACT.dtype), Noise(0, 50, EXACT.device)
    present = torch.arange(50) < torch.tensor([[50], [31], [31], [31]])
    drawn = []
    for step in range(3):
        noise.advance(step)
        mix = mixup.draw(present, noise)
        for partners, rows in zip(mix.partners, (50, 31, 31, 31), strict=True):
            assert sorted(partners[:rows].tolist()) == list(range(rows))
        assert mix.partners[2].tolist() == list(range(50))
        assert mix.shares[2] == 1
        assert not torch.equal(mix.partners[0, :31], mix.partners[1, :31])
        drawn.append((mix.partners[0].tolist(), mix.shares[0].item()))
        noise.advance(step)
        assert torch.equal(mixup.draw(present[:, :31], noise).partners[1], mix.partners[1, :31])
    assert len({share for _, share in drawn}) == len({tuple(partners) for partners, _ in drawn}) == 3


@pytest.mark.parametrize("alpha", [1e-12, 0.01, 0.2, 1.0, 8.0, 1e12])
def test_shares_have_the_distribution_of_the_paper(alpha):
    quantiles = beta_quantiles(alpha)
    assert len(quantiles) == SHARES
    assert np.isfinite(quantiles).all()
    assert quantiles.min() >= 0
    assert quantiles.max() <= 1
    assert quantiles.mean() == pytest.approx(0.5, abs=1e-6)
    assert quantiles.var() == pytest.approx(scipy.stats.beta(alpha, alpha).var(), rel=0.01)


def test_a_row_and_its_losses_are_mixed_with_its_partner():
    members = Members([HeadMember(("a", "b")), HeadMember(("b",)), HeadMember(("a",))])
    of_a = Members(members.group, "a")
    mix = RowMix(torch.tensor([[1, 0], [0, 1], [1, 0]]), torch.tensor([[0.75], [1.0], [0.5]]))
    values = torch.tensor([[[1.0], [5.0]], [[2.0], [4.0]]])
    assert mix.mixed(values, of_a).squeeze(2).tolist() == [[2.0, 4.0], [3.0, 3.0]]
    assert mix.mixed(torch.tensor([[[True], [False]]] * 2), of_a).squeeze(2).tolist() == [[0.75, 0.25], [0.5, 0.5]]
    losses = mix.loss(torch.tensor([4.0, 4.0, 4.0]), torch.tensor([8.0, 8.0, 8.0]))
    assert losses.tolist() == [5.0, 4.0, 6.0]


def test_a_stream_counts_in_late_fusion_by_the_share_of_the_mixture_that_has_it():
    table = make_table(dims={"a": 3, "b": 4}, missing=0.6, rows=60)
    fold = make_fold(table, np.arange(40), np.arange(40, 60))
    head = LateHeadSpec(embed_dim=6, depth=1, width=8)
    member = Member(("a", "b"), head, TrainSpec(mixup=2.0, epochs=6, learning_rate=0.05, batch_size=8))
    (result,) = train_group(table, [fold], [member], EXACT)
    assert_same_run(result, oracle.train_alone(table, [fold], member), atol=1e-9)


def test_heads_of_a_plugin_refuse_mixup():
    class Own(ConcatHeadSpec):
        module_class = ""

    member = Member(("type",), Own(embed_dim=4, depth=1, width=4), TrainSpec(mixup=0.5))
    table = make_table()
    with pytest.raises(TrainingError, match="mixup is for the heads of emofuse, a concat head would not know of it"):
        train_group(table, make_folds(table), [member], EXACT)
