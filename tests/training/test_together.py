"""Groups: runs of one split trained together are what they are alone; halving lets the worst leave early."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch

from emofuse.cache.reader import open_cache
from emofuse.errors import TrainingError
from emofuse.specs import ConcatHeadSpec, FeaturesSpec, FoldSpec, HalvingSpec, OfficialSplit, RunSpec, TrainSpec
from emofuse.training import planning
from emofuse.training.data import TrainingData
from emofuse.training.halving import Halving, configurations_of
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Member, MemberState
from emofuse.training.together import group_key, train_together

CPU = Machine(torch.device("cpu"))
EXACT = Machine(torch.device("cpu"), torch.float64)
HEAD = ConcatHeadSpec(embed_dim=8, depth=1, width=8)
SUBSETS = (("resnet50",), ("lbp", "resnet50"), ("action_units", "lbp"), ("lbp", "action_units", "places365"))


@pytest.fixture(scope="module")
def data(tmp_path_factory, plant_cache):
    return TrainingData.of(plant_cache(tmp_path_factory.mktemp("group") / "features.zarr"), OfficialSplit())


def run(*streams, fold=None, name="run", head=HEAD, features=None, **train):
    own = {"epochs": 6, "batch_size": 16, "learning_rate": 1e-2} | train
    spec = FeaturesSpec(streams=streams or ("resnet50", "lbp"), **(features or {}))
    return RunSpec(name=name, features=spec, head=head, train=TrainSpec(**own), fold=fold)


def in_folds(spec, count=3):
    return [spec.model_copy(update={"fold": FoldSpec(count=count, index=index)}) for index in range(count)]


def searched(bins=(128, 256), rates=(1e-3, 1e-2)):
    """Folds of runs that differ in streams, LBP bins, action units and learning rate."""
    specs = []
    for index, streams in enumerate(SUBSETS):
        features = {"lbp_bins": bins[index % len(bins)], "action_units": (15, 30)[index % 2]}
        for rate in rates:
            specs += in_folds(run(*streams, features=features, learning_rate=rate))
    return specs


def assert_equal(ours, theirs):
    assert ours.history == theirs.history
    assert (ours.best_epoch, ours.last_epoch, ours.ended) == (theirs.best_epoch, theirs.last_epoch, theirs.ended)
    assert all(np.array_equal(ours.weights[name], theirs.weights[name]) for name in theirs.weights)


# ---------------------------------------------------------------------------------------------- equal to each alone


def test_every_run_of_a_group_equals_its_own_plain_run(data):
    """The oracle is given plain streams, the variant of this run alone, as if there were no other."""
    specs = searched()
    trained = train_together(data, specs, EXACT)
    assert [each.spec for each in trained] == specs
    for spec, each in zip(specs, trained, strict=True):
        columns = data.features.of(spec.features)
        table = FeatureTable(
            {column.stream: torch.from_numpy(data.features.whole(column)) for column in columns},
            {column.stream: torch.from_numpy(data.features.valid(column)) for column in columns},
            torch.from_numpy(data.labels),
            len(data.classes),
        )
        folds = [
            type(fold)(
                fold.train, fold.val, {c.stream: fold.scaling[c.name] for c in columns if c.name in fold.scaling}
            )
            for fold in data.scaled_folds([spec])
        ]
        member = Member(spec.features.streams, spec.head, spec.train, spec.fold.index)
        weights, history, best_epoch, *_ = oracle.train_alone(table, folds, member)
        assert each.result.best_epoch == best_epoch
        for name, tensor in weights.items():
            np.testing.assert_allclose(each.result.weights[name], tensor.numpy(), rtol=1e-9, atol=1e-12)
        for ours, theirs in zip(each.result.history, history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-9)


def test_a_trained_run_says_what_it_is(data):
    specs = [run("lbp", features={"lbp_bins": 128}), run("lbp", "resnet50", seed=3)]
    first, second = train_together(data, specs, CPU)
    assert [first.digest, second.digest] == [data.digest(spec) for spec in specs]
    assert list(second.scaling) == ["lbp", "resnet50"]
    assert first.scaling["lbp"].center.shape == (128,)
    assert all("@" not in name for name in first.result.weights)
    running = ("running_mean", "running_var")
    for each in (first, second):
        sizes = [array.size for name, array in each.result.weights.items() if not name.endswith(running)]
        assert each.parameters == sum(sizes)
        assert each.seconds > 0


def test_shares_of_seconds_follow_the_epochs(data):
    long, short = train_together(data, [run(epochs=6), run(epochs=2, seed=1)], CPU)
    assert long.seconds == pytest.approx(3 * short.seconds)


def test_epochs_are_told_by_the_index_of_the_run(data):
    told = []
    specs = [run(epochs=2), run("lbp", epochs=3)]
    trained = train_together(data, specs, CPU, on_epoch=lambda epoch, entries: told.append((epoch, dict(entries))))
    assert [(epoch, sorted(entries)) for epoch, entries in told] == [(1, [0, 1]), (2, [0, 1]), (3, [1])]
    assert [entries[1] for _, entries in told] == trained[1].result.history


def test_no_run_is_no_group(data):
    assert train_together(data, [], CPU) == []


@pytest.mark.parametrize(
    "other",
    [
        run(head=HEAD.model_copy(update={"width": 9})),
        run(batch_size=17),
        run(fold=FoldSpec(count=3)),
        run(features={"neutral_label": "calm"}),
    ],
)
def test_runs_that_cannot_train_together_are_refused(data, other):
    assert group_key(data, run()) != group_key(data, other)
    with pytest.raises(TrainingError, match=r"runs 'run' and 'run' cannot train in one group: .* Plan them first"):
        train_together(data, [run(), other], CPU)


def test_poisoned_test_labels_and_features_change_no_searched_run(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "clean.zarr")
    test = cache.splits == "test"
    labels = np.where(test, (cache.labels + 1) % 3, cache.labels)
    features, status = cache.streams["lbp"].read()
    poisoned = np.where(test[:, None], 1e6, features).astype(np.float32)
    wrong = plant_cache(tmp_path / "wrong.zarr", labels=labels, streams={"lbp": ("lbp", poisoned, status)})
    for specs in (searched(), [run(*streams) for streams in SUBSETS]):
        clean, other = (train_together(TrainingData.of(c, OfficialSplit()), specs, CPU) for c in (cache, wrong))
        for ours, theirs in zip(other, clean, strict=True):
            assert ours.digest == theirs.digest
            assert_equal(ours.result, theirs.result)


# ---------------------------------------------------------------------------------------------- equal in any group


@pytest.fixture
def eights(tmp_path, write_cache):
    """Rows whose labels and features are multiples of 8, with which kernels round alike for one head and for many."""
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 8
    signal = np.eye(8)[labels] + rng.normal(size=(160, 8))
    streams = {
        name: ("backbone", values.astype(np.float32), np.ones(160, np.uint8))
        for name, values in (("signal", signal), ("noise", rng.normal(size=(160, 16))))
    }
    splits = rng.choice(["train", "val", "test"], 160, p=[0.6, 0.3, 0.1]).tolist()
    path = write_cache(tmp_path / "features.zarr", tuple("abcdefgh"), labels, splits, streams)
    return TrainingData.of(open_cache(path), OfficialSplit())


def assert_close(ours, theirs, tolerance):
    """The same epochs, and numbers that differ by rounding alone."""
    assert (ours.best_epoch, ours.last_epoch, ours.ended) == (theirs.best_epoch, theirs.last_epoch, theirs.ended)
    for mine, other in zip(ours.history, theirs.history, strict=True):
        assert mine.keys() == other.keys()
        assert np.allclose([*mine.values()], [*other.values()], rtol=tolerance, atol=tolerance)
    for name, values in theirs.weights.items():
        assert np.allclose(ours.weights[name], values, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("machine", "tolerance"), [(EXACT, 1e-12), (CPU, 1e-4)])
def test_runs_differ_by_rounding_alone_however_groups_are_bounded(eights, monkeypatch, machine, tolerance):
    specs = [
        spec
        for streams in (("signal",), ("signal", "noise"))
        for rate in (1e-3, 1e-2, 3e-2)
        for spec in in_folds(run(*streams, learning_rate=rate))
    ]

    def trained(longest_s):
        monkeypatch.setattr(planning, "LONGEST_S", longest_s)
        monkeypatch.setattr(planning, "LONGEST_ALONE", 1.0)
        groups = planning.plan_runs(eights, specs, machine=machine).groups
        results = {}
        for group in groups:
            found = train_together(eights, [specs[index] for index in group.members], machine)
            results |= {index: each.result for index, each in zip(group.members, found, strict=True)}
        return [len(group.members) for group in groups], [results[index] for index in range(len(specs))]

    seconds = planning.plan_runs(eights, specs, machine=machine).groups[0].seconds
    (whole, together), (some, apart), (single, alone) = map(trained, (300.0, 0.9 * seconds, 0.0))
    assert whole == [18]
    assert single == [1] * 18
    assert 1 < len(some) < 18
    for results in (apart, alone):
        for ours, theirs in zip(results, together, strict=True):
            assert_close(ours, theirs, tolerance)


# ---------------------------------------------------------------------------------------------- halving


def test_who_survives_equals_the_run_without_halving_and_who_leaves_its_own_run_stopped_there(data):
    specs = searched(rates=(1e-4, 1e-3, 1e-2))
    halving = Halving(first_epochs=1, factor=2, bracket=6, select="loss")
    whole, halved = train_together(data, specs, EXACT), train_together(data, specs, EXACT, halving=halving)
    lasted = {}
    for spec, with_all, own in zip(specs, whole, halved, strict=True):
        last = own.result.last_epoch
        lasted.setdefault(own.result.ended, set()).add(last)
        if own.result.ended == "epochs":
            assert_same(own.result, with_all.result)
            continue
        (stopped,) = train_together(
            data, [spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": last})})], EXACT
        )
        assert (own.result.ended, stopped.result.ended) == ("halved", "epochs")
        assert_same(own.result, stopped.result)
    assert lasted == {"epochs": {6}, "halved": {1, 2}}


def assert_same(ours, theirs):
    """Every number of every epoch, every weight; the last bit is the kernels' (see `emofuse.training.engine`)."""
    assert (ours.best_epoch, ours.last_epoch) == (theirs.best_epoch, theirs.last_epoch)
    for mine, other in zip(ours.history, theirs.history, strict=True):
        assert mine == pytest.approx(other, rel=1e-12)
    for name, array in theirs.weights.items():
        np.testing.assert_allclose(ours.weights[name], array, rtol=1e-9, atol=1e-13)


