"""Silhouettes, purity of neighbours, and the fused vector of heads."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from emofuse.analysis.answers import read_tested
from emofuse.analysis.feature_space import _distances, map_features, measure_space, purity_of, silhouette_of
from emofuse.errors import ResultsError


@pytest.fixture(scope="module")
def clouds():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], 15)
    return rng.normal(size=(45, 3)) + 2.0 * np.eye(3)[label], label


def test_the_silhouette_is_that_of_scikit_learn(clouds):
    from sklearn.metrics import silhouette_score

    values, label = clouds
    assert silhouette_of(_distances(values), label) == pytest.approx(silhouette_score(values, label))


def test_the_purity_is_the_share_of_neighbours_of_the_same_class(clouds):
    from sklearn.neighbors import NearestNeighbors

    values, label = clouds
    nearest = NearestNeighbors(n_neighbors=5).fit(values).kneighbors(return_distance=False)
    assert purity_of(_distances(values), label, 5) == pytest.approx((label[nearest] == label[:, None]).mean())


def test_neighbours_at_random_have_the_purity_by_chance():
    rng = np.random.default_rng(1)
    label = rng.integers(0, 4, 200)
    space = measure_space("noise", rng.normal(size=(200, 4)), label, np.arange(200))
    assert space.purity == pytest.approx(space.by_chance, abs=0.05)
    assert space.places.shape == (200, 2)


def test_too_few_rows_or_a_single_class_have_no_space():
    values = np.random.default_rng(0).normal(size=(30, 2))
    assert measure_space("few", values[:8], np.arange(8) % 2, np.arange(8)) is None
    assert measure_space("one", values, np.zeros(30, int), np.arange(30)) is None


def test_fusion_parts_the_classes_better_than_each_stream(planted, source_of):
    source = source_of("network")
    (tested,) = read_tested([source.chosen], source.runs)
    found = map_features(planted.cache, source.runs, tested, most_rows=60)
    by_name = {space.name: space for space in found.spaces}
    assert set(by_name) == {"a", "b", "noise", "all streams", "fused"}
    assert len(found.label) == 60
    assert found.of_all == 75
    assert by_name["fused"].purity > by_name["noise"].purity + 0.2
    assert by_name["fused"].silhouette > by_name["all streams"].silhouette
    assert len(by_name["noise"].rows) < 60


@pytest.mark.slow
def test_a_map_by_umap_keeps_clouds_apart_and_is_drawn_beside_the_other(clouds):
    pytest.importorskip("umap")
    values, label = clouds
    space = measure_space("clouds", values, label, np.arange(45), umap=True)
    assert space.umap_places.shape == (45, 2)
    assert purity_of(_distances(space.umap_places), label, 5) > space.purity - 0.05


def test_without_its_package_a_map_by_umap_is_refused_with_the_command(clouds, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    values, label = clouds
    with pytest.raises(ResultsError, match=r"pip install 'emofuse\[umap\]'"):
        measure_space("clouds", values, label, np.arange(45), umap=True)
    assert measure_space("clouds", values, label, np.arange(45)).umap_places is None
