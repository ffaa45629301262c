"""The engine: every member of a group equals its own run in the oracle, whoever trains beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch

from emofuse.errors import TrainingError
from emofuse.heads.members import owners
from emofuse.scaling import Scaling
from emofuse.specs import (
    AttentionHeadSpec,
    ConcatHeadSpec,
    GatedHeadSpec,
    LateHeadSpec,
    LinearHeadSpec,
    TrainSpec,
)
from emofuse.training.batches import Order
from emofuse.training.engine import TrainingGroup, train_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member, structure_key
from emofuse.training.row_draws import RowSet
from emofuse.training.shared_rows import SharedRows
from emofuse.training.streaming import Resident
from emofuse.training.validation import eval_rows
from emofuse.training.validation_scores import partial_sums

EXACT = Machine(torch.device("cpu"), torch.float64)
HEADS = {
    "concat": ConcatHeadSpec(embed_dim=6, depth=2, width=8),
    "concat without hidden layers": ConcatHeadSpec(embed_dim=6, depth=0),
    "linear": LinearHeadSpec(),
    "gated": GatedHeadSpec(embed_dim=6, gate_dim=4, depth=1, width=8),
    "late": LateHeadSpec(embed_dim=6, depth=1, width=8),
    "attention": AttentionHeadSpec(embed_dim=8, attention_heads=2, depth=1, width=12),
    "attention of two layers": AttentionHeadSpec(embed_dim=8, attention_heads=2, depth=2, width=12),
}
SMALL = HEADS["concat"]
DIMS = {"lbp": 5, "mobilenet_v3.small": 7, "type": 3}
LBP, MOBILE, TYPE = DIMS


def make_table(rows=80, dims=None, classes=4, missing=0.25, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    features, valid = {}, {}
    for stream, dim in (dims or DIMS).items():
        x = rng.normal(size=(rows, dim)) * 3 + 1 + rng.normal(size=(classes, dim))[labels] * 6
        valid[stream] = torch.from_numpy(rng.random(rows) >= missing)
        features[stream] = torch.from_numpy(x.astype(np.float32))
        features[stream][~valid[stream]] = float("nan")  # whatever stands there, nobody reads it
    return FeatureTable(features, valid, torch.from_numpy(labels), classes)


def make_fold(table, train, val):
    scaling = {}
    for stream, x in table.features.items():
        rows = train[table.valid[stream][train].numpy()]
        scaling[stream] = Scaling.fit(x.numpy(), rows)
    return Fold(train, val, scaling)


def make_folds(table, count=3, seed=99):
    part = np.random.default_rng(seed).integers(0, count, len(table.labels))
    return [make_fold(table, np.flatnonzero(part != f), np.flatnonzero(part == f)) for f in range(count)]


def make_members(head, balancing="off", **changes):
    """Members that differ in everything in which they may differ."""
    common = {"epochs": 5, "batch_size": 16, "select": "loss", "gradient_balancing": balancing} | changes

    def member(streams, fold, dropout=0.0, **train):
        own = head.model_copy(update={"dropout": dropout}) if "dropout" in type(head).model_fields else head
        return Member(streams, own, TrainSpec(**(common | train)), fold)

    return [
        member((LBP, MOBILE, TYPE), 0, learning_rate=1e-2),
        member((MOBILE,), 1, 0.3, learning_rate=1e-3, weight_decay=0.1, optimizer="adamw"),
        member((LBP, TYPE), 2, 0.3, learning_rate=3e-3, weight_decay=0.1, seed=3, label_smoothing=0.1, epochs=3),
        member((LBP, TYPE), 1, 0.1, learning_rate=3e-2, patience=1, select="accuracy"),
        member((MOBILE, TYPE), 0, learning_rate=1e-2, seed=3),
        member((LBP, MOBILE, TYPE), 2, 0.5, learning_rate=1e-3, seed=3, label_smoothing=0.2, select="macro_f1"),
        member((TYPE,), 0, learning_rate=1e-2, optimizer="adamw", weight_decay=0.01),
    ]


def assert_same_run(result, expected, rtol=1e-9, atol=1e-12):
    """1e-9 relative, parameter by parameter, and every number of every epoch."""
    weights, history, best_epoch, last_epoch, ended = expected
    assert (result.best_epoch, result.last_epoch, result.ended) == (best_epoch, last_epoch, ended)
    assert result.weights.keys() == weights.keys()
    for name, tensor in weights.items():
        np.testing.assert_allclose(result.weights[name], tensor.numpy(), rtol=rtol, atol=atol, err_msg=name)
    assert len(result.history) == len(history)
    for ours, theirs in zip(result.history, history, strict=True):
        assert ours == approximately(theirs, rtol)


def approximately(entry, rtol):
    return {
        key: approximately(value, rtol) if isinstance(value, dict) else pytest.approx(value, rel=rtol, abs=1e-12)
        for key, value in entry.items()
    }


# --------------------------------------------------------------------------------------------- it equals the oracle


@pytest.mark.parametrize("balancing", ["off", "on"])
@pytest.mark.parametrize("kind", HEADS)
def test_every_member_equals_its_own_plain_run(kind, balancing):
    table = make_table()
    folds, members = make_folds(table), make_members(HEADS[kind], balancing)
    results = train_group(table, folds, members, EXACT)
    assert sum(result.best_epoch >= 4 for result in results) >= 3  # weights that have come a long way
    for member, result in zip(members, results, strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member))


@pytest.mark.parametrize("batch_size", [2, 7, 83, 1000])
def test_any_batch_size_equals_the_oracle_also_with_batches_in_which_a_fold_has_no_row(batch_size):
    table = make_table(rows=85)
    folds = make_folds(table, count=2)
    members = make_members(SMALL, batch_size=batch_size, epochs=2)
    members = [replace(member, fold=min(member.fold, 1)) for member in members]
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member))


def test_a_plain_split_is_one_fold():
    table = make_table()
    fold = make_fold(table, np.arange(0, 60), np.arange(60, 80))  # the other rows are test rows
    members = [replace(member, fold=0) for member in make_members(SMALL)]
    for member, result in zip(members, train_group(table, [fold], members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, [fold], member))


@pytest.mark.parametrize("seen", [0, 1])
@pytest.mark.parametrize("kind", HEADS)
def test_a_stream_of_fewer_than_two_training_rows_counts_as_missing_in_every_row(kind, seen):
    """Judged fold by fold: the first fold never learned the stream, the second did."""
    table = make_table()
    parts = [(np.arange(0, 40), np.arange(40, 80)), (np.arange(40, 80), np.arange(0, 40))]
    table.valid[LBP][:40] = False
    table.valid[LBP][:seen] = True
    table.features[LBP][:40] = 50 + 10 * torch.randn(40, DIMS[LBP])
    folds = [make_fold(table, *part) for part in parts]
    assert [fold.scaling[LBP].fitted for fold in folds] == [False, True]
    members = [replace(member, fold=min(member.fold, 1)) for member in make_members(HEADS[kind])]
    results = train_group(table, folds, members, EXACT)
    for member, result in zip(members, results, strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member))
    nowhere = replace(table, valid=table.valid | {LBP: torch.zeros(80, dtype=torch.bool)})
    without = train_group(nowhere, [make_fold(nowhere, *part) for part in parts], members, EXACT)
    same = [ours.history == theirs.history for ours, theirs in zip(results, without, strict=True)]
    assert same == [member.fold == 0 or LBP not in member.streams for member in members]


@pytest.mark.parametrize("kind", HEADS)
def test_the_mean_embedding_stands_for_a_stream_that_no_training_row_lacks(kind):
    table = make_table()
    fold = make_fold(table, np.arange(0, 60), np.arange(60, 80))
    table.valid[LBP][:60] = True
    table.features[LBP][:60] = torch.randn(60, DIMS[LBP])
    assert not table.valid[LBP][60:].all()
    fold = make_fold(table, fold.train, fold.val)
    members = [replace(member, fold=0) for member in make_members(HEADS[kind])]
    for member, result in zip(members, train_group(table, [fold], members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, [fold], member))
        missing, mean = (result.weights.get(f"embeddings.of_lbp.{name}") for name in ("missing", "norm.bias"))
        if mean is not None:
            assert np.array_equal(missing, mean)
            assert np.abs(mean).max() > 1e-3


@pytest.mark.parametrize("kind", HEADS)
def test_one_absurd_value_costs_its_row_alone_in_training_and_in_validation(kind):
    table = make_table(missing=0.1)
    for row in (3, 70):
        table.features[MOBILE][row, 2], table.valid[MOBILE][row] = 3e38, True
        table.features[MOBILE][row, torch.arange(7) != 2] = 1.0
    folds, members = make_folds(table), make_members(HEADS[kind], epochs=20)
    results = train_group(table, folds, members, EXACT)
    for member, result in zip(members, results, strict=True):
        assert result.ended != "diverged"
        assert_same_run(result, oracle.train_alone(table, folds, member))
    assert results[1].history[-1]["val_loss"] < 10


@pytest.mark.parametrize("balancing", ["off", "on"])
@pytest.mark.parametrize("kind", HEADS)
def test_heads_on_variants_of_a_stream_equal_plain_runs_on_the_stream(kind, balancing):
    plain = make_table()
    variants = {"lbp@2": LBP, "lbp@5": LBP, MOBILE: MOBILE, "type@1": TYPE, "type@3": TYPE}

    def only(name):
        """The table of a run that has never heard of variants; `lbp@2` is the first two columns of `lbp`."""
        width = int(name.partition("@")[2] or 99)
        return plain.features[variants[name]][:, :width]

    table = replace(
        plain,
        features={name: only(name) for name in variants},
        valid={name: plain.valid[stream] for name, stream in variants.items()},
    )
    folds = make_folds(table)
    chosen = [("lbp@2", MOBILE), ("lbp@5", MOBILE), ("lbp@2", "type@3"), ("type@1",), ("lbp@5", MOBILE, "type@3")]
    members = [
        replace(member, streams=streams)
        for member, streams in zip(make_members(HEADS[kind], balancing), chosen, strict=False)
    ]
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        named = {variants[name]: name for name in member.streams}
        alone = replace(plain, features={stream: only(name) for stream, name in named.items()})
        own_folds = [replace(f, scaling={stream: f.scaling[name] for stream, name in named.items()}) for f in folds]
        own = replace(member, streams=tuple(named))
        assert_same_run(result, oracle.train_alone(alone, own_folds, own))


def test_steps_are_as_wide_whichever_folds_are_used():
    folds = make_folds(make_table(rows=90))

    def steps(used):
        row_sets = [RowSet(fold) for fold in used]
        order = Order(folds, row_sets, count=90, batch_size=16, seed=0, window=None, fixed_width=False)
        return list(order.epoch(Resident({}, (), EXACT.device), EXACT.device))

    for fold in range(3):
        for alone, together in zip(steps([fold]), steps([0, 1, 2]), strict=True):
            assert torch.equal(alone.rows[0], together.rows[fold])
            assert torch.equal(alone.present[0], together.present[fold])


def test_the_mean_loss_has_the_same_bits_however_many_rows_are_evaluated_at_once():
    losses = torch.from_numpy(np.random.default_rng(0).random((2, 1000)) ** 9)
    whole = partial_sums(losses).sum(1)
    for heads in (1, 7, 30, 10_000):
        parts = torch.split(losses, eval_rows(heads), dim=1)
        assert torch.equal(torch.cat([partial_sums(part) for part in parts], dim=1).sum(1), whole)


def test_a_stream_that_no_training_row_has_equals_the_oracle():
    table = make_table()
    table.valid[TYPE][:] = False
    folds, members = make_folds(table), make_members(SMALL, "on", epochs=2)
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member))


# ------------------------------------------------------------------------------------- who trains beside it is nothing


def assert_equal(first, second, rel=1e-10):
    assert (first.best_epoch, first.last_epoch, first.ended) == (second.best_epoch, second.last_epoch, second.ended)
    assert first.weights.keys() == second.weights.keys()
    for name, array in first.weights.items():
        np.testing.assert_allclose(array, second.weights[name], rtol=rel, atol=1e-13)


@pytest.mark.parametrize("kind", HEADS)
def test_a_member_alone_is_the_same_as_in_a_group(kind):
    table = make_table()
    folds, members = make_folds(table), make_members(HEADS[kind])
    for member, result in zip(members, train_group(table, folds, members, EXACT), strict=True):
        assert_equal(train_group(table, folds, [member], EXACT)[0], result)


def test_a_group_of_one_and_a_group_of_many_agree_in_float32():
    table = make_table(rows=300)
    folds, members = make_folds(table), make_members(SMALL, epochs=3)
    machine = Machine(torch.device("cpu"))
    for member, result in zip(members, train_group(table, folds, members, machine), strict=True):
        alone = train_group(table, folds, [member], machine)[0]
        assert alone.history[0]["train_loss"] == pytest.approx(result.history[0]["train_loss"], rel=1e-5)
        assert alone.history[-1]["val_loss"] == pytest.approx(result.history[-1]["val_loss"], rel=1e-2)


def test_the_order_of_members_changes_nothing():
    table = make_table()
    folds, members = make_folds(table), make_members(SMALL)
    forward = train_group(table, folds, members, EXACT)
    backward = train_group(table, folds, members[::-1], EXACT)[::-1]
    for first, second in zip(forward, backward, strict=True):
        assert_equal(first, second)


def test_the_same_group_again_gives_the_same_bits():
    table = make_table()
    folds, members = make_folds(table), make_members(SMALL)
    machine = Machine(torch.device("cpu"))
    first, second = (train_group(table, folds, members, machine) for _ in range(2))
    for ours, theirs in zip(first, second, strict=True):
        assert ours.history == theirs.history
        assert all(np.array_equal(ours.weights[name], theirs.weights[name]) for name in ours.weights)


def test_a_member_without_a_stream_holds_no_weight_of_it():
    table = make_table()
    results = train_group(table, make_folds(table), make_members(SMALL), EXACT)
    assert not any(MOBILE.replace(".", ":") in name or LBP in name for name in results[6].weights)
    shared = SharedRows(table, make_folds(table), make_members(SMALL), EXACT)
    group = TrainingGroup(shared, sorted(make_members(SMALL), key=lambda member: member.fold))
    own = owners(group._head)
    assert len(own["embeddings.of_lbp.linear.weight"]) == 4
    assert len(own["join.of_mobilenet_v3:small.weight"]) == 4
    assert len(own["hidden.linear.0.weight"]) == 7


# ------------------------------------------------------------------------------------------------- leaving the group


def test_a_member_that_diverges_leaves_and_disturbs_no_other():
    table = make_table()
    folds, members = make_folds(table), make_members(SMALL)
    wild = replace(members[0], train=members[0].train.model_copy(update={"learning_rate": 1e300}))
    calm = train_group(table, folds, members, EXACT)
    results = train_group(table, folds, [wild, *members], EXACT)
    assert results[0].ended == "diverged"
    assert results[0].last_epoch == 1
    assert results[0].best_epoch == 0
    assert results[0].weights == {}
    assert results[0].history == []
    for first, second in zip(results[1:], calm, strict=True):
        assert_equal(first, second)


def test_the_best_weights_of_a_member_that_diverges_later_are_kept():
    table = make_table(missing=0.0)
    folds, member = make_folds(table), make_members(LinearHeadSpec(), epochs=4)[0]
    other = replace(member, train=member.train.model_copy(update={"seed": 5}))
    seen = []

    def poison(epoch, entries):
        seen.append(sorted(entries))
        if epoch == 2:
            table.features[LBP][folds[0].train[0]] = float("nan")

    results = train_group(table, folds, [member, other, replace(member, fold=1)], EXACT, on_epoch=poison)
    assert [result.ended for result in results[:2]] == ["diverged", "diverged"]
    assert [result.last_epoch for result in results[:2]] == [3, 3]
    assert [result.best_epoch for result in results[:2]] == [2, 2]
    assert len(results[0].history) == 2
    assert all(np.isfinite(array).all() for array in results[0].weights.values())
    assert seen == [[0, 1, 2], [0, 1, 2], [], []][: len(seen)]


def test_members_that_end_early_make_the_group_smaller_and_disturb_no_other(monkeypatch):
    table = make_table()
    folds, members = make_folds(table), make_members(SMALL, "on", epochs=6)
    members = [
        replace(member, train=member.train.model_copy(update={"epochs": 1 + index % 6}))
        for index, member in enumerate(members * 2)
    ]
    sizes = []
    shrink = TrainingGroup.shrink

    def watched(group, members):
        sizes.append(len(members))
        shrink(group, members)

    monkeypatch.setattr(TrainingGroup, "shrink", watched)
    results = train_group(table, folds, members, EXACT)
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) >= 2
    for member, result in zip(members, results, strict=True):
        assert_same_run(result, oracle.train_alone(table, folds, member))


def test_patience_ends_a_member_after_so_many_epochs_without_a_better_one():
    table = make_table()
    member = make_members(SMALL, epochs=40, patience=2)[4]
    (result,) = train_group(table, make_folds(table), [member], EXACT)
    assert result.ended == "patience"
    assert result.last_epoch == result.best_epoch + 2 < 40
    assert len(result.history) == result.last_epoch


# ------------------------------------------------------------------------------------------------------ what is told


def test_on_epoch_is_given_the_entry_of_every_member_that_trained():
    table = make_table()
    told = {}
    members = make_members(SMALL)
    results = train_group(
        table, make_folds(table), members, EXACT, on_epoch=lambda epoch, entries: told.update({epoch: entries})
    )
    for index, result in enumerate(results):
        assert [entries[index] for entries in told.values() if index in entries] == list(result.history)


def test_norms_and_scales_of_branches_are_recorded_where_they_are_watched():
    table = make_table()
    folds = make_folds(table)
    off, monitor, on = (train_group(table, folds, make_members(SMALL, b), EXACT) for b in ("off", "monitor", "on"))
    assert "branch_norms" not in off[0].history[0]
    assert monitor[0].history[0]["branch_norms"].keys() == set(DIMS)
    assert set(monitor[0].history[0]["branch_scales"].values()) == {1.0}
    assert monitor[2].history[0]["branch_norms"].keys() == {LBP, TYPE}
    for first, second in zip(off, monitor, strict=True):
        assert_equal(first, second)
    scales = on[0].history[0]["branch_scales"].values()
    assert 1 / 4 <= min(scales) < 1 < max(scales) <= 4
    assert on[6].history[0]["branch_scales"] == {TYPE: 1.0}  # one branch alone dominates nothing


def test_training_leaves_global_random_state_and_the_table_alone():
    table = make_table()
    before, features = torch.get_rng_state(), table.features[LBP].clone()
    train_group(table, make_folds(table), make_members(SMALL), EXACT)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(table.features[LBP].nan_to_num(), features.nan_to_num())


def test_labels_outside_all_folds_are_never_read():
    """Test rows, as far as the engine is concerned: whatever their labels, the result is the same."""
    table = make_table()
    fold = make_fold(table, np.arange(0, 50), np.arange(50, 70))
    members = [replace(member, fold=0) for member in make_members(SMALL)]
    clean = train_group(table, [fold], members, EXACT)
    table.labels[70:] = -1
    for stream in DIMS:
        table.features[stream][70:] = float("nan")
    for first, second in zip(train_group(table, [fold], members, EXACT), clean, strict=True):
        assert_equal(first, second, rel=0)


# ----------------------------------------------------------------------------------------------------- what it refuses


def test_members_may_differ_in_all_but_shapes_batches_order_and_balancing():
    member = make_members(SMALL)[0]
    key = structure_key(member)
    free = {"seed": 9, "learning_rate": 1.0, "weight_decay": 1.0, "epochs": 9, "patience": 3, "select": "accuracy"}
    free |= {"label_smoothing": 0.3, "optimizer": "adamw"}
    for name, value in free.items():
        assert structure_key(replace(member, train=member.train.model_copy(update={name: value}))) == key, name
    assert structure_key(replace(member, streams=(LBP,), fold=2)) == key
    assert structure_key(replace(member, head=SMALL.model_copy(update={"dropout": 0.5}))) == key
    for name, value in {"batch_size": 8, "order_seed": 1, "gradient_balancing": "on"}.items():
        assert structure_key(replace(member, train=member.train.model_copy(update={name: value}))) != key, name
    assert structure_key(replace(member, head=SMALL.model_copy(update={"width": 9}))) != key


def test_what_cannot_be_trained_is_refused_with_all_its_faults():
    table = make_table()
    folds, members = make_folds(table), make_members(SMALL)
    with pytest.raises(TrainingError, match="no member to train"):
        train_group(table, folds, [], EXACT)
    other = replace(members[1], head=HEADS["linear"], streams=("lpb",), fold=7)
    with pytest.raises(TrainingError) as error:
        train_group(table, folds, [members[0], other], EXACT)
    text = str(error.value)
    assert "members of one group must share head and batches, got {" in text
    assert "member 1: no such stream: lpb (there are: lbp, mobilenet_v3.small, type)" in text
    assert "member 1: fold 7 of 3" in text


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ([], [1], "fold 0: no training row: nothing to learn from"),
        ([0, 1, 2], [], "fold 0: no validation row: the epoch is chosen on them"),
        ([0, 1, 2], [3], "fold 0: 1 rows have no label of 0 .. 3, the first is row 3"),
        ([4, 5], [0], "fold 0: all 2 training rows have label 2: a head needs at least two"),
    ],
)
def test_a_fold_that_teaches_nothing_is_refused(train, val, message):
    table = make_table()
    table.labels[:6] = torch.tensor([0, 1, 2, -1, 2, 2])
    fold = Fold(np.array(train, np.int64), np.array(val, np.int64), make_folds(table)[0].scaling)
    with pytest.raises(TrainingError, match=message):
        train_group(table, [fold], [make_members(SMALL)[0]], EXACT)
