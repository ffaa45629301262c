"""Features of a cache: read once, in memory or block by block, refused while they are not whole."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.errors import CacheError, IncompleteCacheError, SpecError
from emofuse.features import derive
from emofuse.specs import FeaturesSpec
from emofuse.training.variants import CachedFeatures, FeatureVariant


@pytest.fixture(scope="module")
def cache(tmp_path_factory, plant_cache):
    return plant_cache(tmp_path_factory.mktemp("features") / "features.zarr")


def of(features, *streams, **options):
    return features.of(FeaturesSpec(streams=streams, **options))


def test_a_run_s_columns_are_its_streams_in_their_variants(cache):
    found = of(CachedFeatures(cache, 10**9), "resnet50", "lbp", "action_units", lbp_bins=128, action_units=15)
    assert found == (
        FeatureVariant("resnet50", "backbone", (), (12,)),
        FeatureVariant("lbp", "lbp", (("bins", 128),), (128,)),
        FeatureVariant("action_units", "action_units", (("count", 15),), (15,)),
    )
    assert [variant.name for variant in found] == ["resnet50", "lbp@128", "action_units@15"]


def test_features_and_status_are_those_of_the_cache(cache):
    features = CachedFeatures(cache, 10**9)
    for variant in of(features, "resnet50", "lbp", lbp_bins=128):
        stored, status = cache.streams[variant.stream].read()
        whole = features.whole(variant)
        assert whole.dtype == np.float32
        assert np.array_equal(whole, derive(variant.kind, stored, variant.choice))
        assert np.array_equal(features.status(variant), status)
        assert np.array_equal(features.valid(variant), status == 1)
        assert features.digest(variant) == cache.streams[variant.stream].digest
    assert features.nbytes(of(features, "resnet50", "lbp")) == 150 * (12 + 256) * 4


@pytest.mark.parametrize("held", [False, True])
def test_blocks_spans_and_rows_are_those_of_the_whole(cache, held):
    features, whole = CachedFeatures(cache, 10**9), {}
    wanted = of(features, "resnet50", "lbp")
    whole = {variant: CachedFeatures(cache, 10**9).whole(variant) for variant in wanted}
    if held:
        for variant in wanted:
            features.whole(variant)
    rows = np.flatnonzero(np.random.default_rng(0).random(150) < 0.3)
    for variant in wanted:
        assert np.array_equal(np.concatenate([features.block(variant, block) for block in range(10)]), whole[variant])
        assert np.array_equal(features.take(variant, rows), whole[variant][rows])
        assert features.take(variant, rows[:0]).shape == (0, variant.dim)
    assert list(features.spans(40)) == [slice(0, 32), slice(32, 64), slice(64, 96), slice(96, 128), slice(128, 150)]
    assert next(features.spans(1)) == slice(0, 16)


def test_blocks_take_the_memory_of_what_was_held(cache):
    features = CachedFeatures(cache, 10**9)
    wanted = of(features, "resnet50", "lbp")
    features.whole(wanted[1])
    blocks = features.blocks(wanted)
    assert not features._held
    assert blocks.dims == {"resnet50": (12,), "lbp@256": (256,)}
    assert np.array_equal(blocks.read("lbp@256", 3), features.whole(wanted[1])[48:64])


def test_unknown_streams_are_all_named_with_what_there_is(cache):
    there_are = "(there are: action_units, lbp, places365, resnet50)"
    with pytest.raises(SpecError) as caught:
        of(CachedFeatures(cache, 10**9), "resnet5", "lbp", "zzz")
    assert caught.value.problems == (
        f"features.streams: 'resnet5' is not in the cache, did you mean 'resnet50'? {there_are}",
        f"features.streams: 'zzz' is not in the cache {there_are}",
    )
    assert caught.value.where == str(cache.path)


def test_a_stream_that_is_not_finished_is_refused_whichever_way_it_is_read(tmp_path, plant_cache):
    cache = plant_cache(tmp_path / "features.zarr")
    (cache.path / "streams" / "lbp" / "status" / "c.3.0").unlink()
    features = CachedFeatures(cache, 10**9)
    (lbp,) = of(features, "lbp")
    for read in (features.whole, features.status, lambda variant: features.blocks([variant])):
        with pytest.raises(IncompleteCacheError, match="'lbp' lacks 1 of 10 blocks"):
            read(lbp)
    assert features.whole_streams("lbp") == []
    assert features.whole_streams("backbone") == ["places365", "resnet50"]


def test_a_stream_of_another_width_is_refused(tmp_path, plant_cache):
    narrow = ("lbp", np.ones((150, 256), np.float32), np.ones(150, np.uint8))
    features = CachedFeatures(plant_cache(tmp_path / "features.zarr", streams={"lbp": narrow}), 10**9)
    with pytest.raises(CacheError, match="a stream of kind 'lbp' must hold 512 values a row, got 256"):
        features.whole(*of(features, "lbp"))
