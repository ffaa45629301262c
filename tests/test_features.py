"""What heads see of stored features: derived variants, and standardisation fitted on training rows alone."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.errors import CacheError, TrainingError
from emofuse.features import Scaling, check_finite, derive, derived_features, neutral_rows
from emofuse.specs import FeaturesSpec

CLASSES = ("joy", "fear", "calm")

# ---------------------------------------------------------------------------------------------- derived


def test_lbp_bins_are_derived_from_the_512_stored():
    stored = np.random.default_rng(0).random((12, 512)).astype(np.float32)
    assert np.array_equal(derive("lbp", stored, 512), stored)
    assert np.array_equal(derived_features("lbp", stored, FeaturesSpec(streams=("lbp",))), stored[:, :256])
    merged = derive("lbp", stored, 128)
    expected = np.zeros((12, 128))
    for code in range(256):
        expected[:, code >> 1] += stored[:, code]
    np.testing.assert_allclose(merged, expected, rtol=1e-6)
    assert merged.dtype == np.float32


@pytest.mark.parametrize("count", [15, 20, 25, 30])
def test_the_first_action_units_are_taken(count):
    stored = np.random.default_rng(0).normal(size=(12, 30)).astype(np.float32)
    spec = FeaturesSpec(streams=("action_units",), action_units=count)
    assert np.array_equal(derived_features("action_units", stored, spec), stored[:, :count])


def test_other_kinds_are_seen_as_stored():
    stored = np.random.default_rng(0).normal(size=(12, 9)).astype(np.float16)
    found = derived_features("backbone", stored, FeaturesSpec(streams=("resnet50",)))
    assert found.dtype == np.float32
    assert np.array_equal(found, stored.astype(np.float32))


def test_derived_features_hold_no_part_of_the_stored_array_alive():
    for dtype in (np.float16, np.float32):
        stored = np.ones((4, 512), dtype)
        for bins in (128, 256):
            found = derived_features("lbp", stored, FeaturesSpec(streams=("lbp",), lbp_bins=bins))
            assert not np.shares_memory(found, stored)
            assert found.flags.c_contiguous


@pytest.mark.parametrize(("kind", "dim", "expected"), [("lbp", 256, 512), ("action_units", 25, 30)])
def test_a_stream_of_another_width_is_refused(kind, dim, expected):
    with pytest.raises(CacheError, match=f"kind '{kind}' must hold {expected} values a row, got {dim}"):
        derived_features(kind, np.zeros((2, dim)), FeaturesSpec(streams=("x",)))


# ---------------------------------------------------------------------------------------------- standardisation


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


def test_constant_columns_keep_their_scale_also_when_rounding_makes_them_differ():
    rng = np.random.default_rng(0)
    rounding = (0.37 + rng.integers(-1, 2, size=200) * np.float32(3e-8)).astype(np.float32)
    near_zero = (rng.normal(size=200) * 2e-8).astype(np.float32)
    small_but_real = (rng.normal(size=200) * 1e-4).astype(np.float32)
    columns = [np.full(200, 5.0), rounding, near_zero, small_but_real, rng.normal(size=200)]
    features = np.stack(columns, axis=1).astype(np.float32)
    found = Scaling.fit(features, np.arange(200))
    assert found.scale[:3].tolist() == [1, 1, 1]
    assert found.scale[3] == pytest.approx(1e-4, rel=0.2)
    assert np.isfinite(found.apply(features, np.ones(200, bool))).all()


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


def test_neutral_rows_are_those_of_the_label():
    labels = np.array([0, 1, 2] * 4)
    assert neutral_rows(np.arange(2, 9), labels, CLASSES, "au", "calm").tolist() == [2, 5, 8]


def test_a_neutral_label_that_nobody_has_is_refused():
    labels = np.array([0, 1, 2] * 2)
    with pytest.raises(
        TrainingError, match=r"'clam' is no label .*, did you mean 'calm'\? \(there are: joy, fear, calm"
    ):
        neutral_rows(np.arange(6), labels, CLASSES, "au", "clam")
    with pytest.raises(TrainingError, match=r"no training row labelled 'calm' has stream 'au'\. Leave it out"):
        neutral_rows(np.array([0, 1]), labels, CLASSES, "au", "calm")


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
