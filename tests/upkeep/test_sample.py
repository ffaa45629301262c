"""Some rows are extracted again and compared with the cache."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import zarr
from cheap_streams import MeanColourSpec, SizeSpec
from PIL import Image
from shaped_streams import SHAPES

from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.errors import StaleCacheError
from emofuse.extraction import build_cache
from emofuse.specs import BackboneSpec, CacheSpec, FolderSpec, RandomWeights, StratifiedSplit
from emofuse.status import Status
from emofuse.upkeep import compare_sample

STREAMS = (MeanColourSpec(), SizeSpec())


@pytest.fixture
def built(tmp_path, images, in_process):
    """A cache of two views with its own copy of the pictures, of which row 9 is unreadable."""
    shutil.copytree(images, tmp_path / "images")
    manifest = read_dataset(FolderSpec(root=tmp_path / "images", split=StratifiedSplit()))
    build_cache(tmp_path / "features.zarr", manifest, CacheSpec(block_rows=8, views=2, streams=STREAMS), in_process)
    return tmp_path / "features.zarr"


def test_rows_are_as_they_are_cached(built):
    comparison = compare_sample(built, 100, streams=STREAMS)
    assert (comparison.rows, comparison.differences) == (40, ())
    assert comparison.largest == {"mean_colour": 0, "size": 0}
    assert compare_sample(built, 7, streams=STREAMS).rows == 7


def test_a_replaced_picture_and_a_repaired_one_are_found(built):
    images = built.parent / "images"
    Image.new("RGB", (6, 9), (100, 2, 200)).save(images / "fear" / "01.png")
    Image.new("RGB", (6, 9), (9, 9, 9)).save(images / "fear" / "09.png")
    (images / "joy" / "22.png").write_bytes(b"cut off")
    found = [str(each) for each in compare_sample(built, 40, streams=STREAMS).differences]
    assert found[0].startswith("mean_colour row 1, fear/01: its features are 0.")
    assert "mean_colour row 1 view 1, fear/01: its features are" in found[1]
    assert found[2:6] == [
        "mean_colour row 9, fear/09: unreadable in the cache, ok now",
        "mean_colour row 9 view 1, fear/09: unreadable in the cache, ok now",
        "size row 9, fear/09: unreadable in the cache, ok now",
        "size row 9 view 1, fear/09: unreadable in the cache, ok now",
    ]
    assert {text.split(",")[0] for text in found[6:]} == {
        f"{stream} row 22{view}" for stream in ("mean_colour", "size") for view in ("", " view 1")
    }


def test_sequences_and_maps_are_compared_with_their_steps(tmp_path, images, in_process):
    shutil.copytree(images, tmp_path / "images")
    manifest = read_dataset(FolderSpec(root=tmp_path / "images", split=StratifiedSplit()))
    path = tmp_path / "features.zarr"
    build_cache(path, manifest, CacheSpec(block_rows=8, streams=SHAPES), in_process)
    same = compare_sample(path, 100, streams=SHAPES)
    assert (same.differences, same.largest) == ((), dict.fromkeys(("strips", "film", "thumbnail"), 0))
    Image.new("RGB", (9, 6), (1, 2, 200)).save(tmp_path / "images/fear/01.png")  # as wide as three steps, was two
    Image.new("RGB", (6, 9), (102, 4, 10)).save(tmp_path / "images/fear/02.png")
    found = {(each.row, each.stream): each.what for each in compare_sample(path, 100, streams=SHAPES).differences}
    assert found.pop((1, "strips")) == found.pop((1, "film")) == "other steps of it are OK now"
    assert set(found) == {(2, spec.name) for spec in SHAPES}
    assert all(what.startswith("its features are") for what in found.values())


def test_features_of_another_row_are_found(built):
    features = zarr.open_array(built / "streams/mean_colour/features", mode="r+")
    features[3, 0] = features[30, 0]
    found = compare_sample(built, 40, streams=STREAMS).differences
    assert [(each.row, each.stream, each.view) for each in found] == [(3, "mean_colour", 0)]


def test_failed_rows_and_blocks_that_lack_are_not_drawn(built):
    status = zarr.open_array(built / "streams/size/status", mode="r+")
    status[8:16, 1] = Status.PENDING
    status[16, 0] = Status.FAILED
    assert compare_sample(built, 100, streams=STREAMS).rows == 31


def test_a_dataset_that_moved_is_found_where_it_is_said_to_be(built):
    (built.parent / "images").rename(built.parent / "elsewhere")
    assert len(compare_sample(built, 5, streams=STREAMS).differences) == 20
    assert compare_sample(built, 5, streams=STREAMS, data=built.parent / "elsewhere").differences == ()


def test_pictures_outside_of_the_root_are_not_opened(built):
    """Though the manifest, which may have come with the cache from anywhere, names them."""
    (built.parent / "images").rename(built.parent / "secret")
    (built.parent / "images").mkdir()
    manifest = open_cache(built).manifest
    table = manifest.table.with_columns(path="../secret/" + pl.col("path"))
    replace(manifest, table=table).write(manifest_path(built))
    found = compare_sample(built, 100, streams=STREAMS).differences
    assert {difference.what for difference in found} == {"ok in the cache, unreadable now"}
    assert len({difference.row for difference in found}) == 39


def test_other_code_is_said_before_anything_is_compared(built, monkeypatch):
    monkeypatch.setattr(SizeSpec, "version", 2)
    with pytest.raises(StaleCacheError, match=r"^size was cached with version 1, the spec now says 2"):
        compare_sample(built, 5, streams=STREAMS)


def test_networks_may_round_differently_in_other_company(tmp_path, manifest, in_process):
    backbone = BackboneSpec(model="mobilenet_v3_small", weights=RandomWeights(seed=1))
    build_cache(tmp_path / "features.zarr", manifest, CacheSpec(block_rows=16, streams=(backbone,)), in_process)
    comparison = compare_sample(tmp_path / "features.zarr", 5, device="cpu")
    assert comparison.differences == ()
    assert 0 <= comparison.largest["mobilenet_v3_small"] < 0.01
    assert np.isfinite(comparison.largest["mobilenet_v3_small"])
