"""Masked batch norm against torch's own on the valid rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from emofuse.heads.lanes import Lane, Lanes
from emofuse.heads.norm import MaskedBatchNorm

LANES, DIM = 3, 4


def make_pair():
    """A masked norm of three lanes and torch's own three with the same, not trivial, parameters."""
    masked = MaskedBatchNorm(Lanes([Lane(("a",))] * LANES), DIM).double()
    plain = [nn.BatchNorm1d(DIM).double() for _ in range(LANES)]
    with torch.no_grad():
        for lane, norm in enumerate(plain):
            norm.weight.copy_(torch.linspace(0.5, 2, DIM) + lane)
            norm.bias.copy_(torch.linspace(-1, 1, DIM) * (lane + 1))
            masked.weight[lane], masked.bias[lane] = norm.weight, norm.bias
    return masked, plain


def random_rows(rows, share_missing, seed):
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(LANES, rows, generator=generator) >= share_missing
    values = torch.randn(LANES, rows, DIM, generator=generator, dtype=torch.float64) * 3 + 5
    upstream = torch.randn(LANES, rows, DIM, generator=generator, dtype=torch.float64)
    return values * valid.unsqueeze(2), valid, upstream


@pytest.mark.parametrize("share_missing", [0.0, 0.5, 0.9])
def test_every_lane_equals_torch_on_its_valid_rows(share_missing):
    masked, plain = make_pair()
    missing = torch.randn(LANES, DIM, dtype=torch.float64, requires_grad=True)
    for step in range(4):
        values, valid, upstream = random_rows(40, share_missing, step)
        valid[:, :2] = True
        values.requires_grad_()
        out = masked(values, valid, missing)
        (grad,) = torch.autograd.grad((out * upstream).sum(), values, retain_graph=True)
        grads = torch.autograd.grad((out * upstream).sum(), [masked.weight, masked.bias, missing])
        for lane, norm in enumerate(plain):
            keep = valid[lane]
            rows = values[lane, keep].detach().requires_grad_()
            expected = norm(rows)
            inputs = [rows, norm.weight, norm.bias]
            theirs = torch.autograd.grad((expected * upstream[lane, keep]).sum(), inputs)
            torch.testing.assert_close(out[lane, keep], expected)
            assert torch.equal(out[lane, ~keep], missing[lane].expand(int((~keep).sum()), -1))
            torch.testing.assert_close(grad[lane, keep], theirs[0])
            assert not grad[lane, ~keep].any()
            torch.testing.assert_close(grads[0][lane], theirs[1])
            torch.testing.assert_close(grads[1][lane], theirs[2])
            torch.testing.assert_close(grads[2][lane], upstream[lane, ~keep].sum(0))
            torch.testing.assert_close(masked.running_mean[lane], norm.running_mean)
            torch.testing.assert_close(masked.running_var[lane], norm.running_var)
    masked.eval()
    out = masked(values, valid, missing)
    for lane, norm in enumerate(plain):
        torch.testing.assert_close(out[lane, valid[lane]], norm.eval()(values[lane, valid[lane]]))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_valid_rows_use_the_running_statistics_and_leave_them(count):
    masked, plain = make_pair()
    missing = torch.zeros(LANES, DIM, dtype=torch.float64)
    values, valid, _ = random_rows(8, 0.0, 0)
    masked(values, valid, missing)
    for lane, norm in enumerate(plain):
        norm(values[lane])
    mean, var = masked.running_mean.clone(), masked.running_var.clone()
    valid = (torch.arange(8) < count).expand(LANES, -1)
    values = (values * valid.unsqueeze(2)).requires_grad_()
    out = masked(values, valid, missing)
    out.square().sum().backward()
    for lane, norm in enumerate(plain):
        rows = values.detach()[lane, valid[lane]].requires_grad_()
        expected = norm.eval()(rows)
        expected.square().sum().backward()
        torch.testing.assert_close(out[lane, valid[lane]], expected)
        torch.testing.assert_close(values.grad[lane, valid[lane]], rows.grad)
    assert torch.equal(masked.running_mean, mean)
    assert torch.equal(masked.running_var, var)
    assert torch.isfinite(masked.weight.grad).all()
