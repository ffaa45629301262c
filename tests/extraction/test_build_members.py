"""Caches of members of files: archives and tables are read in place, and what happens to them is noticed."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest
from cheap_streams import MeanColourSpec
from member_files import flipped, images, picture, pixels, write_parquet, write_zip

import emofuse.extraction.worker
from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.datasets.fer2013 import Fer2013Spec
from emofuse.datasets.folder import FolderSpec
from emofuse.datasets.parquet import ParquetSpec
from emofuse.extraction import build_cache
from emofuse.specs import CacheSpec, StratifiedSplit
from emofuse.status import Status
from emofuse.stores import as_path
from emofuse.upkeep import repair_cache, retry_rows
from emofuse.upkeep.sample import compare_sample
from emofuse.upkeep.verify import verify_cache

SPEC = CacheSpec(block_rows=4, streams=(MeanColourSpec(),))
FILES = {f"{label}/{value}.png": picture(value) for label, first in (("happy", 10), ("sad", 20))
         for value in range(first, first + 6)}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def as_archive(root):
    return FolderSpec(root=write_zip(root / "faces.zip", FILES), split=StratifiedSplit())


def as_table(root):
    lines = ["emotion,pixels,Usage", *(f"{row % 7},{pixels(row)},Training" for row in range(12))]
    (root / "fer2013.csv").write_text("\n".join(lines) + "\n")
    return Fer2013Spec(root=root, split=StratifiedSplit())


def as_parquet(root):
    contents = images(*(picture(row) for row in range(12)))
    write_parquet(root / "all.parquet", {"image": contents, "label": [row % 3 for row in range(12)]}, row_group_size=5)
    return ParquetSpec(root=root, split=StratifiedSplit())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.zarr"


@pytest.fixture
def computed(monkeypatch):
    """The blocks that are computed."""
    blocks = []
    compute = emofuse.extraction.worker._compute_block
    monkeypatch.setattr(
        emofuse.extraction.worker, "_compute_block", lambda job, task: blocks.append(task.block) or compute(job, task)
    )
    return blocks


def greys(path):
    """The grey that the cache holds of every row; None where a row is not ok."""
    stream = open_cache(path).streams["mean_colour"]
    values = np.asarray(stream.features[:, 0])[:, 0]
    return [
        round(float(value)) if ok else None for value, ok in zip(values, stream.status[:, 0] == Status.OK, strict=True)
    ]


@pytest.mark.parametrize(
    ("make", "expected"),
    [(as_archive, [*range(10, 16), *range(20, 26)]), (as_table, [*range(12)]), (as_parquet, [*range(12)])],
)
def test_members_are_extracted_verified_and_repaired_as_files_are(root, path, in_process, computed, make, expected):
    manifest = read_dataset(make(root))
    build_cache(path, manifest, SPEC, in_process)
    assert greys(path) == expected
    assert open_cache(path).manifest.files["crc32c"].n_unique() == 12
    assert compare_sample(path, 12, streams=SPEC.streams).differences == ()
    computed.clear()
    flipped(path / "streams/mean_colour/features/c.1.0.0", 3)
    assert verify_cache(path).bad_blocks() == {"mean_colour": [(1, 0)]}
    repair_cache(path, in_process, streams=SPEC.streams)
    assert computed == [1]
    assert greys(path) == expected
    before = open_cache(path).manifest
    build_cache(path, read_dataset(make(root)), SPEC, in_process)  # the file is written again, with the same content
    assert computed == [1]
    assert before.table.equals(open_cache(path).manifest.table)


def test_an_archive_with_a_new_and_a_replaced_member_costs_these_alone(root, path, in_process, computed):
    build_cache(path, read_dataset(as_archive(root)), SPEC, in_process)
    computed.clear()
    files = {**FILES, "sad/26.png": picture(26), "happy/11.png": picture(99)}
    write_zip(root / "faces.zip", files, zipfile.ZIP_STORED)
    spec = FolderSpec(root=root / "faces.zip", split=StratifiedSplit())
    summary = build_cache(path, read_dataset(spec), SPEC, in_process)
    assert sorted(computed) == [0, 3]
    assert any(line.startswith("replaced: 1 ") and "(happy/11)" in line for line in summary.changes)
    assert greys(path) == [10, 99, *range(12, 16), *range(20, 27)]


def test_an_archive_that_is_unpacked_keeps_its_features(root, path, in_process, computed):
    build_cache(path, read_dataset(as_archive(root)), SPEC, in_process)
    computed.clear()
    with zipfile.ZipFile(root / "faces.zip") as archive:
        archive.extractall(root / "faces")
    build_cache(path, read_dataset(FolderSpec(root=root / "faces", split=StratifiedSplit())), SPEC, in_process)
    assert computed == []
    assert open_cache(path).manifest.table["path"][0] == "happy/10.png"


def test_a_member_that_moved_within_its_archive_is_recognised(root, path, in_process, computed):
    build_cache(path, read_dataset(as_archive(root)), SPEC, in_process)
    computed.clear()
    files = {name.replace("happy/10", "sad/other"): data for name, data in FILES.items()}
    write_zip(root / "faces.zip", files)
    spec = FolderSpec(root=root / "faces.zip", split=StratifiedSplit())
    build_cache(path, read_dataset(spec), SPEC, in_process)
    assert computed == []
    table = open_cache(path).manifest.table
    assert table.select("sample_id", "member", "label").row(0) == ("happy/10", "sad/other.png", "sad")


def test_bad_members_end_as_a_status_with_a_reason_and_are_tried_again(root, path, in_process):
    spec = as_table(root)
    lines = (root / "fer2013.csv").read_text().splitlines()
    lines[3] = lines[3].replace("2,2 2", "2,2 300", 1)
    (root / "fer2013.csv").write_text("\n".join(lines))
    build_cache(path, read_dataset(spec), SPEC, in_process)
    assert greys(path)[:4] == [0, 1, None, 3]
    stream = open_cache(path).streams["mean_colour"]
    assert stream.status[2, 0] == Status.UNREADABLE
    assert "pixel values must be from 0 to 255, got 300" in stream.reasons()[2, 0]
    as_table(root)
    retry_rows(path, [Status.UNREADABLE], in_process, streams=SPEC.streams)
    assert greys(path) == [*range(12)]


def test_null_cells_and_damaged_members_are_unreadable(root, path, in_process):
    contents = images(picture(1), None, b"no picture", picture(4))
    write_parquet(root / "all.parquet", {"image": contents, "label": [0, 1, 0, 1]})
    build_cache(path, read_dataset(ParquetSpec(root=root, split=StratifiedSplit())), SPEC, in_process)
    assert greys(path) == [1, None, None, 4]
    assert "the cell is empty (null)" in open_cache(path).streams["mean_colour"].reasons()[1, 0]


@pytest.mark.parametrize("make", [as_archive, as_table, as_parquet])
def test_members_on_a_store_are_those_of_a_disk(root, path, in_process, s3_bucket, make):
    spec = make(root)
    build_cache(path, read_dataset(spec), SPEC, in_process)
    remote = as_path(s3_bucket) / "data"
    for file in root.iterdir():
        (remote / file.name).write_bytes(file.read_bytes())
    there = spec.model_copy(update={"root": remote / "faces.zip" if make is as_archive else remote})
    manifest = read_dataset(there)
    other = path.with_name("remote.zarr")
    build_cache(other, manifest, SPEC, in_process)
    assert greys(other) == greys(path)
    assert manifest.table.drop("path").equals(read_dataset(spec).table.drop("path"))


def test_a_file_of_members_that_leaves_the_root_is_not_read(root, tmp_path, path, in_process):
    as_parquet(root)
    shutil.move(root / "all.parquet", tmp_path / "secret.parquet")
    (root / "all.parquet").symlink_to(tmp_path / "secret.parquet")
    listing = ParquetSpec(root=root, split=StratifiedSplit()).read()
    assert listing.bad_count == 12
    assert set(listing.bad_rows["fault"]) == {"path leaves the root"}
    build_cache(path, listing.manifest, SPEC, in_process)
    assert greys(path) == [None] * 12
