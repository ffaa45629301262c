"""Caches and images on an S3-compatible store: the same caches, byte for byte, and they survive the same accidents."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cheap_streams import DELAY, MeanColourSpec, SizeSpec
from shaped_streams import SHAPES
from typer.testing import CliRunner

from emofuse import stores
from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import drop_stream
from emofuse.cli import cache as cache_cli
from emofuse.datasets import read_dataset
from emofuse.errors import CacheError, StaleCacheError, StoreError, StreamError
from emofuse.exchange.imports import ImportRequest, import_stream
from emofuse.extraction import BuildOptions, build_cache, plan_build
from emofuse.specs import AugmentSpec, CacheSpec, FolderSpec, StratifiedSplit
from emofuse.status import Status
from emofuse.stores import RemotePath, as_path, file_sizes
from emofuse.upkeep.verify import verify_cache

SPEC = CacheSpec(block_rows=8, streams=(MeanColourSpec(), SizeSpec()))
SMALL_BLOCKS = CacheSpec(block_rows=4, streams=(*SPEC.streams, *SHAPES))  # as in the script
BLOCKS = 10
SCRIPT = Path(__file__).parents[1] / "builds" / "build_script.py"


@pytest.fixture
def remote(s3_bucket) -> Path:
    return as_path(s3_bucket) / "caches" / "features.zarr"


@pytest.fixture
def local(tmp_path, manifest, in_process) -> Path:
    """The same cache on a disk."""
    build_cache(tmp_path / "features.zarr", manifest, SPEC, in_process)
    return tmp_path / "features.zarr"


def chunks_of(cache: Path) -> dict[str, bytes]:
    """All files of the streams, metadata too."""
    return {name: (cache / "streams" / name).read_bytes() for name in file_sizes(cache / "streams")}


def done_blocks(cache: Path) -> int:
    return len([name for name in file_sizes(cache / "streams" / "thumbnail" / "status") if name.startswith("c.")])


def test_a_cache_on_a_store_is_that_on_a_disk(remote, local, manifest, in_process):
    summary = build_cache(str(remote), manifest, SPEC, in_process)
    assert summary.rows == 40
    assert chunks_of(remote) == chunks_of(local)
    assert manifest_path(remote).is_file()
    assert sorted(file_sizes(remote.parent)) == sorted(
        ["features.manifest.parquet", *(f"features.zarr/{name}" for name in file_sizes(local))]
    )
    there, here = open_cache(str(remote)), open_cache(local)
    assert repr(there) == f"<Cache {remote} with 40 rows: mean_colour, size>"
    assert there.sample_ids.tolist() == here.sample_ids.tolist()
    for name in here.streams:
        for a, b in zip(there.streams[name].read(), here.streams[name].read(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert there.streams[name].nbytes() == here.streams[name].nbytes()
        assert there.streams[name].reasons().tolist() == here.streams[name].reasons().tolist()
    assert verify_cache(remote).faults == ()


def test_a_complete_cache_on_a_store_has_nothing_to_do(remote, manifest, in_process):
    build_cache(remote, manifest, SPEC, in_process)
    before = chunks_of(remote)
    assert build_cache(remote, manifest, SPEC, in_process).rows == 0
    assert chunks_of(remote) == before


def test_only_what_is_missing_on_a_store_is_computed(remote, local, manifest, in_process):
    build_cache(remote, manifest, SPEC, in_process)
    (remote / "streams/size/status/c.1.0").unlink()
    (remote / "streams/mean_colour/features/c.3.0.0").write_bytes(b"short")
    assert [missing.block for missing in plan_build(remote, manifest, SPEC).missing] == [3, 1]
    assert build_cache(remote, manifest, SPEC, in_process).rows == 16
    assert chunks_of(remote) == chunks_of(local)


def test_streams_and_views_are_added_and_dropped_on_a_store(remote, manifest, in_process):
    build_cache(remote, manifest, CacheSpec(block_rows=8, streams=(SizeSpec(),)), in_process)
    build_cache(remote, manifest, SPEC, in_process)
    views = CacheSpec(block_rows=8, streams=SPEC.streams, views=2, augment=AugmentSpec(rotation_deg=0))
    assert build_cache(remote, manifest, views, in_process).rows == 40
    assert open_cache(remote).streams["size"].views == 2
    drop_stream(remote, "size")
    assert list(open_cache(remote).streams) == ["mean_colour"]
    assert not any("size" in name for name in file_sizes(remote))


def test_another_spec_is_stale_on_a_store_too(remote, manifest, in_process):
    build_cache(remote, manifest, SPEC, in_process)
    with pytest.raises(StaleCacheError, match=r"^mean_colour was cached with scale 1\.0, the spec now says 2\.0"):
        build_cache(remote, manifest, CacheSpec(block_rows=8, streams=(MeanColourSpec(scale=2),)), in_process)


def test_something_else_on_the_store_is_left_alone(remote, manifest, in_process):
    (remote / "cat.jpg").write_bytes(b"meow")
    with pytest.raises(CacheError, match=r"features\.zarr: not empty and not a cache of emofuse"):
        build_cache(remote, manifest, SPEC, in_process)
    with pytest.raises(CacheError, match=r"none\.zarr: no such cache"):
        open_cache(remote.with_name("none.zarr"))


def test_a_damaged_chunk_on_a_store_is_named(remote, manifest, in_process):
    build_cache(remote, manifest, SPEC, in_process)
    chunk = remote / "streams/size/features/c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[3] ^= 1
    chunk.write_bytes(bytes(data))
    with pytest.raises(CacheError, match=r"s3://.*/size/features/c\.1\.0\.0: damaged \(rows 8-15 of 'size'"):
        open_cache(remote).streams["size"].read()


def test_blocks_are_listed_and_not_asked_for_one_by_one(remote, manifest, in_process, monkeypatch):
    build_cache(remote, manifest, SPEC, in_process)
    cache = open_cache(remote)
    asked = []
    info = stores.file_system().info
    monkeypatch.setattr(stores.file_system(), "info", lambda key: asked.append(key) or info(key))
    assert cache.streams["size"].lacking_blocks().tolist() == []
    assert asked == []


def test_vectors_are_imported_into_a_cache_on_a_store(remote, manifest, in_process, tmp_path):
    build_cache(remote, manifest, SPEC, in_process)
    ids = np.array(manifest.table["sample_id"].to_list())
    np.savez(tmp_path / "x.npz", features=np.arange(80.0).reshape(40, 2), sample_ids=ids)
    import_stream(remote, ImportRequest(tmp_path / "x.npz", "clip_vit"))
    np.testing.assert_array_equal(open_cache(remote).streams["clip_vit"].read()[0], np.arange(80).reshape(40, 2))


def test_the_command_line_knows_stores(remote, manifest, in_process):
    build_cache(remote, manifest, SPEC, in_process)
    run = CliRunner()
    info = run.invoke(cache_cli.app, ["info", str(remote)])
    assert info.stdout.startswith(f"{remote}: 40 rows"), info.output
    dropped = run.invoke(cache_cli.app, ["drop", str(remote), "size", "--yes"])
    assert dropped.stdout == f"{remote}: size dropped\n"


@pytest.fixture
def remote_images(s3_bucket, images) -> Path:
    """The pictures on the store."""
    target = as_path(s3_bucket) / "pictures"
    stores.file_system().pipe({f"{target.key}/{name}": (images / name).read_bytes() for name in file_sizes(images)})
    return target


def test_pictures_on_a_store_give_the_same_cache(tmp_path, remote_images, local):
    manifest = read_dataset(FolderSpec(root=str(remote_images), split=StratifiedSplit()))
    build_cache(tmp_path / "f.zarr", manifest, SPEC, BuildOptions(workers=1, device="cpu"))
    assert chunks_of(tmp_path / "f.zarr") == chunks_of(local)


def test_a_picture_that_is_gone_from_the_store_is_unreadable(remote, remote_images, in_process):
    manifest = read_dataset(FolderSpec(root=str(remote_images), split=StratifiedSplit()))
    (remote_images / "fear" / "05.png").unlink()
    build_cache(remote, manifest, SPEC, in_process)
    stream = open_cache(remote).streams["size"]
    assert np.flatnonzero(stream.status[:, 0] == Status.UNREADABLE).tolist() == [5, 9]
    assert stream.reasons()[5, 0] == "no such file"


def test_pictures_on_a_store_that_goes_away_fail_their_blocks_and_are_not_unreadable(
    remote_images, tmp_path, local, in_process, monkeypatch
):
    manifest = read_dataset(FolderSpec(root=str(remote_images), split=StratifiedSplit()))
    cat_file = stores.file_system().cat_file

    def lose(key, **options):
        if key.endswith("fear/12.png"):
            raise ConnectionError("reset by peer")
        return cat_file(key, **options)

    monkeypatch.setattr(stores.file_system(), "cat_file", lose)
    with pytest.raises(StreamError, match=r"1 of 5 blocks failed: rows 8-15 .*: StoreError: s3://.*fear/12\.png"):
        build_cache(tmp_path / "f.zarr", manifest, SPEC, in_process)
    monkeypatch.undo()
    assert open_cache(tmp_path / "f.zarr").streams["size"].lacking_blocks().tolist() == [1]


def test_worker_processes_write_to_a_store(remote, local, manifest):
    build_cache(remote, manifest, SPEC, BuildOptions(workers=2, device="cpu"))
    assert chunks_of(remote) == chunks_of(local)


def wait_until(condition, timeout_s: float = 600) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_build_killed_in_the_middle_goes_on_to_the_same_cache(remote, tmp_path, images, manifest, in_process):
    environment = {**os.environ, DELAY: "1.5"}
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(images), str(remote), "0"], env=environment)
    try:
        wait_until(lambda: done_blocks(remote) >= 2)
        with pytest.raises(CacheError, match=rf"another build is writing this cache \(process {process.pid} on "):
            build_cache(remote, manifest, SMALL_BLOCKS, in_process)
    finally:
        process.kill()
        process.wait()
    done = done_blocks(remote)
    assert 2 <= done < BLOCKS
    left = build_cache(remote, manifest, SMALL_BLOCKS, in_process)  # at once: its holder is known to be dead
    assert left.rows == 4 * (BLOCKS - done)
    build_cache(tmp_path / "undisturbed.zarr", manifest, SMALL_BLOCKS, in_process)
    assert chunks_of(remote) == chunks_of(tmp_path / "undisturbed.zarr")


@pytest.mark.parametrize(("status", "code"), [("503 Slow Down", "SlowDown"), ("500 Oops", "InternalError")])
def test_a_store_that_fails_one_request_in_ten_is_asked_again(
    remote, local, manifest, in_process, refusing_store, status, code
):
    spec = CacheSpec(block_rows=8, streams=(SizeSpec(),))
    with refusing_store(lambda number: number % 10 == 0, status, code) as store:
        build_cache(remote, manifest, spec, in_process)
    assert store.refused >= 3
    np.testing.assert_array_equal(
        open_cache(remote).streams["size"].read()[0], open_cache(local).streams["size"].read()[0]
    )


def test_a_store_that_goes_away_ends_the_build_and_what_is_there_stays(
    remote, local, manifest, in_process, monkeypatch
):
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setattr(stores.connection, "_ATTEMPTS", 1)
    build_cache(remote, manifest, CacheSpec(block_rows=8, streams=(SizeSpec(),)), in_process)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    stores.forget_connections()
    with pytest.raises(StoreError, match=r"s3://.*: the store cannot be used \(.*Check the endpoint and the credent"):
        build_cache(remote, manifest, SPEC, in_process)
    with pytest.raises(StoreError, match="the store cannot be used"):  # and not: no such cache
        open_cache(remote)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    stores.forget_connections()
    build_cache(remote, manifest, SPEC, in_process)
    assert chunks_of(remote) == chunks_of(local)


def test_a_store_that_goes_away_while_reading_is_not_taken_for_damage(remote, manifest, in_process, monkeypatch):
    build_cache(remote, manifest, SPEC, in_process)
    stream = open_cache(remote).streams["size"]

    def gone(*arguments, **options):
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(stores.file_system(), "cat_file", gone)
    with pytest.raises(StoreError, match=r"the store cannot be used \(ConnectionError: reset by peer\)"):
        stream.read_block(0)
    with pytest.raises(StoreError, match="reset by peer"):
        _ = stream.status


def test_a_path_of_a_store_is_a_remote_path(remote):
    assert isinstance(remote, RemotePath)
