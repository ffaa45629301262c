from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from emofuse.datasets import list_dataset, read_dataset
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.row_paths import ids_from_paths, normalised_paths
from emofuse.errors import DatasetError
from emofuse.specs import CsvSpec, DemoSpec, EmoSetSpec, FolderSpec, StratifiedSplit

STRATIFIED = StratifiedSplit()
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def root(tmp_path, image_at):
    """One row of every fault that a file can have, two good rows first."""
    root = tmp_path / "root"
    image_at(root / "good.jpg")
    image_at(root / "sub/good.jpg")
    image_at(tmp_path / "outside.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "linked").symlink_to(tmp_path)
    (root / "broken.jpg").symlink_to(root / "nowhere.jpg")
    (root / "circle.jpg").symlink_to(root / "circle.jpg")
    (root / "empty.jpg").touch()
    (root / "pointer.jpg").write_text(LFS_POINTER)
    paths = [
        *("good.jpg", "x/../sub/good.jpg", "missing.jpg"),
        *("../outside.jpg", f"{tmp_path}/outside.jpg", "C:\\outside.jpg", "link.jpg", "linked/outside.jpg"),
        *("broken.jpg", "circle.jpg", "empty.jpg", "pointer.jpg", "sub", ""),
        *("good.jpg", "nul\0.jpg", "n" * 300 + ".jpg"),
    ]
    (root / "labels.csv").write_text("path,label\n" + "".join(f"{path},x\n" for path in paths))
    return root


EXPECTED = [
    (4, "missing file"),
    (5, "path leaves the root"),
    (6, "path leaves the root"),
    (7, "path leaves the root"),
    (8, "path leaves the root"),
    (9, "path leaves the root"),
    (10, "missing file"),
    (11, "file cannot be read"),
    (12, "empty file"),
    (13, "git-lfs pointer text instead of a file"),
    (14, "not a file"),
    (15, "no path"),
    (16, "duplicate id"),
    (17, "file cannot be read"),
    (18, "file cannot be read"),
]


def test_every_fault_is_found_with_its_row(root):
    listing = list_dataset(CsvSpec(root=root, split=STRATIFIED))
    assert listing.bad_rows.select("row", "fault").rows() == EXPECTED
    assert listing.bad_count == len(EXPECTED)


def test_one_error_lists_all_bad_rows_by_fault(root):
    with pytest.raises(DatasetError) as error:
        read_dataset(CsvSpec(root=root, split=STRATIFIED))
    lines = str(error.value).splitlines()
    assert lines[0] == f"{root}: 15 bad rows of 17. Repair them, or keep them as marked rows: --on-bad-rows keep"
    assert lines[1:4] == ["  missing file: 2", "    labels.csv row 4: missing.jpg", "    labels.csv row 10: broken.jpg"]
    advice = "links of your own are followed with --follow-links, or `follow_links: true` of the dataset"
    advice += "; those to the content of a hub snapshot, git-annex or DVC beside the root are followed unasked"
    assert f"  path leaves the root: 5 (absolute, with '..', or a link to elsewhere; {advice})" in lines
    assert "    labels.csv row 7: C:/outside.jpg" in lines
    assert "  git-lfs pointer text instead of a file: 1 (fetch the files: git lfs pull)" in lines
    assert "  no path: 1" in lines
    assert "    labels.csv row 15" in lines
    assert "    labels.csv row 16: good.jpg: 'good' is the id of labels.csv row 2 too" in lines


def test_kept_bad_rows_keep_their_place_and_are_marked(root):
    manifest = read_dataset(CsvSpec(root=root, split=STRATIFIED), on_bad_rows="keep")
    assert len(manifest) == 17
    assert manifest.table["problem"].null_count() == 2
    assert manifest.table["problem"][2] == "labels.csv row 4: missing file"
    assert manifest.table["path"].null_count() == 0
    assert manifest.table["sample_id"].n_unique() == 17
    assert manifest.table["sample_id"][13] == "labels.csv#15"
    assert manifest.info["bad_rows"] == 15


def test_two_faults_of_a_row_are_both_told_and_the_row_counts_once(tmp_path, image_at):
    image_at(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text("path,label,split\na.jpg,x,train\nb.jpg,x,nowhere\n")
    spec = CsvSpec(root=tmp_path, split_column="split")
    with pytest.raises(DatasetError, match="1 bad row of 2"):
        read_dataset(spec)
    problem = read_dataset(spec, on_bad_rows="keep").table["problem"][1]
    assert problem == "labels.csv row 3: unknown split: 'nowhere'; missing file"


def test_a_long_list_is_cut_and_says_how_many_there_are(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{n}.jpg,x\n" for n in range(25)))
    with pytest.raises(
        DatasetError, match=r"25 bad rows of 25.*\n  missing file: 25\n(.*\n){20}    \.\.\. and 5 more$"
    ):
        read_dataset(CsvSpec(root=tmp_path, split=STRATIFIED))


def test_repeated_ids_get_numbers_that_are_free(tmp_path, image_at):
    image_at(tmp_path / "a.jpg")
    image_at(tmp_path / "a#2.jpg")
    (tmp_path / "labels.csv").write_text("path,label\na.jpg,x\na.jpg,x\na#2.jpg,x\na.jpg,x\n")
    kept = read_dataset(CsvSpec(root=tmp_path, split=STRATIFIED), on_bad_rows="keep")
    assert kept.table["sample_id"].to_list() == ["a", "a#3", "a#2", "a#4"]


@pytest.mark.parametrize("spec", [EmoSetSpec(), FolderSpec(), CsvSpec(), DemoSpec()])
def test_a_dataset_without_root_says_how_to_set_it(spec):
    with pytest.raises(DatasetError, match=f"the {spec.kind} dataset has no root: .*--data PATH"):
        read_dataset(spec)


@pytest.mark.parametrize("spec", [EmoSetSpec, FolderSpec, CsvSpec])
def test_a_root_that_is_not_there_is_named(spec, tmp_path):
    with pytest.raises(
        DatasetError, match=r"nowhere: no such folder; set the root of the \w+ dataset with --data PATH"
    ):
        read_dataset(spec(root=tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file: is a file, not a folder"):
        read_dataset(spec(root=tmp_path / "file"))


def test_the_manifest_has_an_absolute_root_and_survives_its_file(tmp_path, image_at, monkeypatch):
    image_at(tmp_path / "data/x/1.jpg")
    monkeypatch.chdir(tmp_path)
    manifest = read_dataset(FolderSpec(root=Path("data"), split=STRATIFIED))
    assert manifest.root == tmp_path / "data"
    manifest.write(tmp_path / "m.parquet")
    again = Manifest.read(tmp_path / "m.parquet")
    assert again.table.equals(manifest.table)
    assert (again.classes, again.root, again.info) == (manifest.classes, manifest.root, manifest.info)


def test_a_demo_dataset_is_generated_when_it_is_first_read(tmp_path):
    spec = DemoSpec(root=tmp_path / "demo", images=24, seed=1)
    manifest = read_dataset(spec)
    assert len(manifest) == 24
    assert (manifest.info["name"], manifest.info["kind"]) == ("demo", "demo")
    assert manifest.info["reachable_accuracy"]["expression+scene+texture"] > 0.5
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*")}
    assert read_dataset(spec).table.equals(manifest.table)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*")} == written


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b.jpg", "a/b.jpg"), ("./a//b.jpg", "a/b.jpg"), ("a/x/../b.jpg", "a/b.jpg"), ("a/../../b", "../b"), ("", None),
     (None, None), ("a/..b.jpg", "a/..b.jpg"), ("/a/b", "/a/b"), ("a/b/", "a/b")],
)  # fmt: skip
def test_paths_are_normalised(path, expected):
    assert normalised_paths(pl.Series([path, "x"], dtype=pl.String)).to_list() == [expected, "x"]


def test_ids_are_unique_for_unique_paths():
    paths = ["a.jpg", "a.png", "a.jpg.png", "a.jpg.png.gif", "a", "b/.hidden", "b.c/d", "e.jpg", None]
    ids = ids_from_paths(pl.Series(paths, dtype=pl.String)).to_list()
    assert ids == ["a.jpg", "a.png", "a.jpg.png", "a.jpg.png.gif", "a", "b/.hidden", "b.c/d", "e", None]
