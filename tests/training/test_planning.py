"""The plan: what trains together, in how much memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from emofuse.errors import TrainingError
from emofuse.heads import make_head
from emofuse.heads.lanes import Lane
from emofuse.specs import AttentionHeadSpec, ConcatHeadSpec, GatedHeadSpec, LateHeadSpec, LinearHeadSpec, TrainSpec
from emofuse.training.machine import Machine
from emofuse.training.members import Member
from emofuse.training.planning import Cost, Rates, free_memory_bytes, head_cost, measure_rates, plan_training

CPU = Machine(torch.device("cpu"))
DIMS = {"a": 20, "b": 30, "c": 40}
HEAD = ConcatHeadSpec(embed_dim=16, depth=1, width=16)
TRAIN = TrainSpec(epochs=10, batch_size=32)
RATES = Rates(flops_per_s=1e9, bytes_per_s=1e9)


def plan(members, memory_bytes=10**9, **changes):
    given = {"train_rows": 1000, "table_bytes": 360_000, "machine": CPU, "rates": RATES} | changes
    return plan_training(members, DIMS, 3, memory_bytes=memory_bytes, **given)


def members_of(count, **changes):
    return [Member(("a", "b", "c"), HEAD, TRAIN.model_copy(update={"seed": s} | changes)) for s in range(count)]


def test_members_are_grouped_by_shape_and_keep_their_order():
    wide = replace(members_of(1)[0], head=HEAD.model_copy(update={"width": 32}))
    first, second = members_of(2)
    planned = plan([first, wide, second, replace(second, streams=("b",), fold=4), replace(wide, streams=("a",))])
    assert [[wave.members for wave in waves] for waves in planned.groups.values()] == [[(0, 2, 3)], [(1, 4)]]


def test_waves_fit_the_memory_and_hold_every_member_once():
    members = members_of(23)
    of_six = plan(members[:6]).waves[0].memory_bytes
    planned = plan(members, memory_bytes=360_000 + of_six)
    assert [len(wave.members) for wave in planned.waves] == [6, 6, 6, 5]
    assert all(wave.memory_bytes + planned.table_bytes <= planned.memory_bytes for wave in planned.waves)
    assert [index for wave in planned.waves for index in wave.members] == list(range(23))


def test_a_member_that_does_not_fit_alone_is_refused():
    with pytest.raises(TrainingError, match=r"member 0 \(concat, a, b, c\) needs .* GB, the features 0.00036 GB"):
        plan(members_of(2), memory_bytes=400_000)


def test_the_plan_says_heads_waves_memory_and_time():
    text = str(plan([*members_of(3), replace(members_of(1)[0], head=LinearHeadSpec())]))
    first, second = text.splitlines()[1:3]
    assert first.startswith("1: concat embed_dim 16 depth 1 width 16, batch 32")
    assert second.startswith("2: linear, batch 32")
    assert text.splitlines()[-1].startswith(
        "4 heads in 2 groups and 2 waves, about 0 s; features take 0.00 GB of 1.00 GB"
    )


def test_time_grows_with_rows_heads_and_epochs():
    def seconds(count, **changes):
        return plan(members_of(count, **changes)).waves[0].seconds

    assert seconds(6) == pytest.approx(2 * seconds(3))
    assert seconds(3, epochs=40) == pytest.approx(4 * seconds(3))
    cost = head_cost(HEAD, tuple(DIMS.items()), 3, 32, CPU)
    assert seconds(1) == pytest.approx(10 * (1000 * cost.flops_per_row + 32 * cost.parameters * 28) / 1e9)


@pytest.mark.parametrize(
    "spec",
    [
        HEAD,
        LinearHeadSpec(),
        GatedHeadSpec(embed_dim=16, width=16),
        LateHeadSpec(embed_dim=16, width=16),
        AttentionHeadSpec(embed_dim=16, width=16),
    ],
    ids=lambda spec: spec.kind,
)
def test_parameters_and_flops_are_counted_for_every_head(spec):
    cost = head_cost(spec, tuple(DIMS.items()), 3, 32, CPU)
    head = make_head(spec, [Lane(tuple(DIMS))], DIMS, 3)
    assert cost.parameters == sum(tensor.numel() for tensor in head.parameters())
    assert cost.weight_bytes == 5 * 4 * cost.parameters
    assert cost.row_bytes > 0
    assert cost.flops_per_row > 0


def test_flops_of_a_probe_are_those_of_two_products():
    """Logits and the gradient of the weights: 2 x 2 x inputs x classes; no gradient of the features."""
    assert head_cost(LinearHeadSpec(), tuple(DIMS.items()), 3, 32, CPU).flops_per_row == 2 * 2 * 90 * 3


def test_operands_of_another_type_are_kept_beside_the_weights():
    items = tuple(DIMS.items())
    coarse = head_cost(HEAD, items, 3, 32, Machine(torch.device("cpu"), products=torch.bfloat16))
    exact: Cost = head_cost(HEAD, items, 3, 32, CPU)
    assert coarse.weight_bytes == exact.weight_bytes + 2 * exact.parameters


def test_this_machine_has_memory_and_a_speed():
    assert free_memory_bytes(torch.device("cpu")) > 10**6
    rates = measure_rates(CPU)
    assert rates.flops_per_s > 1e8
    assert rates.bytes_per_s > 1e7
