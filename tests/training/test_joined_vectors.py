"""Vectors of several streams are read and standardised side by side, and each is what its scaling alone gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emofuse.heads import make_head
from emofuse.heads.arithmetic import fast_arithmetic
from emofuse.heads.members import HeadMember
from emofuse.scaling import Scaling
from emofuse.specs import ConcatHeadSpec, TrainSpec
from emofuse.training.batches import Standardised
from emofuse.training.members import FeatureTable, Fold
from emofuse.training.optim import AdamMoments, GroupAdam
from emofuse.training.streaming import Blocks, Resident, Streamed, Window, _join

CPU = torch.device("cpu")
ROWS, BLOCK = 90, 10
DIMS = {"wide": 70, "narrow": 3, "lonely": 2}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    features, valid = {}, {}
    for name, dim in DIMS.items():
        features[name] = torch.from_numpy((rng.normal(size=(ROWS, dim)) * 4 + 1).astype(np.float32))
        valid[name] = torch.from_numpy(rng.random(ROWS) < 0.7)
        features[name][~valid[name]] = float("nan")
    features["wide"][0, 0] = 1e6  # beyond the limit of every fold that does not train on it
    valid["wide"][0] = True
    return FeatureTable(features, valid, torch.zeros(ROWS, dtype=torch.int64), 2)


@pytest.fixture(scope="module")
def folds(table):
    made = []
    for index in range(2):
        train = np.arange(1, ROWS)[np.arange(1, ROWS) % 2 == index]
        scaling = {}
        for name, rows in table.features.items():
            there = train[table.valid[name].numpy()[train]]
            scaling[name] = Scaling.fit(rows.numpy(), there[:1] if (name, index) == ("lonely", 1) else there)
        made.append(Fold(train, np.arange(1), scaling))
    return made


def sources(table):
    blocks = Blocks(lambda name, b: table.features[name].numpy()[b * BLOCK : (b + 1) * BLOCK], BLOCK, DIMS)
    streamed = Streamed(
        blocks, Window(BLOCK, 9), tuple(DIMS), count=ROWS, device=CPU, dtype=torch.float32, joined=("wide", "narrow")
    )
    streamed.follow([list(range(9))])
    streamed.reach(0)
    joined_on_a_gpu = Resident(table.features, tuple(DIMS), CPU, tuple(DIMS))
    joined_on_a_gpu._joined = [_join(list(table.features.values()), CPU)]
    return {
        "none is joined": Resident(table.features, tuple(DIMS), CPU),
        "some are joined": Resident(table.features, tuple(DIMS), CPU, ("lonely", "wide")),
        "all are joined": Resident(table.features, tuple(DIMS), CPU, tuple(DIMS)),
        "all are joined in one tensor": joined_on_a_gpu,
        "streamed": streamed,
    }


@pytest.mark.parametrize(
    "kind", ["none is joined", "some are joined", "all are joined", "all are joined in one tensor", "streamed"]
)
def test_joined_vectors_are_bit_for_bit_what_the_scaling_of_each_stream_gives(table, folds, kind):
    source = sources(table)[kind]
    rows = torch.tensor([[0, 5, 17, 44, 89], [3, 0, 0, 12, 60]])
    present = torch.tensor([[True, True, True, True, False], [True] * 5])
    read = Standardised(source, table, tuple(DIMS), folds, device=CPU, dtype=torch.float32)
    batch, _ = read.read(rows, present)
    for name, stored in table.features.items():
        for index, fold in enumerate(folds):
            scaling = fold.scaling[name]
            there = table.valid[name][rows[index]] & present[index]
            assert torch.equal(batch.valid[name][index], there & scaling.fitted)
            expected = scaling.apply(stored[rows[index]].numpy(), there.numpy())
            np.testing.assert_array_equal(batch.features[name][index].numpy(), expected, err_msg=f"{name} {index}")
    assert torch.equal(table.features["wide"][0, :1], torch.tensor([1e6]))  # the table itself is left alone
    source.close()


def test_the_joined_tensor_takes_the_place_of_the_streams_in_memory(table):
    joined = _join(list(table.features.values()), CPU)
    assert joined.shape == (ROWS, sum(DIMS.values()))
    streamed = sources(table)["streamed"]
    assert streamed._held["wide"].untyped_storage().data_ptr() == streamed._joined.untyped_storage().data_ptr()
    assert streamed._held["narrow"].untyped_storage().data_ptr() == streamed._joined.untyped_storage().data_ptr()
    streamed.close()
    on_a_cpu = Resident(table.features, tuple(DIMS), CPU, tuple(DIMS))
    for own, stored in zip(on_a_cpu._joined, table.features.values(), strict=True):
        assert own.data_ptr() == stored.data_ptr()  # read from where they are


def test_streams_of_several_types_are_joined_in_the_widest(table):
    some = {"a": table.features["wide"].double(), "b": table.features["narrow"].half()}
    rows = torch.tensor([3, 1])
    beside = Resident(some, ("a", "b"), CPU, ("a", "b")).take_joined(rows)
    assert torch.equal(beside.nan_to_num(), _join(list(some.values()), CPU)[rows].nan_to_num())
    assert beside.dtype == torch.float64


def test_numbers_too_small_for_float32_change_no_weight():
    """The running means of dead units shrink below 1.2e-38; their updates are lost in the weights either way."""

    def trained():
        head = make_head(ConcatHeadSpec(embed_dim=4, depth=1, width=4), [HeadMember(("s",))], {"s": 3}, 2)
        moments = AdamMoments.zero(head)
        for mean, square in zip(moments.mean.values(), moments.square.values(), strict=True):
            mean.fill_(1e-37)
            square.fill_(1e-30)
        optimizer = GroupAdam(head, moments, [TrainSpec(learning_rate=1e-3)], [0], branches={}, updates={})
        still = {name: torch.zeros_like(tensor) for name, tensor in head.named_parameters()}
        for _ in range(120):
            optimizer.step(still, frozenset())
        return head, next(iter(moments.mean.values()))

    plain, shrunk = trained()
    assert bool(((shrunk > 0) & (shrunk < 1e-40)).all())
    with fast_arithmetic(CPU):
        fast, gone = trained()
        assert bool((gone == 0).all())
    for ours, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
