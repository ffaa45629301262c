"""Features in blocks: the same outcome as from tensors, within a stated memory, read ahead by a thread."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from emofuse.errors import TrainingError
from emofuse.features import Scaling
from emofuse.specs import ConcatHeadSpec, TrainSpec
from emofuse.training.engine import train_group
from emofuse.training.machine import Machine
from emofuse.training.members import Fold, Member, Table
from emofuse.training.streaming import Blocks, Streamed, Window

CPU = torch.device("cpu")
EXACT = Machine(CPU, torch.float64)
DIMS = {"a": 4, "b": 6}
ROWS, BLOCK = 103, 10


class Reader:
    """Blocks of tensors, and what was asked of them."""

    def __init__(self, features):
        self.features = features
        self.asked = []
        self.threads = set()

    def __call__(self, stream, block):
        self.asked.append((stream, block))
        self.threads.add(threading.current_thread().name)
        return self.features[stream][block * BLOCK : (block + 1) * BLOCK].numpy()

    def blocks(self):
        return Blocks(self, BLOCK, DIMS)


def make_table():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, ROWS))
    features = {s: torch.from_numpy(rng.normal(size=(ROWS, d)).astype(np.float32)) for s, d in DIMS.items()}
    valid = {s: torch.from_numpy(rng.random(ROWS) > 0.2) for s in DIMS}
    return Table(features, valid, labels, 3)


def make_folds(table):
    part = np.arange(ROWS) % 4  # rows of part 3 are test rows
    scaling = {s: Scaling.fit(x.numpy(), np.flatnonzero(part == 0)) for s, x in table.features.items()}
    return [Fold(np.flatnonzero((part != f) & (part < 3)), np.flatnonzero(part == f), scaling) for f in range(2)]


def make_members(**changes):
    head = ConcatHeadSpec(embed_dim=5, depth=1, width=6, dropout=0.2)
    train = TrainSpec(epochs=3, batch_size=16, learning_rate=1e-2, **changes)
    return [Member(("a", "b"), head, train, 0), Member(("b",), head, train, 1), Member(("a",), head, train, 0)]


@pytest.mark.parametrize("blocks", [2, 3, 5, 11, 50])
def test_blocks_train_the_same_heads_as_tensors_in_the_same_order(blocks):
    table, window = make_table(), Window(BLOCK, blocks)
    folds, members = make_folds(table), make_members()
    reader = Reader(table.features)
    streamed = train_group(replace(table, features=reader.blocks()), folds, members, EXACT, window=window)
    resident = train_group(table, folds, members, EXACT, window=window)
    for ours, theirs in zip(streamed, resident, strict=True):
        assert ours.history == theirs.history
        assert all(np.array_equal(ours.weights[name], theirs.weights[name]) for name in theirs.weights)
    assert all(name.startswith("feature-blocks") for name in reader.threads)


def test_each_block_is_read_once_an_epoch_and_once_a_validation():
    table = make_table()
    reader = Reader(table.features)
    members = make_members()[:1]
    train_group(replace(table, features=reader.blocks()), make_folds(table), members, EXACT, window=Window(BLOCK, 2))
    count = -(-ROWS // BLOCK)
    assert len(reader.asked) == len(set(reader.asked)) * 2 * 3 == 2 * count * 2 * 3
    first, second = (reader.asked[2 * start : 2 * (start + count)] for start in (0, 2 * count))
    assert sorted(first) == sorted(second)
    assert first != second  # every epoch in another order


def test_a_window_shuffles_blocks_and_rows_of_some_blocks_at_a_time():
    from emofuse.heads.dropout import named_generator
    from emofuse.training.batches import Order
    from emofuse.training.streaming import Resident

    table = make_table()
    folds = make_folds(table)
    order = Order(
        folds,
        [0],
        count=ROWS,
        batch_size=8,
        generator=named_generator(0, "x"),
        window=Window(BLOCK, 3),
        fixed_width=False,
    )
    source = Resident(table.features, tuple(DIMS), CPU)
    rows = torch.cat([step.rows[0][step.present[0]] for step in order.epoch(source, CPU)])
    assert sorted(rows.tolist()) == folds[0].train.tolist()
    blocks = (rows // BLOCK).tolist()
    window_of = {block: place // 3 for place, block in enumerate(dict.fromkeys(blocks))}
    windows = [window_of[block] for block in blocks]
    assert windows == sorted(windows)  # all rows of three blocks, then all of three others
    assert blocks != sorted(blocks)
    assert blocks[:12] != sorted(blocks[:12], key=blocks.index)  # mixed within a window


def test_a_memory_budget_becomes_a_window_of_a_third_of_it():
    blocks = Reader(make_table().features).blocks()
    block_bytes = BLOCK * (4 + 6) * 4
    assert blocks.window(("a", "b"), 9 * block_bytes, torch.float32) == Window(BLOCK, 3)
    assert blocks.window(("a",), 9 * block_bytes, torch.float32) == Window(BLOCK, 7)
    with pytest.raises(
        TrainingError, match=r"8e-07 GB hold no window of features: 3 blocks of 10 rows take 1.2e-06 GB"
    ):
        blocks.window(("a", "b"), 2 * block_bytes, torch.float32)


def test_no_more_than_two_windows_lie_on_the_device_and_one_is_read_ahead():
    reader = Reader(make_table().features)
    source = Streamed(reader.blocks(), Window(BLOCK, 2), ("a",), count=ROWS, device=CPU, dtype=torch.float32)
    source.follow([[4, 1], [0, 10], [7, 2], [3, 5]])
    source.reach(1)
    rows = torch.tensor([43, 12, 5, 102])
    assert torch.equal(source.take("a", rows), reader.features["a"][rows])
    source.reach(2)
    rows = torch.tensor([1, 100, 79, 20])
    assert torch.equal(source.take("a", rows), reader.features["a"][rows])
    assert sum(held.numel() for held in source._held.values()) == 2 * 2 * BLOCK * 4
    source.close()
    assert [block for _, block in reader.asked][:6] == [4, 1, 0, 10, 7, 2]


def test_a_batch_over_more_than_two_windows_is_refused():
    table = make_table()
    reader = Reader(table.features)
    members = [replace(m, train=m.train.model_copy(update={"batch_size": 40})) for m in make_members()]
    with pytest.raises(TrainingError, match="a batch of 40 rows reaches over more than two windows"):
        train_group(
            replace(table, features=reader.blocks()), make_folds(table), members, EXACT, window=Window(BLOCK, 1)
        )


def test_blocks_without_a_window_are_refused():
    table = make_table()
    blocked = replace(table, features=Reader(table.features).blocks())
    for window in (None, Window(7, 3)):
        with pytest.raises(TrainingError, match="features in blocks of 10 rows need a window of such blocks, got"):
            train_group(blocked, make_folds(table), make_members(), EXACT, window=window)


def test_a_block_that_cannot_be_read_ends_training_with_its_own_error():
    table = make_table()

    def broken(stream, block):
        raise OSError("disk gone")

    blocked = replace(table, features=Blocks(broken, BLOCK, DIMS))
    with pytest.raises(OSError, match="disk gone"):
        train_group(blocked, make_folds(table), make_members(), EXACT, window=Window(BLOCK, 2))
