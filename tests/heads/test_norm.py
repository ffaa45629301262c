"""The arithmetic of masked batch norm against torch's own on the valid rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from emofuse.heads.members import HeadMember, Members
from emofuse.heads.norm import (
    MaskedBatchNorm,
    NormState,
    RowMask,
    move_running_statistics,
    normalise,
    normalise_back,
)

MEMBERS, DIM = 3, 4


def make_pair():
    """A masked norm of three members and torch's own three with the same, not trivial, parameters."""
    masked = MaskedBatchNorm(Members([HeadMember(("a",))] * MEMBERS), DIM).double()
    plain = [nn.BatchNorm1d(DIM).double() for _ in range(MEMBERS)]
    with torch.no_grad():
        for member, norm in enumerate(plain):
            norm.weight.copy_(torch.linspace(0.5, 2, DIM) + member)
            norm.bias.copy_(torch.linspace(-1, 1, DIM) * (member + 1))
            masked.weight[member], masked.bias[member] = norm.weight, norm.bias
    return masked, plain


def random_rows(rows, share_missing, seed):
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(MEMBERS, rows, generator=generator) >= share_missing
    values = torch.randn(MEMBERS, rows, DIM, generator=generator, dtype=torch.float64) * 3 + 5
    upstream = torch.randn(MEMBERS, rows, DIM, generator=generator, dtype=torch.float64)
    return values * valid.unsqueeze(2), valid, upstream


@torch.no_grad()
def there_and_back(masked, values, valid, missing, upstream, training=True):
    """y; derivatives of x, weight, bias and missing. Moves the running statistics."""
    mask = RowMask.of(valid, torch.arange(MEMBERS), torch.float64)
    running = masked.running_mean.clone(), masked.running_var.clone()
    state = NormState(masked.weight, masked.bias, missing, *running)
    out, of_values, values = torch.empty_like(values), torch.empty_like(values), values.clone()
    normed = normalise(values, mask, state, out, training=training)
    if training:
        move_running_statistics([masked], normed, mask, state)
    others = normalise_back(upstream, values, mask, masked.weight, normed.rstd, out=of_values, training=training)
    return out, of_values, *others


@pytest.mark.parametrize("share_missing", [0.0, 0.5, 0.9])
def test_every_member_equals_torch_on_its_valid_rows(share_missing):
    masked, plain = make_pair()
    missing = torch.randn(MEMBERS, DIM, dtype=torch.float64)
    for step in range(4):
        values, valid, upstream = random_rows(40, share_missing, step)
        valid[:, :2] = True
        out, of_values, of_weight, of_bias, of_missing = there_and_back(masked, values, valid, missing, upstream)
        for member, norm in enumerate(plain):
            keep = valid[member]
            rows = values[member, keep].requires_grad_()
            expected = norm(rows)
            inputs = [rows, norm.weight, norm.bias]
            theirs = torch.autograd.grad((expected * upstream[member, keep]).sum(), inputs)
            torch.testing.assert_close(out[member, keep], expected)
            assert torch.equal(out[member, ~keep], missing[member].expand(int((~keep).sum()), -1))
            torch.testing.assert_close(of_values[member, keep], theirs[0])
            torch.testing.assert_close(of_weight[member], theirs[1])
            torch.testing.assert_close(of_bias[member], theirs[2])
            torch.testing.assert_close(of_missing[member], upstream[member, ~keep].sum(0))
            torch.testing.assert_close(masked.running_mean[member], norm.running_mean)
            torch.testing.assert_close(masked.running_var[member], norm.running_var)


def test_evaluation_normalises_by_the_running_statistics():
    masked, plain = make_pair()
    missing = torch.zeros(MEMBERS, DIM, dtype=torch.float64)
    there_and_back(masked, *random_rows(40, 0.0, 0)[:2], missing, random_rows(40, 0.0, 0)[2])
    for member, norm in enumerate(plain):
        norm(random_rows(40, 0.0, 0)[0][member])
        norm.eval()
    before = masked.running_mean.clone(), masked.running_var.clone()
    values, valid, upstream = random_rows(10, 0.4, 1)
    out, of_values, of_weight, _, _ = there_and_back(masked, values, valid, missing, upstream, training=False)
    for member, norm in enumerate(plain):
        rows = values[member, valid[member]].requires_grad_()
        expected = norm(rows)
        theirs = torch.autograd.grad((expected * upstream[member, valid[member]]).sum(), [rows, norm.weight])
        torch.testing.assert_close(out[member, valid[member]], expected)
        torch.testing.assert_close(of_values[member, valid[member]], theirs[0])
        torch.testing.assert_close(of_weight[member], theirs[1])
    assert torch.equal(masked.running_mean, before[0])
    assert torch.equal(masked.running_var, before[1])


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_valid_rows_use_the_running_statistics_and_leave_them(count):
    masked, plain = make_pair()
    missing = torch.zeros(MEMBERS, DIM, dtype=torch.float64)
    values, valid, upstream = random_rows(8, 0.0, 0)
    there_and_back(masked, values, valid, missing, upstream)
    for member, norm in enumerate(plain):
        norm(values[member])
    mean, var = masked.running_mean.clone(), masked.running_var.clone()
    valid = (torch.arange(8) < count).expand(MEMBERS, -1)
    values = values * valid.unsqueeze(2)
    out, of_values, *others = there_and_back(masked, values, valid, missing, upstream)
    for member, norm in enumerate(plain):
        rows = values[member, valid[member]].requires_grad_()
        expected = norm.eval()(rows)
        torch.testing.assert_close(out[member, valid[member]], expected)
        if count:
            (theirs,) = torch.autograd.grad((expected * upstream[member, valid[member]]).sum(), rows)
            torch.testing.assert_close(of_values[member, valid[member]], theirs)
    assert torch.equal(masked.running_mean, mean)
    assert torch.equal(masked.running_var, var)
    assert all(other.isfinite().all() for other in others)


def test_a_mask_knows_when_every_row_is_valid():
    valid = torch.ones(2, 5, dtype=torch.bool)
    assert RowMask.of(valid, torch.tensor([0, 1, 1]), torch.float32).whole
    valid[1, 3] = False
    mask = RowMask.of(valid, torch.tensor([0, 1, 1]), torch.float32)
    assert not mask.whole
    assert mask.keep.sum(2).flatten().tolist() == [5, 4, 4]
    torch.testing.assert_close(mask.share, torch.tensor([[1 / 5], [1 / 4], [1 / 4]]))
    torch.testing.assert_close(mask.unbiased, torch.tensor([[5 / 4], [4 / 3], [4 / 3]]))
