"""The plan: what trains together, in how much memory, in about what time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from emofuse.cache.reader import open_cache
from emofuse.errors import TrainingError
from emofuse.heads import make_head
from emofuse.heads.members import HeadMember
from emofuse.scaling import Scaling, feature_axis
from emofuse.specs import (
    AttentionHeadSpec,
    ConcatHeadSpec,
    FeaturesSpec,
    FoldSpec,
    GatedHeadSpec,
    LateHeadSpec,
    LinearHeadSpec,
    OfficialSplit,
    RunSpec,
    TrainSpec,
)
from emofuse.training.costs import TrainingCost, group_operations, head_cost, without_dropout
from emofuse.training.data import FEATURES_SHARE, TrainingData
from emofuse.training.engine import TrainingGroup
from emofuse.training.halving import Halving
from emofuse.training.machine import Machine, default_memory_bytes
from emofuse.training.members import FeatureTable, Fold, Member
from emofuse.training.planning import HEADS_CPU, LONGEST_ALONE, LONGEST_S, plan_runs
from emofuse.training.rates import Rates, measure_rates, nominal_rates
from emofuse.training.shared_rows import SharedRows

CPU = Machine(torch.device("cpu"))
CUDA = Machine(torch.device("cuda", 0), products=torch.bfloat16)
DIMS = {"a": 20, "b": 30, "c": 40}
ROWS = 100
HEAD = ConcatHeadSpec(embed_dim=16, depth=1, width=16)
TRAIN = TrainSpec(epochs=10, batch_size=32)
RATES = Rates(flops_per_s=1e9, bytes_per_s=1e9, operation_s=1e-5)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    rng = np.random.default_rng(0)
    streams = {name: ("backbone", rng.normal(size=(ROWS, dim)), np.ones(ROWS, np.uint8)) for name, dim in DIMS.items()}
    streams = {name: (kind, x.astype(np.float32), status) for name, (kind, x, status) in streams.items()}
    streams["lbp"] = ("lbp", rng.random((ROWS, 512)).astype(np.float32), np.ones(ROWS, np.uint8))
    splits = ["train", "train", "train", "val", "test"] * (ROWS // 5)
    path = tmp_path_factory.mktemp("plan") / "features.zarr"
    return open_cache(write_cache(path, ("x", "y", "z"), rng.integers(0, 3, ROWS), splits, streams, block_rows=2))


def data_of(cache, memory_bytes=10**9):
    return TrainingData.of(cache, OfficialSplit(), memory_bytes=memory_bytes)


def run(streams="abc", head=HEAD, name="run", bins=256, fold=None, **train):
    features = FeaturesSpec(streams=tuple(streams) if isinstance(streams, str) else streams, lbp_bins=bins)
    return RunSpec(name=name, features=features, head=head, train=TRAIN.model_copy(update=train), fold=fold)


def folds(spec, count=5):
    return [spec.model_copy(update={"fold": FoldSpec(count=count, index=index)}) for index in range(count)]


def members(plan):
    return [[group.members for group in groups] for groups in plan.structures.values()]


# ---------------------------------------------------------------------------------------------- what trains together


def test_runs_are_grouped_by_shape_and_keep_their_order(cache):
    wide = HEAD.model_copy(update={"width": 32})
    specs = [run(), run(head=wide), run(learning_rate=1e-2), run("b", seed=4), run("a", head=wide, epochs=3)]
    assert members(plan_runs(data_of(cache), specs, machine=CPU)) == [[(0, 2, 3)], [(1, 4)]]


def test_variants_of_a_stream_share_a_group_and_folds_of_another_partition_do_not(cache):
    bins = [run(("lbp", "a"), bins=bins) for bins in (128, 256, 512)]
    assert members(plan_runs(data_of(cache), bins, machine=CPU)) == [[(0, 1, 2)]]
    specs = [run(), *folds(run(), 3), *folds(run(), 5)]
    assert members(plan_runs(data_of(cache), specs, machine=CPU)) == [[(0,)], [(1, 2, 3)], [(4, 5, 6, 7, 8)]]


def test_groups_fit_the_memory_and_hold_every_run_once(cache):
    specs = [run(learning_rate=10 ** -(1 + index / 20)) for index in range(23)]
    whole = plan_runs(data_of(cache), specs[:6], machine=CPU).groups[0].memory_bytes
    plan = plan_runs(data_of(cache, whole), specs, machine=CPU)
    assert [len(group.members) for group in plan.groups] == [6, 6, 6, 5]
    assert all(group.memory_bytes <= whole for group in plan.groups)
    assert [index for group in plan.groups for index in group.members] == list(range(23))


def test_features_of_a_group_fit_their_share_of_the_memory(cache):
    specs = [
        run((stream,), LinearHeadSpec(), learning_rate=rate)
        for rate in (1e-3, 1e-2)
        for stream in ("lbp", "a", "b", "c")
    ]
    memory = int((256 + 40) * ROWS * 4 / FEATURES_SHARE) + 50_000
    plan = plan_runs(data_of(cache, memory), specs, machine=CPU)
    assert len(plan.groups) > 1
    assert [index for group in plan.groups for index in group.members] == list(range(8))
    for group in plan.groups:
        widths = {specs[index].features.streams[0] for index in group.members}
        assert sum({**DIMS, "lbp": 256}[name] for name in widths) * ROWS * 4 <= FEATURES_SHARE * memory


def test_on_a_cpu_a_group_has_no_more_heads_than_bring_something(cache):
    specs = [run(learning_rate=10 ** -(1 + index / 20)) for index in range(2 * HEADS_CPU + 1)]
    plan = plan_runs(data_of(cache), specs, machine=CPU)
    assert [len(group.members) for group in plan.groups] == [HEADS_CPU, HEADS_CPU, 1]


def test_folds_and_seeds_of_a_configuration_stay_in_one_group(cache):
    specs = [
        spec for rate in (1e-4, 1e-3, 1e-2) for seed in (0, 1) for spec in folds(run(learning_rate=rate, seed=seed))
    ]
    plan = plan_runs(data_of(cache), specs, machine=CPU)
    assert [group.members for group in plan.groups] == [tuple(range(20)), tuple(range(20, 30))]
    many = [run(seed=seed) for seed in range(HEADS_CPU + 10)]  # one configuration
    assert [len(group.members) for group in plan_runs(data_of(cache), many, machine=CPU).groups] == [HEADS_CPU + 10]


def alone(cache, spec, machine) -> float:
    """Seconds of one head, by the rates that cut groups."""
    return plan_runs(data_of(cache, 10**12), [spec], machine=machine).groups[0].seconds


@pytest.mark.parametrize("machine", [CPU, CUDA], ids=["cpu", "cuda"])
@pytest.mark.parametrize("epochs", [10, 20_000, 200_000, 2_000_000])
@pytest.mark.parametrize("head", [HEAD, ConcatHeadSpec(embed_dim=2048, width=2048)], ids=["light", "heavy"])
def test_no_group_takes_longer_than_is_good_to_lose(cache, machine, epochs, head):
    """Whatever the memory and however much the heads share: five minutes, or twice what one head takes alone."""
    specs = [run(head=head, learning_rate=10 ** -(1 + index / 200), epochs=epochs) for index in range(400)]
    plan = plan_runs(data_of(cache, 10**13), specs, machine=machine)
    longest = max(LONGEST_S, LONGEST_ALONE * alone(cache, specs[0], machine))
    assert max(group.seconds for group in plan.groups) <= longest
    assert [index for group in plan.groups for index in group.members] == list(range(400))


def test_a_group_of_long_heads_is_cut_where_only_the_memory_was_a_bound(cache):
    """Heads of which most of the time is shared, so that each of them makes the others faster: there was no end."""
    specs = [run(learning_rate=10 ** -(1 + index / 2000), epochs=20_000) for index in range(4000)]
    first = plan_runs(data_of(cache, 10**13), specs, machine=CUDA).groups[0]
    one = alone(cache, specs[0], CUDA)
    bound = max(LONGEST_S, LONGEST_ALONE * one)
    assert 1 < len(first.members) < 4000
    assert 0.9 * bound < first.seconds <= bound


def test_folds_and_seeds_that_take_too_long_together_are_cut(cache):
    epochs = round(TRAIN.epochs * LONGEST_S / alone(cache, run(), CPU))
    specs = [spec for seed in range(20) for spec in folds(run(seed=seed, epochs=epochs))]  # one configuration
    plan = plan_runs(data_of(cache, 10**12), specs, machine=CPU)
    assert [index for group in plan.groups for index in group.members] == list(range(100))
    bound = max(LONGEST_S, LONGEST_ALONE * alone(cache, specs[0], CPU))
    assert len(plan.groups) > 1
    assert all(group.seconds <= bound for group in plan.groups)
    short = [spec.model_copy(update={"train": TRAIN}) for spec in specs[:5]]
    assert len(plan_runs(data_of(cache, 10**12), short, machine=CPU).groups) == 1


def test_what_a_machine_was_measured_to_do_cuts_no_group(cache):
    specs = [run(learning_rate=10 ** -(1 + index / 200), epochs=1000) for index in range(200)]
    slow, fast = (Rates(flops_per_s=x, bytes_per_s=x, operation_s=1 / x) for x in (1e3, 1e15))
    for machine in (CPU, CUDA):
        plans = [plan_runs(data_of(cache), specs, machine=machine, rates=rates) for rates in (slow, fast)]
        assert members(plans[0]) == members(plans[1])
        assert plans[0].groups[0].seconds > 1e3 * plans[1].groups[0].seconds


# ------------------------------------------------------------------------------------------------- brackets


def test_brackets_lie_whole_in_a_group_also_where_they_are_large(cache):
    rates = [10 ** -(1 + index / 10) for index in range(13)]
    specs = [spec for rate in rates for spec in folds(run(learning_rate=rate))]
    halving = Halving(first_epochs=1, factor=3, bracket=6, select="macro_f1")
    plan = plan_runs(data_of(cache), specs, machine=CPU, halving=halving)
    assert [len(group.members) for group in plan.groups] == [30, 30, 5]
    small = Halving(first_epochs=1, factor=3, bracket=2, select="macro_f1")
    plan = plan_runs(data_of(cache), specs, machine=CPU, halving=small)
    assert [len(group.members) for group in plan.groups] == [20, 20, 25]


def test_a_bracket_that_does_not_fit_the_memory_is_refused(cache):
    specs = [run(learning_rate=10 ** -(1 + index / 10)) for index in range(9)]
    memory = plan_runs(data_of(cache), specs[:4], machine=CPU).groups[0].memory_bytes
    halving = Halving(first_epochs=1, factor=3, bracket=9, select="macro_f1")
    with pytest.raises(
        TrainingError, match=r"a bracket of 9 configurations, 9 heads, needs .* smaller head, batch or bracket"
    ):
        plan_runs(data_of(cache, memory), specs, machine=CPU, halving=halving)


def test_halved_runs_are_expected_to_end_early(cache):
    specs = [run(learning_rate=10 ** -(1 + index / 10), epochs=100) for index in range(9)]
    halving = Halving(first_epochs=1, factor=3, bracket=9, select="macro_f1")
    assert halving.mean_epochs(100, 9) == pytest.approx((9 * 1 + 3 * 2 + 1 * 97) / 9)
    assert halving.mean_epochs(100, 1) == 100
    assert halving.mean_epochs(1, 9) == 1
    whole, halved = (
        plan_runs(data_of(cache), specs, machine=CPU, halving=h).groups[0].seconds for h in (None, halving)
    )
    assert halved < 0.5 * whole


# ------------------------------------------------------------------------------------------------- refused


def test_a_run_that_does_not_fit_alone_is_refused(cache):
    with pytest.raises(TrainingError, match=r"run 'run' \(concat, a, b, c\) needs .* GB with its features, and there"):
        plan_runs(data_of(cache, 90_000), [run()], machine=CPU)


def test_a_configuration_too_large_for_the_memory_is_cut(cache):
    specs = folds(run())
    memory = plan_runs(data_of(cache), specs[:3], machine=CPU).groups[0].memory_bytes
    assert members(plan_runs(data_of(cache, memory), specs, machine=CPU)) == [[(0, 1, 2), (3, 4)]]


def test_mixup_takes_the_memory_of_further_embeddings(cache):
    plain, mixing = (
        plan_runs(data_of(cache), [run(mixup=alpha)], machine=CPU).groups[0].memory_bytes for alpha in (0.0, 0.2)
    )
    assert mixing - plain == 2 * 32 * 3 * 4 * (3 * 16)  # both ways, rows, copies, bytes, embeddings of three streams


# ------------------------------------------------------------------------------------------------- what it says


def test_the_plan_says_heads_groups_memory_and_time(cache):
    specs = [*(run(seed=seed) for seed in range(3)), *folds(run(head=LinearHeadSpec()), 2)]
    lines = str(plan_runs(data_of(cache), specs, machine=CPU, rates=RATES)).splitlines()
    assert lines[0].split() == ["structure", "heads", "groups", "parameters", "most", "memory", "about"]
    assert lines[1].startswith("1: concat embed_dim 16 depth 1 width 16, batch 32 ")
    assert lines[2].startswith("2: linear, batch 32, 2 folds ")
    assert lines[3].startswith("5 heads in 2 structures and 2 groups, about ")
    assert lines[3].endswith("within 1.00 GB")


def test_a_streamed_group_says_so(cache):
    specs = [run(streams, LinearHeadSpec(), batch_size=8) for streams in ("c", ("lbp",))]
    plan = plan_runs(data_of(cache, 150_000), specs, machine=CPU)
    assert list(plan.structures) == ["1: linear, batch 8", "2: linear, batch 8, streamed"]
    assert all(group.memory_bytes <= plan.memory_bytes for group in plan.groups)


# ------------------------------------------------------------------------------------------------- time


def test_time_is_operations_arithmetic_and_memory(cache):
    def seconds(specs, **rates):
        none = {"flops_per_s": 1e30, "bytes_per_s": 1e30, "operation_s": 0.0}
        return plan_runs(data_of(cache), specs, machine=CPU, rates=Rates(**(none | rates))).groups[0].seconds

    cost = head_cost(HEAD, tuple(DIMS.items()), 3, 32, CPU)
    flops = 10 * (60 * cost.flops_per_row + 20 * cost.eval_flops_per_row)
    assert seconds([run()], flops_per_s=1e9) == pytest.approx(flops / 1e9)
    heads = [run(seed=seed) for seed in range(3)]
    assert seconds(heads, flops_per_s=1e9) == pytest.approx(3 * flops / 1e9)
    operations = group_operations(HEAD, ((2,),) * 3, folds=1)
    in_an_epoch = 2 * (operations.step + operations.update) + operations.forward
    assert seconds([run()], operation_s=1.0) == pytest.approx(10 * in_an_epoch)
    assert seconds(heads, operation_s=1.0) == seconds([run()], operation_s=1.0)  # shared by all
    assert seconds([run(), run(learning_rate=1.0)], operation_s=1.0) > seconds([run()], operation_s=1.0)
    assert seconds([run(epochs=40)], bytes_per_s=1e9) == pytest.approx(4 * seconds([run()], bytes_per_s=1e9))


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
def test_parameters_flops_and_operations_are_counted_for_every_head(spec):
    dims = tuple(DIMS.items())
    cost = head_cost(spec, dims, 3, 32, CPU)
    head = make_head(spec, [HeadMember(tuple(DIMS))], DIMS, 3)
    assert cost.parameters == sum(tensor.numel() for tensor in head.parameters())
    assert cost.weight_bytes == 5 * 4 * cost.parameters
    assert cost.row_bytes > 0
    assert cost.flops_per_row > cost.eval_flops_per_row > 0
    one, five = (group_operations(spec, ((2,),) * len(DIMS), count) for count in (1, 5))
    assert one.update == five.update == len(list(head.parameters()))
    assert 0 < one.forward < five.forward
    assert one.step > one.forward


def test_flops_of_a_probe_are_those_of_two_products():
    """Logits and the gradient of the weights: 2 x 2 x inputs x classes; no gradient of the features."""
    cost = head_cost(LinearHeadSpec(), tuple(DIMS.items()), 3, 32, CPU)
    assert (cost.flops_per_row, cost.eval_flops_per_row) == (2 * 2 * 90 * 3, 2 * 90 * 3)


STEMS = [
    ((5, 6), {"temporal": "mean"}),
    ((5, 6), {"temporal": "attention"}),
    ((5, 6), {"temporal": "lstm"}),
    ((5, 6), {"temporal": "gru"}),
    ((5, 6), {"temporal": "transformer"}),
    ((3, 8, 8), {"spatial": "mean"}),
    ((3, 8, 8), {"spatial": "attention"}),
    ((3, 8, 8), {"spatial": "patches"}),
    ((3, 8, 8), {"spatial": "cnn"}),
    ((5, 3, 8, 8), {"temporal": "gru", "spatial": "patches"}),
]


@pytest.mark.parametrize(("shape", "stem"), STEMS, ids=lambda value: "-".join(map(str, value)))
def test_flops_of_stems_are_those_of_a_step_that_is_trained(shape, stem):
    """Counted by torch on a real step, where nothing asks for the gradient of features."""
    rows = 16
    head = ConcatHeadSpec(embed_dim=8, depth=1, width=8, stem_width=4, **stem)
    features = {"a": torch.randn(rows, *shape), "b": torch.randn(rows, 7)}
    valid = {name: torch.arange(rows) > 0 for name in features}  # rows that lack a stream, as the count supposes
    steps = {"a": torch.ones(rows, shape[0], dtype=torch.bool)} if len(shape) in {2, 4} else {}
    table = FeatureTable(features, valid, torch.arange(rows) % 3, 3, steps=steps)
    lengths = {"a": shape[feature_axis(shape)], "b": 7}
    scaling = {name: Scaling(np.zeros(n, np.float32), np.ones(n, np.float32)) for name, n in lengths.items()}
    member = Member(("a", "b"), head, TrainSpec(batch_size=rows))
    shared = SharedRows(table, [Fold(np.arange(rows), np.arange(3), scaling)], [member], CPU)
    group = TrainingGroup(shared, [member])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # torch counts no fused attention
        group.train_epoch(1)  # one step
    cost = head_cost(head, (("a", shape), ("b", (7,))), 3, rows, CPU)
    assert cost.flops_per_row == counter.get_total_flops() / rows


def test_a_recurrent_stem_costs_arithmetic_and_operations_at_every_step():
    head = ConcatHeadSpec(embed_dim=8, depth=1, width=8, stem_width=4, temporal="lstm")
    short, long, longer = (head_cost(head, (("a", (steps, 6)),), 3, 32, CPU) for steps in (10, 20, 30))
    product = 2 * 4 * 4 * 4  # of the state (4) with the weights of four gates
    # The inputs are projected forward and have a gradient of the weights; a state has one of its inputs as well.
    assert long.flops_per_row - short.flops_per_row == 10 * (2 * 2 * 6 * 4 * 4 + 3 * product)
    assert longer.flops_per_row - long.flops_per_row == long.flops_per_row - short.flops_per_row
    assert long.eval_flops_per_row - short.eval_flops_per_row == 10 * (2 * 6 * 4 * 4 + product)
    of_10, of_20, of_30 = (group_operations(head, ((steps, 6),), folds=1) for steps in (10, 20, 30))
    assert of_20.forward - of_10.forward == of_30.forward - of_20.forward > 10 * 5
    assert of_20.step - of_10.step == of_30.step - of_20.step > 2 * (of_20.forward - of_10.forward)


def test_a_head_costs_the_same_whatever_its_dropout():
    assert without_dropout(HEAD.model_copy(update={"dropout": 0.4})) == HEAD
    assert without_dropout(LinearHeadSpec()) == LinearHeadSpec()


def test_operands_of_another_type_are_kept_beside_the_weights():
    items = tuple(DIMS.items())
    coarse = head_cost(HEAD, items, 3, 32, Machine(torch.device("cpu"), products=torch.bfloat16))
    exact: TrainingCost = head_cost(HEAD, items, 3, 32, CPU)
    assert coarse.weight_bytes == exact.weight_bytes + 2 * exact.parameters


def test_this_machine_has_memory_and_a_speed():
    assert default_memory_bytes(torch.device("cpu")) == default_memory_bytes(torch.device("cpu")) > 10**6
    rates = measure_rates(CPU)
    assert rates.flops_per_s > 1e8
    assert rates.bytes_per_s > 1e7
    assert 1e-8 < rates.operation_s < 1e-2
    assert nominal_rates(CUDA).flops_per_s > nominal_rates(CPU).flops_per_s
