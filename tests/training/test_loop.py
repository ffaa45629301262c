"""The loop: what it learns, what it chooses, that it repeats itself, and what it refuses."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn

from emofuse.errors import TrainingError
from emofuse.heads import make_head
from emofuse.specs import ConcatHeadSpec, TrainSpec
from emofuse.training import loop
from emofuse.training.loop import Batch, epoch_batches, predict_probs, resolve_device, train_head
from emofuse.training.metrics import classification_metrics

CPU = torch.device("cpu")
SMALL = ConcatHeadSpec(embed_dim=16, width=16, depth=1)
FAST = TrainSpec(epochs=8, batch_size=64, learning_rate=1e-2)


def new_head(table, spec=SMALL, seed=0):
    return make_head(spec, table.dims, len(table.classes), seed=seed)


def accuracy(head, table):
    return classification_metrics(table.labels, predict_probs(head, Batch.from_table(table, CPU)), table.classes)[
        "accuracy"
    ]


def gaussian(make_table, rows, seed, distance=2.0, dim=6):
    """Two labels, unit noise, means `distance` apart: the best accuracy there is is Phi(distance / 2)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    features = rng.normal(size=(rows, dim))
    features += (labels[:, None] - 0.5) * distance / math.sqrt(dim)
    return make_table(labels, {"a": features})


