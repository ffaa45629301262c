"""Targets of runs, read from the columns of a manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from emofuse.datasets.manifest import Manifest, other_values
from emofuse.datasets.splits import ONE_STRATUM
from emofuse.datasets.targets import read_targets
from emofuse.errors import DatasetError, SpecError
from emofuse.specs import ClassTarget, DistributionTarget, MultilabelTarget, RegressionTarget

CLASSES = ("joy", "anger")


def manifest_of(labels=("joy", "anger", None), **columns) -> Manifest:
    rows = len(labels)
    table = pl.DataFrame(
        {
            "sample_id": [f"s{row}" for row in range(rows)],
            "path": [f"s{row}.png" for row in range(rows)],
            "split": ["train"] * rows,
            "label": pl.Series(labels, dtype=pl.String),
            "problem": pl.Series([None] * rows, dtype=pl.String),
            **columns,
        }
    )
    return Manifest(table, CLASSES, Path("/data"), {})


def test_the_label_of_the_manifest_is_the_target_unless_another_is_asked_for():
    targets = read_targets(manifest_of(), ClassTarget())
    assert (targets.kind, targets.names, targets.labels.tolist()) == ("class", CLASSES, [0, 1, -1])
    assert targets.values is None
    assert targets.weights is None
    assert targets.notes == ()


def test_another_annotators_labels_keep_the_classes_of_the_manifest_where_they_are_the_same():
    targets = read_targets(manifest_of(perceived=["anger", " anger", None]), ClassTarget(column="perceived"))
    assert (targets.names, targets.labels.tolist()) == (CLASSES, [1, 1, -1])
    assert targets.notes == ("1 of 3 rows lack the labels of column 'perceived': they neither train nor are scored",)


def test_a_column_of_other_labels_has_its_own_classes_in_alphabetical_order():
    targets = read_targets(manifest_of(scene=["zoo", "bar", "zoo"]), ClassTarget(column="scene"))
    assert (targets.names, targets.labels.tolist()) == (("bar", "zoo"), [1, 0, 1])
    numbers = read_targets(manifest_of(level=[2.0, 1.0, None]), ClassTarget(column="level"))
    assert (numbers.names, numbers.labels.tolist()) == (("1", "2"), [1, 0, -1])


def test_votes_are_shares_of_their_sum_in_the_order_of_the_manifests_classes():
    manifest = manifest_of(v_anger=[1, 8, 0], v_joy=[3, 2, 0])
    targets = read_targets(manifest, DistributionTarget(columns=["v_anger", "v_joy"]))
    assert targets.names == CLASSES
    np.testing.assert_allclose(targets.values, [[0.75, 0.25], [0.2, 0.8], [np.nan, np.nan]], rtol=1e-6)
    assert targets.values.dtype == np.float32
    assert targets.labels.tolist() == [0, 1, -1]
    (note,) = targets.notes
    assert note == "1 of 3 rows lack the votes of v_anger, v_joy or have no votes: they neither train nor are scored"


def test_a_mapping_names_the_class_of_each_column_and_a_row_with_an_empty_vote_has_no_target():
    columns = {"joy": "a", "anger": "b", "calm": "c"}
    manifest = manifest_of(a=[1, 1, None], b=[0, 1, 1], c=[0, 2, 1])
    targets = read_targets(manifest, DistributionTarget(columns=columns))
    assert (targets.names, targets.labels.tolist()) == (("joy", "anger", "calm"), [0, 2, -1])


def test_a_tie_of_votes_goes_to_the_label_of_the_manifest_or_else_to_the_first_class():
    manifest = manifest_of(v_joy=[1, 1, 1], v_anger=[1, 1, 1])
    assert read_targets(manifest, DistributionTarget(columns=["v_joy", "v_anger"])).labels.tolist() == [0, 1, 0]


def test_the_class_of_a_row_with_votes_can_be_the_label_of_the_manifest():
    manifest = manifest_of(v_joy=[1, 9, 1], v_anger=[5, 1, 1])
    target = DistributionTarget(columns=["v_joy", "v_anger"], label="manifest")
    assert read_targets(manifest, target).labels.tolist() == [0, 1, -1]
    without_anger = DistributionTarget(columns={"joy": "v_joy", "calm": "v_anger"}, label="manifest")
    with pytest.raises(SpecError, match=r"target.label: manifest, but target.columns has no column for 'anger'"):
        read_targets(manifest, without_anger)


def test_a_single_column_may_hold_lists_of_votes():
    targets = read_targets(manifest_of(votes=[[3, 1], [0, 1], None]), DistributionTarget(columns="votes"))
    np.testing.assert_allclose(targets.values[:2], [[0.75, 0.25], [0, 1]])
    assert targets.labels.tolist() == [0, 1, -1]
    with pytest.raises(DatasetError, match=r"'votes' must hold lists with a number for each of the 2 classes, got '3"):
        read_targets(manifest_of(votes=[[3, 1, 0], [0, 1], None]), DistributionTarget(columns="votes"))
    with pytest.raises(SpecError, match=r"the single column 'votes' must hold lists, it holds Int64"):
        read_targets(manifest_of(votes=[3, 1, 0]), DistributionTarget(columns="votes"))


def test_probabilities_that_do_not_sum_to_one_are_refused_with_the_first_row():
    target = DistributionTarget(columns=["p_joy", "p_anger"], votes=False)
    targets = read_targets(manifest_of(p_joy=[0.2, 0.3333, None], p_anger=[0.8, 0.6666, None]), target)
    np.testing.assert_allclose(targets.values[:2].sum(axis=1), 1, rtol=1e-6)
    with pytest.raises(DatasetError, match=r"sum to 1 in each row .*, got 1.1 in row 's1' and 1 more row$"):
        read_targets(manifest_of(p_joy=[0.2, 0.3, 0.0], p_anger=[0.8, 0.8, 0.0]), target)


def test_negative_votes_are_refused_with_the_first_row():
    manifest = manifest_of(v_joy=[1, 1, 1], v_anger=[1, -2, 1])
    with pytest.raises(DatasetError, match=r"'v_joy, v_anger' must hold votes, .* negative, got -2.0 in row 's1'"):
        read_targets(manifest, DistributionTarget(columns=["v_joy", "v_anger"]))


def test_numbers_keep_their_unit_and_rows_that_lack_one_have_no_target():
    manifest = manifest_of(valence=[-0.5, None, 3.0], arousal=["0.25", "1", " 2 "])
    targets = read_targets(manifest, RegressionTarget(columns=["valence", "arousal"]))
    assert (targets.kind, targets.names) == ("regression", ("valence", "arousal"))
    np.testing.assert_array_equal(targets.values, np.float32([[-0.5, 0.25], [np.nan, np.nan], [3, 2]]))
    assert targets.labels.tolist() == [0, -1, 0]
    assert targets.notes == ("1 of 3 rows lack the valence, arousal: they neither train nor are scored",)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"valence": ["0.5", "high", "low"]}, "'valence' must hold numbers .*, got 'high' in row 's1' and 1 more row$"),
        ({"valence": [0.5, float("inf"), 0.1]}, "column 'valence' must hold finite numbers, got inf in row 's1'$"),
        ({"valence": [[0.5], [0.1], [0.2]]}, r"column 'valence' must hold numbers, it holds List\(Float64\)$"),
        (
            {"valence": [0.5, 0.5, None]},
            "'valence' has the same value in all 2 rows with a target, so there",
        ),
        ({"valence": [None, None, None]}, "no row has a target: all 3 lack the valence$"),
    ],
)
def test_what_is_no_number_is_refused_with_the_first_row(columns, problem):
    with pytest.raises(DatasetError, match=problem):
        read_targets(manifest_of(**columns), RegressionTarget(columns="valence"))


def test_several_labels_are_columns_of_zero_and_one_or_false_and_true():
    manifest = manifest_of(happy=[1, 0, None], engaged=["True", "false", "true"], calm=[True, False, True])
    targets = read_targets(manifest, MultilabelTarget(columns=["happy", "engaged", "calm"]))
    np.testing.assert_array_equal(targets.values, np.float32([[1, 1, 1], [0, 0, 0], [np.nan] * 3]))
    assert targets.labels.tolist() == [0, 0, -1]
    with pytest.raises(DatasetError, match=r"'happy' must hold 0 or 1, or false or true, got 2.0 in row 's0'"):
        read_targets(manifest_of(happy=[2, 0, 1]), MultilabelTarget(columns="happy"))
    with pytest.raises(DatasetError, match=r"'happy' must hold 0 or 1, or false or true, got 'maybe' in row 's0'"):
        read_targets(manifest_of(happy=["maybe", "1", "0"]), MultilabelTarget(columns="happy"))


def test_several_labels_may_be_lists_of_words():
    targets = read_targets(manifest_of(tags=[["fear", "awe"], [], None]), MultilabelTarget(columns="tags"))
    assert targets.names == ("awe", "fear")
    np.testing.assert_array_equal(targets.values, np.float32([[1, 1], [0, 0], [np.nan] * 2]))
    assert targets.labels.tolist() == [0, 0, -1]


def test_a_column_that_does_not_exist_is_refused_with_the_nearest_name():
    manifest = manifest_of(valence=[0.1, 0.2, 0.3])
    with pytest.raises(SpecError) as error:
        read_targets(manifest, RegressionTarget(columns=["valance", "split"]))
    assert str(error.value) == (
        "/data (columns: valence), 2 problems: target.columns: there is no column 'valance', did you mean 'valence'? | "
        "target.columns: 'split' is a column of every manifest, and no attribute of the dataset"
    )
    with pytest.raises(SpecError, match=r"weight_column: there is no column 'valences', did you mean 'valence'"):
        read_targets(manifest, ClassTarget(), "valences")
    with pytest.raises(SpecError, match=r"target.column: there is no column 'valences', did you mean 'valence'"):
        read_targets(manifest, ClassTarget(column="valences"))


def test_labels_that_are_broken_numbers_are_refused_as_classes():
    with pytest.raises(DatasetError, match=r"'valence' must hold labels, .* kind regression\), got 0.5 in row 's0'"):
        read_targets(manifest_of(valence=[0.5, 1.0, None]), ClassTarget(column="valence"))


def test_weights_are_of_rows_with_a_target_and_not_negative():
    weights = read_targets(manifest_of(w=[2, 0, None]), ClassTarget(), "w").weights
    assert (weights.tolist(), weights.dtype) == ([2, 0, 0], np.float32)
    with pytest.raises(DatasetError, match=r"column 'w' must hold weights, 0 or more, got -1.0 in row 's1'"):
        read_targets(manifest_of(w=[2, -1, None]), ClassTarget(), "w")
    with pytest.raises(DatasetError, match=r"column 'w' must hold weights, 0 or more, got None in row 's1'"):
        read_targets(manifest_of(w=[2, None, 1]), ClassTarget(), "w")
    with pytest.raises(DatasetError, match=r"and no row with a target is above 0"):
        read_targets(manifest_of(w=[0, 0, 1]), ClassTarget(), "w")


def test_drawn_splits_keep_the_proportions_of_the_classes_of_a_target():
    manifest = manifest_of(v_joy=[1, 9, 0], v_anger=[5, 1, 0], valence=[0.5, None, 1.0])
    votes = read_targets(manifest, DistributionTarget(columns=["v_joy", "v_anger"]))
    assert votes.strata == ["anger", "joy", None]
    assert read_targets(manifest, RegressionTarget(columns="valence")).strata == [ONE_STRATUM, None, ONE_STRATUM]


def test_numbers_outside_of_a_stated_range_are_refused_with_the_first_row():
    manifest = manifest_of(valence=[-1, -2, 1], arousal=[0.0, 0.5, 1.0])
    assert (
        read_targets(manifest, RegressionTarget(columns=["valence", "arousal"], range=(-2, 1))).labels.tolist()
        == [0] * 3
    )
    with pytest.raises(DatasetError, match=r"column 'valence' must be from -1 to 1, as `target.range` .* got -2.0"):
        read_targets(manifest, RegressionTarget(columns=["arousal", "valence"], range=(-1, 1)))


def test_columns_of_sources_are_no_attributes():
    manifest = manifest_of(start_s=[0.0, 1.0, 2.0], valence=[0.1, 0.2, 0.3])
    assert manifest.attributes == ["valence"]
    with pytest.raises(SpecError, match="'start_s' is a column of every manifest, and no attribute of the dataset"):
        read_targets(manifest, RegressionTarget(columns="start_s"))


def test_values_that_are_nan_or_null_in_both_columns_do_not_differ():
    one = pl.Series([0.5, float("nan"), None, 1.0, None])
    assert other_values(one, pl.Series([0.5, float("nan"), None, 2.0, 0.0])).to_list() == [False] * 3 + [True] * 2
    lists = pl.Series([["a"], [], None])
    assert other_values(lists, pl.Series([["a"], ["b"], None])).to_list() == [False, True, False]


def test_a_column_that_was_renamed_beside_that_of_the_manifest_is_named():
    manifest = manifest_of(table_label=["joy", "joy", "anger"], table_split=[1, 2, 3])
    with pytest.raises(SpecError, match="attribute of the dataset; the column 'label' of the table is 'table_label'"):
        read_targets(manifest, ClassTarget(column="label"))
    with pytest.raises(SpecError, match="attribute of the dataset; the column 'split' of the table is 'table_split'"):
        read_targets(manifest, RegressionTarget(columns="split"))
    assert read_targets(manifest, ClassTarget(column="table_label")).labels.tolist() == [0, 0, 1]
    assert read_targets(manifest_of(), ClassTarget(column="label")).labels.tolist() == [0, 1, -1]
