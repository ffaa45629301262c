"""Columns of a cache: read once, in memory or block by block, refused while they are not whole."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.errors import CacheError, IncompleteCacheError, SpecError
from emofuse.features import derive
from emofuse.specs import FeaturesSpec
from emofuse.training.columns import Column, Columns


@pytest.fixture(scope="module")
def cache(tmp_path_factory, plant_cache):
    return plant_cache(tmp_path_factory.mktemp("columns") / "features.zarr")


def of(columns, *streams, **options):
    return columns.of(FeaturesSpec(streams=streams, **options))


def test_a_run_s_columns_are_its_streams_in_their_variants(cache):
    found = of(Columns(cache, 10**9), "resnet50", "lbp", "action_units", lbp_bins=128, action_units=15)
    assert found == (
        Column("resnet50", "backbone", (), (12,)),
        Column("lbp", "lbp", (("bins", 128),), (128,)),
        Column("action_units", "action_units", (("count", 15),), (15,)),
    )
    assert [column.name for column in found] == ["resnet50", "lbp@128", "action_units@15"]


def test_features_and_status_are_those_of_the_cache(cache):
    columns = Columns(cache, 10**9)
    for column in of(columns, "resnet50", "lbp", lbp_bins=128):
        stored, status = cache.streams[column.stream].read()
        whole = columns.whole(column)
        assert whole.dtype == np.float32
        assert np.array_equal(whole, derive(column.kind, stored, column.choice))
        assert np.array_equal(columns.status(column), status)
        assert np.array_equal(columns.valid(column), status == 1)
        assert columns.digest(column) == cache.streams[column.stream].digest
    assert columns.nbytes(of(columns, "resnet50", "lbp")) == 150 * (12 + 256) * 4


@pytest.mark.parametrize("held", [False, True])
def test_blocks_spans_and_rows_are_those_of_the_whole(cache, held):
    columns, whole = Columns(cache, 10**9), {}
    wanted = of(columns, "resnet50", "lbp")
    whole = {column: Columns(cache, 10**9).whole(column) for column in wanted}
    if held:
        for column in wanted:
            columns.whole(column)
    rows = np.flatnonzero(np.random.default_rng(0).random(150) < 0.3)
    for column in wanted:
        assert np.array_equal(np.concatenate([columns.block(column, block) for block in range(10)]), whole[column])
        assert np.array_equal(columns.take(column, rows), whole[column][rows])
        assert columns.take(column, rows[:0]).shape == (0, column.dim)
    assert list(columns.spans(40)) == [slice(0, 32), slice(32, 64), slice(64, 96), slice(96, 128), slice(128, 150)]
    assert next(columns.spans(1)) == slice(0, 16)


def test_blocks_take_the_memory_of_what_was_held(cache):
    columns = Columns(cache, 10**9)
    wanted = of(columns, "resnet50", "lbp")
    columns.whole(wanted[1])
    blocks = columns.blocks(wanted)
    assert not columns._held
    assert blocks.dims == {"resnet50": (12,), "lbp@256": (256,)}
    assert np.array_equal(blocks.read("lbp@256", 3), columns.whole(wanted[1])[48:64])


def test_unknown_streams_are_all_named_with_what_there_is(cache):
    there_are = "(there are: action_units, lbp, places365, resnet50)"
    with pytest.raises(SpecError) as caught:
        of(Columns(cache, 10**9), "resnet5", "lbp", "zzz")
    assert caught.value.problems == (
        f"features.streams: 'resnet5' is not in the cache, did you mean 'resnet50'? {there_are}",
        f"features.streams: 'zzz' is not in the cache {there_are}",
    )
    assert caught.value.where == str(cache.path)


def test_a_stream_that_is_not_finished_is_refused_whichever_way_it_is_read(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "features.zarr")
    (cache.path / "streams" / "lbp" / "status" / "c.3.0").unlink()
    columns = Columns(cache, 10**9)
    (lbp,) = of(columns, "lbp")
    for read in (columns.whole, columns.status, lambda column: columns.blocks([column])):
        with pytest.raises(IncompleteCacheError, match="'lbp' lacks 1 of 10 blocks"):
            read(lbp)
    assert columns.whole_streams("lbp") == []
    assert columns.whole_streams("backbone") == ["places365", "resnet50"]


def test_a_stream_of_another_width_is_refused(tmp_path, plant_cache):
    narrow = ("lbp", np.ones((150, 256), np.float32), np.ones(150, np.uint8))
    columns = Columns(plant_cache(tmp_path / "features.zarr", streams={"lbp": narrow}), 10**9)
    with pytest.raises(CacheError, match="a stream of kind 'lbp' must hold 512 values a row, got 256"):
        columns.whole(*of(columns, "lbp"))
