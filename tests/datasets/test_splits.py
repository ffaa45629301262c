from __future__ import annotations

from collections import Counter

import pytest

from emofuse.datasets.splits import stratified_split
from emofuse.specs import StratifiedSplit


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
