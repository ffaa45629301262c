from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import replace

import h5py
import numpy as np
import polars as pl
import pytest

from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_stream, add_views, create_cache
from emofuse.cache.writer import write_block
from emofuse.errors import CacheError, IncompleteCacheError
from emofuse.exchange.export import check_format, export_cache
from emofuse.status import Status

AUGMENT = {"version": 1, "flip": 0.5}


@pytest.fixture
def two_views(cache_path, block_values):
    """The second view of row r has its features plus 100."""
    add_views(cache_path, "lbp", 2, AUGMENT)
    for block in range(3):
        values = block_values(block)
        values["features"] = values["features"] + np.float16(100) * (values["status"] == Status.OK)[:, None]
        write_block(cache_path, "lbp", block, view=1, **values)
    return cache_path


def numbers_of_npz(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def numbers_of_hdf5(path):
    found = {}

    def keep(name, item):
        if isinstance(item, h5py.Dataset):
            text = h5py.check_string_dtype(item.dtype) is not None
            found[name] = np.asarray(item.asstr()[()] if text else item[()])

    with h5py.File(path) as file:
        file.visititems(keep)
    return found


@pytest.fixture(params=[("npz", numbers_of_npz), ("hdf5", numbers_of_hdf5)], ids=["npz", "hdf5"])
def kind(request):
    return request.param


def test_the_file_holds_what_the_cache_holds(cache_path, tmp_path, kind):
    to, read = kind
    cache = open_cache(cache_path)
    told = []
    export_cache(cache, tmp_path / "x", to, on_rows=lambda *state: told.append(state))
    found = read(tmp_path / "x")
    features, status = cache.streams["lbp"].read()
    assert sorted(found) == [
        "classes", "description", "labels", "sample_ids", "splits",
        "streams/lbp/features", "streams/lbp/flags", "streams/lbp/status",
    ]  # fmt: skip
    np.testing.assert_array_equal(found["streams/lbp/features"], features)
    assert found["streams/lbp/features"].dtype == np.float16
    assert found["streams/lbp/status"].tolist() == status.tolist()
    assert found["streams/lbp/flags"].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert found["sample_ids"].tolist() == [f"s{row}" for row in range(10)]
    assert found["labels"].tolist() == [0, 1, -1, 0, 1, -1, 0, 1, -1, 0]
    assert found["splits"].tolist() == ["train", "val", "test", "", "train", "val", "test", "", "train", "val"]
    assert found["classes"].tolist() == ["joy", "fear"]
    assert told[-1] == (10, 10)


def test_groups_are_exported_where_rows_have_them(cache_path, tmp_path, kind):
    to, read = kind
    groups = ["s1", "s1", *[""] * 8]
    named = pl.Series("group", [group or None for group in groups], dtype=pl.String)
    manifest = open_cache(cache_path).manifest
    replace(manifest, table=manifest.table.with_columns(named)).write(manifest_path(cache_path))
    export_cache(open_cache(cache_path), tmp_path / "x", to)
    assert read(tmp_path / "x")["groups"].tolist() == groups
    export_cache(open_cache(cache_path), tmp_path / "x.parquet", "parquet")
    assert pl.read_parquet(tmp_path / "x.parquet")["group"].equals(named)


def test_the_file_says_where_it_comes_from(cache_path, tmp_path, kind):
    to, read = kind
    cache = open_cache(cache_path)
    export_cache(cache, tmp_path / "x", to)
    told = json.loads(str(read(tmp_path / "x")["description"]))
    assert told["streams"]["lbp"]["digest"] == cache.streams["lbp"].digest
    assert told["streams"]["lbp"]["spec"] == {"kind": "lbp", "name": "lbp"}
    assert told["status"] == {"pending": 0, "ok": 1, "no_detection": 2, "unreadable": 3, "failed": 4}
    assert told["ids_digest"] == cache.layout.ids_digest
    assert told["dataset"] == {"name": "small"}


def test_hdf5_has_spec_and_digest_as_attributes(cache_path, tmp_path):
    cache = open_cache(cache_path)
    export_cache(cache, tmp_path / "x.h5", "hdf5")
    with h5py.File(tmp_path / "x.h5") as file:
        group = file["streams/lbp"]
        assert group.attrs["digest"] == cache.streams["lbp"].digest
        assert json.loads(group.attrs["spec"]) == {"kind": "lbp", "name": "lbp"}


def test_views_are_an_axis(two_views, tmp_path, kind):
    to, read = kind
    export_cache(open_cache(two_views), tmp_path / "x", to)
    found = read(tmp_path / "x")
    stream = open_cache(two_views).streams["lbp"]
    assert found["streams/lbp/features"].shape == (10, 2, 5)
    np.testing.assert_array_equal(found["streams/lbp/features"], stream.features[:])
    np.testing.assert_array_equal(found["streams/lbp/status"], stream.status)


def test_parquet_has_a_row_a_sample_and_nulls_for_what_is_missing(cache_path, tmp_path):
    cache = open_cache(cache_path)
    export_cache(cache, tmp_path / "x.parquet", "parquet")
    table = pl.read_parquet(tmp_path / "x.parquet")
    assert table.columns == ["sample_id", "label", "split", "lbp.features", "lbp.flags", "lbp.status"]
    assert table["label"].to_list()[:4] == ["joy", "fear", None, "joy"]
    assert table["split"].to_list()[:4] == ["train", "val", "test", None]
    assert table["lbp.status"].to_list() == [1, 1, 1, 2, 1, 1, 1, 1, 1, 1]
    assert table["lbp.features"].is_null().to_list() == [row == 3 for row in range(10)]
    there = table["lbp.features"].drop_nulls().to_numpy()
    assert there.dtype == np.float32
    np.testing.assert_array_equal(there, np.delete(cache.streams["lbp"].read()[0], 3, axis=0))
    told = json.loads(pl.read_parquet_metadata(tmp_path / "x.parquet")["emofuse"])
    assert told["streams"]["lbp"]["digest"] == cache.streams["lbp"].digest


def test_parquet_has_a_row_a_view(two_views, tmp_path, make_layout, block_values):
    add_stream(two_views, make_layout("plain", flag_names=()))
    for block in range(3):
        write_block(two_views, "plain", block, **block_values(block))
    export_cache(open_cache(two_views), tmp_path / "x.parquet", "parquet")
    table = pl.read_parquet(tmp_path / "x.parquet")
    assert table["sample_id"].to_list() == [f"s{row // 2}" for row in range(20)]
    assert table["view"].to_list() == [0, 1] * 10
    assert [row[0] for row in table["lbp.features"].to_list()[:4]] == [0, 100, 1, 101]
    # A stream without augmented views has null there.
    assert table["plain.status"].to_list()[:4] == [1, None, 1, None]
    assert [row and row[0] for row in table["plain.features"].to_list()[:4]] == [0, None, 1, None]


def test_some_streams_can_be_chosen(cache_path, tmp_path, make_layout, block_values):
    add_stream(cache_path, make_layout("unfinished"))
    export_cache(open_cache(cache_path), tmp_path / "x.npz", "npz", streams=["lbp"])
    assert "streams/lbp/features" in numbers_of_npz(tmp_path / "x.npz")
    with pytest.raises(IncompleteCacheError, match="'unfinished' lacks 3 of 3 blocks"):
        export_cache(open_cache(cache_path), tmp_path / "y.npz", "npz")
    with pytest.raises(CacheError, match=r"no stream 'lpb', did you mean 'lbp'\? \(there are: lbp, unfinished\)"):
        export_cache(open_cache(cache_path), tmp_path / "y.npz", "npz", streams=["lpb"])


def test_a_cache_without_streams_has_nothing_to_export(tmp_path, make_manifest):
    create_cache(tmp_path / "empty.zarr", make_manifest(), block_rows=4)
    with pytest.raises(CacheError, match=r"empty\.zarr: no stream to export\. Build the cache first"):
        export_cache(open_cache(tmp_path / "empty.zarr"), tmp_path / "x.npz", "npz")


def test_a_file_that_is_there_is_not_replaced(cache_path, tmp_path):
    (tmp_path / "x.npz").write_bytes(b"mine")
    with pytest.raises(CacheError, match=r"x\.npz: there is such a file already\. Choose another with --out"):
        export_cache(open_cache(cache_path), tmp_path / "x.npz", "npz")
    assert (tmp_path / "x.npz").read_bytes() == b"mine"


@pytest.mark.parametrize("to", ["npz", "hdf5", "parquet"])
def test_a_damaged_chunk_leaves_no_file(cache_path, tmp_path, to):
    chunk = cache_path / "streams/lbp/features/c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[7] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(CacheError, match=r"features/c\.1\.0\.0: damaged \(rows 4-7 of 'lbp'"):
        export_cache(open_cache(cache_path), tmp_path / "out" / "x", to)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error(cache_path, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match=r"file/x\.npz: cannot be written \("):
        export_cache(open_cache(cache_path), tmp_path / "file" / "x.npz", "npz")


def test_an_unknown_format_is_named():
    assert check_format("npz") == "npz"
    with pytest.raises(
        CacheError, match=re.escape("--to: 'hdf' is no format, did you mean 'hdf5'? (there are: hdf5, npz, parquet)")
    ):
        check_format("hdf")


@pytest.mark.parametrize("to", ["npz", "hdf5"])
def test_memory_does_not_grow_with_the_cache(tmp_path, make_manifest, make_layout, to):
    path = tmp_path / "wide.zarr"
    rows, dim = 4096, 1024  # 8 MB of features
    create_cache(path, make_manifest(rows), block_rows=64)
    add_stream(path, make_layout(dim=dim, flag_names=()))
    for block in range(rows // 64):
        features = np.full((64, dim), block, np.float16)
        ones = np.ones(64, np.uint8)
        write_block(path, "lbp", block, features=features, status=ones, flags=ones)
    cache = open_cache(path)
    export_cache(cache, tmp_path / "before", to)  # what is imported and cached at first use is not counted
    tracemalloc.start()
    export_cache(cache, tmp_path / "x", to)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000
