from __future__ import annotations

import pytest

from emofuse.datasets.files import DatasetFiles, FileFault, map_in_threads


def test_results_come_in_the_order_of_the_paths_however_many_slices_they_fill():
    paths = [str(number) for number in range(10_000)]
    assert list(map_in_threads(int, paths)) == list(range(10_000))


def test_faults_carry_the_position_of_their_path(tmp_path, image_at):
    image_at(tmp_path / "a.jpg")
    found = list(DatasetFiles(tmp_path).faults(["a.jpg", "b.jpg", "a.jpg", "../a.jpg"]))
    assert found == [(1, FileFault.MISSING), (3, FileFault.OUTSIDE)]


def test_a_large_text_that_starts_like_a_pointer_is_not_taken_for_one(tmp_path):
    (tmp_path / "a.jpg").write_text("version https://git-lfs" + " " * 1024)
    assert DatasetFiles(tmp_path).fault("a.jpg") is None


def test_a_file_below_a_file_is_missing(tmp_path, image_at):
    image_at(tmp_path / "a.jpg")
    assert DatasetFiles(tmp_path).fault("a.jpg/b.jpg") is FileFault.MISSING


def test_a_folder_whose_name_begins_with_the_root_s_is_outside(tmp_path, image_at):
    image_at(tmp_path / "root-2/a.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "root-2")
    assert DatasetFiles(tmp_path / "root").fault("link/a.jpg") is FileFault.OUTSIDE


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
