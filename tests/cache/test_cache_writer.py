from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zarr

from emofuse.cache import structure, writer
from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_stream, add_views, create_cache, drop_stream, update_origin
from emofuse.cache.writer import write_block
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError, StaleCacheError, UnwritableCacheError
from emofuse.status import Status
from emofuse.upkeep.verify import verify_cache


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def empty_cache(tmp_path, make_manifest, make_layout) -> Path:
    path = tmp_path / "features.zarr"
    create_cache(path, make_manifest(), block_rows=4)
    add_stream(path, make_layout())
    return path


def test_blocks_are_pending_until_they_are_written(empty_cache, block_values):
    assert open_cache(empty_cache).streams["lbp"].lacking_blocks().tolist() == [0, 1, 2]
    write_block(empty_cache, "lbp", 1, **block_values(1))
    assert open_cache(empty_cache).streams["lbp"].lacking_blocks().tolist() == [0, 2]
    write_block(empty_cache, "lbp", 2, **block_values(2))
    write_block(empty_cache, "lbp", 0, **block_values(0))
    assert open_cache(empty_cache).streams["lbp"].lacking_blocks().tolist() == []


def test_features_are_written_first_and_status_last(empty_cache, block_values, monkeypatch):
    written = []
    open_array = writer._open_for_writing
    monkeypatch.setattr(
        writer,
        "_open_for_writing",
        lambda path, layout, array, cache: written.append(array) or open_array(path, layout, array, cache),
    )
    write_block(empty_cache, "lbp", 0, **block_values(0))
    assert written == ["features", "flags", "reason", "status"]


def test_a_block_killed_between_features_and_status_is_pending_and_ends_the_same(cache_path, block_values):
    whole = bytes_of(cache_path)
    (cache_path / "streams/lbp/status/c.1.0").unlink()
    assert open_cache(cache_path).streams["lbp"].lacking_blocks().tolist() == [1]
    write_block(cache_path, "lbp", 1, **block_values(1))
    assert bytes_of(cache_path) == whole


@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("damage", [b"", b"xx", b"12345678", b"x" * 100], ids=["empty", "short", "garbage", "long"])
def test_a_damaged_status_chunk_is_pending_and_is_written_anew(cache_path, block_values, block, damage):
    whole = bytes_of(cache_path)
    (cache_path / f"streams/lbp/status/c.{block}.0").write_bytes(damage)
    assert open_cache(cache_path).streams["lbp"].lacking_blocks().tolist() == [block]
    assert open_cache(cache_path).streams["lbp"].counts()["pending"] == (4 if block == 0 else 2)
    write_block(cache_path, "lbp", block, **block_values(block))
    assert bytes_of(cache_path) == whole


@pytest.mark.parametrize("name", ["features/c.2.0.0", "flags/c.2.0"])
def test_a_missing_or_short_chunk_of_a_done_block_makes_it_pending(cache_path, block_values, name):
    whole = bytes_of(cache_path)
    chunk = cache_path / "streams/lbp" / name
    chunk.write_bytes(chunk.read_bytes()[:-1])
    assert open_cache(cache_path).streams["lbp"].lacking_blocks().tolist() == [2]
    chunk.unlink()
    assert open_cache(cache_path).streams["lbp"].lacking_blocks().tolist() == [2]
    write_block(cache_path, "lbp", 2, **block_values(2))
    assert bytes_of(cache_path) == whole