def two_cues(make_table, rows, seed):
    """Four labels of two bits; each stream knows one bit."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rows)
    streams = {"first": labels // 2, "second": labels % 2}
    return make_table(labels, {name: rng.normal(size=(rows, 4)) * 0.3 + bit[:, None] for name, bit in streams.items()})


# ---------------------------------------------------------------------------------------------- it learns


def test_a_planted_signal_is_learned_to_the_best_reachable_accuracy(make_table):
    train, val, fresh = (gaussian(make_table, rows, seed) for rows, seed in ((1500, 0), (500, 1), (4000, 2)))
    head = new_head(train)
    train_head(head, train, val, FAST, CPU)
    reachable = 0.5 * (1 + math.erf(2.0 / 2 / math.sqrt(2)))
    assert accuracy(head, fresh) == pytest.approx(reachable, abs=0.025)


def test_fusing_two_half_informed_streams_beats_each(make_table):
    train, val, fresh = (two_cues(make_table, rows, seed) for rows, seed in ((600, 0), (200, 1), (600, 2)))

    def trained_on(*streams):
        def only(t):
            return make_table(t.labels, {name: t.features[name] for name in streams}, classes=t.classes)

        head = new_head(only(train))
        train_head(head, only(train), only(val), FAST, CPU)
        return accuracy(head, only(fresh))

    assert trained_on("first") == pytest.approx(0.5, abs=0.08)
    assert trained_on("second") == pytest.approx(0.5, abs=0.08)
    assert trained_on("first", "second") > 0.97


def test_that_a_stream_is_missing_can_itself_be_learned(make_table):
    def table(rows, seed):
        labels = np.random.default_rng(seed).integers(0, 2, rows)
        return make_table(labels, {"a": np.zeros((rows, 3))}, missing={"a": labels == 1})

    train, val = table(200, 0), table(100, 1)
    head = new_head(train)
    train_head(head, train, val, FAST, CPU)
    assert accuracy(head, val) == 1.0


def test_rows_that_lack_a_stream_are_decided_by_the_others(make_table):
    def table(rows, seed):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, rows)
        signal = labels[:, None] + rng.normal(size=(rows, 4)) * 0.2
        return make_table(labels, {"a": signal, "b": signal}, missing={"a": rng.random(rows) < 0.5})

    train, val = table(400, 0), table(200, 1)
    head = new_head(train)
    train_head(head, train, val, FAST, CPU)
    assert accuracy(head, val) > 0.97


# ---------------------------------------------------------------------------------------------- it repeats itself


def test_same_spec_and_seed_give_the_same_bits_whatever_else_draws_random_numbers(make_table):
    train, val = gaussian(make_table, 150, 0), gaussian(make_table, 60, 1)
    spec = FAST.model_copy(update={"epochs": 3})
    noisy = SMALL.model_copy(update={"dropout": 0.4})
    first = new_head(train, noisy)
    history = train_head(first, train, val, spec, CPU).history
    torch.rand(17)
    np.random.default_rng()
    second = new_head(train, noisy)
    assert train_head(second, train, val, spec, CPU).history == history
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_another_seed_gives_another_order_and_other_dropout(make_table):
    train, val = gaussian(make_table, 150, 0), gaussian(make_table, 60, 1)
    noisy = SMALL.model_copy(update={"dropout": 0.4})
    losses = [
        train_head(
            new_head(train, noisy), train, val, FAST.model_copy(update={"epochs": 1, "seed": seed}), CPU
        ).history[0]["train_loss"]
        for seed in (0, 1)
    ]
    assert losses[0] != losses[1]


def test_training_leaves_the_global_random_state_and_flags_alone(make_table):
    train, val = gaussian(make_table, 100, 0), gaussian(make_table, 50, 1)
    head = new_head(train, SMALL.model_copy(update={"dropout": 0.4}))
    before = torch.get_rng_state()
    flags = (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.is_grad_enabled())
    train_head(head, train, val, FAST.model_copy(update={"epochs": 2}), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert flags == (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.is_grad_enabled())


def test_training_does_not_change_its_tables(make_table):
    train, val = gaussian(make_table, 100, 0), gaussian(make_table, 50, 1)
    before = train.features["a"].copy()
    train_head(new_head(train), train, val, FAST.model_copy(update={"epochs": 1}), CPU)
    assert np.array_equal(train.features["a"], before)


# ---------------------------------------------------------------------------------------------- it chooses


class Scripted(nn.Module):
    """A head whose validation accuracy and confidence follow a script, one line an epoch; `state` counts epochs."""

    def __init__(self, script, labels):
        super().__init__()
        self.script = script
        self.val_labels = torch.as_tensor(labels)
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def forward(self, features, valid):
        rows = len(features["a"])
        if self.training:
            self.epoch += 1
            return self.weight.expand(rows, 2)
        right, confidence = self.script[int(self.epoch) - 1]
        sign = torch.where(torch.arange(rows) < right, 1.0, -1.0) * confidence
        return torch.stack([-sign, sign], dim=1) * torch.where(self.val_labels == 1, 1.0, -1.0).unsqueeze(1)


@pytest.mark.parametrize(
    ("select", "script", "best"),
    [
        ("accuracy", [(5, 1), (8, 1), (7, 1)], 2),
        ("macro_f1", [(5, 1), (8, 1), (7, 1)], 2),
        ("loss", [(8, 9), (8, 1), (7, 1)], 2),
        ("accuracy", [(8, 5), (8, 1), (8, 5)], 2),  # equal accuracy: the lower loss
        ("accuracy", [(5, 1), (8, 1), (8, 1)], 2),  # equal in both: the earlier
        ("loss", [(8, 1), (8, 1)], 1),
    ],
)
def test_the_best_epoch_is_kept(make_table, select, script, best):
    labels = np.array([0, 1] * 5)
    table = make_table(labels, {"a": np.zeros((10, 1))})
    head = Scripted(script, labels)
    spec = TrainSpec(epochs=len(script), batch_size=10, select=select)
    training = train_head(head, table, table, spec, CPU)
    assert training.best_epoch == best
    assert int(head.epoch) == best
    assert not head.training
    assert [entry["epoch"] for entry in training.history] == list(range(1, len(script) + 1))


def test_patience_ends_training_after_so_many_epochs_without_a_better_one(make_table):
    labels = np.array([0, 1] * 5)
    table = make_table(labels, {"a": np.zeros((10, 1))})
    script = [(5, 1), (8, 1), (7, 1), (7, 1), (9, 1)]
    spec = TrainSpec(epochs=5, batch_size=10, select="accuracy", patience=2)
    training = train_head(Scripted(script, labels), table, table, spec, CPU)
    assert (training.best_epoch, len(training.history)) == (2, 4)


def test_the_weights_left_are_those_of_the_best_epoch(make_table):
    train, val = gaussian(make_table, 100, 0), gaussian(make_table, 80, 1)
    head = new_head(train)
    training = train_head(head, train, val, FAST, CPU)
    best = training.history[training.best_epoch - 1]
    found = classification_metrics(val.labels, predict_probs(head, Batch.from_table(val, CPU)), val.classes)
    assert (found["loss"], found["macro"]["f1"]) == (best["val_loss"], best["val_macro_f1"])
    assert best["val_macro_f1"] == max(entry["val_macro_f1"] for entry in training.history)


def test_test_rows_are_no_argument_of_what_chooses():
    assert list(inspect.signature(train_head).parameters) == ["head", "train", "val", "spec", "device", "on_epoch"]


def test_each_epoch_is_told_as_it_ends(make_table):
    train, val = gaussian(make_table, 100, 0), gaussian(make_table, 50, 1)
    told = []
    training = train_head(new_head(train), train, val, FAST, CPU, on_epoch=told.append)
    assert told == training.history
    assert set(told[0]) == {"epoch", "train_loss", "val_loss", "val_accuracy", "val_macro_f1"}


# ---------------------------------------------------------------------------------------------- the step itself


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_cross_entropy_with_smoothed_labels(make_table, smoothing):
    train = gaussian(make_table, 40, 0)
    head = new_head(train)
    head.train()
    rows = Batch.from_table(train, CPU)
    logits = head(rows.features, rows.valid).detach().double()
    logprobs = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    true = logprobs[torch.arange(40), rows.labels]
    expected = -((1 - smoothing) * true + smoothing * logprobs.mean(dim=1)).mean().item()
    one_step = TrainSpec(epochs=1, batch_size=40, label_smoothing=smoothing)
    history = train_head(new_head(train), train, train, one_step, CPU).history
    assert history[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_a_step_is_torch_s_own(make_table, name, kind):
    train = gaussian(make_table, 40, 0)
    spec = TrainSpec(epochs=1, batch_size=40, learning_rate=1e-2, weight_decay=0.1, optimizer=name)
    ours, theirs = new_head(train), new_head(train)
    train_head(ours, train, train, spec, CPU)
    optimizer = kind(theirs.parameters(), lr=1e-2, weight_decay=0.1)
    rows = Batch.from_table(train, CPU)
    nn.functional.cross_entropy(theirs(rows.features, rows.valid), rows.labels).backward()
    optimizer.step()
    expected = dict(theirs.named_parameters())
    del expected["embeddings.of_a.linear.bias"]  # batch norm takes it out again: its gradient is rounding alone
    for parameter, tensor in expected.items():
        torch.testing.assert_close(ours.get_parameter(parameter), tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1]), (8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (3, [3]), (5, [5])])
def test_an_epoch_takes_every_row_once_and_leaves_none_alone(rows, sizes):
    generator = torch.Generator().manual_seed(0)
    first, second = (list(epoch_batches(rows, 4, generator)) for _ in range(2))
    assert [len(batch) for batch in first] == sizes
    assert sorted(torch.cat(first).tolist()) == list(range(rows))
    if rows > 5:
        assert torch.cat(first).tolist() != torch.cat(second).tolist()


def test_probs_are_the_same_in_one_pass_and_in_parts(make_table, monkeypatch):
    table = gaussian(make_table, 50, 0)
    head = new_head(table)
    rows = Batch.from_table(table, CPU)
    whole = predict_probs(head, rows)
    monkeypatch.setattr(loop, "EVAL_ROWS", 7)
    np.testing.assert_allclose(predict_probs(head, rows), whole, atol=1e-6)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-6)


# ---------------------------------------------------------------------------------------------- it refuses


def test_splits_without_a_row_are_refused(make_table):
    some, none = gaussian(make_table, 20, 0), make_table([], {"a": np.zeros((0, 6))}, classes=("x", "y"))
    with pytest.raises(TrainingError, match=r"no labelled row has split 'val' \(to choose the epoch on\)\. Give the"):
        train_head(new_head(some), some, none, FAST, CPU)
    with pytest.raises(TrainingError, match=r"split 'train' \(to learn from\) nor 'val' .* `--split stratified`"):
        train_head(new_head(some), none, none, FAST, CPU)


def test_one_label_is_refused(make_table):
    table = make_table([1, 1, 1], {"a": np.zeros((3, 2))}, classes=("joy", "fear"))
    with pytest.raises(TrainingError, match="all 3 training rows are labelled 'fear': a head needs at least two"):
        train_head(new_head(table), table, table, FAST, CPU)


def test_divergence_is_an_error_that_names_the_epoch(make_table):
    train = gaussian(make_table, 100, 0)
    spec = FAST.model_copy(update={"learning_rate": 1e38})
    with pytest.raises(TrainingError, match=r"_loss is (nan|inf) in epoch 1 with learning_rate 1e\+38: .* Lower the"):
        train_head(new_head(train), train, train, spec, CPU)


def test_devices(monkeypatch):
    assert resolve_device("cpu") == CPU
    with pytest.raises(TrainingError, match="device 'gpu' is unknown; use auto, cpu, cuda or cuda:N"):
        resolve_device("gpu")
    with pytest.raises(TrainingError, match="device 'meta' is unknown"):
        resolve_device("meta")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    with pytest.raises(TrainingError, match="device 'cuda:1' was asked for, but torch sees no such CUDA device"):
        resolve_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert resolve_device("auto") == torch.device("cuda", 1)
    assert resolve_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(TrainingError, match="device 'cuda:2' was asked for, but torch sees no such CUDA device"):
        resolve_device("cuda:2")


@pytest.mark.gpu
def test_a_gpu_learns_the_same_and_repeats_itself(make_table):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    train, val = two_cues(make_table, 600, 0), two_cues(make_table, 200, 1)
    spec = SMALL.model_copy(update={"dropout": 0.2})
    heads = [new_head(train, spec) for _ in range(2)]
    before = torch.cuda.get_rng_state()
    histories = [train_head(head, train, val, FAST, resolve_device("cuda")).history for head in heads]
    assert histories[0] == histories[1]
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert histories[0][-1]["val_accuracy"] > 0.95
