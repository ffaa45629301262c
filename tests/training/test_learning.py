"""Training a head alone: what it learns, what it chooses, and that it repeats itself."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

from emofuse.heads import load_head_weights
from emofuse.metrics.classification import classification_metrics
from emofuse.specs import (
    AttentionHeadSpec,
    ConcatHeadSpec,
    GatedHeadSpec,
    LateHeadSpec,
    LinearHeadSpec,
    TrainSpec,
)
from emofuse.training import validation
from emofuse.training.batches import batch_sizes
from emofuse.training.engine import MemberProgress, train_group
from emofuse.training.machine import Machine
from emofuse.training.members import Fold, Member
from emofuse.training.trained import head_outputs

CPU = torch.device("cpu")
SMALL = ConcatHeadSpec(embed_dim=16, width=16, depth=1)
HEADS = [
    SMALL,
    LinearHeadSpec(),
    GatedHeadSpec(embed_dim=16, gate_dim=8, width=16, depth=1),
    LateHeadSpec(embed_dim=16, width=16),
    AttentionHeadSpec(embed_dim=16, width=16),
]
every_head = pytest.mark.parametrize("spec", HEADS, ids=lambda spec: spec.kind)
FAST = TrainSpec(epochs=8, batch_size=64, learning_rate=1e-2, select="macro_f1")


class Trained:
    """One head trained on the first rows of a table; validated on the next."""

    def __init__(self, table, train_rows, spec=SMALL, train=FAST, streams=None, device=CPU):
        rows = np.arange(len(table))
        self.scaling = table.fit(rows[:train_rows])
        self.spec, self.dims = spec, {name: dim for name, dim in table.dims.items() if not streams or name in streams}
        fold = Fold(rows[:train_rows], rows[train_rows:], self.scaling)
        member = Member(tuple(self.dims), spec, train)
        (self.result,) = train_group(table.tensors(), [fold], [member], Machine.of(device))

    def metrics(self, table):
        head = load_head_weights(self.spec, self.dims, len(table.classes), self.result.weights)
        parts = table.scaled(np.arange(len(table)), self.scaling)
        probs = head_outputs(head, *({name: part[name] for name in self.dims} for part in parts))
        return classification_metrics(table.labels, probs, table.classes)


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


@every_head
def test_a_planted_signal_is_learned_to_the_best_reachable_accuracy(make_table, spec):
    trained = Trained(gaussian(make_table, 2000, 0), 1500, spec)
    reachable = 0.5 * (1 + math.erf(2.0 / 2 / math.sqrt(2)))
    assert trained.metrics(gaussian(make_table, 4000, 2))["accuracy"] == pytest.approx(reachable, abs=0.025)


@every_head
def test_fusing_two_half_informed_streams_beats_each(make_table, spec):
    table, fresh = two_cues(make_table, 1000, 0), two_cues(make_table, 600, 2)
    for stream in ("first", "second"):
        assert Trained(table, 700, spec, streams=[stream]).metrics(fresh)["accuracy"] == pytest.approx(0.5, abs=0.08)
    fused = 0.85 if spec.kind == "late" else 0.97  # averages come close in the end, not within 8 epochs
    assert Trained(table, 700, spec).metrics(fresh)["accuracy"] > fused


@pytest.mark.parametrize("spec", [spec for spec in HEADS if spec.kind != "late"], ids=lambda spec: spec.kind)
def test_that_a_stream_is_missing_can_itself_be_learned(make_table, spec):
    """Late fusion is left out: it averages what is there, and has learned probabilities only where nothing is."""
    labels = np.random.default_rng(0).integers(0, 2, 300)
    table = make_table(labels, {"a": np.zeros((300, 3)), "b": np.zeros((300, 3))}, missing={"a": labels == 1})
    assert Trained(table, 200, spec).metrics(table)["accuracy"] == 1.0


@every_head
def test_rows_that_lack_a_stream_are_decided_by_the_others(make_table, spec):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    signal = labels[:, None] + rng.normal(size=(600, 4)) * 0.2
    table = make_table(labels, {"a": signal, "b": signal}, missing={"a": rng.random(600) < 0.5})
    assert Trained(table, 400, spec).metrics(table)["accuracy"] > 0.97


# ---------------------------------------------------------------------------------------------- it repeats itself


def test_same_spec_and_seed_give_the_same_bits_whatever_else_draws_random_numbers(make_table):
    table, noisy = gaussian(make_table, 210, 0), SMALL.model_copy(update={"dropout": 0.4})
    first = Trained(table, 150, noisy).result
    torch.rand(17)
    second = Trained(table, 150, noisy).result
    assert first.history == second.history
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)


@pytest.mark.parametrize("changed", ["seed", "order_seed"])
def test_another_seed_gives_other_weights_and_another_order_seed_another_order(make_table, changed):
    table = gaussian(make_table, 210, 0)
    losses = [
        Trained(table, 150, train=FAST.model_copy(update={"epochs": 1, changed: seed})).result.history[0]["train_loss"]
        for seed in (0, 1)
    ]
    assert losses[0] != losses[1]


# ---------------------------------------------------------------------------------------------- it chooses


def course_of(entries, **train):
    progress = MemberProgress(0, Member(("a",), SMALL, TrainSpec(epochs=len(entries), **train)))
    for epoch, (accuracy, loss) in enumerate(entries, start=1):
        if progress.ended is None:
            scores = {"val_accuracy": accuracy, "val_macro_f1": accuracy, "val_loss": loss}
            progress.add_epoch({"epoch": epoch, "train_loss": 1.0, **scores})
    return progress


@pytest.mark.parametrize(
    ("select", "entries", "best"),
    [
        ("accuracy", [(0.5, 1), (0.8, 1), (0.7, 1)], 2),
        ("macro_f1", [(0.5, 1), (0.8, 1), (0.7, 1)], 2),
        ("loss", [(0.8, 9), (0.8, 1), (0.9, 2)], 2),
        ("accuracy", [(0.8, 5), (0.8, 1), (0.8, 5)], 2),  # equal accuracy: the lower loss
        ("accuracy", [(0.5, 1), (0.8, 1), (0.8, 1)], 2),  # equal in both: the earlier
        ("loss", [(0.8, 1), (0.9, 1)], 1),
    ],
)
def test_the_best_epoch_is_chosen(select, entries, best):
    progress = course_of(entries, select=select)
    assert (progress.best_epoch, progress.last_epoch, progress.ended) == (best, len(entries), "epochs")


def test_patience_counts_epochs_without_a_better_one():
    progress = course_of([(0.5, 1), (0.8, 1), (0.7, 1), (0.7, 1), (0.9, 1)], select="accuracy", patience=2)
    assert (progress.best_epoch, progress.last_epoch, progress.ended) == (2, 4, "patience")


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_a_course_and_is_not_in_its_history(loss):
    progress = course_of([(0.5, 1), (0.8, loss), (0.9, 1)])
    assert (progress.best_epoch, progress.last_epoch, progress.ended, len(progress.history)) == (1, 2, "diverged", 1)


def test_the_weights_are_those_of_the_best_epoch(make_table):
    table = gaussian(make_table, 180, 0)
    trained = Trained(table, 100)
    best = trained.result.history[trained.result.best_epoch - 1]
    found = trained.metrics(make_table(table.labels[100:], {"a": table.features["a"][100:]}))
    assert found["loss"] == pytest.approx(best["val_loss"], rel=1e-5)
    assert found["macro"]["f1"] == best["val_macro_f1"] == max(e["val_macro_f1"] for e in trained.result.history)


def test_test_rows_are_no_argument_of_what_chooses():
    arguments = list(inspect.signature(train_group).parameters)
    assert arguments == ["table", "folds", "members", "machine", "window", "on_epoch", "stop_rule"]
    assert list(inspect.signature(Fold).parameters) == ["train", "val", "scaling"]


# ---------------------------------------------------------------------------------------------- parts of it


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1]), (8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (3, [3]), (5, [5])])
def test_an_epoch_leaves_no_row_alone(rows, sizes):
    assert batch_sizes(rows, 4) == sizes


def test_probs_are_the_same_in_one_pass_and_in_parts(make_table, monkeypatch):
    table = gaussian(make_table, 90, 0)
    trained = Trained(table, 50, train=FAST.model_copy(update={"epochs": 1}))
    head = load_head_weights(SMALL, trained.dims, 2, trained.result.weights)
    whole = head_outputs(head, table.features, table.valid)
    monkeypatch.setattr(validation, "EVAL_ROWS", 7)
    np.testing.assert_allclose(head_outputs(head, table.features, table.valid), whole, atol=1e-6)
    assert whole.dtype == np.float32
    assert whole.shape == (90, 2)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-6)


def test_scores_of_many_heads_at_once_are_those_of_the_metrics(make_table, monkeypatch):
    """Three heads of two folds with different numbers of rows, in parts of any size."""
    table = two_cues(make_table, 300, 0)
    rows = np.arange(300)
    scaling = table.fit(rows[:100])
    folds = [Fold(rows[:100], rows[150:221], scaling), Fold(rows[50:150], rows[221:300], scaling)]
    train = FAST.model_copy(update={"epochs": 1, "learning_rate": 1e-3})
    members = [
        Member(("first", "second"), SMALL, train.model_copy(update={"seed": s}), f) for s, f in ((0, 0), (1, 1), (2, 1))
    ]
    monkeypatch.setattr(validation, "EVAL_ROWS", 100)
    for member, result in zip(members, train_group(table.tensors(), folds, members, Machine(CPU)), strict=True):
        val = folds[member.fold].val
        head = load_head_weights(SMALL, table.dims, 4, result.weights)
        probs = head_outputs(head, *table.scaled(val, scaling))
        expected = classification_metrics(table.labels[val], probs, table.classes)
        (entry,) = result.history
        assert entry["val_accuracy"] == expected["accuracy"]
        assert entry["val_loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert entry["val_macro_f1"] == pytest.approx(expected["macro"]["f1"])


def test_weights_of_another_head_are_refused(make_table):
    weights = Trained(gaussian(make_table, 60, 0), 40, train=FAST.model_copy(update={"epochs": 1})).result.weights
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: .*embeddings\.of_b\.linear\.weight"):
        load_head_weights(SMALL, {"b": 6}, 2, weights)


@pytest.mark.gpu
def test_a_gpu_learns_the_same_and_repeats_itself(make_table):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    table, noisy = two_cues(make_table, 1000, 0), SMALL.model_copy(update={"dropout": 0.2})
    before = torch.cuda.get_rng_state()
    histories = [Trained(table, 700, noisy, device=torch.device("cuda")).result.history for _ in range(2)]
    assert histories[0] == histories[1]
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert histories[0][-1]["val_accuracy"] > 0.95