def test_blocks_of_zeros_are_stored_too(empty_cache):
    zeros = {"features": np.zeros((4, 5), np.float16), "flags": np.zeros(4, np.uint8)}
    for _ in range(2):  # Zarr would delete a chunk that becomes zeros
        write_block(empty_cache, "lbp", 0, **zeros, status=np.full(4, Status.UNREADABLE, np.uint8))
        assert open_cache(empty_cache).streams["lbp"].lacking_blocks().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((3, 5), np.float16)}, "features must be (4, 5) float16, got (3, 5) float16"),
        ({"features": np.zeros((4, 5), np.float32)}, "features must be (4, 5) float16, got (4, 5) float32"),
        ({"status": np.ones(4, np.int64)}, "status must be (4,) uint8, got (4,) int64"),
        ({"flags": np.ones((4, 1), np.uint8)}, "flags must be (4,) uint8, got (4, 1) uint8"),
        ({"status": np.array([1, 1, 0, 1], np.uint8)}, "status must not be PENDING in a block that is done"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_anything_is_written(empty_cache, block_values, change, message):
    with pytest.raises(CacheError, match=re.escape(f"block 0 of 'lbp': {message}")):
        write_block(empty_cache, "lbp", 0, **{**block_values(0), **change})
    assert not list(empty_cache.rglob("c.*"))


def test_writing_to_an_unknown_stream_is_an_error(empty_cache, block_values):
    with pytest.raises(CacheError, match=r"features\.zarr: no stream 'places' to write to"):
        write_block(empty_cache, "places", 0, **block_values(0))


def test_a_file_system_that_refuses_is_a_cache_error(empty_cache, block_values):
    folder = empty_cache / "streams/lbp/status"
    (folder / "c.0.0").mkdir()  # a folder where the file should go
    with pytest.raises(CacheError, match=r"block 0 of 'lbp' cannot be written \(.*directory"):
        write_block(empty_cache, "lbp", 0, **block_values(0))


def test_a_cache_that_is_there_keeps_its_arrays(cache_path, make_manifest, make_layout):
    before = bytes_of(cache_path.parent)
    create_cache(cache_path, make_manifest(), block_rows=4)
    add_stream(cache_path, make_layout())
    assert bytes_of(cache_path.parent) == before


def test_another_stream_leaves_the_files_of_the_first_untouched(cache_path, make_layout):
    before = {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in cache_path.rglob("*") if file.is_file()}
    add_stream(cache_path, make_layout("lbp_small", identity={"kind": "lbp", "parameters": {"region_px": 96}}, dim=3))
    assert {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in before} == before
    assert open_cache(cache_path).streams["lbp_small"].lacking_blocks().tolist() == [0, 1, 2]


def test_relabelling_replaces_the_manifest_alone(cache_path, make_manifest):
    before = bytes_of(cache_path)
    relabelled = make_manifest(label=["fear"] * 10, split=["train"] * 10, root="/elsewhere")
    create_cache(cache_path, relabelled, block_rows=4)
    assert bytes_of(cache_path) == before
    cache = open_cache(cache_path)
    assert cache.labels.tolist() == [1] * 10
    assert set(cache.splits) == {"train"}
    assert cache.manifest.root == Path("/elsewhere")


def test_other_samples_are_stale(cache_path, make_manifest):
    with pytest.raises(
        StaleCacheError, match=r"10 rows, the dataset now has 11; row 10 was nothing and is now 's10'\. Cached"
    ):
        create_cache(cache_path, make_manifest(11), block_rows=4)
    ids = [f"s{row}" for row in range(10)]
    with pytest.raises(
        StaleCacheError, match=r"row 7 was 's7' and is now 'new'\. Cached rows belong to their samples: build into"
    ):
        create_cache(cache_path, make_manifest(sample_id=[*ids[:7], "new", *ids[8:]]), block_rows=4)
    manifest_path(cache_path).unlink()
    with pytest.raises(StaleCacheError, match=r"holds 10 rows, the dataset now has 9\. Cached rows"):
        create_cache(cache_path, make_manifest(9), block_rows=4)


def test_a_lost_or_damaged_manifest_is_written_anew(cache_path, make_manifest):
    manifest_path(cache_path).unlink()
    create_cache(cache_path, make_manifest(), block_rows=4)
    manifest_path(cache_path).write_bytes(b"PAR1 no more")
    create_cache(cache_path, make_manifest(), block_rows=4)
    assert open_cache(cache_path).sample_ids[9] == "s9"


def test_blocks_of_another_size_are_stale(cache_path, make_manifest):
    with pytest.raises(
        StaleCacheError, match=r"has blocks of 4 rows, the spec now says 8\. Set block_rows to 4, or build into"
    ):
        create_cache(cache_path, make_manifest(), block_rows=8)


def test_reasons_are_stored_and_statuses_in_words_where_there_is_none(cache_path, block_values):
    values = block_values(0)
    values["status"] = np.array([Status.FAILED, Status.UNREADABLE, Status.OK, Status.NO_DETECTION], np.uint8)
    write_block(cache_path, "lbp", 0, **values, reasons=["division by zero", "", "", "no face found"])
    reasons = open_cache(cache_path).streams["lbp"].reasons()[:4, 0].tolist()
    assert reasons == ["division by zero", "unreadable", "", "no face found"]


def test_a_block_written_again_with_all_rows_ok_has_no_reasons_left(cache_path, block_values):
    values = {**block_values(0), "status": np.ones(4, np.uint8)}
    write_block(cache_path, "lbp", 0, **values)
    assert not (cache_path / "streams/lbp/reason/c.0.0").exists()
    assert open_cache(cache_path).streams["lbp"].lacking_blocks().tolist() == []


@pytest.mark.parametrize(
    ("reasons", "message"),
    [
        (["", "why?", "", ""], r"block 0 of 'lbp': row 1 of the block is OK and needs no reason, got 'why\?'"),
        ([""], "block 0 of 'lbp': reasons must be 4 texts, got 1"),
    ],
)
def test_reasons_that_do_not_fit_are_refused(cache_path, block_values, reasons, message):
    before = bytes_of(cache_path)
    with pytest.raises(CacheError, match=message):
        write_block(cache_path, "lbp", 0, **block_values(0), reasons=reasons)
    assert bytes_of(cache_path) == before


@pytest.mark.parametrize("killed_after", ["features", "flags", "reason", "status"])
def test_killed_while_room_is_made_for_views_leaves_the_stream_as_it_was(
    cache_path, block_values, monkeypatch, killed_after
):
    before = open_cache(cache_path).streams["lbp"].read()
    resize = zarr.Array.resize

    def die(array, shape):
        resize(array, shape)
        if array.store_path.path.endswith(killed_after) or str(array.store_path).endswith(killed_after):
            raise KeyboardInterrupt

    monkeypatch.setattr(zarr.Array, "resize", die)
    with pytest.raises(KeyboardInterrupt):
        add_views(cache_path, "lbp", 3, {"flip": 0.5})
    monkeypatch.undo()
    stream = open_cache(cache_path).streams["lbp"]
    assert (stream.views, stream.status.shape, stream.flags.shape, stream.reasons().shape) == (1, *[(10, 1)] * 3)
    assert stream.layout.augment is None
    for had, has in zip(before, stream.read(), strict=True):
        np.testing.assert_array_equal(had, has)
    add_views(cache_path, "lbp", 3, {"flip": 0.5})
    write_block(cache_path, "lbp", 0, **block_values(0), view=2)
    assert open_cache(cache_path).streams["lbp"].lacking(3)[:, 2].tolist() == [False, True, True]


def test_a_stream_of_another_spec_is_stale(cache_path, make_layout):
    identity = {"kind": "lbp", "version": 1, "parameters": {"region_px": 96}, "face": {"detector": "face_mesh"}}
    with pytest.raises(
        StaleCacheError,
        match=r"^lbp was cached with region_px 128, the spec now says 96\. Build it under another name, or drop it "
        r"first: emofuse cache drop .*features\.zarr lbp$",
    ):
        add_stream(cache_path, make_layout(identity=identity))


def test_a_stream_of_another_width_without_another_version_is_refused(cache_path, make_layout):
    with pytest.raises(
        CacheError, match=r"lbp was cached with 5 values of float16, its code now gives 6 values of float16\. Raise"
    ):
        add_stream(cache_path, make_layout(dim=6))


def test_weights_that_moved_are_noted_and_nothing_else_changes(cache_path, make_layout):
    before = bytes_of(cache_path)
    layout = make_layout()
    update_origin(cache_path, "lbp", spec=layout.spec, weights=None)
    assert bytes_of(cache_path) == before
    moved = {"kind": "file", "name": "b.pth", "sha256": "0" * 64, "seed": None}
    update_origin(cache_path, "lbp", spec={**layout.spec, "weights": "b.pth"}, weights=moved)
    stream = open_cache(cache_path).streams["lbp"]
    assert (stream.spec["weights"], stream.weights) == ("b.pth", moved)
    assert (stream.digest, stream.columns) == (layout.digest, layout.columns)
    after = bytes_of(cache_path)
    assert [name for name in before if before[name] != after[name]] == ["streams/lbp/zarr.json"]
    update_origin(cache_path, "none", spec={}, weights=None)


@pytest.mark.parametrize("killed_after", ["features", "flags", "status", "lbp"])
def test_killed_while_a_stream_is_created_leaves_no_half_of_it(
    tmp_path, make_manifest, make_layout, monkeypatch, killed_after
):
    path = tmp_path / "features.zarr"
    create_cache(path, make_manifest(), block_rows=4)
    for name in ("create_array", "create_group"):
        monkeypatch.setattr(zarr, name, die_after(getattr(zarr, name), killed_after))
    with pytest.raises(KeyboardInterrupt):
        add_stream(path, make_layout())
    monkeypatch.undo()
    assert list(open_cache(path).streams) == []
    create_cache(path, make_manifest(), block_rows=4)
    add_stream(path, make_layout())
    assert open_cache(path).streams["lbp"].lacking_blocks().tolist() == [0, 1, 2]
    assert [entry.name for entry in (path / "streams").iterdir() if entry.is_dir()] == ["lbp"]


def die_after(function, name):
    def wrapped(store, **options):
        made = function(store, **options)
        if Path(store).name.removeprefix(".new-") == name:
            raise KeyboardInterrupt
        return made

    return wrapped


def test_a_stream_folder_without_attributes_is_made_anew(cache_path, make_layout):
    (cache_path / "streams/lbp/zarr.json").unlink()
    assert list(open_cache(cache_path).streams) == []
    add_stream(cache_path, make_layout())
    assert open_cache(cache_path).streams["lbp"].lacking_blocks().tolist() == [0, 1, 2]


def test_what_killed_builds_left_is_removed(cache_path, make_manifest):
    before = bytes_of(cache_path.parent)
    (cache_path / "streams/lbp/features/c.0.0.abc.partial").write_bytes(b"half")
    (cache_path / "zarr.abc.partial").write_bytes(b"half")
    for name in ("features.manifest.parquet.partial", ".features.manifest.parquet.0a1b2c3d.partial"):
        manifest_path(cache_path).with_name(name).write_bytes(b"half")
    for name in (".new-places365", ".dropped-objects"):
        (cache_path / "streams" / name / "features").mkdir(parents=True)
    assert list(open_cache(cache_path).streams) == ["lbp"]
    create_cache(cache_path, make_manifest(), block_rows=4)
    assert bytes_of(cache_path.parent) == before
    assert not list((cache_path / "streams").glob(".*"))


def test_a_creation_killed_before_its_metadata_goes_on(tmp_path, make_manifest):
    path = tmp_path / "features.zarr"
    path.mkdir()
    (path / "zarr.abc.partial").write_bytes(b"half")
    make_manifest().write(manifest_path(path))
    create_cache(path, make_manifest(), block_rows=4)
    assert len(open_cache(path)) == 10


def test_a_folder_of_something_else_is_left_alone(tmp_path, make_manifest):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    with pytest.raises(CacheError, match=r"photos: not empty and not a cache of emofuse\. Choose another path"):
        create_cache(tmp_path / "photos", make_manifest(), block_rows=4)
    assert bytes_of(tmp_path) == {"photos/cat.jpg": b"meow"}


def test_a_cache_of_no_rows_is_refused(tmp_path, make_manifest):
    with pytest.raises(CacheError, match="a cache of no rows cannot be made; the dataset is empty"):
        create_cache(tmp_path / "features.zarr", make_manifest(0), block_rows=4)


def test_dropping_a_stream_removes_it_and_nothing_else(cache_path, make_layout):
    before = bytes_of(cache_path)
    add_stream(cache_path, make_layout("other"))
    drop_stream(cache_path, "other")
    assert bytes_of(cache_path) == before
    drop_stream(cache_path, "lbp")
    assert sorted(bytes_of(cache_path)) == ["streams/zarr.json", "zarr.json"]


def test_killed_while_a_stream_is_dropped_leaves_no_half_of_it(cache_path, make_manifest, monkeypatch):
    remove = shutil.rmtree

    def stop_soon(folder, **options):
        if Path(folder).is_dir():
            remove(Path(folder) / "features")
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", stop_soon)
    with pytest.raises(KeyboardInterrupt):
        drop_stream(cache_path, "lbp")
    monkeypatch.undo()
    assert open_cache(cache_path).streams == {}
    assert verify_cache(cache_path).faults == ()
    create_cache(cache_path, make_manifest(), block_rows=4)
    assert not list((cache_path / "streams").glob(".*"))


def test_a_damaged_stream_can_be_dropped(cache_path):
    (cache_path / "streams/lbp/zarr.json").write_text("{")
    drop_stream(cache_path, "lbp")
    assert list(open_cache(cache_path).streams) == []


@pytest.mark.parametrize("name", ["lpb", "..", ".", ""])
def test_dropping_an_unknown_stream_is_an_error(cache_path, name):
    with pytest.raises(CacheError, match=r"no stream '.*'.* \(there are: lbp\)"):
        drop_stream(cache_path, name)
    assert list(open_cache(cache_path).streams) == ["lbp"]


def test_a_file_where_the_cache_should_be_is_an_error(tmp_path, make_manifest):
    (tmp_path / "features.zarr").write_text("hello")
    with pytest.raises(CacheError, match=r"features\.zarr: not empty and not a cache of emofuse"):
        create_cache(tmp_path / "features.zarr", make_manifest(), block_rows=4)


def test_a_folder_that_may_only_be_read_is_refused(cache_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: not str(folder).endswith("lbp/flags"))
    with pytest.raises(UnwritableCacheError, match=r"streams/lbp/flags cannot be written: it is read-only\.$"):
        structure.check_writable(cache_path)
    monkeypatch.undo()
    before = bytes_of(cache_path)
    structure.check_writable(cache_path)
    assert bytes_of(cache_path) == before


def test_manifests_keep_their_attributes(tmp_path, make_manifest):
    manifest = make_manifest()
    table = manifest.table.with_columns(brightness=pl.Series(np.arange(10) / 10))
    path = tmp_path / "features.zarr"
    create_cache(path, Manifest(table, manifest.classes, manifest.root, manifest.info), block_rows=4)
    assert open_cache(path).manifest.table["brightness"].to_list() == (np.arange(10) / 10).tolist()
