from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl
import pytest

from emofuse.datasets import manifest as manifest_module
from emofuse.datasets import read_dataset
from emofuse.datasets.groups import describe_groups, group_notes, joined_groups, read_group_file, write_group_file
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.roots import open_files
from emofuse.datasets.rows import ListedRows, check_rows
from emofuse.errors import DatasetError, SpecError
from emofuse.specs import CsvSpec, FolderSpec, HoldoutSplit, OfficialSplit, StratifiedSplit, parse_spec
from emofuse.specs.datasets import CustomDatasetSpec
from emofuse.testing import check_dataset

STRATIFIED = StratifiedSplit()


@pytest.fixture
def table_at(tmp_path, image_at):
    """Writes labels.csv and the images that it names; gives the root."""

    def write(text: str) -> Path:
        for line in text.splitlines()[1:]:
            image_at(tmp_path / line.split(",")[0])
        (tmp_path / "labels.csv").write_text(text)
        return tmp_path

    return write


def test_a_csv_takes_groups_from_a_column_and_empty_ones_are_rows_of_their_own(table_at):
    root = table_at("path,label,who\na.jpg,joy, 07 \nb.jpg,awe,\nc.jpg,joy,7\n")
    found = read_dataset(CsvSpec(root=root, split=STRATIFIED, group_column="who"))
    assert found.groups == ["07", None, "7"]  # names, not numbers
    assert found.table.columns == list(manifest_module.COLUMNS)  # the column is no attribute, too


def test_a_csv_without_the_column_of_groups_is_an_error_that_names_it(table_at):
    root = table_at("path,label,speaker\na.jpg,joy,1\n")
    with pytest.raises(DatasetError, match="group_column: there is no column 'speakr', did you mean 'speaker'"):
        read_dataset(CsvSpec(root=root, split=STRATIFIED, group_column="speakr"))


def test_a_column_named_group_is_an_attribute_unless_it_is_asked_for(table_at):
    root = table_at("path,label,group\na.jpg,joy,1\nb.jpg,joy,2\n")
    found = read_dataset(CsvSpec(root=root, split=STRATIFIED))
    assert found.groups == [None, None]
    assert found.table["table_group"].to_list() == [1, 2]


def test_a_folder_takes_groups_from_the_folder_of_the_image_below_that_of_its_label(tmp_path, image_at):
    for path in ("joy/s1/a.jpg", "joy/s2/b.jpg", "awe/s1/deep/c.jpg", "awe/d.jpg", "awe/s1/e.jpg"):
        image_at(tmp_path / path)
    found = read_dataset(FolderSpec(root=tmp_path, split=STRATIFIED, group="parent"))
    assert dict(zip(found.table["path"], found.groups, strict=True)) == {
        "awe/d.jpg": None, "awe/s1/deep/c.jpg": "deep", "awe/s1/e.jpg": "s1", "joy/s1/a.jpg": "s1",
        "joy/s2/b.jpg": "s2",
    }  # fmt: skip


def test_the_folder_of_a_label_below_that_of_a_split_is_no_group(tmp_path, image_at):
    for path in ("train/joy/s1/a.jpg", "train/awe/b.jpg", "test/joy/c.jpg", "test/awe/s2/d.jpg"):
        image_at(tmp_path / path)
    found = read_dataset(FolderSpec(root=tmp_path, group="parent"))
    assert dict(zip(found.table["path"], found.groups, strict=True)) == {
        "train/awe/b.jpg": None, "train/joy/s1/a.jpg": "s1", "test/joy/c.jpg": None, "test/awe/s2/d.jpg": "s2",
    }  # fmt: skip


