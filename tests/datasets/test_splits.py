from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from emofuse.datasets.splits import cross_validation_folds, holdout_split, make_splits, stratified_split
from emofuse.specs import HoldoutSplit, OuterFoldsSplit, OuterTestSpec, StratifiedSplit


def counts(labels, spec):
    found = Counter(zip(labels, stratified_split(labels, spec), strict=True))
    return {label: [found[label, split] for split in ("train", "val", "test")] for label in dict.fromkeys(labels)}


def test_every_label_keeps_the_proportions_exactly():
    labels = ["a"] * 100 + ["b"] * 70 + ["c"] * 10
    assert counts(labels, StratifiedSplit()) == {"a": [70, 20, 10], "b": [49, 14, 7], "c": [7, 2, 1]}


@pytest.mark.parametrize("rows", range(1, 200))
def test_no_count_is_further_than_a_row_from_its_fraction_unless_a_split_would_be_empty(rows):
    spec = StratifiedSplit()
    (found,) = counts(["a"] * rows, spec).values()
    assert sum(found) == rows
    if rows >= 3:
        assert min(found) >= 1
    if rows >= 10:
        assert all(abs(n - rows * f) < 1 for n, f in zip(found, (spec.train, spec.val, spec.test), strict=True))


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, [1, 0, 0]), (2, [2, 0, 0]), (3, [1, 1, 1]), (4, [2, 1, 1]), (5, [3, 1, 1])]
)
def test_few_rows_fill_every_split_as_far_as_they_go(rows, expected):
    assert list(counts(["a"] * rows, StratifiedSplit()).values()) == [expected]


def test_a_tiny_fraction_still_gets_a_row():
    assert counts(["a"] * 30, StratifiedSplit(train=0.98, val=0.01, test=0.01)) == {"a": [28, 1, 1]}


def test_unlabelled_rows_have_no_split():
    assert stratified_split([None, "a", None], StratifiedSplit()) == [None, "train", None]


def test_no_rows_give_no_splits():
    assert stratified_split([], StratifiedSplit()) == []


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    labels = ["a", "b"] * 50
    assert stratified_split(labels, StratifiedSplit(seed=3)) == stratified_split(labels, StratifiedSplit(seed=3))
    assert stratified_split(labels, StratifiedSplit(seed=3)) != stratified_split(labels, StratifiedSplit(seed=4))
    assert stratified_split(labels, StratifiedSplit(seed=-1)) != stratified_split(labels, StratifiedSplit(seed=1))


def test_rows_of_other_labels_change_nothing_for_a_label():
    spec = StratifiedSplit(seed=5)
    alone = stratified_split(["a"] * 20, spec)
    mixed_labels = [label for _ in range(20) for label in ("b", "a", None)]
    mixed = stratified_split(mixed_labels, spec)
    assert [split for label, split in zip(mixed_labels, mixed, strict=True) if label == "a"] == alone


def test_two_labels_of_equal_size_are_shuffled_differently():
    splits = stratified_split(["a"] * 40 + ["b"] * 40, StratifiedSplit())
    assert splits[:40] != splits[40:]


def test_the_split_of_a_seed_never_changes():
    splits = stratified_split(["awe"] * 10, StratifiedSplit(seed=0))
    assert "".join((split or "-")[:2] for split in splits) == "vatrtrtrtrtrtevatrtr"


# ---------------------------------------------------------------------------------------------------------- folds


def spread(found, count):
    """Rows of each fold."""
    return [found.count(fold) for fold in range(count)]


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize("sizes", [(100, 70, 10), (7, 7, 7, 7), (1, 2, 3), (11, 0, 4), (5,)])
def test_folds_differ_by_a_row_at_most_in_each_label_and_in_all(sizes, count):
    labels = [f"label{index}" for index, size in enumerate(sizes) for _ in range(size)]
    found = cross_validation_folds(labels, count, seed=3)
    assert max(spread(found, count)) - min(spread(found, count)) <= 1
    for label in set(labels):
        own = spread([fold for fold, of_row in zip(found, labels, strict=True) if of_row == label], count)
        assert max(own) - min(own) <= 1


def test_unlabelled_rows_are_in_no_fold():
    assert cross_validation_folds([None, "a", None, "a"], 2, 0).count(None) == 2
    assert cross_validation_folds([], 2, 0) == []


def test_rows_of_other_labels_leave_a_label_s_parts_together():
    alone = cross_validation_folds(["b"] * 23, 5, 7)
    mixed_labels = [label for _ in range(23) for label in ("a", "b", None)] + ["a"]
    mixed = cross_validation_folds(mixed_labels, 5, 7)
    kept = [fold for label, fold in zip(mixed_labels, mixed, strict=True) if label == "b"]
    renumbered = dict(zip(alone, kept, strict=True))
    assert kept == [renumbered[fold] for fold in alone]
    assert len(set(renumbered.values())) == 5


