"""Damaged blocks and failed rows are computed again, and nothing else is."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest
from cheap_streams import FlakySpec, MeanColourSpec, SizeSpec
from PIL import Image
from shaped_streams import FilmSpec, StripsSpec, ThumbnailSpec

import emofuse.extraction.worker
from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import lock_cache
from emofuse.datasets import read_dataset
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError, StaleCacheError
from emofuse.exchange.imports import ImportRequest, import_stream
from emofuse.extraction import BuildOptions, build_cache
from emofuse.specs import CacheSpec, FolderSpec, LbpSpec, StratifiedSplit
from emofuse.status import Status
from emofuse.upkeep import repair_cache, retry_rows
from emofuse.upkeep.verify import verify_cache

STREAMS = (MeanColourSpec(), SizeSpec(), StripsSpec(), FilmSpec(), ThumbnailSpec())
SPEC = CacheSpec(block_rows=8, views=2, streams=STREAMS)


@pytest.fixture
def built(tmp_path, manifest, in_process):
    path = tmp_path / "features.zarr"
    build_cache(path, manifest, SPEC, in_process)
    return path


@pytest.fixture
def computed(monkeypatch) -> list[tuple[int, tuple[str, ...], tuple[int, ...]]]:
    """(block, streams, views) of every block that is computed."""
    calls = []
    compute = emofuse.extraction.worker._compute_block
    monkeypatch.setattr(
        emofuse.extraction.worker,
        "_compute_block",
        lambda job, task: calls.append((task.block, task.streams, task.views)) or compute(job, task),
    )
    return calls


def flip(file) -> None:
    data = bytearray(file.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    file.write_bytes(data)


def test_exactly_the_damaged_blocks_are_computed_again(built, in_process, contents, computed):
    before = contents(built)
    streams = built / "streams"
    flip(streams / "size/features/c.1.0.0")
    flip(streams / "size/status/c.3.1")
    flip(streams / "mean_colour/reason/c.1.1")
    (streams / "mean_colour/reason/c.1.0").unlink()
    (streams / "size/flags/c.4.0").unlink()
    flip(streams / "strips/mask/c.2.0.0")
    (streams / "film/mask/c.2.1.0").unlink()
    flip(streams / "film/features/c.4.0.0.0.0.0")
    flip(streams / "thumbnail/features/c.2.1.0.0.0")
    summary = repair_cache(built, in_process, streams=STREAMS)
    assert sorted(computed) == [
        (1, ("mean_colour",), (1,)),
        (1, ("mean_colour", "size"), (0,)),
        (2, ("film", "thumbnail"), (1,)),
        (2, ("strips",), (0,)),
        (3, ("size",), (1,)),
        (4, ("film", "size"), (0,)),
    ]
    assert (summary.metadata, summary.blocks, summary.computed.rows) == ((), 9, 48)
    assert contents(built) == before
    assert not list(built.parent.glob("*.lock"))


def test_nothing_is_computed_where_nothing_is_damaged(built, in_process, contents, computed):
    before = contents(built)
    summary = repair_cache(built, in_process, streams=STREAMS)
    assert (summary.metadata, summary.blocks, summary.computed.rows, computed) == ((), 0, 0, [])
    assert contents(built) == before


def test_blocks_that_were_never_computed_are_left_so(built, in_process, computed):
    (built / "streams/size/status/c.2.0").unlink()
    flip(built / "streams/size/features/c.0.0.0")
    repair_cache(built, in_process, streams=STREAMS)
    assert computed == [(0, ("size",), (0,))]
    assert open_cache(built).streams["size"].lacking_blocks().tolist() == [2]


def test_a_repair_that_was_stopped_goes_on(built, in_process, contents, manifest, monkeypatch):
    before = contents(built)
    for block in range(3):
        flip(built / f"streams/size/features/c.{block}.0.0")

    def stop(*arguments, **values):
        raise KeyboardInterrupt

    monkeypatch.setattr(emofuse.extraction.worker, "_compute_block", stop)
    with pytest.raises(KeyboardInterrupt):
        repair_cache(built, in_process, streams=STREAMS)
    monkeypatch.undo()
    assert verify_cache(built).faults == ()  # taken back: the build computes them again
    build_cache(built, manifest, SPEC, in_process)
    assert contents(built) == before


@pytest.mark.parametrize(
    "name",
    [
        "zarr.json",
        "streams/zarr.json",
        "streams/size/features/zarr.json",
        "streams/size/reason/zarr.json",
        "streams/size/status/zarr.json",
        "streams/mean_colour/features/zarr.json",
        "streams/strips/mask/zarr.json",
        "streams/film/features/zarr.json",
        "streams/thumbnail/features/zarr.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_metadata_that_follows_from_other_metadata_is_restored(built, in_process, contents, computed, name, damage):
    before = contents(built)
    (built / name).unlink() if damage == "missing" else (built / name).write_text('{"zarr_format": 3}')
    summary = repair_cache(built, in_process, streams=STREAMS)
    assert (summary.metadata, summary.blocks) == ((name,), 0)
    assert contents(built) == before
    assert computed == []


def test_all_of_it_at_once(built, in_process, contents, computed):
    before = contents(built)
    for file in (built / "zarr.json", built / "streams/zarr.json", built / "streams/size/flags/zarr.json"):
        file.write_text("")
    flip(built / "streams/size/features/c.1.0.0")
    summary = repair_cache(built, in_process, streams=STREAMS)
    assert summary.metadata == ("zarr.json", "streams/zarr.json", "streams/size/flags/zarr.json")
    assert contents(built) == before
    assert computed == [(1, ("size",), (0,))]


def test_attributes_of_a_stream_cannot_be_restored_and_the_rest_is_repaired(built, in_process, contents):
    before = contents(built)
    damaged = built / "streams/size/zarr.json"
    damaged.write_text(damaged.read_text().replace("wide", "wild"))
    flip(built / "streams/mean_colour/features/c.1.0.0")
    with pytest.raises(
        CacheError,
        match=r"1 fault cannot be repaired: size: zarr\.json: damaged, its checksum does not fit\. Drop what cannot be "
        r"repaired, then build or import it again: emofuse cache drop .*features\.zarr size$",
    ):
        repair_cache(built, in_process, streams=STREAMS)
    damaged.write_text(damaged.read_text().replace("wild", "wide"))
    assert contents(built) == before


def test_a_lost_manifest_is_the_business_of_a_build(built, in_process, manifest):
    manifest_path(built).unlink()
    with pytest.raises(
        CacheError, match=r"1 fault cannot be repaired: .*Run the same build again, which writes the man"
    ):
        repair_cache(built, in_process, streams=STREAMS)
    build_cache(built, manifest, SPEC, in_process)
    assert verify_cache(built).faults == ()


def test_streams_of_ones_own_need_their_spec(built, in_process, contents):
    flip(built / "streams/size/features/c.1.0.0")
    before = contents(built)
    with pytest.raises(
        CacheError, match=r"size cannot be computed from the specs in the cache \(.*'size' is unknown.*streams="
    ):
        repair_cache(built, in_process)
    assert contents(built) == before


@pytest.mark.parametrize("work", [repair_cache, retry_rows])
def test_a_cache_that_another_build_holds_is_left_alone(built, in_process, contents, work):
    flip(built / "streams/size/features/c.1.0.0")
    with lock_cache(built):
        before = contents(built)
        with pytest.raises(CacheError, match=rf"another build is writing this cache \(process {os.getpid()} on"):
            work(built, options=in_process, streams=STREAMS)
        assert contents(built) == before


def test_imported_streams_are_imported_again(tmp_path, built, in_process, manifest):
    import numpy as np

    np.savez(tmp_path / "x.npz", x=np.ones((40, 3), np.float32), ids=manifest.table["sample_id"].to_numpy().astype(str))
    import_stream(built, ImportRequest(tmp_path / "x.npz", "other", dataset="x", ids="ids"))
    flip(built / "streams/other/features/c.1.0.0")
    with pytest.raises(
        CacheError, match=r"cannot be repaired: other block 1 rows 8-15: .*cache drop .*features\.zarr other"
    ):
        repair_cache(built, in_process, streams=STREAMS)


def test_a_repair_with_other_code_is_refused(built, in_process, contents, monkeypatch):
    flip(built / "streams/size/features/c.1.0.0")
    before = contents(built)
    monkeypatch.setattr(SizeSpec, "version", 2)
    with pytest.raises(StaleCacheError, match=r"^size was cached with version 1, the spec now says 2"):
        repair_cache(built, in_process, streams=STREAMS)
    assert contents(built) == before


def test_streams_of_emofuse_are_repaired_without_being_told_how(tmp_path, manifest, in_process, face, contents):
    path = tmp_path / "features.zarr"
    lbp = LbpSpec(name="texture", without_face="whole_image", region_px=16)
    build_cache(path, manifest, CacheSpec(block_rows=8, face=face, streams=(lbp,)), in_process)
    before = contents(path)
    flip(path / "streams/texture/features/c.1.0.0")
    repair_cache(path, in_process)
    assert contents(path) == before


def test_a_dataset_that_moved_is_found_where_it_is_said_to_be(tmp_path, images, in_process, contents):
    shutil.copytree(images, tmp_path / "old")
    manifest = read_dataset(FolderSpec(root=tmp_path / "old", split=StratifiedSplit()))
    path = tmp_path / "features.zarr"
    build_cache(path, manifest, SPEC, in_process)
    before = contents(path)
    (tmp_path / "old").rename(tmp_path / "new")
    flip(path / "streams/size/features/c.1.0.0")
    repair_cache(path, in_process, data=tmp_path / "new", streams=STREAMS)
    assert contents(path) == before


@pytest.fixture(params=[FlakySpec(), StripsSpec(), FilmSpec(), ThumbnailSpec()], ids=lambda spec: spec.kind)
def flaky(request) -> CacheSpec:
    """A spec of two streams, of which the first fails on the rows that the environment names."""
    return CacheSpec(block_rows=8, streams=(request.param, SizeSpec()))


@pytest.fixture
def repairable(tmp_path, images, in_process, monkeypatch, flaky):
    """A cache in which rows 9 and 20 are unreadable, and 12 and 30 failed in one stream; and its images."""
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images/joy/20.png").write_bytes(b"cut off")
    manifest = read_dataset(FolderSpec(root=tmp_path / "images", split=StratifiedSplit()))
    monkeypatch.setenv("EMOFUSE_TEST_FLAKY", "12,30")
    path = tmp_path / "features.zarr"
    build_cache(path, manifest, flaky, in_process)
    return path, tmp_path / "images", manifest


def test_rows_that_fare_as_before_change_nothing(repairable, in_process, contents, flaky):
    path, _, _ = repairable
    before = contents(path)
    summary = retry_rows(path, options=in_process, streams=flaky.streams)
    assert (summary.rows, summary.written) == (6, 0)
    assert summary.counts == {flaky.streams[0].name: {"unreadable": 2, "failed": 2}, "size": {"unreadable": 2}}
    name = flaky.streams[0].name
    assert [(problem.row, problem.stream) for problem in summary.problems] == [
        (9, ""), (12, name), (20, ""), (30, name),
    ]  # fmt: skip
    assert contents(path) == before


def test_blocks_of_rows_that_fare_otherwise_are_computed_anew(
    repairable, tmp_path, in_process, contents, monkeypatch, flaky
):
    path, images, manifest = repairable
    Image.new("RGB", (9, 6), (20, 40, 200)).save(images / "joy/20.png")
    monkeypatch.setenv("EMOFUSE_TEST_FLAKY", "30")
    summary = retry_rows(path, options=in_process, streams=flaky.streams)
    assert summary.written == 2
    assert summary.counts == {
        flaky.streams[0].name: {"ok": 2, "unreadable": 1, "failed": 1}, "size": {"ok": 1, "unreadable": 1},
    }  # fmt: skip
    build_cache(tmp_path / "undisturbed.zarr", manifest, flaky, in_process)
    assert contents(path) == contents(tmp_path / "undisturbed.zarr")


def test_only_rows_of_the_statuses_asked_for_are_tried(repairable, in_process, monkeypatch, flaky):
    path, _, _ = repairable
    monkeypatch.setenv("EMOFUSE_TEST_FLAKY", "")
    summary = retry_rows(path, [Status.UNREADABLE], in_process, streams=flaky.streams)
    assert (summary.rows, summary.written) == (4, 0)
    assert retry_rows(path, [Status.FAILED], in_process, streams=flaky.streams).counts == {
        flaky.streams[0].name: {"ok": 2}
    }
    assert retry_rows(path, [Status.FAILED], in_process, streams=flaky.streams).rows == 0


def test_rows_that_end_their_process_are_tried_in_one_of_their_own(tmp_path, manifest):
    from cheap_streams import DeadlySpec

    some = Manifest(manifest.table[:16], manifest.classes, manifest.root, manifest.info)
    streams = (DeadlySpec(red=10),)
    path = tmp_path / "features.zarr"
    options = BuildOptions(workers=1, device="cpu")
    build_cache(path, some, CacheSpec(block_rows=8, streams=streams), options)
    summary = retry_rows(path, options=options, streams=streams)
    assert (summary.written, summary.counts) == (0, {"deadly": {"unreadable": 1, "failed": 1}})


def test_rows_that_the_manifest_holds_something_against_are_left_alone(tmp_path, manifest, in_process):
    import polars as pl

    problem = pl.Series("problem", ["path leaves the root" if row == 4 else None for row in range(40)], dtype=pl.String)
    marked = Manifest(manifest.table.with_columns(problem), manifest.classes, manifest.root, manifest.info)
    path = tmp_path / "features.zarr"
    build_cache(path, marked, CacheSpec(block_rows=8, streams=(SizeSpec(),)), in_process)
    assert retry_rows(path, options=in_process, streams=(SizeSpec(),)).rows == 1


def test_what_a_cache_says_of_its_creation_may_be_lost(built, in_process):
    created = json.loads((built / "zarr.json").read_text())["attributes"]["emofuse"]["created"]
    (built / "zarr.json").unlink()
    repair_cache(built, in_process, streams=STREAMS)
    assert open_cache(built).layout.created >= created
