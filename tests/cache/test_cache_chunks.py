"""The direct reader, held against Zarr's own."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import zarr

from emofuse.cache import chunks
from emofuse.cache.chunks import ChunkedArray, DamagedChunkError, widen
from emofuse.cache.metadata import read_cache_layout, read_stream_layout
from emofuse.cache.structure import add_stream, add_views, create_cache
from emofuse.cache.writer import write_block
from emofuse.stores import as_path


@pytest.fixture(params=["a disk", "a store"])
def folder(request, tmp_path):
    return as_path(request.getfixturevalue("s3_bucket")) if request.param == "a store" else tmp_path


@pytest.fixture
def make(make_manifest, make_layout):
    """A stream of two views with random numbers; block 1 of view 1 is not there."""

    def made(folder, rows=11, block_rows=4, dim=5, dtype="float16"):
        path = folder / f"{rows}-{block_rows}.zarr"
        rng = np.random.default_rng(0)
        create_cache(path, make_manifest(rows), block_rows=block_rows)
        add_stream(path, make_layout(dim=dim, dtype=np.dtype(dtype)))
        add_views(path, "lbp", 2, {"version": 1})
        for block in range(-(-rows // block_rows)):
            count = min(block_rows, rows - block * block_rows)
            for view in range(2):
                if (block, view) != (1, 1):
                    write_block(
                        path, "lbp", block, view=view,
                        features=rng.normal(size=(count, dim)).astype(dtype),
                        status=rng.integers(1, 5, count).astype(np.uint8),
                        flags=rng.integers(0, 2, count).astype(np.uint8),
                    )  # fmt: skip
        return path

    return made


def opened(path, array="features") -> ChunkedArray:
    return ChunkedArray(path, read_cache_layout(path), read_stream_layout(path, "lbp"), array)


@pytest.mark.parametrize(("rows", "block_rows"), [(11, 4), (12, 4), (3, 4), (4, 1), (8, 4)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_it_reads_what_zarr_reads(tmp_path, make, rows, block_rows, dtype):
    path = make(tmp_path, rows, block_rows, dtype=dtype)
    for array in ("features", "flags", "status"):
        plain = zarr.open_array(path / "streams/lbp" / array, mode="r")[:]
        for view in range(2):
            found = opened(path, array).read(view)
            np.testing.assert_array_equal(found, plain[:, view])
            assert found.dtype == plain.dtype
            for block in range(-(-rows // block_rows)):
                own = slice(block * block_rows, (block + 1) * block_rows)
                np.testing.assert_array_equal(opened(path, array).read_block(block, view), plain[own, view])


def test_it_reads_from_a_store_and_a_disk_alike(folder, make, tmp_path):
    path, plain = make(folder), make(tmp_path / "plain")
    for array in ("features", "status"):
        for view in range(2):
            np.testing.assert_array_equal(opened(path, array).read(view), opened(plain, array).read(view))


@pytest.mark.parametrize("few", [0, 1 << 30], ids=["threads", "one thread"])
def test_rows_are_widened_as_they_are_read(tmp_path, make, monkeypatch, few):
    monkeypatch.setattr(chunks, "_THREADED_BYTES", few)
    array = opened(make(tmp_path, rows=37))
    for view in range(2):
        wide = array.read(view, np.float32)
        assert wide.dtype == np.float32
        np.testing.assert_array_equal(wide, array.read(view).astype(np.float32))
        np.testing.assert_array_equal(array.read_block(9, view, "float32"), array.read_block(9, view).astype("f4"))


@pytest.mark.parametrize("with_torch", [False, True])
def test_every_half_is_the_same_single(monkeypatch, with_torch):
    if with_torch:
        import torch  # noqa: F401
    else:
        monkeypatch.setitem(sys.modules, "torch", None)
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    out = np.empty(halves.shape, np.float32)
    widen(halves, out)
    np.testing.assert_array_equal(out, halves.astype(np.float32))


@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda data: data[:-1], r"\d+ bytes, must be \d+"),
        (lambda data: data + b"x", r"\d+ bytes, must be \d+"),
        (lambda data: b"", "0 bytes, must be"),
        (lambda data: data[:3] + bytes([data[3] ^ 1]) + data[4:], "checksum do not match"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "checksum do not match"),
    ],
)
def test_a_damaged_chunk_is_never_given_out(tmp_path, make, block, damage, cause):
    path = make(tmp_path)
    chunk = path / f"streams/lbp/features/c.{block}.0.0"
    chunk.write_bytes(damage(chunk.read_bytes()))
    array = opened(path)
    for read in (lambda: array.read(0), lambda: array.read_block(block, 0), lambda: array.read(0, np.float32)):
        with pytest.raises(DamagedChunkError, match=cause) as raised:
            read()
        assert (raised.value.file, raised.value.block) == (chunk, block)
    assert array.read_block(1, 0).any()


def test_a_folder_in_the_place_of_a_chunk_is_damage(tmp_path, make):
    path = make(tmp_path)
    (path / "streams/lbp/features/c.0.0.0").unlink()
    (path / "streams/lbp/features/c.0.0.0").mkdir()
    with pytest.raises(DamagedChunkError, match="directory"):
        opened(path).read(0)


def test_arrays_with_more_rows_than_the_cache_says_are_read_as_far_as_it_says(tmp_path, make):
    array = opened(make(tmp_path))
    fewer = replace(array, rows=replace(array.rows, rows=8))
    np.testing.assert_array_equal(fewer.read(0), array.read(0)[:8])
