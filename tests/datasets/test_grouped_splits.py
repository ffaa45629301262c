"""Splits and folds never part a group, and keep the proportions of the labels as far as the groups allow."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from emofuse.datasets.split_needs import make_folds
from emofuse.datasets.splits import (
    SPLITS,
    cross_validation_folds,
    group_folds,
    holdout_split,
    make_splits,
    stratified_split,
)
from emofuse.errors import SpecError, TrainingError
from emofuse.specs import FoldSpec, HoldoutSplit, OfficialSplit, StratifiedSplit, parse_spec
from emofuse.specs.base import digest

SEEDS = range(60)


def drawn_rows(seed, *, labels=3, rows=150, pure=True, alone=0.2):
    """Rows in groups of 1 to 12, of one label each if `pure`; some rows have no group, some no label."""
    draw = random.Random(seed)
    found, groups, group = [], [], 0
    while len(found) < rows:
        group += 1
        label = f"label {draw.randrange(labels)}"
        for _ in range(draw.randint(1, 12)):
            found.append(label if pure else f"label {draw.randrange(labels)}")
            groups.append(f"group {group}")
    found = [None if draw.random() < 0.05 else label for label in found]
    groups = [None if draw.random() < alone else name for name in groups]
    order = draw.sample(range(len(found)), len(found))
    return [found[row] for row in order], [groups[row] for row in order]


def check_whole(labels, groups, parts):
    """Every labelled row is in one part, and no group is in two."""
    assert len(parts) == len(labels)
    assert all((part is None) == (label is None) for label, part in zip(labels, parts, strict=True))
    parts_of = defaultdict(set)
    for group, part in zip(groups, parts, strict=True):
        if group is not None and part is not None:
            parts_of[group].add(part)
    assert {len(each) for each in parts_of.values()} <= {1}


def counts_of(labels, parts):
    counts = Counter(zip(labels, parts, strict=True))
    return {label: np.array([counts[label, part] for part in SPLITS]) for label in {*labels} - {None}}


def largest_group(labels, groups, label):
    sizes = Counter(group for group, each in zip(groups, labels, strict=True) if group is not None and each == label)
    return max(sizes.values(), default=1)


@pytest.mark.parametrize("pure", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_stratified_split_parts_no_group(seed, pure):
    labels, groups = drawn_rows(seed, pure=pure)
    check_whole(labels, groups, stratified_split(labels, StratifiedSplit(seed=seed), groups))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_split_of_groups_of_one_label_is_off_by_less_than_the_largest_group(seed):
    labels, groups = drawn_rows(seed, rows=300)
    found = counts_of(labels, stratified_split(labels, StratifiedSplit(seed=seed), groups))
    wanted = counts_of(labels, stratified_split(labels, StratifiedSplit(seed=seed)))
    for label, counts in found.items():
        assert np.abs(counts - wanted[label]).max() < largest_group(labels, groups, label)


@pytest.mark.parametrize("seed", range(20))
def test_single_rows_make_up_for_groups_so_that_the_proportions_are_exact(seed):
    labels, groups = drawn_rows(seed, rows=400, alone=0.6)
    found = counts_of(labels, stratified_split(labels, StratifiedSplit(seed=seed), groups))
    wanted = counts_of(labels, stratified_split(labels, StratifiedSplit(seed=seed)))
    assert {label: counts.tolist() for label, counts in found.items()} == {
        label: counts.tolist() for label, counts in wanted.items()
    }


@pytest.mark.parametrize("seed", range(20))
def test_subjects_with_all_labels_are_split_by_their_number(seed):
    labels = [f"label {row % 4}" for row in range(20 * 8)]
    groups = [f"subject {row // 8}" for row in range(20 * 8)]
    splits = stratified_split(labels, StratifiedSplit(seed=seed), groups)
    assert Counter(splits) == {"train": 14 * 8, "val": 4 * 8, "test": 2 * 8}


def test_other_seeds_give_other_splits_even_if_all_groups_have_another_size():
    labels = [f"label {group % 2}" for group in range(30) for _ in range(group + 1)]
    groups = [f"group {group}" for group in range(30) for _ in range(group + 1)]
    splits = [stratified_split(labels, StratifiedSplit(seed=seed), groups) for seed in range(8)]
    assert len({tuple(split) for split in splits}) == 8
    assert splits[3] == stratified_split(labels, StratifiedSplit(seed=3), groups)
    in_test = {group for split in splits for group, name in zip(groups, split, strict=True) if name == "test"}
    assert any(groups.count(group) > 10 for group in in_test)  # the test is not one of small groups alone


def test_a_grouped_split_does_not_depend_on_the_order_of_rows():
    labels, groups = drawn_rows(1, alone=0)
    ordered = stratified_split(labels, StratifiedSplit(), groups)
    order = random.Random(0).sample(range(len(labels)), len(labels))
    moved = stratified_split([labels[row] for row in order], StratifiedSplit(), [groups[row] for row in order])
    sizes = Counter(group for group, label in zip(groups, labels, strict=True) if label is not None)
    of_groups = [place for place, row in enumerate(order) if sizes[groups[row]] > 1]
    assert [moved[place] for place in of_groups] == [ordered[order[place]] for place in of_groups]


@pytest.mark.parametrize("sizes", [(40, 40, 40), (1, 1, 60), (50, 5, 5), (9, 9, 9, 9)])
def test_three_groups_of_a_label_give_every_split_one(sizes):
    groups = [f"group {group}" for group, size in enumerate(sizes) for _ in range(size)]
    for seed in range(10):
        splits = stratified_split(["a"] * len(groups), StratifiedSplit(seed=seed), groups)
        assert {*splits} == {*SPLITS}


def test_one_group_of_a_label_is_for_training():
    labels = ["a"] * 10 + ["b"] * 100
    splits = stratified_split(labels, StratifiedSplit(), ["all of a"] * 10 + [None] * 100)
    assert splits[:10] == ["train"] * 10


@pytest.mark.parametrize("pure", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_holdout_parts_no_group_and_keeps_the_test(seed, pure):
    labels, groups = drawn_rows(seed, pure=pure)
    draw = random.Random(seed)
    official = [draw.choice(["train", "train", "val", "test", None]) for _ in labels]
    splits = holdout_split(labels, official, HoldoutSplit(seed=seed, val=0.2), groups)
    assert [split == "test" for split in splits] == [split == "test" for split in official]
    candidates = [label if split in {"train", "val"} else None for label, split in zip(labels, official, strict=True)]
    check_whole(candidates, groups, [None if split == "test" else split for split in splits])


@pytest.mark.parametrize("pure", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_folds_part_no_group(seed, pure):
    labels, groups = drawn_rows(seed, pure=pure)
    folds = cross_validation_folds(labels, 4, seed, groups)
    check_whole(labels, groups, folds)
    if pure:
        counts = Counter(zip(labels, folds, strict=True))
        for label in {*labels} - {None}:
            of_label = [counts[label, fold] for fold in range(4)]
            assert max(of_label) - min(of_label) < 2 * largest_group(labels, groups, label)


def unevenness(labels, folds):
    counts = Counter(zip(labels, folds, strict=True))
    return sum(np.std([counts[label, fold] for fold in range(5)]) for label in {*labels})


def test_folds_are_as_even_as_those_of_scikit_learn():
    model_selection = pytest.importorskip("sklearn.model_selection")
    ours, theirs = [], []
    for seed in range(20):
        labels, groups = drawn_rows(seed, pure=False, rows=400, alone=0)
        kept = [row for row, label in enumerate(labels) if label is not None]
        labels, groups = [labels[row] for row in kept], [groups[row] for row in kept]
        ours.append(unevenness(labels, cross_validation_folds(labels, 5, seed, groups)))
        folds = [0] * len(labels)
        splitter = model_selection.StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for fold, (_, val) in enumerate(splitter.split(labels, labels, groups)):
            for row in val:
                folds[row] = fold
        theirs.append(unevenness(labels, folds))
    assert np.mean(ours) <= np.mean(theirs)


def rows_of_today(seed):
    draw = random.Random(seed)
    labels = [draw.choice(["joy", "awe", "fear", "anger", None]) for _ in range(203)] + ["rare", "rare", "one"]
    return labels, [draw.choice(["train", "train", "val", "test", None]) for _ in labels]


@pytest.mark.parametrize(
    ("groups", "seed", "stratified", "holdout", "folds"),
    [
        (None, 0, "cf4e03c63a0267d4", "a5c2f971f8433f8a", "84dacc39c51e6a21"),
        ("none", 3, "a337949d144f84db", "d646596a2d4bad43", "aa0aaf48f73a27a5"),
        ("each its own", 0, "cf4e03c63a0267d4", "a5c2f971f8433f8a", "84dacc39c51e6a21"),
    ],
)
def test_without_groups_splits_and_folds_are_those_of_former_versions(groups, seed, stratified, holdout, folds):
    labels, official = rows_of_today(1)
    of_rows = {None: None, "none": [None] * len(labels), "each its own": [str(row) for row in range(len(labels))]}[
        groups
    ]

    def short(parts):
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    assert short(make_splits(labels, official, StratifiedSplit(seed=seed), of_rows)) == stratified
    assert short(make_splits(labels, official, HoldoutSplit(seed=seed, val=0.2), of_rows)) == holdout
    assert short(cross_validation_folds(labels, 5, seed, of_rows)) == folds


def test_the_official_split_and_one_with_grouped_false_ignore_groups():
    labels, groups = drawn_rows(2)
    official = ["train", "test"] * (len(labels) // 2) + ["val"] * (len(labels) % 2)
    assert make_splits(labels, official, OfficialSplit(), groups) == official
    for spec in (StratifiedSplit(grouped=False), HoldoutSplit(grouped=False)):
        plain = spec.model_copy(update={"grouped": True})
        assert make_splits(labels, official, spec, groups) == make_splits(labels, official, plain)


def test_specs_without_the_new_fields_have_the_digests_of_former_versions():
    assert StratifiedSplit().model_dump() == {
        "kind": "stratified", "train": 0.7, "val": 0.2, "test": 0.1, "seed": 0,
    }  # fmt: skip
    assert StratifiedSplit(grouped=False).model_dump()["grouped"] is False
    assert FoldSpec().model_dump() == {"count": 5, "index": 0, "seed": 0}
    assert digest(FoldSpec(grouped=False)) != digest(FoldSpec())
    left_out = FoldSpec(kind="leave_one_group_out", index=7)
    assert left_out.model_dump() == {"kind": "leave_one_group_out", "index": 7}
    assert FoldSpec.model_validate(left_out.model_dump()) == left_out


def test_leaving_one_group_out_has_no_count_of_its_own():
    with pytest.raises(SpecError, match="count and seed: leave_one_group_out has a fold for each group of the dataset"):
        parse_spec(FoldSpec, {"kind": "leave_one_group_out", "count": 3, "seed": 1}, "x")


def test_leaving_one_group_out_makes_a_fold_of_each_group():
    assert group_folds(["a", "b", None, "a"], ["s2", "s1", "s3", "s2"]) == [1, 0, None, 1]
    spec = FoldSpec(kind="leave_one_group_out")
    assert make_folds(["a", "b", None, "a"], ["s2", "s1", None, "s2"], spec) == [1, 0, None, 1]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([None] * 4, "needs a group for each labelled row of the splits 'train' and 'val', and none has one"),
        (["s", None, "t", None], "and 2 of 4 have none. Name the groups in the dataset"),
        (["s"] * 4, "needs two groups in the splits 'train' and 'val', got 1"),
    ],
)
def test_leaving_one_group_out_needs_groups(groups, message):
    with pytest.raises(TrainingError, match=message):
        make_folds(["a", "b", "a", "b"], groups, FoldSpec(kind="leave_one_group_out"))


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (
            ["a"] * 10 + ["b"] * 4,
            [None] * 14,
            r"5 folds need as many rows of each label .*Fewer have: 'b' \(4 rows\)\. Take fewer folds, or merge labels",
        ),
        (
            ["a", "b"] * 10,
            [f"s{row // 5}" for row in range(20)],
            r"5 folds need as many groups of each label .*'a' \(4 groups\), 'b' \(4 groups\)\. .*`grouped: false`",
        ),
        (["a", "b"], [None, None], "5 folds need as many labelled rows in the splits 'train' and 'val', got 2"),
    ],
)
def test_fewer_rows_or_groups_of_a_label_than_folds_are_one_error(labels, groups, message):
    with pytest.raises(TrainingError, match=message):
        make_folds(labels, groups, FoldSpec())


def test_folds_that_may_part_groups_need_only_rows():
    labels, groups = ["a", "b"] * 10, [f"s{row // 5}" for row in range(20)]
    assert make_folds(labels, groups, FoldSpec(grouped=False)) == cross_validation_folds(labels, 5, 0)
