"""What runs need of the splits of a dataset is known from its labels, and the advice keeps the test rows."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from emofuse.datasets.manifest import Manifest
from emofuse.datasets.split_needs import SplitNeed, check_needs, describe_lack, needs_of_runs, needs_of_sweep
from emofuse.errors import SpecError, TrainingError
from emofuse.specs import (
    DistributionTarget,
    FeaturesSpec,
    FoldSpec,
    HoldoutSplit,
    OfficialSplit,
    RegressionTarget,
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


def test_a_run_needs_rows_with_its_target_and_not_rows_with_a_label(tmp_path):
    splits = ["train", "train", "val", "test"]
    found = manifest(tmp_path, [None] * 4, splits)
    table = found.table.with_columns(
        sample_id=pl.Series(["s0", "s1", "s2", "s3"]), valence=pl.Series([0.1, 0.2, 0.3, None])
    )
    need = SplitNeed(OfficialSplit(), target=RegressionTarget(columns="valence"))
    with pytest.raises(TrainingError, match=r"no labelled row has split 'test' \(to report on\)"):
        check_needs(replace(found, table=table), [need])
    whole = replace(found, table=table.with_columns(valence=pl.Series([0.1, 0.2, 0.3, 0.4])))
    check_needs(whole, [need])
    with pytest.raises(SpecError, match=r"target: the dataset has no labels, .* lists those that could be targets"):
        check_needs(whole, OFFICIAL)
    assert "did you mean 'valence'" in describe_lack(whole, [need._replace(weight_column="valense")])


def test_runs_and_sweeps_need_the_rows_of_their_target():
    target = RegressionTarget(columns="valence")
    run = RunSpec(name="a", features=FeaturesSpec(streams=("lbp",)), target=target, weight_column="w")
    need = SplitNeed(OfficialSplit(), None, target, "w")
    assert needs_of_runs([run, run]) == [need]
    base = {"target": {"kind": "regression", "columns": "valence"}, "weight_column": "w"}
    sweep = parse_spec(SweepSpec, {"name": "s", "base": base, "factors": {"streams": "all"}, "folds": 3}, "s")
    assert needs_of_sweep(sweep) == [need, need._replace(folds=FoldSpec(count=3))]


def test_folds_of_numbers_need_as_many_rows_or_groups_as_folds(tmp_path):
    found = manifest(tmp_path, [None] * 6, ["train"] * 5 + ["test"])
    table = found.table.with_columns(
        sample_id=pl.Series([f"s{row}" for row in range(6)]), valence=pl.Series([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    )
    need = SplitNeed(OfficialSplit(), FoldSpec(), RegressionTarget(columns="valence"))
    check_needs(replace(found, table=table), [need])
    speakers = table.with_columns(group=pl.Series(["a", "a", "b", "b", "c", "d"]))
    with pytest.raises(TrainingError, match=r"5 folds need as many groups .* 'rows with a target' \(3 groups\)"):
        check_needs(replace(found, table=speakers), [need])


def test_a_class_that_has_the_majority_in_fewer_rows_than_folds_is_one_error(tmp_path):
    found = manifest(tmp_path, [None] * 9, ["train"] * 8 + ["test"])
    joy = [9, 9, 9, 9, 1, 1, 9, 9, 9]
    table = found.table.with_columns(
        sample_id=pl.Series([f"s{row}" for row in range(9)]), joy=pl.Series(joy), fear=pl.Series([5] * 9)
    )
    need = SplitNeed(OfficialSplit(), FoldSpec(count=3), DistributionTarget(columns=["joy", "fear"]))
    with pytest.raises(TrainingError, match=r"3 folds need as many rows .* Fewer have: 'fear' \(2 rows\)"):
        check_needs(replace(found, table=table), [need])
    check_needs(replace(found, table=table), [need._replace(folds=FoldSpec(count=2))])
