"""Features in blocks: the same result as from tensors, within a stated memory, read ahead by a thread."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from emofuse.cache.reader import CachedStream
from emofuse.errors import CacheError, TrainingError
from emofuse.results import read_predictions, run_dir
from emofuse.scaling import Scaling
from emofuse.specs import ConcatHeadSpec, FeaturesSpec, FoldSpec, OfficialSplit, RunSpec, TrainSpec, parse_spec
from emofuse.training.data import TrainingData
from emofuse.training.engine import train_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member
from emofuse.training.planning import plan_runs
from emofuse.training.row_draws import RowSet
from emofuse.training.runs import train_run
from emofuse.training.streaming import Blocks, Streamed, Window
from emofuse.training.together import train_together
from emofuse.training.trained import load_head

CPU = torch.device("cpu")
EXACT = Machine(CPU, torch.float64)
DIMS = {"a": 4, "b": 6}
ROWS, BLOCK = 103, 10
RUN = {"name": "a", "features": {"streams": ["a", "b"]}}


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
    return FeatureTable(features, valid, labels, 3)


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
    folds, members = make_folds(table), make_members(mixup=0.4, stream_dropout=0.3)
    reader = Reader(table.features)
    streamed = train_group(replace(table, features=reader.blocks()), folds, members, EXACT, window=window)
    resident = train_group(table, folds, members, EXACT, window=window)
    for ours, theirs in zip(streamed, resident, strict=True):
        assert ours.history == theirs.history
        assert all(np.array_equal(ours.weights[name], theirs.weights[name]) for name in theirs.weights)
    assert all(name.startswith("feature-blocks") for name in reader.threads)


@pytest.mark.parametrize("kind", ["distribution", "regression", "multilabel"])
def test_blocks_have_the_targets_and_weights_of_their_own_rows(kind):
    table, window, rng = make_table(), Window(BLOCK, 3), np.random.default_rng(2)
    values = {
        "distribution": rng.dirichlet(np.ones(3), ROWS),
        "regression": rng.normal(size=(ROWS, 3)) * 7 + 30,
        "multilabel": (rng.random((ROWS, 3)) < 0.4).astype(float),
    }[kind]
    target = parse_spec(RunSpec, RUN | {"target": {"kind": kind, "columns": ["x", "y", "z"]}}, "test").target
    weights = torch.from_numpy(rng.random(ROWS).astype(np.float32))
    table = replace(table, targets=torch.from_numpy(values.astype(np.float32)), weights=weights, target=target)
    folds, members, reader = make_folds(table), make_members(), Reader(table.features)
    streamed = train_group(replace(table, features=reader.blocks()), folds, members, EXACT, window=window)
    resident = train_group(table, folds, members, EXACT, window=window)
    for ours, theirs in zip(streamed, resident, strict=True):
        assert ours.history == theirs.history
        assert all(np.array_equal(ours.weights[name], theirs.weights[name]) for name in theirs.weights)


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
    from emofuse.training.batches import Order
    from emofuse.training.streaming import Resident

    table = make_table()
    folds = make_folds(table)
    order = Order(
        folds,
        [RowSet(0)],
        count=ROWS,
        batch_size=8,
        seed=0,
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


def test_what_is_read_ahead_leaves_the_windows_in_use_alone():
    """The thread is let finish before the first window is looked at: it must have written elsewhere."""
    reader = Reader(make_table().features)
    source = Streamed(reader.blocks(), Window(BLOCK, 2), ("a",), count=ROWS, device=CPU, dtype=torch.float32)
    source.follow([[4, 1], [0, 10], [7, 2]])
    for window, blocks in enumerate([[4, 1], [0, 10], [7, 2]]):
        source.reach(window)
        if source._next is not None:
            source._next.result()
        for block in blocks:
            rows = torch.arange(block * BLOCK, min((block + 1) * BLOCK, ROWS))
            assert torch.equal(source.take("a", rows), reader.features["a"][rows])
    source.close()


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


# ------------------------------------------------------------------------------------------------- from the cache


def searched_runs(count=2):
    """Folds of three subsets with two variants of LBP."""
    head = ConcatHeadSpec(embed_dim=8, depth=1, width=8, dropout=0.2)
    train = TrainSpec(epochs=3, batch_size=16, learning_rate=1e-2)
    subsets = [(("lbp",), 512), (("lbp", "resnet50"), 256), (("lbp", "action_units", "places365"), 512)]
    return [
        RunSpec(
            name="run",
            features=FeaturesSpec(streams=streams, lbp_bins=bins),
            head=head,
            train=train,
            fold=FoldSpec(count=count, index=index),
        )
        for streams, bins in subsets
        for index in range(count)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cache_that_does_not_fit_trains_the_same_heads_as_one_that_does(tmp_path, plant_cache, dtype):
    cache = plant_cache(tmp_path / "f.zarr", rows=600, block_rows=8)
    specs, machine = searched_runs(), Machine(CPU, dtype)
    little = TrainingData.of(cache, OfficialSplit(), memory_bytes=720_000)
    plenty = TrainingData.of(cache, OfficialSplit())
    window = little.window(specs[0])
    assert all(little.window(spec) == window for spec in specs)
    assert window.blocks * window.block_rows < len(cache) / 3
    streamed = train_together(little, specs, machine)
    members = [plenty.member(spec) for spec in specs]
    resident = train_group(plenty.table(specs), plenty.scaled_folds(specs), members, machine, window=window)
    for ours, theirs in zip(streamed, resident, strict=True):
        assert ours.result.history == theirs.history
        assert all(np.array_equal(ours.result.weights[name], theirs.weights[name]) for name in theirs.weights)


def test_absurd_values_and_unreadable_rows_are_treated_alike_in_memory_and_streamed(tmp_path, plant_cache):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(600, 512)).astype(np.float32)
    values[::300, 3] = 3e38
    status = np.where(np.arange(600) % 50 == 1, 3, 1).astype(np.uint8)
    values[status == 3] = 0
    streams = {"lbp": ("lbp", values, status)}
    cache = plant_cache(tmp_path / "f.zarr", rows=600, block_rows=8, streams=streams)
    specs = [
        s.model_copy(update={"features": FeaturesSpec(streams=("lbp",), lbp_bins=512)}) for s in searched_runs()[:2]
    ]
    little, plenty = (TrainingData.of(cache, OfficialSplit(), memory_bytes=size) for size in (720_000, None))
    window = little.window(specs[0])
    assert window is not None
    assert plenty.window(specs[0]) is None
    members, machine = [plenty.member(spec) for spec in specs], Machine(CPU, torch.float32)
    resident = train_group(plenty.table(specs), plenty.scaled_folds(specs), members, machine, window=window)
    for ours, theirs, fold in zip(
        train_together(little, specs, machine), resident, plenty.scaled_folds(specs), strict=True
    ):
        assert fold.scaling["lbp@512"].scale[3] < 2
        assert not (status[fold.train] == 3).any()
        assert ours.result.history == theirs.history
        assert all(np.array_equal(ours.result.weights[name], theirs.weights[name]) for name in theirs.weights)


def test_a_final_run_that_is_streamed_is_scored_on_the_same_rows(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "f.zarr", rows=600, block_rows=8)
    spec = searched_runs()[4].model_copy(update={"fold": None})
    record, _ = train_run(cache, spec, tmp_path / "runs", device="cpu", memory_bytes=720_000)
    again, trained_now = train_run(cache, spec, tmp_path / "runs", device="cpu", memory_bytes=720_000)
    assert not trained_now
    assert again.digest == record.digest
    folder = run_dir(tmp_path / "runs", record.digest)
    trained, saved = load_head(folder), read_predictions(folder)
    rows = np.flatnonzero((cache.splits == "test") & (cache.labels >= 0))
    read = {name: cache.streams[name].read() for name in record.streams}
    probs = trained.outputs(
        {name: features[rows] for name, (features, _) in read.items()},
        {name: status[rows] for name, (_, status) in read.items()},
    )
    assert saved.sample_id.tolist() == cache.sample_ids[rows].tolist()
    np.testing.assert_allclose(saved.probs, probs, atol=1e-6)
    whole, _ = train_run(cache, spec, tmp_path / "runs", device="cpu")
    assert whole.digest != record.digest  # other batches: rows are shuffled window by window


def test_a_damaged_chunk_ends_a_streamed_group_with_its_remedy(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "f.zarr", rows=600, block_rows=8)
    chunk = cache.path / "streams" / "lbp" / "features" / "c.5.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    with pytest.raises(CacheError, match=r"c\.5\.0\.0: damaged \(rows 40-47 of 'lbp'"):
        train_together(TrainingData.of(cache, OfficialSplit(), memory_bytes=720_000), searched_runs(), Machine(CPU))


def living_storages():
    """Place -> bytes of what tensors on the CPU hold.

    No other thread runs meanwhile: the list of all objects holds tuples that a thread may be about to resize, which
    Python refuses (SystemError).
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        return {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in gc.get_objects()
            if type(tensor) in {torch.Tensor, torch.nn.Parameter} and tensor.device == CPU
        }
    finally:
        sys.setswitchinterval(interval)


