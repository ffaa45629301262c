from __future__ import annotations

import os

import pytest

from emofuse.datasets.files import DatasetFiles, FileFault, FileStamp, map_in_threads


def test_results_come_in_the_order_of_the_paths_however_many_slices_they_fill():
    paths = [str(number) for number in range(10_000)]
    assert list(map_in_threads(int, paths)) == list(range(10_000))


def test_looks_tell_faults_and_stamps_in_the_order_of_the_paths(tmp_path, image_at):
    image_at(tmp_path / "a.jpg")
    (tmp_path / "empty.jpg").touch()
    os.utime(tmp_path / "a.jpg", ns=(1, 1_700_000_000_123_456_789))
    there = FileStamp((tmp_path / "a.jpg").stat().st_size, 1_700_000_000_123_456_789)
    found = list(DatasetFiles(tmp_path).inspect_all(["a.jpg", "b.jpg", "empty.jpg", "a.jpg", "../a.jpg"]))
    assert found[:2] == [(None, there), (FileFault.MISSING, None)]
    assert found[2][0] is FileFault.EMPTY
    assert found[2][1].bytes == 0
    assert found[3:] == [(None, there), (FileFault.OUTSIDE, None)]


def test_a_link_has_the_stamp_of_what_it_leads_to(tmp_path, image_at):
    image_at(tmp_path / "a.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    files = DatasetFiles(tmp_path)
    assert files.inspect("link.jpg") == files.inspect("a.jpg")


def test_a_large_text_that_starts_like_a_pointer_is_not_taken_for_one(tmp_path):
    (tmp_path / "a.jpg").write_text("version https://git-lfs" + " " * 1024)
    assert DatasetFiles(tmp_path).inspect("a.jpg")[0] is None


def test_a_file_below_a_file_is_missing(tmp_path, image_at):
    image_at(tmp_path / "a.jpg")
    assert DatasetFiles(tmp_path).inspect("a.jpg/b.jpg")[0] is FileFault.MISSING


def test_a_folder_whose_name_begins_with_the_root_s_is_outside(tmp_path, image_at):
    image_at(tmp_path / "root-2/a.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "root-2")
    assert DatasetFiles(tmp_path / "root").inspect("link/a.jpg")[0] is FileFault.OUTSIDE


def test_reading_stops_at_the_fence(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "own").write_text("own")
    (root / "alias").symlink_to(root / "own")
    files = DatasetFiles(root)
    assert (files.read("own"), files.read("alias")) == (b"own", b"own")
    for path in ("link", "../secret", str(tmp_path / "secret")):
        with pytest.raises(ValueError, match="its path leaves the root"):
            files.read(path)


def test_only_paths_that_end_below_the_root_are_held(tmp_path):
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (root / "own").write_text("own")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "alias").symlink_to(root / "own")
    (root / "loop").symlink_to(root / "loop")
    (root / "out").symlink_to(tmp_path)
    files = DatasetFiles(root)
    (tmp_path / "far/off").mkdir(parents=True)
    (tmp_path / "far/secret").write_text("secret")
    (root / "off").symlink_to(tmp_path / "far/off")
    for path in ("own", "alias", "in/../own", "./own", "in/", "in/.", "in/..", "missing", "in/missing"):
        assert files.holds(path), path
    assert (root / "off/../secret").read_text() == "secret"
    outside = ("../secret", "in/../../secret", str(tmp_path / "secret"), str(root / "own"), "link", "out/secret", "..")
    outside += ("off/../secret", "./../secret", "in/../..", "out/", "out/.", "off/..")
    for path in outside:
        assert not files.holds(path), path
