"""What runs need of the splits of a dataset is known from its labels, and the advice keeps the test rows."""

from __future__ import annotations

import polars as pl
import pytest

from emofuse.datasets.manifest import Manifest
from emofuse.datasets.split_needs import SplitNeed, check_needs, needs_of_runs, needs_of_sweep
from emofuse.errors import TrainingError
from emofuse.specs import (
    FeaturesSpec,
    FoldSpec,
    HoldoutSplit,
    OfficialSplit,
    RunSpec,
    StratifiedSplit,
    SweepSpec,
    parse_spec,
)

OFFICIAL = [SplitNeed(OfficialSplit())]


def manifest(tmp_path, labels, splits, drawn="official"):
    table = pl.DataFrame({"label": labels, "split": splits}, schema={"label": pl.String, "split": pl.String})
    return Manifest(table, tuple(sorted({*labels} - {None})), tmp_path, {"split": {"kind": drawn}})


@pytest.fixture
def train_and_test(tmp_path):
    return manifest(tmp_path, ["a", "b"] * 10, ["train"] * 14 + ["test"] * 6)


def test_a_dataset_of_train_and_test_lacks_val_and_the_advice_keeps_the_test(train_and_test):
    with pytest.raises(TrainingError) as caught:
        check_needs(train_and_test, OFFICIAL)
    assert str(caught.value) == (
        "no labelled row has split 'val' (to choose the epoch on). Have validation rows drawn from the training rows: "
        "`split: {kind: holdout}` in a pipeline, `--split holdout` on the command line; or cross-validate a run over "
        "its training rows: `fold: {count: 5}`. Both keep the dataset's test rows; a stratified split would draw them "
        "anew (`split: {kind: stratified}` in a pipeline, `--split stratified` on the command line)"
    )


def test_what_the_advice_names_is_enough(train_and_test):
    check_needs(train_and_test, [SplitNeed(HoldoutSplit()), SplitNeed(OfficialSplit(), folds=FoldSpec())])
    check_needs(train_and_test, [SplitNeed(StratifiedSplit())])


def test_a_dataset_without_test_rows_is_told_to_take_its_validation_rows(tmp_path):
    found = manifest(tmp_path, ["a", "b"] * 10, ["train"] * 14 + ["val"] * 6)
    with pytest.raises(TrainingError, match=r"split 'test' \(to report on\).*`split: \{kind: holdout, test: val\}`"):
        check_needs(found, OFFICIAL)
    check_needs(found, [SplitNeed(HoldoutSplit(test="val"))])


def test_a_drawn_split_is_not_told_to_be_drawn(tmp_path):
    labels = [f"person {number}" for number in range(20)]
    found = manifest(tmp_path, labels, ["train"] * 20, drawn="stratified")
    with pytest.raises(TrainingError) as caught:
        check_needs(found, OFFICIAL)
    assert str(caught.value).endswith(
        "a label needs 3 rows to have one in each of train, val and test; 20 of 20 labels have fewer: 'person 0' "
        "(1 row), 'person 1' (1 row), 'person 2' (1 row) and 17 more. Add rows of these labels, or merge labels"
    )


def test_too_few_rows_for_folds_and_rows_of_one_label_are_found(tmp_path):
    found = manifest(tmp_path, ["a", "b", "a"], ["train", "train", "test"])
    with pytest.raises(TrainingError, match=r"5 folds need as many labelled rows .* got 2"):
        check_needs(found, [SplitNeed(OfficialSplit(), folds=FoldSpec())])
    found = manifest(tmp_path, ["a", "a", "a", None], ["train", "val", "test", "train"])
    with pytest.raises(TrainingError, match="all 1 training rows are labelled 'a'"):
        check_needs(found, OFFICIAL)


def test_runs_and_sweeps_say_what_they_need():
    features = FeaturesSpec(streams=("lbp",))
    plain, fold = RunSpec(name="a", features=features), RunSpec(name="b", features=features, fold=FoldSpec())
    assert needs_of_runs([plain, plain, fold]) == [SplitNeed(OfficialSplit()), SplitNeed(OfficialSplit(), FoldSpec())]
    sweep = parse_spec(SweepSpec, {"name": "s", "factors": {"streams": "all"}, "folds": 3}, "s")
    assert needs_of_sweep(sweep) == [SplitNeed(OfficialSplit()), SplitNeed(OfficialSplit(), FoldSpec(count=3))]
