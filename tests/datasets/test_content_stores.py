"""Links to the content of a hub's snapshot, of git-annex and of DVC are followed unasked; no others are."""

from __future__ import annotations

import os

import pytest

from emofuse.datasets import list_dataset, read_dataset
from emofuse.datasets.files import DatasetFiles, FileFault
from emofuse.errors import DatasetError
from emofuse.specs import FolderSpec, StratifiedSplit

STRATIFIED = StratifiedSplit(train=0.5, val=0.25, test=0.25)
LINKED = "links to the content in"


def link_dataset(root, store, image_at):
    """Eight pictures of two labels below the root, each a relative link to a file of the store."""
    for number in range(8):
        content = image_at(store / f"{number:04x}.jpg").rename(store / f"{number:04x}")
        link = root / ("awe", "joy")[number % 2] / f"{number}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(content, link.parent))
    return FolderSpec(root=root, split=STRATIFIED)


@pytest.mark.parametrize(
    ("root", "store", "content"),
    [
        ("repo/snapshots/4f2a", "repo/blobs", ""),
        ("repo/snapshots/4f2a/data", "repo/blobs", ""),
        ("repo/snapshot", "repo/blobs", ""),
        ("repo", "repo/.git/annex/objects", "xW/q3"),
        ("repo/a/b/c/d", "repo/.git/annex/objects", "xW/q3"),
        ("repo", "repo/.dvc/cache", "files/md5"),
        ("repo/a/b/c/d", "repo/.dvc/cache", "files/md5"),
    ],
)
def test_links_to_the_content_of_the_dataset_are_followed_and_told(tmp_path, image_at, root, store, content):
    spec = link_dataset(tmp_path / root, tmp_path / store / content, image_at)
    manifest = read_dataset(spec)
    assert manifest.table["problem"].null_count() == len(manifest) == 8
    is_below = root == "repo"  # then the store is in the root, and no link leaves it
    told = [] if is_below else [f"{LINKED} {tmp_path / store}, followed: 8"]
    assert manifest.info["notes"] == told
    assert "follow_links" not in manifest.info
    assert all(DatasetFiles(tmp_path / root).holds(path) for path in manifest.table["path"])


def test_a_root_that_is_a_link_to_a_snapshot_has_the_snapshot_s_content(tmp_path, image_at):
    link_dataset(tmp_path / "repo/snapshots/4f2a", tmp_path / "repo/blobs", image_at)
    (tmp_path / "mine").symlink_to("repo/snapshots/4f2a")
    manifest = read_dataset(FolderSpec(root=tmp_path / "mine", split=STRATIFIED))
    assert manifest.info["notes"] == [f"{LINKED} {tmp_path / 'repo/blobs'}, followed: 8"]


def test_a_folder_of_the_dataset_may_be_a_link_into_the_content(tmp_path, image_at):
    spec = link_dataset(tmp_path / "repo/snapshot", tmp_path / "repo/blobs", image_at)
    image_at(tmp_path / "repo/blobs/more/1.jpg")
    (tmp_path / "repo/snapshot/fear").symlink_to("../blobs/more")
    manifest = read_dataset(spec)
    assert manifest.classes == ("awe", "fear", "joy")
    assert manifest.info["notes"][:1] == [f"{LINKED} {tmp_path / 'repo/blobs'}, followed: 9"]


@pytest.mark.parametrize(
    "target",
    [
        "../../../../secret.jpg",  # not into the content at all
        "../../../blobs/../../secret.jpg",  # by its text only
        "../../../blobs/out",  # a link in the content that leads out of it
        "../../../blobs/away/secret.jpg",  # the same by a folder
        "../../../blobs-2/secret.jpg",  # a folder whose name begins alike
    ],
)
def test_a_link_that_ends_outside_of_the_content_is_a_bad_row(tmp_path, image_at, target):
    spec = link_dataset(tmp_path / "repo/snapshots/4f2a", tmp_path / "repo/blobs", image_at)
    image_at(tmp_path / "secret.jpg")
    image_at(tmp_path / "repo/blobs-2/secret.jpg")
    (tmp_path / "repo/blobs/out").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "repo/blobs/away").symlink_to(tmp_path)
    link = tmp_path / "repo/snapshots/4f2a/joy/bad.jpg"
    link.symlink_to(target)
    assert link.is_file()
    listing = list_dataset(spec)
    assert listing.bad_rows.select("path", "fault").rows() == [("joy/bad.jpg", "path leaves the root")]
    files = DatasetFiles(tmp_path / "repo/snapshots/4f2a")
    assert not files.holds("joy/bad.jpg")
    with pytest.raises(ValueError, match="its path leaves the root"):
        files.read("joy/bad.jpg")


def test_paths_with_dots_do_not_reach_the_content_without_a_link(tmp_path, image_at):
    link_dataset(tmp_path / "repo/snapshots/4f2a", tmp_path / "repo/blobs", image_at)
    files = DatasetFiles(tmp_path / "repo/snapshots/4f2a")
    for path in ("../../blobs/0001", "joy/../../../blobs/0001", str(tmp_path / "repo/blobs/0001")):
        assert not files.holds(path), path
    assert files.inspect("../../blobs/0001")[0] is FileFault.OUTSIDE


@pytest.mark.parametrize(
    ("root", "store"),
    [
        ("repo/snapshot", "repo/content"),  # no tool's name
        ("repo/a/b/c/d", "repo/blobs"),  # too far above
        ("repo", "other/.git/annex/objects"),  # of another repository
        ("above/repo", "above/.dvc/cache"),  # of a repository further out than the nearest
    ],
)
def test_links_to_anything_else_are_bad_rows_whose_message_names_the_option(tmp_path, image_at, root, store):
    (tmp_path / "above/repo/.dvc/cache").mkdir(parents=True)
    spec = link_dataset(tmp_path / root, tmp_path / store, image_at)
    with pytest.raises(DatasetError, match=r"8 bad rows of 8\.[^$]*path leaves the root: 8 .*--follow-links"):
        read_dataset(spec)


def test_a_store_that_is_a_link_itself_is_none(tmp_path, image_at):
    spec = link_dataset(tmp_path / "repo/snapshot", tmp_path / "elsewhere", image_at)
    (tmp_path / "repo/blobs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "repo/snapshot/joy/9.jpg").symlink_to("../../blobs/0001")
    assert list_dataset(spec).bad_count == 9
