"""Standardisation is fitted on training rows alone, by every column's own values, in the memory of a block."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from emofuse.errors import TrainingError
from emofuse.features import fixed_columns
from emofuse.scaling import Scaling, check_finite
from emofuse.streams.landmarks import align


def test_mean_and_population_deviation_of_the_rows():
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, size=(9000, 5)).astype(np.float32)
    rows = np.flatnonzero(rng.random(9000) < 0.7)
    found = Scaling.fit(features, rng.permutation(rows))
    used = features[rows].astype(np.float64)
    np.testing.assert_allclose(found.center, used.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.scale, used.std(axis=0), rtol=1e-6)
    assert found.center.dtype == found.scale.dtype == np.float32
    scaled = found.apply(features[rows], np.ones(len(rows), bool))
    np.testing.assert_allclose(scaled.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0, dtype=np.float64), 1, atol=1e-6)


def test_several_sets_of_rows_are_fitted_in_the_same_passes_block_by_block():
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, size=(500, 4)).astype(np.float32)
    sets = [np.flatnonzero(rng.random(500) < share) for share in (0.2, 0.8, 0.0)]
    passes = []

    def blocks():
        passes.append(1)
        yield from ((first, features[first : first + 64]) for first in range(0, 500, 64))

    found = Scaling.fit_many(blocks, sets)
    assert len(passes) == 2
    for scaling, rows in zip(found[:2], sets[:2], strict=True):
        np.testing.assert_allclose(scaling.center, features[rows].mean(axis=0, dtype=np.float64), rtol=1e-6)
        np.testing.assert_allclose(scaling.scale, features[rows].std(axis=0, dtype=np.float64), rtol=1e-6)
    assert (found[2].center.tolist(), found[2].scale.tolist()) == ([0] * 4, [1] * 4)


def test_large_offsets_do_not_drown_the_deviation():
    rng = np.random.default_rng(0)
    features = (1e4 + rng.normal(size=(20_000, 1))).astype(np.float32)
    found = Scaling.fit(features, np.arange(20_000))
    np.testing.assert_allclose(found.scale, features.std(axis=0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("robust", [False, True])
def test_other_rows_have_no_say(robust):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 4)).astype(np.float32)
    poisoned = features.copy()
    poisoned[20:] = 1e9
    clean, other = (Scaling.fit(array, np.arange(20), robust=robust) for array in (features, poisoned))
    assert np.array_equal(clean.center, other.center)
    assert np.array_equal(clean.scale, other.scale)


def test_a_column_is_scaled_by_its_own_values_alone():
    """A column of milliseconds since 1970 beside action unit intensities and pixels: all deviations as alone."""
    rng = np.random.default_rng(0)
    columns = [
        rng.random(600),
        rng.uniform(0, 300, 600),
        1.7e12 + rng.uniform(0, 3e10, 600),
        rng.normal(size=600) * 1e-9,
    ]
    features = np.stack(columns, axis=1).astype(np.float32)
    for robust in (False, True):
        together = Scaling.fit(features, np.arange(600), robust=robust)
        for index in range(4):
            alone = Scaling.fit(features[:, index, None], np.arange(600), robust=robust)
            for name in ("center", "scale", "limit"):
                assert getattr(together, name)[index] == getattr(alone, name)[0]
    np.testing.assert_allclose(
        Scaling.fit(features, np.arange(600)).scale, features.astype(np.float64).std(0), rtol=1e-6
    )


@pytest.mark.parametrize("robust", [False, True])
def test_scales_and_constant_columns_are_those_of_scikit_learn(robust):
    rng = np.random.default_rng(1)
    constant = [np.full(700, value) for value in (0.0, 5.0, 1.7e12, 0.1, -3e38)]
    varied = [rng.normal(m, s, 700) for m, s in ((0, 1), (1e6, 1), (0.37, 1e-6), (0, 1e-20))]
    features = np.stack([*constant, *varied], axis=1).astype(np.float32)
    found = Scaling.fit(features, np.arange(700), robust=robust)
    expected = StandardScaler().fit(features.astype(np.float64)).scale_
    assert found.scale[:5].tolist() == expected[:5].tolist() == [1] * 5
    np.testing.assert_allclose(found.scale[5:], expected[5:], rtol=0.1 if robust else 1e-6)
    assert np.abs(found.apply(features, np.ones(700, bool))[:, :5]).max() == 0


@pytest.mark.parametrize("robust", [False, True])
def test_a_column_that_is_constant_in_training_says_nothing_of_other_rows(robust):
    """No weight of it was ever trained: what stands there in a test row must not reach the head."""
    features = np.array([[7.0, index] for index in range(20)] + [[1e6, 3.0]], np.float32)
    found = Scaling.fit(features, np.arange(20), robust=robust).apply(features, np.ones(21, bool))
    assert found[:, 0].tolist() == [0] * 21
    assert len(set(found[:20, 1])) == 20


def test_what_a_stream_makes_constant_is_constant_though_it_differs_by_rounding():
    """The points by which faces are aligned differ in the last bits of coordinates many times as large."""
    rng = np.random.default_rng(0)
    meshes = np.stack([align((rng.normal(size=(468, 3)) * 90 + 300).astype(np.float32)).ravel() for _ in range(50)])
    fixed = list(fixed_columns("landmarks"))
    assert sorted(fixed) == np.flatnonzero(meshes.std(axis=0) < 1e-4).tolist()
    found = Scaling.fit(meshes, np.arange(50), fixed=fixed)
    assert (set(found.scale[fixed]), set(found.limit[fixed])) == ({1}, {0})
    others = np.setdiff1d(np.arange(1404), fixed)
    np.testing.assert_allclose(found.scale[others], meshes[:, others].std(axis=0, dtype=np.float64), rtol=1e-6)


# ---------------------------------------------------------------------------------------------- outliers


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("absurd", [(3e38,), (-3e38,), (1e5,), (3e38, 1e37, -1e20), (3e38, -3e38)])
def test_an_absurd_value_moves_no_scale_and_counts_as_a_far_one(absurd, robust):
    rng = np.random.default_rng(0)
    clean = np.stack([rng.normal(size=840), np.arange(840) % 3 == 0], axis=1).astype(np.float32)
    features = clean.copy()
    features[: len(absurd)] = np.array(absurd, np.float32)[:, None]
    found = Scaling.fit(features, np.arange(840), robust=robust)
    rest = np.arange(len(absurd), 840)
    if not robust:
        expected = Scaling.fit(clean, rest)
        np.testing.assert_allclose(found.center, expected.center, rtol=1e-6)
        np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-6)
        np.testing.assert_allclose(found.limit, expected.limit, rtol=1e-6)
    np.testing.assert_allclose(found.scale, clean.std(axis=0), rtol=0.06)
    scaled = found.apply(features, np.ones(840, bool))
    farthest = np.abs(scaled[rest]).max(axis=0)
    np.testing.assert_allclose(np.abs(scaled[: len(absurd)]), np.tile(10 * farthest, (len(absurd), 1)), rtol=1e-5)
    beyond = found.beyond(features, np.ones(840, bool))
    assert beyond.any(axis=1).nonzero()[0].tolist() == list(range(len(absurd)))


def test_an_absurd_value_is_found_in_each_fold_that_trains_on_it_and_in_blocks_as_in_memory():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 3)).astype(np.float32)
    features[17, 1] = 3e38
    sets = [np.arange(150), np.arange(150, 300)]
    blocks = lambda: ((first, features[first : first + 64]) for first in range(0, 300, 64))  # noqa: E731
    found = Scaling.fit_many(blocks, sets)
    for scaling, rows in zip(found, sets, strict=True):
        np.testing.assert_allclose(
            scaling.scale, features[np.setdiff1d(rows, [17])].std(0, dtype=np.float64), rtol=0.02
        )
        assert scaling.apply(features, np.ones(300, bool))[17, 1] == pytest.approx(scaling.limit[1])


def test_rare_but_real_values_are_no_outliers():
    """A unit that is on in one row of a thousand, heavy tails, probabilities: nothing is left out, nothing limited."""
    rng = np.random.default_rng(0)
    once = np.zeros(1000)
    once[5] = 1
    twice = np.zeros(1000)
    twice[[5, 6]] = 5e-4, 0.6
    relu = np.where(rng.random(1000) < 0.01, rng.exponential(size=1000), 0)
    columns = [once, twice, relu, rng.lognormal(0, 2, 1000), rng.beta(0.1, 3, 1000)]
    features = np.stack(columns, axis=1).astype(np.float32)
    found = Scaling.fit(features, np.arange(1000))
    np.testing.assert_allclose(found.scale, features.std(axis=0, dtype=np.float64), rtol=1e-6)
    plain = Scaling(found.center, found.scale).apply(features, np.ones(1000, bool))
    assert np.array_equal(found.apply(features, np.ones(1000, bool)), plain)


def test_one_row_fits_nothing():
    for robust in (False, True):
        found = Scaling.fit(np.full((4, 2), 7.0, np.float32), np.array([2]), robust=robust)
        assert not found.fitted
        assert found.present(np.ones(4, bool)).tolist() == [False] * 4
        assert found.apply(np.full((4, 2), 7.0, np.float32), np.ones(4, bool)).tolist() == [[0, 0]] * 4


def test_scalings_of_former_runs_have_no_limits():
    old = Scaling(np.array([1.0], np.float32), np.array([2.0], np.float32))
    assert old.apply(np.array([[2e6]], np.float32), np.array([True])).tolist() == [[(2e6 - 1) / 2]]
    assert not old.beyond(np.array([[2e6]], np.float32), np.array([True])).any()


def test_robust_is_the_median_and_deviations_from_it():
    rng = np.random.default_rng(0)
    features = rng.normal(2, 0.5, size=(4001, 3)).astype(np.float32)
    features[:40] = 1000  # what a detector gets wrong
    found = Scaling.fit(features, np.arange(4001), robust=True)
    wide = features.astype(np.float64)
    median = np.median(wide, axis=0)
    np.testing.assert_allclose(found.center, median, rtol=1e-6)
    np.testing.assert_allclose(found.scale, 1.4826 * np.median(np.abs(wide - median), axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.scale, 0.5, rtol=0.06)


def test_without_a_row_features_are_left_as_they_are():
    for robust in (False, True):
        found = Scaling.fit(np.full((4, 2), 7.0, np.float32), np.array([], np.int64), robust=robust)
        assert (found.center.tolist(), found.scale.tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_name_their_stream(bad):
    found = Scaling.fit(np.array([[1.0], [bad], [-bad], [3]], np.float32), np.arange(4))
    with pytest.raises(TrainingError, match="stream 'b': rows with status ok hold values that are not finite"):
        check_finite("b", found)


def test_missing_rows_become_zeros_whatever_they_hold():
    scaling = Scaling(np.array([1.0], np.float32), np.array([2.0], np.float32))
    features = np.array([[3.0], [np.nan], [1e30]], np.float32)
    assert scaling.apply(features, np.array([True, False, False])).tolist() == [[1], [0], [0]]
    assert np.isnan(features[1, 0])


SHAPES = {"vector": (4,), "sequence": (5, 4), "map": (4, 3, 2), "sequence of maps": (5, 4, 3, 2)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_shape_is_scaled_as_the_plain_list_of_its_vectors(shape):
    rng = np.random.default_rng(3)
    features = rng.normal(2, 3, (23, *shape)).astype(np.float32)
    steps = rng.random((23, 5)) > 0.4 if shape[0] == 5 else None
    sets = [rng.permutation(23)[:9], np.array([22, 3]), np.array([7]), np.array([], np.int64)]

    def vectors_of_row(row):
        """One vector a step and position, by plain loops."""
        here = features[row][None] if shape[0] != 5 else features[row][steps[row]]
        for part in here:
            yield from part.reshape(4, -1).T if len(shape) >= 3 else [part]

    def blocks():
        yield from ((first, features[first : first + 6]) for first in range(0, 23, 6))

    for rows, found in zip(sets, Scaling.fit_many(blocks, sets, steps=steps), strict=True):
        alone = Scaling.fit(features, rows, steps=steps)
        np.testing.assert_allclose(alone.center, found.center, rtol=1e-6)
        robust = Scaling.fit(features, rows, steps=steps, robust=True)
        if len(rows) < 2:
            assert not found.fitted
            assert not robust.fitted
            continue
        plain = np.array([vector for row in rows for vector in vectors_of_row(row)], np.float64)
        np.testing.assert_allclose(found.center, plain.mean(0), rtol=1e-6)
        np.testing.assert_allclose(found.scale, plain.std(0), rtol=1e-6)
        np.testing.assert_allclose(found.limit, 10 * np.abs(plain - plain.mean(0)).max(0) / plain.std(0), rtol=1e-5)
        np.testing.assert_allclose(robust.center, np.median(plain, 0), rtol=1e-6)


def test_fitting_maps_takes_the_memory_of_a_block_and_no_number_a_position():
    block = np.random.default_rng(0).normal(size=(16, 2, 64, 64)).astype(np.float32)  # 0.5 MB

    def blocks():
        yield from ((first, block) for first in range(0, 1024, 16))

    tracemalloc.start()
    Scaling.fit_many(blocks, [np.arange(1024), np.arange(0, 1024, 2)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # an int64 for each of the 4 million positions would be 34 MB, twice