def test_a_folder_takes_groups_by_a_pattern_and_notes_the_paths_without_it(tmp_path, image_at):
    for path in ("joy/s01_1.jpg", "awe/s01_2.jpg", "awe/s12_1.jpg", "awe/other.jpg"):
        image_at(tmp_path / path)
    found = read_dataset(FolderSpec(root=tmp_path, split=STRATIFIED, group=r"/(s\d+)_"))
    assert found.groups == [None, "s01", "s12", "s01"]
    assert (
        "the pattern of the groups is not in 1 of 4 paths (awe/other.jpg, ...): each of them is a group of its own"
        in (found.info["notes"])
    )
    with pytest.raises(DatasetError, match=r"group: the pattern '\(x\\\\d\+\)' is in none of the 4 paths"):
        read_dataset(FolderSpec(root=tmp_path, split=STRATIFIED, group=r"(x\d+)"))


@pytest.mark.parametrize(
    ("group", "problem"),
    [
        ("s(", r"is neither 'parent' nor a regular expression \("),
        ("parents", "with one group in parentheses.* it has 0"),
    ],
)
def test_a_pattern_of_groups_that_is_none_is_a_problem_of_the_spec(group, problem):
    with pytest.raises(SpecError, match=problem):
        parse_spec(FolderSpec, {"kind": "folder", "group": group}, "x")


def test_a_table_of_groups_joins_the_groups_of_a_column(table_at):
    root = table_at("path,label,who\na.jpg,joy,s1\nb.jpg,awe,s2\nc.jpg,joy,\nd.jpg,awe,s3\ne.jpg,joy,\n")
    write_group_file(root / "copies.csv", {"a": "copy 1", "c": "copy 1", "b": "copy 2", "d": "copy 2", "e": "s1"})
    found = read_dataset(CsvSpec(root=root, split=STRATIFIED, group_column="who", group_file=Path("copies.csv")))
    assert found.groups == ["s1", "s2", "s1", "s2", "s1'"]  # `s1` of the table is not `s1` of the column