def test_configurations_leave_with_all_their_folds_and_seeds(data):
    rates = (1e-5, 1e-2, 1e-3, 1e-4)
    specs = [spec for seed in (0, 1) for rate in rates for spec in in_folds(run(seed=seed, learning_rate=rate))]
    halving = Halving(first_epochs=2, factor=4, bracket=4, select="macro_f1")
    trained = train_together(data, specs, CPU, halving=halving)
    ended = [{trained[index].result.ended for index in own} for own in configurations_of(specs)]
    assert sorted(map(sorted, ended)) == [["epochs"], ["halved"], ["halved"], ["halved"]]
    assert all(each.result.last_epoch == 2 for each in trained if each.result.ended == "halved")


def states(*scores):
    return [
        MemberState(
            None if score is None else {"val_macro_f1": score, "val_loss": -score}, None if score else "diverged"
        )
        for score in scores
    ]


def configurations(count):
    return [run(learning_rate=10 ** -(1 + index)) for index in range(count)]


def test_a_bracket_keeps_its_best_and_equal_ones_by_position():
    stop_rule = Halving(first_epochs=2, factor=3, bracket=6, select="macro_f1").stop_rule(configurations(6))
    assert stop_rule(1, states(*[0.1] * 6)) == ()
    assert set(stop_rule(2, states(0.3, 0.5, 0.4, 0.5, 0.5, 0.1))) == {0, 2, 4, 5}
    assert stop_rule(3, states(*[0.1] * 6)) == ()
    assert set(stop_rule(6, states(0.9, 0.5, 0.9, 0.6, 0.9, 0.9))) == {1}
    assert set(stop_rule(18, states(*[0.1] * 6))) == set()  # the last one goes on


