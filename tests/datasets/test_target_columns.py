"""The columns of a manifest that could be targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from emofuse.datasets.manifest import Manifest
from emofuse.datasets.target_columns import find_target_columns

CLASSES = ("anger", "joy")


def found(classes=CLASSES, **columns):
    rows = len(next(iter(columns.values())))
    labels = [CLASSES[row % 2] for row in range(rows)] if classes else [None] * rows
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
    return find_target_columns(Manifest(table, classes, Path("/data"), {}))


def only(**columns):
    (target,) = found(**columns)
    return target


def test_numbers_have_a_range_and_a_count_of_missing_values():
    target = only(valence=[-0.25, None, 0.5, float("nan")])
    assert (target.kind, target.values, target.missing, target.notes) == ("regression", "-0.25 to 0.5", 2, ())


def test_columns_of_zero_and_one_are_labels():
    target = only(happy=[1, 0, None, 1])
    assert (target.kind, target.values, target.missing) == ("multilabel", "0 and 1, 2 of 3 are 1", 1)
    (group,) = found(has_joy=["true", "false", "true"], has_fear=["true", "true", "false"])
    assert (group.name, group.kind, group.columns) == ("has_*", "multilabel", ("has_joy", "has_fear"))
    assert group.values == "2 columns of 0 and 1, 1.3 of them a row"


def test_columns_with_a_common_prefix_that_sum_to_one_number_are_votes():
    target = only(votes_anger=[3, 10, 0, 1], votes_joy=[7, 0, 0, 3], votes_calm=[0, 0, 0, 6])
    assert (target.name, target.kind, target.missing) == ("votes_*", "distribution", 0)
    assert target.values == "3 columns, 0 to 10, sum 10"
    assert target.notes == ("votes_*: 1 of 4 rows have no vote, and so no target",)
    (note,) = only(p_anger=[0.3, 1, 0.5, 0.9, 1], p_joy=[0.7, 0, 0.5, 0.2, 0]).notes
    assert note == (
        "p_*: 1 of 5 rows do not sum to 1, but to 1.1. As votes they are divided by their sum; as probabilities "
        "(`votes: false`) they are refused"
    )


def test_votes_are_found_by_their_sum_or_by_the_names_of_the_labels():
    by_sum = only(neutral=[3, 10, 5], fear=[7, 0, 1], contempt=[0, 0, 4])
    assert (by_sum.name, by_sum.kind) == ("neutral, ..., contempt", "distribution")
    by_name = only(anger=[0.25, 0.5], joy=[0.75, 0.5])
    assert (by_name.name, by_name.columns, by_name.values) == ("anger, joy", CLASSES, "2 columns, 0.25 to 0.75, sum 1")


def test_two_numbers_with_a_common_prefix_are_no_votes():
    assert [target.kind for target in found(self_valence=[1, 5, 9, 3], self_arousal=[2, 2, 8, 4])] == ["regression"] * 2


def test_words_that_are_repeated_are_labels_and_compared_with_the_label():
    perceived = only(perceived=["anger", "anger", None, "joy"])
    assert (perceived.kind, perceived.missing) == ("class", 1)
    assert perceived.values == "2 of the labels; as the label in 2 of 3 rows"
    scene = only(scene=["zoo", "bar", "zoo", "bar"])
    assert scene.values == "2 labels: bar, zoo"
    assert found(caption=["a", "b", "c", "d"]) == []


def test_lists_are_several_labels_or_votes():
    assert only(tags=[["a", "b"], [], None]).values == "lists of 2 words"
    lists = only(votes=[[1, 2], [3, 0]])
    assert (lists.kind, lists.values) == ("distribution", "lists of 2 numbers, 0 to 3")


def test_a_constant_is_noted():
    assert only(arousal=[0.5, 0.5, None]).notes == (
        "column 'arousal' has the same value in all rows, 0.5: there is nothing to learn",
    )
    assert only(scene=["zoo", "zoo", "zoo"]).notes == (
        "column 'scene' has the same value in all rows, zoo: there is nothing to learn",
    )


def test_a_repeated_value_apart_from_all_others_is_noted_as_a_code():
    valence = np.round(np.linspace(-1, 1, 50), 3)
    (note,) = only(valence=[*valence, -2, -2, -2]).notes
    assert note == (
        "column 'valence' has -2 in 3 rows, and -1 to 1 in all others. If it stands for a missing value, empty these "
        "cells"
    )
    assert only(valence=[*valence, -1.1, -1.1]).notes == ()
    assert only(valence=[*valence, -2]).notes == ()


def test_text_in_a_column_of_numbers_is_noted_with_its_first_row():
    target = only(valence=["0.1", "0.2", "-0.3", "0.4", "NA", "0.6", "", "1e-1"])
    assert (target.kind, target.values, target.missing) == ("regression", "-0.3 to 0.6", 2)
    (note,) = target.notes
    assert note == (
        "column 'valence' has text in 1 of 7 rows, the first is 'NA' in row 's4': empty these cells, or the column "
        "cannot be a target of numbers"
    )
    assert found(number=["007", "008", "009"]) == []