def test_groupings_are_joined_over_chains():
    first = ["a", "b", "c", None, None, None]
    second = ["1", "1", "2", "2", "3", None]
    assert joined_groups(first, second) == ["a", "a", "c", "c", "3", None]
    assert joined_groups(["b", "a", "b"], [None, "1", "1"]) == ["a", "a", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"group_file: no such table\. A relative path starts at the root of the dataset"),
        ("id,group\na,1\n", r"group_file: there is no column 'sample_id'.* \(id, group\)"),
        ("sample_id,group\na,1\na,2\n", "row 3: 'a' has two groups, '1' and '2'; join them under one name"),
        ("sample_id,group\nx,1\n", "none of its 1 ids is in the dataset: it has 'x', the dataset 'a'"),
    ],
)
def test_a_table_of_groups_that_does_not_fit_is_one_error(tmp_path, text, message):
    if text is not None:
        (tmp_path / "g.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_group_file(tmp_path / "g.csv", pl.Series(["a", "b"]))


def test_ids_of_a_table_of_groups_that_the_dataset_lacks_are_noted(tmp_path):
    write_group_file(tmp_path / "g.csv", {"a": "1", "gone": "1"})
    assert read_group_file(tmp_path / "g.csv", pl.Series(["a", "b"])) == (
        ["1", None],
        ["1 of 2 ids of g.csv are not in the dataset (gone, ...)"],
    )


def test_groups_in_several_splits_are_noted():
    groups, splits = ["x", "x", "y", "y", None], ["train", "test", "val", "val", "test"]
    (note,) = group_notes(groups, splits, OfficialSplit())
    assert note == (
        "groups are shared between train, val and test: 1 of 2 are in several splits ('x' in train and test), so that "
        "scores are those of known groups; the dataset's own split parts them; `split: {kind: stratified}` keeps each "
        "in one split"
    )
    assert group_notes(groups, ["train", None, "val", "val", "test"], OfficialSplit()) == []
    (note,) = group_notes(groups, splits, HoldoutSplit(grouped=False))
    assert "`grouped: false` of the split asks for it" in note


def test_groups_are_described_in_one_line():
    assert describe_groups([None, None]) == ""
    assert describe_groups(["a", "b", "b", None]) == (
        "2 groups in 3 rows, the largest 'b' with 2; 1 row without a group, each of its own"
    )


def test_a_split_in_the_manifest_keeps_groups_together_unless_it_is_told_not_to(table_at):
    text = "".join(f"{row}.jpg,{'ab'[row % 2]},{row // 6}\n" for row in range(60))
    root = table_at("path,label,who\n" + text)
    found = read_dataset(CsvSpec(root=root, split=STRATIFIED, group_column="who"))
    assert found.table.group_by("group").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 10
    assert sorted(found.table["split"].value_counts().rows()) == [("test", 6), ("train", 42), ("val", 12)]
    apart = read_dataset(CsvSpec(root=root, split=StratifiedSplit(grouped=False), group_column="who"))
    plain = read_dataset(CsvSpec(root=root, split=STRATIFIED))
    assert apart.table["split"].equals(plain.table["split"])
    assert "groups are shared between train, val and test" in apart.info["notes"][-1]
    assert "groups are shared" not in "".join(found.info["notes"])


def test_groups_are_kept_in_the_manifest_of_a_cache(tmp_path):
    table = pl.DataFrame(
        {
            "sample_id": ["a"],
            "path": ["a.jpg"],
            "split": ["train"],
            "label": ["joy"],
            "group": ["s1"],
            "problem": [None],
        }
    )
    Manifest(table, ("joy",), tmp_path, {}).write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").groups == ["s1"]


def test_a_former_manifest_has_no_groups_and_its_attribute_of_that_name_is_kept(tmp_path):
    table = pl.DataFrame(
        {"sample_id": ["a"], "path": ["a.jpg"], "split": ["train"], "label": ["joy"], "problem": [None], "group": [7]},
        schema_overrides={"problem": pl.String},
    )
    former = json.dumps({"classes": ["joy"], "root": str(tmp_path), "info": {}})
    table.write_parquet(tmp_path / "m.parquet", metadata={"emofuse": former})
    found = Manifest.read(tmp_path / "m.parquet")
    assert found.table.columns == [*manifest_module.COLUMNS, "table_group"]
    assert (found.groups, found.table["table_group"].to_list()) == ([None], [7])
    assert re.fullmatch("[0-9a-f]{64}", found.ids_digest)


class SpeakersSpec(CustomDatasetSpec):
    """A dataset of somebody's own that lists the numbers of speakers; `faulty` bypasses the checks of rows."""

    kind: Literal["speakers"] = "speakers"
    faulty: bool = False

    def read(self):
        table = pl.DataFrame(
            {
                "file": [""] * 3,
                "row": [1, 2, 3],
                "sample_id": ["a", "b", "c"],
                "path": ["a.jpg", "b.jpg", "c.jpg"],
                "split": ["train", "val", "test"],
                "label": ["joy", "awe", "joy"],
                "group": [7, None, 7],
            }
        )
        listed = ListedRows(table, ("awe", "joy"), "speakers", self.kind)
        listing = check_rows(listed, self.root, self.split, open_files(self.root))
        if not self.faulty:
            return listing
        numbers = listing.manifest.table.with_columns(group=pl.Series([7, None, 7]))
        return replace(listing, manifest=replace(listing.manifest, table=numbers))


def test_a_dataset_of_somebody_s_own_lists_groups(tmp_path, image_at):
    for name in "abc":
        image_at(tmp_path / f"{name}.jpg")
    spec = SpeakersSpec(root=tmp_path)
    check_dataset(spec)
    found = spec.read().manifest
    assert found.groups == ["7", None, "7"]
    assert found.info["groups"] == 1
    with pytest.raises(AssertionError, match=r"groups must be names \(text\) or null, got Int64"):
        check_dataset(SpeakersSpec(root=tmp_path, faulty=True))
