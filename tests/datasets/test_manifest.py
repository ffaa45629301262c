from __future__ import annotations

import hashlib
import os
from pathlib import Path

import polars as pl
import pytest

from emofuse.datasets import list_dataset, manifest, read_dataset
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.sources import FILE_COLUMNS
from emofuse.specs import FolderSpec, StratifiedSplit


@pytest.mark.parametrize("at_once", [1, 3, 4, 100])
def test_the_digest_of_the_ids_does_not_depend_on_how_they_are_read(monkeypatch, at_once):
    monkeypatch.setattr(manifest, "_IDS_AT_ONCE", at_once)
    ids = ["a", "b\u00e9", "c", "d", "e", "f", "g", "h"]
    table = pl.DataFrame(dict.fromkeys(manifest.COLUMNS, ids))
    expected = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    assert Manifest(table, (), Path(), {}).ids_digest == expected
    assert Manifest(table[:0], (), Path(), {}).ids_digest == hashlib.sha256(b"").hexdigest()


def test_stamps_of_files_travel_with_the_manifest_and_are_no_columns_of_it(tmp_path):
    table = pl.DataFrame(
        {
            "sample_id": ["a", "b"],
            "path": ["a.jpg", "b.jpg"],
            "split": ["train", None],
            "label": ["joy", None],
            "group": ["s1", None],
            "problem": [None, "missing file"],
            "file.note": ["own", "attribute"],
        }
    )
    files = pl.DataFrame(
        {"bytes": [12, None], "modified_ns": [1_700_000_000_123_456_789, None], "crc32c": [7, None]},
        schema=FILE_COLUMNS,
    )
    Manifest(table, ("joy",), Path("/data"), {"name": "x"}, files).write(tmp_path / "m.parquet")
    read = Manifest.read(tmp_path / "m.parquet")
    assert read.table.equals(table.cast({"problem": pl.String}))
    assert read.files.equals(files)
    Manifest(table, ("joy",), Path("/data"), {"name": "x"}).write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").files is None


def test_a_listed_dataset_knows_its_files(tmp_path, image_at):
    image_at(tmp_path / "joy/a.jpg")
    image_at(tmp_path / "joy/b.jpg")
    found = list_dataset(FolderSpec(root=tmp_path, split=StratifiedSplit())).manifest
    stats = [(tmp_path / "joy" / name).stat() for name in ("a.jpg", "b.jpg")]
    assert found.files.rows() == [(stat.st_size, stat.st_mtime_ns, None) for stat in stats]


def test_a_root_whose_name_is_not_utf8_is_written_and_read_back(tmp_path, image_at):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for number in range(8):
        image_at(root / ("awe", "joy")[number % 2] / f"{number}.jpg")
    listed = read_dataset(FolderSpec(root=root, split=StratifiedSplit(train=0.5, val=0.25, test=0.25)))
    listed.write(root / "manifest.parquet")
    found = Manifest.read(root / "manifest.parquet")
    assert found.equals(listed)
    assert found.root == root
    assert found.info["name"] == r"caf\xe9"