def test_a_streamed_group_stays_within_its_memory(tmp_path, plant_cache, monkeypatch):
    """All that lives is counted while blocks are read: tensors, and what NumPy has asked for since the beginning."""
    rows, budget = 3200, 4_500_000
    rng = np.random.default_rng(0)
    wide = {name: rng.normal(size=(rows, 700)).astype(np.float16) for name in ("resnet50", "places365")}
    streams = {name: ("backbone", array, np.ones(rows, np.uint8)) for name, array in wide.items()}
    cache = plant_cache(tmp_path / "f.zarr", rows=rows, block_rows=32, streams=streams)
    specs = [
        RunSpec(
            name="run",
            features=FeaturesSpec(streams=streams),
            head=ConcatHeadSpec(embed_dim=8, depth=1, width=8),
            train=TrainSpec(epochs=1, batch_size=32, learning_rate=rate),
        )
        for rate in (1e-3, 1e-2)
        for streams in (("resnet50", "places365"), ("lbp", "resnet50", "places365"))
    ]
    del streams, wide
    data = TrainingData.of(cache, OfficialSplit(), memory_bytes=budget)
    assert data.features.nbytes(data.features.of(specs[0].features)) > 3 * budget
    (group,) = plan_runs(data, specs, machine=Machine(CPU)).groups
    assert group.memory_bytes <= budget
    others = living_storages()  # of other tests
    peak, reads = 0, 0
    read_block = CachedStream.read_block

    def counted(self, *args):
        nonlocal peak, reads
        rows = read_block(self, *args)
        if (reads := reads + 1) % 60 == 0:
            held = sum(size for place, size in living_storages().items() if place not in others)
            peak = max(peak, held + tracemalloc.get_traced_memory()[0])
        return rows

    monkeypatch.setattr(CachedStream, "read_block", counted)
    tracemalloc.start()
    try:
        train_together(data, specs, Machine(CPU))
    finally:
        tracemalloc.stop()
    assert reads > 300
    assert 0.3 * budget < peak <= budget