def test_loss_is_better_the_smaller():
    stop_rule = Halving(first_epochs=1, factor=2, bracket=2, select="loss").stop_rule(configurations(2))
    assert set(stop_rule(1, states(-0.3, -0.2))) == {0}


def test_a_configuration_of_which_a_member_diverged_comes_last():
    stop_rule = Halving(first_epochs=1, factor=2, bracket=4, select="macro_f1").stop_rule(configurations(4))
    assert set(stop_rule(1, states(None, 0.1, 0.2, None))) == {0, 3}


def test_configurations_are_compared_by_their_mean():
    specs = [run(learning_rate=rate, seed=seed) for rate in (1e-2, 1e-3) for seed in (0, 1)]
    stop_rule = Halving(first_epochs=1, factor=2, bracket=2, select="macro_f1").stop_rule(specs)
    assert set(stop_rule(1, states(0.9, 0.1, 0.6, 0.6))) == {0, 1}


def test_brackets_are_compared_each_for_itself():
    stop_rule = Halving(first_epochs=1, factor=2, bracket=2, select="macro_f1").stop_rule(configurations(5))
    assert set(stop_rule(1, states(0.9, 0.8, 0.1, 0.2, 0.05))) == {1, 2}


def test_names_folds_and_seeds_make_no_other_configuration():
    specs = [
        run(fold=FoldSpec(count=3)),
        run(fold=FoldSpec(count=3, index=1), seed=4, name="x"),
        run(fold=FoldSpec(count=3, seed=1)),
        run(order_seed=1),
        run(),
    ]
    assert configurations_of(specs) == [[0, 1], [2], [3], [4]]


def test_a_sweep_s_halving_compares_by_the_sweep_s_score():
    assert Halving.of(HalvingSpec(first_epochs=2, factor=3, bracket=9), "loss") == Halving(2, 3, 9, "loss")
