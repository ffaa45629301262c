from __future__ import annotations

import re
from dataclasses import replace

import polars as pl
import pytest
from cheap_streams import DELAY, MeanColourSpec, SizeSpec

from emofuse.cache.reader import open_cache
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError, StaleCacheError
from emofuse.extraction import BuildOptions, build_cache, estimate, estimate_build, pool
from emofuse.specs import AugmentSpec, CacheSpec, ImportedSpec
from emofuse.stores import as_path

SPEC = CacheSpec(block_rows=8, streams=(MeanColourSpec(), SizeSpec()))


@pytest.fixture
def built(tmp_path, manifest, in_process):
    build_cache(tmp_path / "features.zarr", manifest, SPEC, in_process)
    return tmp_path / "features.zarr"


def test_a_new_cache_is_estimated_and_nothing_is_written(tmp_path, manifest, in_process):
    told = estimate_build(tmp_path / "new" / "features.zarr", manifest, SPEC, in_process)
    assert (told.rows, told.blocks, told.streams, told.workers) == (40, 5, ("mean_colour", "size"), 1)
    assert told.sampled == 32
    assert told.seconds > 0
    assert told.free_bytes > 0
    assert list(tmp_path.iterdir()) == []


def test_the_size_is_that_of_the_files_that_a_build_writes(tmp_path, manifest, in_process, built):
    told = estimate_build(tmp_path / "new.zarr", manifest, SPEC, in_process)
    numbers = ("features", "flags", "status")
    chunks = [file for array in numbers for file in built.glob(f"streams/*/{array}/c.*")]
    assert told.bytes == sum(file.stat().st_size for file in chunks)
    assert told.files == 1 + max(
        len(list(folder.glob("c.*"))) for folder in built.glob("streams/*/*") if folder.is_dir()
    )


def test_only_what_is_left_is_counted(built, manifest, in_process):
    (built / "streams/size/status/c.1.0").unlink()
    (built / "streams/size/status/c.3.0").unlink()
    (built / "streams/mean_colour/status/c.3.0").unlink()
    told = estimate_build(built, manifest, SPEC, in_process)
    assert (told.rows, told.blocks, told.streams) == (16, 2, ("mean_colour", "size"))
    of_block = {name: stream.layout.block_bytes(8) for name, stream in open_cache(built).streams.items()}
    assert told.bytes == 2 * of_block["size"] + of_block["mean_colour"]


def test_views_count_like_images(built, manifest, in_process):
    spec = CacheSpec(block_rows=8, streams=SPEC.streams, views=3, augment=AugmentSpec(rotation_deg=0))
    told = estimate_build(built, manifest, spec, in_process)
    assert (told.rows, told.blocks, told.files) == (80, 5, 16)


def test_a_complete_cache_has_nothing_to_do(built, manifest, in_process, monkeypatch):
    monkeypatch.setattr(estimate, "Extractor", None)
    told = estimate_build(built, manifest, SPEC, in_process)
    assert told.rows == told.bytes == 0
    assert told.describe() == ["complete, nothing to do"]


def test_the_time_is_measured_and_shared_by_the_workers(tmp_path, manifest, monkeypatch):
    monkeypatch.setenv(DELAY, "0.32")  # a batch, so 10 ms an image of 32
    for workers, expected in ((0, 0.4), (2, 0.2)):
        told = estimate_build(tmp_path / "f.zarr", manifest, SPEC, BuildOptions(workers=workers, device="cpu"))
        assert expected <= told.seconds < expected + 0.5
    one = told
    assert re.fullmatch(
        r"about 0:0\d with 2 workers, \d+\.\d images/s \(measured on 32 images\)", one.describe()[1]
    )  # fmt: skip


def test_the_pictures_are_spread_over_what_is_left(tmp_path, manifest, in_process, monkeypatch):
    seen = []
    extractor = estimate.Extractor

    class Watched(extractor):
        def extract_views(self, paths, sample_ids, views):
            seen.append(list(sample_ids))
            return super().extract_views(paths, sample_ids, views)

    monkeypatch.setattr(estimate, "Extractor", Watched)
    monkeypatch.setattr(estimate, "_SAMPLED", 4)
    estimate_build(tmp_path / "f.zarr", manifest, SPEC, in_process)
    ids = manifest.table["sample_id"].to_list()
    assert seen == [[ids[0]], [ids[0], ids[13], ids[26], ids[39]]]


def test_bad_rows_are_not_opened(tmp_path, manifest, in_process):
    table = manifest.table.with_columns(problem=pl.lit("missing file"))
    bad = Manifest(table, manifest.classes, tmp_path, manifest.info)
    assert estimate_build(tmp_path / "f.zarr", bad, SPEC, in_process).rows == 40


def test_pictures_outside_of_the_root_are_not_opened(tmp_path, manifest, in_process, monkeypatch):
    seen = []
    extract = estimate.Extractor.extract_views
    monkeypatch.setattr(
        estimate.Extractor,
        "extract_views",
        lambda extractor, paths, ids, views: seen.extend(paths) or extract(extractor, paths, ids, views),
    )
    outside = manifest.table.with_columns(path=pl.lit(str(manifest.root)) + "/" + pl.col("path"))
    estimate_build(
        tmp_path / "f.zarr", Manifest(outside, manifest.classes, manifest.root, manifest.info), SPEC, in_process
    )
    assert set(seen) == {None}


def test_workers_are_counted_as_a_build_would(tmp_path, manifest, monkeypatch):
    monkeypatch.setattr(pool, "default_workers", lambda cuda: 3)
    assert estimate_build(tmp_path / "f.zarr", manifest, SPEC, BuildOptions(device="cpu")).workers == 3
    monkeypatch.setattr(pool, "default_workers", lambda cuda: 64)
    assert estimate_build(tmp_path / "f.zarr", manifest, SPEC, BuildOptions(device="cpu")).workers == 5


def test_what_a_build_refuses_is_refused_at_once(built, manifest, in_process):
    with pytest.raises(StaleCacheError, match="mean_colour was cached with scale"):
        estimate_build(built, manifest, CacheSpec(block_rows=8, streams=(MeanColourSpec(scale=2),)), in_process)
    spec = CacheSpec(block_rows=8, streams=(*SPEC.streams, ImportedSpec(name="clip_vit")))
    with pytest.raises(CacheError, match="clip_vit cannot be extracted, only imported"):
        estimate_build(built, manifest, spec, in_process)


def test_a_store_does_not_tell_its_free_space(s3_bucket, manifest, in_process):
    told = estimate_build(as_path(s3_bucket) / "f.zarr", manifest, SPEC, in_process)
    assert told.free_bytes is None
    assert "are free" not in told.describe()[2]


def test_lines_for_people():
    told = estimate.BuildEstimate(118102, 462, ("lbp", "resnet50"), 2, 32, 3723.4, 1_234_000_000, 5 * 10**9, 463)
    assert told.describe() == [
        "118102 images to extract in 462 blocks: lbp, resnet50",
        "about 1:02:03 with 2 workers, 31.7 images/s (measured on 32 images)",
        "1.23 GB to write, 5.00 GB are free; at most 463 files in a folder",
    ]
    assert replace(told, bytes=5_320_000).describe()[2].startswith("5.32 MB to write, ")