def test_folds_depend_on_the_seed_alone():
    labels = ["a", "b"] * 30
    assert cross_validation_folds(labels, 5, 1) == cross_validation_folds(labels, 5, 1)
    assert cross_validation_folds(labels, 5, 1) != cross_validation_folds(labels, 5, 2)


def test_the_folds_of_a_seed_never_change():
    assert cross_validation_folds(["awe"] * 7 + ["fear"] * 5, 3, 0) == [2, 2, 1, 0, 1, 0, 0, 1, 0, 2, 1, 2]


def test_labels_with_two_rows_give_val_and_test_what_they_can():
    labels = [f"person {number}" for number in range(10) for _ in range(2)] + ["single"]
    found = stratified_split(labels, StratifiedSplit())
    assert Counter(found) == {"train": 11, "val": 5, "test": 5}
    assert all("train" in found[first : first + 2] for first in range(0, 20, 2))
    assert found[20] == "train"
    assert found != stratified_split(labels, StratifiedSplit(seed=1))


def test_labels_with_two_rows_stay_in_train_where_others_fill_the_splits():
    assert counts(["a"] * 3 + ["b"] * 2 + ["c"] * 2, StratifiedSplit())["b"] == [2, 0, 0]


def test_a_holdout_keeps_the_test_rows_and_draws_each_label_in_proportion():
    labels = ["a"] * 50 + ["b"] * 30 + ["c"] * 2 + ["d"] + [None] + ["a"] * 9
    own = ["train"] * 40 + ["val"] * 10 + ["train"] * 34 + ["test"] * 9
    found = holdout_split(labels, own, HoldoutSplit(val=0.2))
    assert found[84:] == ["test"] * 9
    assert found[83] is None
    drawn = Counter(zip(labels[:83], found[:83], strict=True))
    assert [drawn[label, "val"] for label in "abcd"] == [10, 6, 1, 0]
    assert [drawn[label, "train"] for label in "abcd"] == [40, 24, 1, 1]
    assert found == holdout_split(labels, own, HoldoutSplit(val=0.2))
    assert found != holdout_split(labels, own, HoldoutSplit(val=0.2, seed=1))


def test_a_holdout_may_take_the_validation_rows_for_the_test():
    own = ["train"] * 20 + ["val"] * 4 + ["test"] * 3 + [None]
    found = holdout_split(["a"] * 28, own, HoldoutSplit(test="val"))
    assert Counter(found[:20]) == {"train": 18, "val": 2}
    assert found[20:] == ["test"] * 4 + [None] * 4


def test_a_holdout_never_takes_all_rows_of_a_label():
    assert Counter(holdout_split(["a"] * 3, ["train"] * 3, HoldoutSplit(val=0.99))) == {"val": 2, "train": 1}


def outer_splits(labels, groups=None, **options):
    return [make_splits(labels, ["train"] * len(labels), each, groups) for each in OuterTestSpec(**options).splits()]


def test_outer_folds_test_every_row_exactly_once_in_each_repeat():
    labels = ["a"] * 23 + ["b"] * 17 + [None] * 3
    first, second = np.split(np.array(outer_splits(labels, folds=4, repeats=2)), 2)
    for repeat in (first, second):
        assert (repeat == "test").sum(axis=0).tolist() == [1] * 40 + [0] * 3
    assert (first != second).any()
    assert (first[:, -3:] == None).all()  # noqa: E711


def test_the_folds_of_a_repeat_are_those_of_the_next_seed():
    labels = ["a", "b"] * 20
    again = [make_splits(labels, [None] * 40, OuterFoldsSplit(seed=4, index=index)) for index in range(5)]
    assert outer_splits(labels, seed=3, repeats=2)[5:] == again


def test_outer_folds_keep_the_proportions_of_the_labels_in_train_val_and_test():
    labels = ["a"] * 100 + ["b"] * 50
    for splits in outer_splits(labels):
        found = Counter(zip(labels, splits, strict=True))
        assert [found["a", part] for part in ("train", "val", "test")] == [64, 16, 20]
        assert [found["b", part] for part in ("train", "val", "test")] == [32, 8, 10]


def test_outer_folds_ignore_the_split_of_the_dataset():
    labels = ["a", "b"] * 20
    split = OuterFoldsSplit(index=2)
    assert make_splits(labels, ["test"] * 40, split) == make_splits(labels, [None] * 40, split)


def test_outer_folds_never_part_a_group_unless_asked_to():
    labels = [label for label in "ab" for _ in range(40)]
    groups = [f"g{row // 4}" for row in range(80)]
    for splits in outer_splits(labels, groups):
        of_group = {name: {splits[row] for row in range(80) if groups[row] == name} for name in set(groups)}
        assert all(len(parts) == 1 for parts in of_group.values())
    assert outer_splits(labels, groups, grouped=False) == outer_splits(labels)


def test_an_outer_fold_beyond_their_number_is_refused():
    with pytest.raises(ValidationError, match="index: must be below the count of folds, got 5 of 5"):
        OuterFoldsSplit(index=5)
