"""The pictures in an archive or a table, as prediction lists them."""

from __future__ import annotations

import pytest
from member_files import images, picture, pixels, write_parquet, write_zip

from emofuse.datasets.media_members import media_members
from emofuse.datasets.names import NameKind
from emofuse.datasets.sources import Source
from emofuse.errors import DatasetError
from emofuse.predict import find_images

FILES = {"b/2.png": picture(1), "b/1.png": picture(2), "a.mp4": b"x", "__MACOSX/b/._1.png": b"x", "b/.hidden.png": b"x"}


def test_members_of_an_archive_are_listed_by_kind_folder_or_name(tmp_path):
    path = write_zip(tmp_path / "faces.zip", FILES)
    assert find_images(path) == [Source(path, "b/1.png"), Source(path, "b/2.png")]
    assert find_images(path / "b/1.png") == [Source(path, "b/1.png")]
    assert find_images(path / "b") == find_images(path)
    assert media_members(path, [NameKind.CLIP]) == [Source(path, "a.mp4")]
    assert str(Source(path, "b/1.png")) == f"{path}/b/1.png"
    with pytest.raises(DatasetError, match=r"faces\.zip: no image in this archive below 'c'"):
        find_images(path / "c")
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(DatasetError, match=r"faces\.zip: no whole zip archive"):
        find_images(path)


def test_cells_of_tables_are_listed(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"image": images(picture(1), picture(2)), "label": [0, 1]})
    assert find_images(path) == [Source(path, "image[0]"), Source(path, "image[1]")]
    assert find_images(path / "image[1]") == [Source(path, "image[1]")]
    table = tmp_path / "fer2013.csv"
    table.write_text(f"emotion, pixels\n3,{pixels(7)}\n")
    assert find_images(table) == [Source(table, "pixels[0]")]
    table.write_text("path,label\na.png,joy\n")
    with pytest.raises(DatasetError, match=r"no column 'pixels' with the values of pictures \(columns: path, label\)"):
        find_images(table)


def test_other_files_and_folders_are_no_members(tmp_path):
    assert media_members(tmp_path, [NameKind.IMAGE]) is None
    assert media_members(tmp_path / "none.zip", [NameKind.IMAGE]) is None
    with pytest.raises(DatasetError, match=r"none\.zip: no such image or folder"):
        find_images(tmp_path / "none.zip")
