"""Pictures that look the same are confirmed by the features of a backbone."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.cache.reader import open_cache
from emofuse.datasets.duplicates import DuplicateGroup
from emofuse.errors import CacheError
from emofuse.upkeep.look_alikes import match_features


def group_of(*rows):
    ids = tuple(f"s{row:04d}" for row in rows)
    return DuplicateGroup(ids, (None,) * len(rows), (None,) * len(rows), ids)


@pytest.fixture
def cache(tmp_path, write_cache):
    """Thirty rows with a backbone, in which row 1 is almost row 0 and row 29 has no features."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 16)).astype(np.float32) * 3 + 100
    features[1] = features[0] + 0.1
    status = np.ones(30, np.uint8)
    status[29] = 4
    other = ("lbp", rng.normal(size=(30, 20)).astype(np.float32), np.ones(30, np.uint8))
    streams = {"resnet50": ("backbone", features, status), "lbp": other}
    labels, splits = np.zeros(30, np.int64), ["train"] * 30
    return open_cache(write_cache(tmp_path / "a.zarr", ["joy"], labels, splits, streams, block_rows=8))


def test_copies_are_each_others_nearest_rows(cache):
    copies, others = match_features(cache, [group_of(0, 1), group_of(2, 3)])
    assert copies.is_confirmed
    assert copies.cosine > 0.99 > copies.elsewhere
    assert not others.is_confirmed


def test_the_cosine_is_that_of_standardised_features(cache):
    features, _ = cache.streams["resnet50"].read()
    known = features[:29].astype(np.float64)
    scaled = (known - known.mean(axis=0)) / known.std(axis=0)
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    cosines = unit @ unit.T
    (match,) = match_features(cache, [group_of(2, 3)])
    assert match.cosine == pytest.approx(cosines[2, 3], abs=1e-5)
    assert match.elsewhere == pytest.approx(np.delete(cosines[[2, 3]], [2, 3], axis=1).max(), abs=1e-5)


def test_rows_without_features_or_outside_of_the_cache_confirm_nothing(cache):
    match, absent = match_features(cache, [group_of(0, 29), group_of(40, 41)])
    assert not match.is_confirmed
    assert not absent.is_confirmed
    assert str(match) == str(absent) == "fewer than two of them have features"


def test_a_cache_without_backbone_is_named(cache):
    with pytest.raises(CacheError, match=r"no stream of vectors named 'resnet5' \(streams: lbp, resnet50\)"):
        match_features(cache, [], "resnet5")
    assert match_features(cache, [group_of(0, 1)], "lbp")[0].cosine < 0.99
    del cache.streams["resnet50"]
    with pytest.raises(CacheError, match=r"no stream of a backbone \(streams: lbp\)"):
        match_features(cache, [])
