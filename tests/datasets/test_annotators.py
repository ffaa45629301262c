"""Which labels a run learns, where several annotators gave some."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from emofuse.datasets import read_dataset
from emofuse.datasets.annotators import describe_labels, describe_target, label_columns
from emofuse.datasets.manifest import Manifest
from emofuse.specs import (
    ClassTarget,
    CsvSpec,
    DistributionTarget,
    MultilabelTarget,
    RegressionTarget,
    StratifiedSplit,
)


def manifest_of(info=None, **columns) -> Manifest:
    table = pl.DataFrame(
        {"sample_id": ["a", "b", "c", "d"], "label": ["joy", "fear", "joy", None], "problem": [None] * 4, **columns}
    )
    return Manifest(table, ("fear", "joy"), Path("/data"), info or {})


def test_the_labels_of_another_annotator_are_compared_with_those_of_the_manifest():
    manifest = manifest_of({"label_column": "intended"}, perceived=["joy", "joy", None, "fear"])
    assert describe_labels(manifest, ClassTarget(column="perceived")) == (
        "the labels are those of column 'perceived'; the label of the manifest (column 'intended') is the same in 1 of "
        "2 rows"
    )


def test_the_label_of_the_manifest_is_named_where_others_exist():
    manifest = manifest_of(perceived=["joy", "joy", None, "fear"], valence=[0.1, 0.2, 0.3, 0.4])
    assert describe_labels(manifest, ClassTarget()) == (
        "the labels are the label of the manifest, not those of column 'perceived' (the same in 1 of 2 rows)"
    )
    assert describe_labels(manifest, RegressionTarget(columns="valence")) is None


def test_nothing_is_said_where_there_are_no_other_labels():
    manifest = manifest_of(scene=["zoo", "bar", "zoo", "bar"], constant=["joy"] * 4)
    assert label_columns(manifest) == []
    assert describe_labels(manifest, ClassTarget()) is None


def test_a_table_says_which_column_its_labels_are_from(tmp_path, image_at):
    image_at(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("path,intended\na.png,joy\n")
    manifest = read_dataset(CsvSpec(root=tmp_path, label_column="intended", split=StratifiedSplit()))
    assert manifest.info["label_column"] == "intended"


def test_a_target_is_described_by_its_columns_its_loss_and_its_rows():
    manifest = manifest_of(valence=[0.1, 0.2, None, 0.4], v_joy=[1, 0, 2, 0], v_fear=[0, 1, 1, 0], w=[1, 1, 2, 1])
    assert describe_target(manifest, ClassTarget()) is None
    assert describe_target(manifest, ClassTarget(), "w") == (
        "the label of the manifest; rows are weighted by column 'w'"
    )
    assert describe_target(manifest, RegressionTarget(columns="valence", loss="ccc"), "w") == (
        "valence (regression, loss ccc), in 3 of 4 rows; rows are weighted by column 'w'"
    )
    votes = DistributionTarget(columns=["v_joy", "v_fear"])
    assert describe_target(manifest, votes) == (
        "votes of v_joy, v_fear (distribution, loss cross_entropy), in 3 of 4 rows"
    )
    several = MultilabelTarget(columns="v_fear")
    assert describe_target(manifest, several) == (
        "labels v_fear (multilabel, loss binary cross_entropy), in 4 of 4 rows"
    )
