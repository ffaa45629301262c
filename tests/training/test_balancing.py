"""Gradient balancing: the scale of an update against its definition."""

from __future__ import annotations

import pytest
import torch

from emofuse.heads import make_head
from emofuse.heads.members import HeadMember
from emofuse.specs import LinearHeadSpec, TrainSpec
from emofuse.training.balancing import BranchBalance

MEMBERS = [HeadMember(("a", "b")), HeadMember(("b",)), HeadMember(("a", "b"))]


def make_balance(mode="on"):
    head = make_head(LinearHeadSpec(), MEMBERS, {"a": 2, "b": 3}, 4).double()
    trains = [TrainSpec(learning_rate=rate, gradient_balancing=mode) for rate in (0.1, 0.2, 0.3)]
    return head, BranchBalance(head, ("a", "b"), trains)


def gradients_of_norm(head, a, b):
    """Gradients whose L2 norms are `a` in the members that have stream a, `b` in those that have b."""
    gradients = {name: torch.zeros_like(tensor) for name, tensor in head.named_parameters()}
    gradients["embeddings.of_a.linear.weight"][:, 0, 0] = 0.6 * torch.tensor(a, dtype=torch.float64)
    gradients["embeddings.of_a.missing"][:, 1] = 0.8 * torch.tensor(a, dtype=torch.float64)
    gradients["embeddings.of_b.linear.weight"][:, 1, 2] = torch.tensor(b, dtype=torch.float64)
    gradients["bias.weight"][:] = 100.0  # belongs to no branch
    return gradients


def test_the_learning_rate_of_a_branch_is_scaled_by_the_mean_norm_over_its_own():
    head, balance = make_balance()
    balance.observe(gradients_of_norm(head, [3, 1], [1, 5, 1]), torch.tensor([True] * 3))
    rates = balance.rates
    assert rates[0].tolist() == pytest.approx([0.1 * 2 / 3, 0.1 * 2])
    assert rates[1, 1].item() == pytest.approx(0.2)  # one branch alone
    assert rates[2].tolist() == pytest.approx([0.3, 0.3])


def test_norms_are_smoothed_over_steps_and_members_without_rows_stand_still():
    head, balance = make_balance()
    balance.observe(gradients_of_norm(head, [1, 1], [1, 1, 1]), torch.tensor([True, True, False]))
    balance.observe(gradients_of_norm(head, [11, 8], [1, 1, 2]), torch.tensor([True, True, True]))
    assert balance.rates[0].tolist() == pytest.approx([0.1 * 1.5 / 2, 0.1 * 1.5])  # 0.9 x 1 + 0.1 x 11 = 2
    assert balance.rates[2].tolist() == pytest.approx([0.3 * 5 / 8, 0.3 * 5 / 2])  # its first step
    means = balance.epoch_means()
    assert means[0]["branch_norms"] == pytest.approx({"a": 6, "b": 1})
    assert means[1]["branch_norms"] == pytest.approx({"b": 1})
    assert means[2]["branch_norms"] == pytest.approx({"a": 8, "b": 2})
    assert means[2]["branch_scales"] == pytest.approx({"a": 5 / 8, "b": 5 / 2})


def test_scales_stay_within_a_quarter_and_four_and_a_branch_without_gradient_keeps_its_rate():
    head, balance = make_balance()
    balance.observe(gradients_of_norm(head, [1000, 0], [1, 1, 1]), torch.tensor([True] * 3))
    assert balance.rates[0].tolist() == pytest.approx([0.1 * 500.5 / 1000, 0.1 * 4])
    assert balance.rates[2].tolist() == pytest.approx([0.3, 0.3 / 2])


def test_monitoring_changes_no_rate():
    head, balance = make_balance("monitor")
    balance.observe(gradients_of_norm(head, [3, 1], [1, 5, 1]), torch.tensor([True] * 3))
    assert balance.rates is None
    assert balance.epoch_means()[0] == {
        "branch_norms": pytest.approx({"a": 3, "b": 1}),
        "branch_scales": {"a": 1.0, "b": 1.0},
    }
