"""How a step is run: captured and replayed it does what it does plainly; bfloat16 products; the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from emofuse.heads.layers import Linear, Projection
from emofuse.scaling import Scaling
from emofuse.specs import ConcatHeadSpec, TrainSpec
from emofuse.training import engine
from emofuse.training.batches import StepRows
from emofuse.training.cuda_graphs import GraphedStep
from emofuse.training.engine import TrainingGroup, train_group
from emofuse.training.losses import row_losses
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member
from emofuse.training.shared_rows import SharedRows

CPU = torch.device("cpu")


def make_group(rows=70, **changes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, rows)
    x = torch.from_numpy((rng.normal(size=(rows, 6)) + labels[:, None]).astype(np.float32))
    table = FeatureTable({"a": x}, {"a": torch.from_numpy(rng.random(rows) > 0.2)}, torch.from_numpy(labels), 3)
    part = np.arange(rows) % 3
    part[0], labels[0] = 3, -1  # a row of no fold, without a label, which must not even fill a batch
    folds = [
        Fold(
            np.flatnonzero((part != f) & (part < 3)),
            np.flatnonzero(part == f),
            {"a": Scaling.fit(x.numpy(), np.arange(rows))},
        )
        for f in range(3)
    ]
    head = ConcatHeadSpec(embed_dim=8, depth=1, width=8, dropout=0.3)
    train = TrainSpec(epochs=4, batch_size=16, learning_rate=1e-2, gradient_balancing="on")
    return table, folds, [Member(("a",), head, train.model_copy(update=changes), fold) for fold in (0, 1, 1, 2)]


# ----------------------------------------------------------------------------------------------------------- graphs


class FakeGraph:
    """Stands for a CUDA graph: what is captured is not run, and a replay runs it on the memory it was captured with."""

    captures = 0
    replays = 0

    def __init__(self, function):
        type(self).captures += 1
        self.function = function

    def replay(self):
        type(self).replays += 1
        self.function()


@pytest.mark.parametrize("rows", [70, 66, 51])  # the last batch is short, joined by one row, tiny with idle folds
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_replayed_steps_equal_plain_ones(monkeypatch, rows, mixup):
    table, folds, members = make_group(rows, mixup=mixup)
    plain = train_group(table, folds, members, Machine(CPU, torch.float64))
    monkeypatch.setattr(engine, "capture_cuda", FakeGraph)
    FakeGraph.captures = FakeGraph.replays = 0
    graphed = train_group(table, folds, members, Machine(CPU, torch.float64, graphs=True))
    assert FakeGraph.captures == 1
    assert FakeGraph.replays >= 5
    for ours, theirs in zip(graphed, plain, strict=True):
        assert ours.best_epoch == theirs.best_epoch
        for name, array in theirs.weights.items():
            np.testing.assert_allclose(ours.weights[name], array, rtol=1e-10, atol=1e-13)


def test_a_graph_gets_the_rows_of_each_step_in_the_same_memory_and_idle_steps_run_plainly():
    seen = []
    graphed = GraphedStep(FakeGraph, warm_up=1)

    def train_step(s):
        seen.append((s.rows.data_ptr(), s.rows.tolist(), s.idle))

    for value in range(4):
        graphed.run(train_step, StepRows(torch.tensor([[value]]), torch.tensor([[True]]), frozenset()))
    graphed.run(train_step, StepRows(torch.tensor([[9]]), torch.tensor([[False]]), frozenset([0])))
    graphed.run(train_step, StepRows(torch.tensor([[4]]), torch.tensor([[True]]), frozenset()))
    assert [rows for _, rows, _ in seen] == [[[0]], [[1]], [[2]], [[3]], [[9]], [[4]]]
    addresses = [address for address, _, _ in seen]
    assert len({addresses[index] for index in (1, 2, 3, 5)}) == 1
    assert seen[4][2] == frozenset([0])


def test_steps_of_a_group_with_graphs_are_all_equally_wide():
    table, folds, members = make_group(66)
    shared = SharedRows(table, folds, members, Machine(CPU, graphs=True))
    steps = list(shared.order.epoch(shared.source, CPU))
    assert {step.rows.shape for step in steps} == {(3, shared.order.width)}
    plain = SharedRows(table, folds, members, Machine(CPU))
    assert all(step.present.any(0).all() for step in plain.order.epoch(plain.source, CPU))


def test_each_fold_has_full_batches_of_its_own_rows():
    table, folds, members = make_group(51)  # 34, 33 and 33 training rows
    shared = SharedRows(table, folds, members, Machine(CPU))
    for _ in range(2):
        steps = list(shared.order.epoch(shared.source, CPU))
        assert [step.present.sum(1).tolist() for step in steps] == [[16, 16, 16], [16, 17, 17], [2, 0, 0]]
        assert [step.idle for step in steps] == [frozenset(), frozenset(), frozenset([1, 2])]
        for place, fold in enumerate(folds):
            rows = torch.cat([step.rows[place][step.present[place]] for step in steps])
            assert sorted(rows.tolist()) == fold.train.tolist()


@pytest.mark.gpu
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_cuda_graph_trains_like_plain_steps_and_like_the_cpu(mixup):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    table, folds, members = make_group(mixup=mixup)
    cuda = torch.device("cuda", torch.cuda.current_device())
    on_cpu = train_group(table, folds, members, Machine(CPU, torch.float64))
    plain = train_group(table, folds, members, Machine(cuda, torch.float64))
    graphed = train_group(table, folds, members, Machine(cuda, torch.float64, graphs=True))
    for index, result in enumerate(on_cpu):
        assert graphed[index].history[-1]["train_loss"] == pytest.approx(
            plain[index].history[-1]["train_loss"], rel=1e-9
        )
        assert result.history[0]["val_loss"] == pytest.approx(
            plain[index].history[0]["val_loss"], rel=0.2
        )  # other zeros


# -------------------------------------------------------------------------------------------------------- precision


def test_bfloat16_products_leave_weights_in_float32_and_learn_alike():
    table, folds, members = make_group(300)
    exact = train_group(table, folds, members, Machine(CPU))
    coarse = train_group(table, folds, members, Machine(CPU, products=torch.bfloat16))
    for ours, theirs in zip(coarse, exact, strict=True):
        assert {array.dtype for array in ours.weights.values()} == {np.dtype(np.float32)}
        assert ours.history[0]["train_loss"] != theirs.history[0]["train_loss"]
        assert ours.history[0]["train_loss"] == pytest.approx(theirs.history[0]["train_loss"], rel=0.02)
        assert ours.history[-1]["val_accuracy"] == pytest.approx(theirs.history[-1]["val_accuracy"], abs=0.08)


def test_cuda_trains_with_bfloat16_products_and_the_cpu_in_float32():
    assert Machine.of(CPU) == Machine(CPU, torch.float32, None, graphs=False)
    cuda = torch.device("cuda", 0)
    assert Machine.of(cuda) == Machine(cuda, torch.float32, torch.bfloat16, graphs=False)


def test_gradients_of_the_large_weights_are_written_into_memory_that_stays():
    table, folds, members = make_group()
    group = TrainingGroup(SharedRows(table, folds, members, Machine(CPU)), members)
    layers = [layer for layer in group._head.modules() if isinstance(layer, (Linear, Projection))]
    before = [layer.gradient.data_ptr() for layer in layers]
    group.train_epoch(1)
    assert [layer.gradient.data_ptr() for layer in layers] == before
    assert all(layer.gradient.any() for layer in layers)


# ------------------------------------------------------------------------------------------------------------- loss


def test_the_loss_is_torchs_cross_entropy_with_a_label_smoothing_for_each_member():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (3, 5), generator=generator)
    smoothing = torch.tensor([[0.0], [0.1], [0.6]], dtype=torch.float64)
    losses = row_losses(torch.log_softmax(logits, dim=2), labels, smoothing)
    for member, share in enumerate((0.0, 0.1, 0.6)):
        expected = functional.cross_entropy(logits[member], labels[member], reduction="none", label_smoothing=share)
        torch.testing.assert_close(losses[member], expected)
