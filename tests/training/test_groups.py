"""Training keeps groups together: folds, digests and notes follow them, and those of test rows change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.errors import TrainingError
from emofuse.results import read_predictions, run_dir
from emofuse.specs import (
    EnsembleSpec,
    FeaturesSpec,
    FoldSpec,
    KernelRidgeHeadSpec,
    OfficialSplit,
    RunSpec,
    StratifiedSplit,
    TrainSpec,
)
from emofuse.training.data import TrainingData
from emofuse.training.runs import train_run

LEFT_OUT = FoldSpec(kind="leave_one_group_out")


@pytest.fixture
def plain(tmp_path, plant_cache):
    return plant_cache(tmp_path / "features.zarr", block_rows=64)


@pytest.fixture
def with_groups(plain):
    """Gives the rows of the cache groups: (N,) names, "" for none."""

    def give(groups, **info):
        names = pl.Series("group", [group or None for group in groups], dtype=pl.String)
        manifest = plain.manifest
        info = {**manifest.info, **info}
        replace(manifest, table=manifest.table.with_columns(names), info=info).write(manifest_path(plain.path))
        return open_cache(plain.path)

    return give


OFFICIAL = OfficialSplit()


def run(*, fold=None, split=OFFICIAL, name="run"):
    features = FeaturesSpec(streams=("resnet50",))
    return RunSpec(name=name, features=features, fold=fold, split=split, train=TrainSpec(epochs=2))


def subjects(number=15, rows=150):
    return [f"subject {row // (rows // number):02d}" for row in range(rows)]


def shared(cache, fold):
    return set(cache.groups[fold.train]) & set(cache.groups[fold.val])


def test_folds_keep_groups_together_unless_they_are_told_not_to(with_groups):
    cache = with_groups(subjects())
    data = TrainingData.of(cache, OfficialSplit())
    folds = data.folds(run(fold=FoldSpec(count=3)))
    assert [shared(cache, fold) for fold in folds] == [set()] * 3
    usable = np.flatnonzero(np.isin(cache.splits, ["train", "val"]) & (cache.labels >= 0))
    assert sorted(row for fold in folds for row in fold.val.tolist()) == usable.tolist()
    apart = data.folds(run(fold=FoldSpec(count=3, grouped=False)))
    assert all(shared(cache, fold) for fold in apart)


def test_folds_that_part_groups_are_those_of_a_cache_without_groups(plain, with_groups):
    before = TrainingData.of(plain, OfficialSplit()).folds(run(fold=FoldSpec(count=3)))
    cache = with_groups(subjects())
    after = TrainingData.of(cache, OfficialSplit()).folds(run(fold=FoldSpec(count=3, grouped=False)))
    assert [fold.val.tolist() for fold in after] == [fold.val.tolist() for fold in before]


def test_one_group_is_left_out_after_another(with_groups):
    cache = with_groups(subjects())
    folds = TrainingData.of(cache, OfficialSplit()).folds(run(fold=LEFT_OUT))
    assert [set(cache.groups[fold.val]) for fold in folds] == [{name} for name in sorted(set(subjects()))]
    assert not any(shared(cache, fold) for fold in folds)


def test_a_run_that_leaves_out_a_group_trains_and_is_scored(with_groups, tmp_path):
    cache = with_groups(subjects())
    record, _ = train_run(
        cache, run(fold=FoldSpec(kind="leave_one_group_out", index=2)), tmp_path / "runs", device="cpu"
    )
    labelled = np.isin(cache.splits, ["train", "val"]) & (cache.labels >= 0)
    assert record.rows["val"]["rows"] == int(np.sum(labelled & (cache.groups == "subject 02")))
    assert record.spec["fold"] == {"kind": "leave_one_group_out", "index": 2}


def test_a_group_that_is_not_there_cannot_be_left_out(with_groups):
    data = TrainingData.of(with_groups(subjects()), OfficialSplit())
    with pytest.raises(TrainingError, match=r"fold\.index must be below the number of groups, got 15 of 15"):
        data.folds(run(fold=FoldSpec(kind="leave_one_group_out", index=15)))


def test_a_split_of_a_run_keeps_groups_together(with_groups):
    cache = with_groups(subjects())
    splits = TrainingData.of(cache, StratifiedSplit(seed=1)).splits
    labelled = cache.labels >= 0
    assert {len(set(splits[labelled & (cache.groups == name)])) for name in set(subjects())} == {1}
    parted = TrainingData.of(cache, StratifiedSplit(seed=1, grouped=False)).splits
    assert {len(set(parted[labelled & (cache.groups == name)])) for name in set(subjects())} != {1}


def test_digests_follow_the_groups_of_folds_and_nothing_else(plain, with_groups):
    specs = {
        "plain": run(),
        "folds": run(fold=FoldSpec(count=3)),
        "apart": run(fold=FoldSpec(count=3, grouped=False)),
    }

    def digests(cache):
        data = TrainingData.of(cache, OfficialSplit())
        return {name: data.digest(spec) for name, spec in specs.items()}

    before = digests(plain)
    groups = np.array(subjects(), dtype=object)
    after = digests(with_groups(groups))
    assert {name for name in specs if before[name] != after[name]} == {"folds"}
    groups[plain.splits == "test"] = "poisoned"
    assert digests(with_groups(groups)) == after
    groups[np.flatnonzero(plain.splits == "train")[0]] = "other"
    assert digests(with_groups(groups))["folds"] != after["folds"]


@pytest.mark.parametrize(
    ("spec", "note"),
    [
        ({}, "between train, val and test, because the dataset's own split parts them: the scores are those of known"),
        ({"split": StratifiedSplit(grouped=False)}, "train, val and test, as `grouped: false` of the split asks for:"),
        ({"split": StratifiedSplit()}, None),
        ({"split": StratifiedSplit(), "fold": FoldSpec(count=3)}, None),
        (
            {"split": StratifiedSplit(), "fold": FoldSpec(count=3, grouped=False)},
            "between train and val, as `grouped: false` of the folds asks for:",
        ),
    ],
)
def test_shared_groups_are_noted(with_groups, tmp_path, spec, note):
    record, _ = train_run(with_groups(subjects()), run(**spec), tmp_path / "runs", device="cpu")
    found = [each for each in record.notes if each.startswith("Groups are shared")]
    assert len(found) == (note is not None)
    assert all(note in each for each in found)


@pytest.mark.parametrize("grouped", [True, False])
def test_the_heads_of_an_ensemble_keep_groups_together_unless_they_are_told_not_to(with_groups, tmp_path, grouped):
    groups = [f"subject {row % 15:02d}" for row in range(150)]  # the official splits take turns, and so share none
    cache = with_groups(groups)
    spec = run().model_copy(update={"ensemble": EnsembleSpec(folds=3, grouped=grouped)})
    data = TrainingData.of(cache, OfficialSplit())
    folds = data.folds(spec.heads()[0])
    assert all(bool(shared(cache, fold)) != grouped for fold in folds)
    record, _ = train_run(cache, spec, tmp_path / "runs", device="cpu")
    notes = [note for note in record.notes if note.startswith("Groups are shared")]
    assert notes == [] if grouped else "as `grouped: false` of the folds asks for" in notes[0]


def test_saved_predictions_have_the_groups_of_the_test_rows(plain, with_groups, tmp_path):
    record, _ = train_run(plain, run(), tmp_path / "before")
    assert read_predictions(run_dir(tmp_path / "before", record.digest)).group is None
    cache = with_groups([f"subject {row // 10}" if row % 3 else "" for row in range(150)])
    record, _ = train_run(cache, run(), tmp_path / "after")
    saved = read_predictions(run_dir(tmp_path / "after", record.digest))
    of_sample = dict(zip(cache.sample_ids.tolist(), cache.groups.tolist(), strict=True))
    assert saved.group.tolist() == [of_sample[sample] for sample in saved.sample_id.tolist()]
    assert "" in saved.group.tolist()


def test_kernel_ridge_leaves_out_whole_groups_for_its_penalty_and_its_digest_follows_them(plain, with_groups, tmp_path):
    spec = run().model_copy(update={"head": KernelRidgeHeadSpec()})
    parted = spec.model_copy(update={"split": StratifiedSplit(grouped=False)})
    before = TrainingData.of(plain, OFFICIAL).digest(spec), TrainingData.of(plain, parted.split).digest(parted)
    alone, _ = train_run(plain, spec, tmp_path / "alone", device="cpu")
    cache = with_groups(subjects())
    data = TrainingData.of(cache, OFFICIAL)
    rows = np.flatnonzero(data.labels >= 0)
    numbers = data.table([spec]).groups.numpy()
    assert {(cache.groups[row], numbers[row]) for row in rows} == {
        (name, numbers[rows[cache.groups[rows] == name][0]]) for name in set(cache.groups[rows])
    }
    kept, _ = train_run(cache, spec, tmp_path / "kept", device="cpu")
    assert kept.digest != alone.digest
    losses = [[entry["leave_one_out_loss"] for entry in record.history] for record in (alone, kept)]
    assert losses[0] != losses[1]
    assert TrainingData.of(cache, parted.split).table([parted]).groups is None
    assert (data.digest(spec) != before[0], TrainingData.of(cache, parted.split).digest(parted) == before[1]) == (
        True,
        True,
    )
