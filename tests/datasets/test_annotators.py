"""Which labels a run learns, where several annotators gave some."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from emofuse.datasets import read_dataset
from emofuse.datasets.annotators import describe_labels, label_columns
from emofuse.datasets.manifest import Manifest
from emofuse.specs import ClassTarget, CsvSpec, RegressionTarget, StratifiedSplit


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
