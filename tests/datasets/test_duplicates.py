"""One image under several names: which files are compared, and what is said of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from emofuse.datasets import duplicates, list_dataset
from emofuse.datasets.duplicates import DuplicateGroup, describe_duplicates, find_duplicates
from emofuse.datasets.manifest import Manifest
from emofuse.specs import CsvSpec


@pytest.fixture
def manifest_of(tmp_path):
    """Writes files with these contents and a table of (path, label, split), and lists them."""

    def make(files: Mapping[str, bytes], rows: str) -> Manifest:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        (tmp_path / "labels.csv").write_text(f"path,label,split\n{rows}")
        return list_dataset(CsvSpec(root=tmp_path, split_column="split")).manifest

    return make


def test_two_names_with_contradicting_labels_in_two_splits_are_found(manifest_of):
    files = {"a.jpg": b"one", "b.jpg": b"two", "c.jpg": b"one", "d.jpg": b"other"}
    (group,) = find_duplicates(manifest_of(files, "a.jpg,joy,train\nb.jpg,joy,val\nc.jpg,fear,test\nd.jpg,joy,val\n"))
    assert group == DuplicateGroup(("a.jpg", "c.jpg"), ("joy", "fear"), ("train", "test"), ("a", "c"))
    assert group.has_contradicting_labels
    assert group.is_in_several_splits
    assert str(group) == "a.jpg (joy, train) = c.jpg (fear, test)"


@pytest.mark.parametrize(
    ("second", "contradicts", "leaks"),
    [
        ("joy,train", False, False),
        ("joy,test", False, True),
        ("fear,train", True, False),
        (",train", False, False),  # without a label it contradicts nothing
        (",", False, False),  # and without a split it leaks nowhere
    ],
)
def test_labels_and_splits_of_copies_are_compared(manifest_of, second, contradicts, leaks):
    (group,) = find_duplicates(manifest_of({"a.jpg": b"one", "b.jpg": b"one"}, f"a.jpg,joy,train\nb.jpg,{second}\n"))
    assert (group.has_contradicting_labels, group.is_in_several_splits) == (contradicts, leaks)


def test_contradicting_labels_come_first_then_several_splits(manifest_of):
    files = {f"{kind}{copy}.jpg": bytes([place]) for place, kind in enumerate("xyz") for copy in "12"}
    rows = "x1.jpg,joy,train\nx2.jpg,joy,train\ny1.jpg,joy,val\ny2.jpg,joy,test\nz1.jpg,joy,val\nz2.jpg,fear,val\n"
    groups = find_duplicates(manifest_of(files, rows))
    assert [group.paths[0] for group in groups] == ["z1.jpg", "y1.jpg", "x1.jpg"]
    assert describe_duplicates(groups) == "3 images in 6 rows, 1 with contradicting labels, 1 in several splits"


def test_only_files_that_share_their_length_are_read(manifest_of, monkeypatch):
    files = {"a.jpg": b"one", "b.jpg": b"two", "c.jpg": b"longer"}
    manifest = manifest_of(files, "a.jpg,joy,train\nb.jpg,joy,val\nc.jpg,joy,val\n")
    read: list[str] = []
    monkeypatch.setattr(duplicates, "hash_file", lambda path: (read.append(path.name), path.name)[1])
    assert find_duplicates(manifest) == []
    assert sorted(read) == ["a.jpg", "b.jpg"]
    assert find_duplicates(replace(manifest, files=None)) == []  # lengths that are not known say nothing
    assert sorted(read[2:]) == ["a.jpg", "b.jpg", "c.jpg"]


def test_links_to_one_file_are_one_image_and_bad_rows_are_left_out(manifest_of, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"one")
    os.link(tmp_path / "a.jpg", tmp_path / "b.jpg")
    Path(tmp_path / "c.jpg").symlink_to("a.jpg")
    rows = "a.jpg,joy,train\nb.jpg,joy,train\nc.jpg,joy,train\na.jpg,fear,train\n"  # the last one has a.jpg's id
    (group,) = find_duplicates(manifest_of({}, rows))
    assert group.paths == ("a.jpg", "b.jpg", "c.jpg")


def test_a_file_that_is_gone_by_now_is_left_out(manifest_of, tmp_path):
    manifest = manifest_of({"a.jpg": b"one", "b.jpg": b"one"}, "a.jpg,joy,train\nb.jpg,fear,train\n")
    (tmp_path / "b.jpg").unlink()
    assert find_duplicates(manifest) == []
