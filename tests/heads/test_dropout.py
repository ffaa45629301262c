"""Dropout: the right share of zeros, and the same for a member whoever trains beside it."""

from __future__ import annotations

import pytest
import torch

from emofuse.heads.dropout import OFFSETS, Dropout, Noise, noise_offset
from emofuse.heads.members import HeadMember, Members

CPU = torch.device("cpu")


def drop(members, *, step=3, rows=32, width=20, place="hidden.0", order_seed=5, largest=40):
    dropout = Dropout(Members([HeadMember(("a",), seed=seed, dropout=share) for seed, share in members]), [place])
    noise = Noise(order_seed, largest, CPU)
    noise.advance(step)
    return dropout(torch.ones(len(members), rows, width), noise)


def test_each_member_loses_its_own_share_and_the_rest_is_scaled_up():
    out = drop([(0, 0.0), (1, 0.25), (2, 0.9)], rows=400, width=50, largest=400)
    assert torch.equal(out[0], torch.ones(400, 50))
    for member, share in ((1, 0.25), (2, 0.9)):
        assert (out[member] == 0).float().mean().item() == pytest.approx(share, abs=0.02)
        assert out[member].max().item() == pytest.approx(1 / (1 - share))


def test_a_member_has_the_same_zeros_alone_among_others_and_in_a_smaller_batch():
    alone = drop([(7, 0.5)])
    assert torch.equal(drop([(1, 0.3), (7, 0.5), (2, 0.5)])[1], alone[0])
    assert torch.equal(drop([(7, 0.5)], rows=9)[0], alone[0, :9])


def test_zeros_differ_between_seeds_steps_places_and_orders():
    first = drop([(7, 0.5)])
    changes = ({"step": 4}, {"place": "hidden.1"}, {"order_seed": 6})
    for other in (drop([(8, 0.5)]), *(drop([(7, 0.5)], **change) for change in changes)):
        assert 0.3 < ((first == 0) == (other == 0)).float().mean().item() < 0.7
    assert torch.equal(first, drop([(7, 0.5)]))


def test_a_larger_share_zeroes_more_of_the_same():
    low, high = drop([(7, 0.2)]), drop([(7, 0.6)])
    assert (high[low == 0] == 0).all()


def test_tokens_have_places_of_their_own():
    members = Members([HeadMember(("a",), seed=7, dropout=0.5)])
    noise = Noise(5, 40, CPU)
    noise.advance(3)
    both = Dropout(members, ["x", "hidden.0"])(torch.ones(1, 32, 40), noise)
    assert torch.equal(both[:, :, 20:], drop([(7, 0.5)]))


def test_without_noise_or_without_any_share_values_pass_untouched():
    members = Members([HeadMember(("a",), dropout=0.5)])
    values = torch.randn(1, 4, 6)
    assert Dropout(members, ["x"])(values, None) is values
    assert Dropout(Members([HeadMember(("a",))]), ["x"])(values, Noise(0, 4, CPU)) is values


def test_noise_keeps_its_memory_from_step_to_step():
    noise = Noise(0, 4, CPU)
    values = noise.values("x", 3)
    before = values.clone()
    noise.advance(1)
    assert noise.values("x", 3) is values
    assert len(values) == 4 * 3 + OFFSETS
    assert not torch.equal(values, before)
    assert all(0 <= noise_offset(seed) < OFFSETS for seed in range(50))
