"""Sequences, maps and sequences of maps in a cache, held to what vectors are held to."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray
import zarr

from emofuse.cache import layout as layouts
from emofuse.cache.metadata import read_cache_layout, read_stream_layout
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_stream, add_views, create_cache
from emofuse.cache.writer import discard_blocks, write_block
from emofuse.errors import CacheError
from emofuse.exchange.copy import copy_cache
from emofuse.exchange.export import export_cache
from emofuse.exchange.merge import merge_caches
from emofuse.status import Status, Step
from emofuse.upkeep.verify import verify_cache

ROWS, BLOCK_ROWS = 10, 4


class KilledError(Exception):
    """Ends a block in the middle of its writing."""


SHAPES = {
    "vector": ((5,), ("feature",)),
    "sequence": ((3, 5), ("time", "feature")),
    "map": ((2, 3, 4), ("channel", "y", "x")),
    "sequence of maps": ((3, 2, 3, 4), ("time", "channel", "y", "x")),
}


@pytest.fixture(params=SHAPES)
def kind(request) -> str:
    return request.param


@pytest.fixture(params=["whole blocks", "chunks of two rows"])
def chunking(request, monkeypatch, kind):
    """Chunks of features hold a block, or (but for vectors) two of its four rows."""
    if request.param == "chunks of two rows":
        monkeypatch.setattr(layouts, "_CHUNK_BYTES", 2 * 2 * int(np.prod(SHAPES[kind][0])))


@pytest.fixture
def values(kind):
    """Values of one block; row 3 has no face, and the last step of row 5 is padding."""
    shape, dimensions = SHAPES[kind]

    def of_block(block: int, view: int = 0) -> dict[str, np.ndarray | None]:
        rows = np.arange(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, ROWS))
        rng = np.random.default_rng(100 * block + view)
        features = rng.uniform(1, 2, (len(rows), *shape)).astype(np.float16)
        features[rows == 3] = 0
        mask = None
        if dimensions[0] == "time":
            mask = np.full((len(rows), shape[0]), Step.OK, dtype=np.uint8)
            mask[rows == 3] = Step.NO_DETECTION
            mask[rows == 5, -1] = Step.PADDING
            features[mask != Step.OK] = 0
        status = np.where(rows == 3, Status.NO_DETECTION, Status.OK).astype(np.uint8)
        return {"features": features, "mask": mask, "status": status, "flags": (rows == 5).astype(np.uint8)}

    return of_block


@pytest.fixture
def make(tmp_path, make_manifest, make_layout, values, kind):
    def made(name: str, blocks=range(3)):
        path = tmp_path / name
        shape, dimensions = SHAPES[kind]
        create_cache(path, make_manifest(), block_rows=BLOCK_ROWS)
        add_stream(path, make_layout("s", shape=shape, dimensions=dimensions))
        add_views(path, "s", 2, {"version": 1})
        for block in blocks:
            for view in range(2):
                write_block(path, "s", block, view=view, **values(block, view))
        return path

    return made


def whole(values, part: str, view: int = 0) -> np.ndarray:
    return np.concatenate([values(block, view)[part] for block in range(3)])


@pytest.mark.usefixtures("chunking")
def test_what_is_written_is_read_whole_and_by_blocks(make, values, kind):
    stream = open_cache(make("a.zarr")).streams["s"]
    assert (stream.shape, stream.dimensions) == SHAPES[kind]
    assert stream.is_sequence == (SHAPES[kind][1][0] == "time")
    for view in range(2):
        features, status = stream.read(view)
        np.testing.assert_array_equal(features, whole(values, "features", view))
        np.testing.assert_array_equal(status, whole(values, "status"))
        wide, _ = stream.read(view, np.float32)
        np.testing.assert_array_equal(wide, features.astype(np.float32))
        for block in range(3):
            np.testing.assert_array_equal(stream.read_block(block, view), values(block, view)["features"])
            if stream.is_sequence:
                np.testing.assert_array_equal(stream.read_mask_block(block, view), values(block, view)["mask"])
        if stream.is_sequence:
            np.testing.assert_array_equal(stream.read_mask(view), whole(values, "mask", view))
        else:
            assert stream.read_mask(view) is None
            assert stream.read_mask_block(0, view) is None


@pytest.mark.usefixtures("chunking")
def test_zarr_reads_the_same_and_the_metadata_is_what_the_layout_says(make, values):
    path = make("a.zarr")
    cache, layout = read_cache_layout(path), read_stream_layout(path, "s")
    for array in layout.arrays:
        assert json.loads((path / "streams/s" / array / "zarr.json").read_bytes()) == layout.array_metadata(
            array, cache
        )
    for view in range(2):
        np.testing.assert_array_equal(
            zarr.open_array(path / "streams/s/features", mode="r")[:, view], whole(values, "features", view)
        )


def test_xarray_opens_it_with_named_dimensions(make, kind):
    shape, dimensions = SHAPES[kind]
    opened = xarray.open_zarr(make("a.zarr"), group="streams/s", consolidated=False)
    assert opened["features"].dims == ("sample", "view", *dimensions)
    assert opened["features"].shape == (ROWS, 2, *shape)
    if dimensions[0] == "time":
        assert opened["mask"].dims == ("sample", "view", "time")
        assert opened["mask"].shape == (ROWS, 2, shape[0])


def test_a_cache_with_other_shapes_than_vectors_says_so_by_its_format(make, kind):
    root = json.loads((make("a.zarr") / "zarr.json").read_text())["attributes"]["emofuse"]
    assert root["format"] == (2 if kind == "vector" else 3)


@pytest.mark.usefixtures("chunking")
def test_a_sound_cache_verifies_and_any_flipped_byte_of_a_chunk_is_found_and_named(make):
    path = make("a.zarr")
    assert verify_cache(path).faults == ()
    chunks = [file for file in sorted((path / "streams/s").rglob("c.*")) if file.is_file()]
    for chunk in chunks:
        data = chunk.read_bytes()
        chunk.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
        fault = verify_cache(path).faults[0]
        assert f"{chunk.parent.name}/{chunk.name}: damaged" in str(fault)
        chunk.write_bytes(data)
    assert verify_cache(path).faults == ()


@pytest.mark.usefixtures("chunking")
def test_a_missing_or_short_chunk_makes_its_block_lacking(make):
    path = make("a.zarr")
    for chunk in sorted((path / "streams/s").rglob("c.1.0*")):
        if chunk.parent.name == "reason":
            continue
        data = chunk.read_bytes()
        block = 1 if chunk.parent.name in {"status", "flags"} else None
        for damage in (chunk.unlink, lambda chunk=chunk, data=data: chunk.write_bytes(data[:-1])):
            damage()
            lacking = np.argwhere(open_cache(path).streams["s"].lacking(2)).tolist()
            assert len(lacking) == 1
            assert lacking[0][1] == 0
            assert block is None or lacking[0][0] == block
            chunk.write_bytes(data)
    assert not open_cache(path).streams["s"].lacking(2).any()


@pytest.mark.usefixtures("chunking")
def test_a_discarded_block_lacks_and_leaves_no_chunk(make):
    path = make("a.zarr")
    before = {file for file in path.rglob("c.*") if file.is_file()}
    discard_blocks(path, "s", [(1, 0), (1, 1)])
    stream = open_cache(path).streams["s"]
    assert np.argwhere(stream.lacking(2)).tolist() == [[1, 0], [1, 1]]
    layout = stream.layout
    cache = read_cache_layout(path)
    gone = {
        path / "streams/s" / array / name
        for array in layout.arrays
        for view in range(2)
        for name in layout.chunk_names(array, 1, view, cache)
    }
    assert {file for file in path.rglob("c.*") if file.is_file()} == before - gone


@pytest.mark.usefixtures("chunking")
@pytest.mark.parametrize("stop", range(1, 12))
def test_a_block_whose_writing_was_cut_short_at_any_chunk_is_not_done(make, values, monkeypatch, stop):
    from zarr.storage import LocalStore

    path = make("a.zarr", blocks=[0, 2])
    put, calls = LocalStore.set, []

    async def killed(store, key, value):
        calls.append(key)
        if len(calls) == stop:
            raise KilledError
        await put(store, key, value)

    was_killed = False
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", killed)
        try:
            write_block(path, "s", 1, **values(1))
        except KilledError:
            was_killed = True
    assert was_killed == (stop <= len(calls))
    assert open_cache(path).streams["s"].lacking(1)[:, 0].tolist() == [False, was_killed, False]


@pytest.mark.usefixtures("chunking")
def test_a_copy_and_a_merge_of_two_halves_have_the_same_bytes(make, tmp_path):
    path = make("a.zarr")
    copy_cache(path, tmp_path / "copy.zarr")
    left, right = make("left.zarr", blocks=[0, 2]), make("right.zarr", blocks=[1])
    merged = merge_caches(tmp_path / "merged.zarr", [left, right])
    assert merged.lacking == {}
    for other in (tmp_path / "copy.zarr", tmp_path / "merged.zarr"):
        for file in (path / "streams").rglob("*"):
            if file.is_file():
                assert (other / "streams" / file.relative_to(path / "streams")).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("to", ["hdf5", "npz", "parquet"])
def test_an_export_has_features_and_mask_in_their_shape(make, tmp_path, values, kind, to):
    import h5py
    import polars as pl

    out = tmp_path / "out"
    shape = SHAPES[kind][0]
    export_cache(open_cache(make("a.zarr")), out, to)
    features = np.stack([whole(values, "features", view) for view in range(2)], axis=1)
    mask = None
    if SHAPES[kind][1][0] == "time":
        mask = np.stack([whole(values, "mask", view) for view in range(2)], axis=1)
    if to == "parquet":
        table = pl.read_parquet(out)
        assert table["s.features"].null_count() == 2  # row 3 in two views
        found = table.filter(pl.col("s.features").is_not_null())["s.features"].to_numpy()
        kept = np.arange(ROWS) != 3
        np.testing.assert_array_equal(found.reshape(-1, *shape), features[kept].reshape(-1, *shape))
        assert ("s.mask" in table.columns) == (mask is not None)
        if mask is not None:
            np.testing.assert_array_equal(table["s.mask"].to_numpy(), mask.reshape(-1, shape[0]))
        return
    opened = h5py.File(out) if to == "hdf5" else np.load(out)
    np.testing.assert_array_equal(opened["streams/s/features"][()], features)
    assert ("streams/s/mask" in opened) == (mask is not None)
    if mask is not None:
        np.testing.assert_array_equal(opened["streams/s/mask"][()], mask)


@pytest.mark.parametrize("kind", ["sequence"])
@pytest.mark.parametrize(
    ("step", "message"),
    [
        (9, "a step of its mask that is none"),
        (int(Step.PADDING), "its features are not zero at a step that is not OK"),
    ],
)
def test_a_mask_that_contradicts_the_features_is_found(make, values, step, message):
    path = make("a.zarr", blocks=[1, 2])
    block = values(0)
    block["mask"][1, 0] = step
    write_block(path, "s", 0, **block)
    assert [str(fault) for fault in verify_cache(path).faults] == [f"s block 0 row 1: {message}"]


@pytest.mark.parametrize("kind", ["sequence of maps"])
@pytest.mark.parametrize(
    ("row", "step", "message"),
    [
        (1, Step.NO_DETECTION, "it is OK and none of its steps is"),
        (3, Step.OK, "it is not OK and some of its steps are"),
    ],
)
def test_a_mask_that_contradicts_the_status_is_found(make, values, row, step, message):
    path = make("a.zarr", blocks=[1, 2])
    block = values(0)
    block["mask"][row] = step
    block["features"][row] = 0
    write_block(path, "s", 0, **block)
    assert [str(fault) for fault in verify_cache(path).faults] == [f"s block 0 row {row}: {message}"]


@pytest.mark.parametrize("kind", ["map", "sequence"])
def test_a_mask_is_asked_of_sequences_and_of_nothing_else(make, values, kind):
    path = make("a.zarr", blocks=[])
    block = values(0)
    block["mask"] = None if kind == "sequence" else np.ones((BLOCK_ROWS, 2), dtype=np.uint8)
    must = "a mask of its steps must" if kind == "sequence" else "no mask may"
    with pytest.raises(CacheError, match=f"block 0 of 's': {must} be given"):
        write_block(path, "s", 0, **block)


@pytest.mark.parametrize("kind", ["map"])
def test_a_changed_shape_without_a_new_version_is_refused(make, make_layout):
    path = make("a.zarr", blocks=[])
    with pytest.raises(
        CacheError,
        match=r"cached with channel 2 x y 3 x x 4 values of float16, its code now gives time 2 x y 3 x x 4 values",
    ):
        add_stream(path, make_layout("s", shape=(2, 3, 4), dimensions=("time", "y", "x")))


@pytest.mark.parametrize(
    ("shape", "dimensions", "block_rows", "rows"),
    [
        ((2048,), ("feature",), 65536, 65536),  # vectors: a block, as ever
        ((64, 56, 56), ("channel", "y", "x"), 256, 16),  # 401 kB a row: 16 rows are 6.4 MB, 32 too many
        ((4, 4, 4), ("channel", "y", "x"), 256, 256),
        ((1000, 4096), ("time", "feature"), 256, 1),  # one row is 8.2 MB
        ((16, 512), ("time", "feature"), 1009, 1),  # a prime
    ],
)
def test_chunks_of_sequences_and_maps_are_a_part_of_a_block_and_below_eight_mebibytes(
    make_layout, shape, dimensions, block_rows, rows
):
    layout = make_layout(shape=shape, dimensions=dimensions)
    assert layout.chunk_rows("features", block_rows) == rows
    assert layout.chunk_rows("status", block_rows) == block_rows
