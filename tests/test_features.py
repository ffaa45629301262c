"""What heads see of a cache: derived features, validity, and standardisation fitted on training rows alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emofuse.cache.reader import open_cache
from emofuse.errors import CacheError, IncompleteCacheError, SpecError, TrainingError
from emofuse.features import FeatureTable, Scaling, derived_features, fit_scaling, read_features, standardise
from emofuse.specs import FeaturesSpec

CLASSES = ("joy", "fear", "calm")
ROWS = 12


@pytest.fixture
def cache_path(tmp_path, write_cache):
    rng = np.random.default_rng(0)
    lbp = rng.random((ROWS, 512)).astype(np.float32)
    status = np.array([1, 1, 2, 3, 4, 1] * 2, np.uint8)
    streams = {
        "lbp": ("lbp", lbp, np.ones(ROWS, np.uint8)),
        "action_units": ("action_units", rng.normal(size=(ROWS, 30)).astype(np.float32), status),
        "resnet50": ("backbone", rng.normal(size=(ROWS, 9)).astype(np.float16), status),
    }
    labels = np.array([0, 1, 2, -1] * 3)
    splits = ["train", "train", "val", "test", "", "train"] * 2
    return write_cache(tmp_path / "features.zarr", CLASSES, labels, splits, streams)


def read(path, *streams, **options):
    return read_features(open_cache(path), FeaturesSpec(streams=streams, **options))


def table_of(features, *, kinds=None, status=None, labels=None, classes=CLASSES):
    rows = len(next(iter(features.values())))
    return FeatureTable(
        sample_ids=np.arange(rows).astype(np.str_),
        labels=np.zeros(rows, np.int64) if labels is None else np.asarray(labels, np.int64),
        splits=np.full(rows, "train"),
        classes=classes,
        kinds=kinds or dict.fromkeys(features, "backbone"),
        features={name: np.asarray(array, np.float32) for name, array in features.items()},
        status={name: np.asarray((status or {}).get(name, np.ones(rows)), np.uint8) for name in features},
    )


# ---------------------------------------------------------------------------------------------- reading


def test_labels_splits_and_status_travel_with_the_features(cache_path):
    cache = open_cache(cache_path)
    table = read(cache_path, "resnet50", "lbp")
    assert list(table.features) == ["resnet50", "lbp"]
    assert table.sample_ids.tolist() == [f"s{row:04d}" for row in range(ROWS)]
    assert table.labels.tolist() == [0, 1, 2, -1] * 3
    assert table.splits.tolist() == ["train", "train", "val", "test", "", "train"] * 2
    assert table.classes == CLASSES
    assert table.kinds == {"resnet50": "backbone", "lbp": "lbp"}
    assert table.valid["resnet50"].tolist() == [True, True, False, False, False, True] * 2
    assert table.missing() == {"resnet50": {"no_detection": 2, "unreadable": 2, "failed": 2}, "lbp": {}}
    assert len(table) == ROWS
    stored = np.asarray(cache.streams["resnet50"].features[:, 0])
    assert table.features["resnet50"].dtype == np.float32
    assert np.array_equal(table.features["resnet50"], stored.astype(np.float32))


def test_lbp_bins_are_derived_from_the_512_stored(cache_path):
    stored = read(cache_path, "lbp", lbp_bins=512).features["lbp"]
    assert stored.shape == (ROWS, 512)
    assert np.array_equal(read(cache_path, "lbp").features["lbp"], stored[:, :256])
    merged = read(cache_path, "lbp", lbp_bins=128).features["lbp"]
    expected = np.zeros((ROWS, 128))
    for code in range(256):
        expected[:, code >> 1] += stored[:, code]
    np.testing.assert_allclose(merged, expected, rtol=1e-6)
    assert merged.dtype == np.float32


@pytest.mark.parametrize("count", [15, 20, 25, 30])
def test_the_first_action_units_are_taken(cache_path, count):
    everything = read(cache_path, "action_units", action_units=30).features["action_units"]
    found = read(cache_path, "action_units", action_units=count)
    assert np.array_equal(found.features["action_units"], everything[:, :count])
    assert found.dims == {"action_units": count}


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


def test_unknown_streams_are_all_named_with_what_there_is(cache_path):
    there_are = "(there are: action_units, lbp, resnet50)"
    with pytest.raises(SpecError) as caught:
        read(cache_path, "resnet5", "lbp", "zzz")
    assert caught.value.problems == (
        f"features.streams: 'resnet5' is not in the cache, did you mean 'resnet50'? {there_are}",
        f"features.streams: 'zzz' is not in the cache {there_are}",
    )
    assert caught.value.where == str(cache_path)


def test_a_stream_that_is_not_finished_is_refused(cache_path):
    (cache_path / "streams" / "lbp" / "status" / "c.0.0").unlink()
    with pytest.raises(IncompleteCacheError, match="'lbp' lacks 1 of 1 blocks"):
        read(cache_path, "resnet50", "lbp")
    assert len(read(cache_path, "resnet50")) == ROWS


# ---------------------------------------------------------------------------------------------- standardisation


def test_mean_and_population_deviation_of_the_valid_training_rows():
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, size=(9000, 5))
    status = np.where(rng.random(9000) < 0.3, 2, 1)
    table = table_of({"a": features}, status={"a": status})
    rows = np.flatnonzero(rng.random(9000) < 0.7)
    found = fit_scaling(table, rows)["a"]
    used = table.features["a"][rows[status[rows] == 1]].astype(np.float64)
    np.testing.assert_allclose(found.center, used.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.scale, used.std(axis=0), rtol=1e-6)
    assert found.center.dtype == found.scale.dtype == np.float32
    scaled = standardise(table, rows, {"a": found})
    valid = status[rows] == 1
    np.testing.assert_allclose(scaled.features["a"][valid].mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.features["a"][valid].std(axis=0, dtype=np.float64), 1, atol=1e-6)
    assert not scaled.features["a"][~valid].any()


def test_large_offsets_do_not_drown_the_deviation():
    rng = np.random.default_rng(0)
    features = (1e4 + rng.normal(size=(20_000, 1))).astype(np.float32)
    found = fit_scaling(table_of({"a": features}), np.arange(20_000))["a"]
    np.testing.assert_allclose(found.scale, features.std(axis=0, dtype=np.float64), rtol=1e-6)


def test_rows_outside_training_have_no_say():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 4)).astype(np.float32)
    poisoned = features.copy()
    poisoned[20:] = 1e9
    for kind in ("backbone", "action_units"):
        kinds = {"a": kind}
        clean = fit_scaling(table_of({"a": features}, kinds=kinds), np.arange(20))["a"]
        other = fit_scaling(table_of({"a": poisoned}, kinds=kinds), np.arange(20))["a"]
        assert np.array_equal(clean.center, other.center)
        assert np.array_equal(clean.scale, other.scale)


def test_constant_columns_keep_their_scale_also_when_rounding_makes_them_differ():
    rng = np.random.default_rng(0)
    rounding = (0.37 + rng.integers(-1, 2, size=200) * np.float32(3e-8)).astype(np.float32)
    near_zero = (rng.normal(size=200) * 2e-8).astype(np.float32)
    small_but_real = (rng.normal(size=200) * 1e-4).astype(np.float32)
    features = np.stack([np.full(200, 5.0), rounding, near_zero, small_but_real, rng.normal(size=200)], axis=1)
    found = fit_scaling(table_of({"a": features}), np.arange(200))["a"]
    assert found.scale[:3].tolist() == [1, 1, 1]
    assert found.scale[3] == pytest.approx(1e-4, rel=0.2)
    assert np.isfinite(found.apply(features.astype(np.float32), np.ones(200, bool))).all()


def test_action_units_are_measured_from_the_median_in_robust_deviations():
    rng = np.random.default_rng(0)
    features = rng.normal(2, 0.5, size=(4001, 3))
    features[:40] = 1000  # what a detector gets wrong
    table = table_of({"au": features}, kinds={"au": "action_units"})
    found = fit_scaling(table, np.arange(4001))["au"]
    wide = table.features["au"].astype(np.float64)
    median = np.median(wide, axis=0)
    np.testing.assert_allclose(found.center, median, rtol=1e-6)
    np.testing.assert_allclose(found.scale, 1.4826 * np.median(np.abs(wide - median), axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.scale, 0.5, rtol=0.06)


def test_the_neutral_label_is_the_baseline_of_action_units_alone():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 3))
    labels = np.arange(60) % 3
    table = table_of({"au": features, "a": features}, kinds={"au": "action_units", "a": "backbone"}, labels=labels)
    rows = np.arange(40)
    found = fit_scaling(table, rows, neutral_label="calm")
    neutral = table.features["au"][rows[labels[rows] == 2]]
    np.testing.assert_allclose(found["au"].center, neutral.mean(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["au"].scale, neutral.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["a"].center, table.features["a"][rows].mean(axis=0), rtol=1e-5, atol=1e-7)


def test_a_neutral_label_that_nobody_has_is_refused():
    table = table_of({"au": np.ones((6, 3))}, kinds={"au": "action_units"}, labels=[0, 1, 2] * 2)
    with pytest.raises(
        TrainingError, match=r"'clam' is no label .*, did you mean 'calm'\? \(there are: joy, fear, calm"
    ):
        fit_scaling(table, np.arange(6), neutral_label="clam")
    with pytest.raises(TrainingError, match=r"no training row labelled 'calm' has stream 'au'\. Leave it out"):
        fit_scaling(table, np.array([0, 1]), neutral_label="calm")
    faceless = replace(table, status={"au": np.array([1, 1, 2, 1, 1, 2], np.uint8)})
    with pytest.raises(TrainingError, match="no training row labelled 'calm' has stream 'au'"):
        fit_scaling(faceless, np.arange(6), neutral_label="calm")


def test_a_stream_without_a_training_row_is_left_as_it_is():
    table = table_of({"a": np.full((4, 2), 7.0)}, status={"a": [2, 2, 2, 1]})
    found = fit_scaling(table, np.arange(3))["a"]
    assert (found.center.tolist(), found.scale.tolist()) == ([0, 0], [1, 1])
    assert standardise(table, np.arange(4), {"a": found}).features["a"].tolist() == [[0, 0]] * 3 + [[7, 7]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_name_their_stream(bad):
    table = table_of({"a": np.ones((4, 2)), "b": np.array([[1.0], [bad], [2], [3]])})
    with pytest.raises(TrainingError, match="stream 'b': rows with status ok hold values that are not finite"):
        fit_scaling(table, np.arange(4))


def test_missing_rows_become_zeros_whatever_they_hold():
    scaling = Scaling(np.array([1.0], np.float32), np.array([2.0], np.float32))
    features = np.array([[3.0], [np.nan], [1e30]], np.float32)
    assert scaling.apply(features, np.array([True, False, False])).tolist() == [[1], [0], [0]]
    assert np.isnan(features[1, 0])
