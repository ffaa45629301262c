"""Streams taken away from trained heads: what each method does to the rows, and what is lost."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.analysis.answers import read_tested
from emofuse.analysis.cached_rows import open_run, read_rows, rows_of_samples
from emofuse.analysis.suppression import METHODS, SuppressionOptions, shuffle_of, suppress_streams, suppressed
from emofuse.cache.reader import open_cache
from emofuse.errors import ResultsError, StaleCacheError
from emofuse.status import Status

OPTIONS = SuppressionOptions(draws=4, resamples=200)


@pytest.fixture(scope="module")
def opened(planted, source_of):
    """A run of the network with its test rows, as the heads see them and as the cache has them."""
    source = source_of("network")
    (tested,) = read_tested([source.chosen], source.runs)
    record, places = tested.repeats[0].parts[0]
    rows = rows_of_samples(planted.cache, tested.repeats[0].sample_id[places])
    return open_run(planted.cache, source.runs, record, rows), record, rows, tested.repeats[0].outputs[places]


def test_the_heads_of_a_run_answer_cached_rows_as_its_saved_predictions_do(opened):
    run, _, _, saved = opened
    assert np.allclose(run.trained.answers(run.inputs), saved, atol=1e-5)


def test_a_missing_stream_is_that_of_rows_without_a_detection(planted, opened):
    run, record, rows, _ = opened
    features, status, masks = read_rows(planted.cache, record.spec["features"]["streams"], rows)
    expected = run.trained.outputs(features, {**status, "a": np.full(len(rows), Status.NO_DETECTION, np.uint8)}, masks)
    assert np.array_equal(run.trained.answers(suppressed(run.inputs, "a", "missing")), expected)


def test_a_mean_stream_is_the_mean_of_the_training_rows(planted, opened):
    run, record, rows, _ = opened
    features, status, masks = read_rows(planted.cache, record.spec["features"]["streams"], rows)
    center = run.trained.heads[0].scaling["a"].center
    expected = run.trained.outputs({**features, "a": np.broadcast_to(center, features["a"].shape)}, status, masks)
    assert np.allclose(run.trained.answers(suppressed(run.inputs, "a", "mean")), expected, atol=1e-5)


def test_rows_that_lack_a_stream_still_lack_its_mean(opened):
    run = opened[0]
    before, after = run.inputs[0], suppressed(run.inputs, "noise", "mean")[0]
    assert not before.valid["noise"].all()
    assert np.array_equal(before.valid["noise"], after.valid["noise"])


@pytest.mark.parametrize("method", ["shuffled", "shuffled_in_class"])
def test_a_shuffle_moves_features_and_their_absence_together(opened, method):
    run = opened[0]
    order = shuffle_of(method, np.zeros(len(run.inputs[0].valid["noise"]), np.int64), np.random.default_rng(0))
    after = suppressed(run.inputs, "noise", method, order)[0]
    assert np.array_equal(after.features["noise"], run.inputs[0].features["noise"][order])
    assert np.array_equal(after.valid["noise"], run.inputs[0].valid["noise"][order])
    assert np.array_equal(after.features["a"], run.inputs[0].features["a"])


def test_a_shuffle_in_the_class_exchanges_rows_of_one_class():
    label = np.array([0, 1, 0, 2, 1, 0, 2, 2])
    order = shuffle_of("shuffled_in_class", label, np.random.default_rng(1))
    assert sorted(order) == list(range(8))
    assert np.array_equal(label[order], label)
    assert not np.array_equal(order, np.arange(8))


@pytest.mark.parametrize("name", ["network", "ridge", "folds"])
def test_streams_that_tell_labels_are_missed_and_noise_is_not(planted, source_of, name):
    source = source_of(name)
    (tested,) = read_tested([source.chosen], source.runs)
    found = suppress_streams(planted.cache, source.runs, tested, OPTIONS)
    assert found.rows == len(planted.truth)
    assert found.missing["noise"] == pytest.approx((planted.cache.streams["noise"].status[:, 0] == 2).mean())
    for method in ("missing", "mean", "shuffled"):
        assert found.get("a", method).interval.low > 0.1
        assert found.get("b", method).interval.low > 0.1
        assert abs(found.get("noise", method).drop) < 0.1
    in_class = found.get("a", "shuffled_in_class")  # what it says about the class stays
    assert in_class.drop < found.get("a", "shuffled").drop / 2


def test_the_full_score_is_that_of_the_pooled_folds(planted, source_of):
    source = source_of("network")
    (tested,) = read_tested([source.chosen], source.runs)
    (rows,) = tested.repeats
    assert len(rows.sample_id) == len(set(rows.sample_id.tolist())) == len(planted.truth)
    found = suppress_streams(planted.cache, source.runs, tested, OPTIONS)
    assert found.get("a", "mean").full == pytest.approx((rows.outputs.argmax(1) == rows.label).mean())


def test_the_same_seed_gives_the_same_numbers(planted, source_of):
    source = source_of("ridge")
    (tested,) = read_tested([source.chosen], source.runs)
    first, second = (suppress_streams(planted.cache, source.runs, tested, OPTIONS) for _ in range(2))
    other = suppress_streams(planted.cache, source.runs, tested, SuppressionOptions(draws=4, seed=1, resamples=200))
    assert first == second
    assert first.get("a", "shuffled") != other.get("a", "shuffled")


def test_every_stream_has_every_method_and_score(planted, source_of):
    source = source_of("ridge")
    (tested,) = read_tested([source.chosen], source.runs)
    found = suppress_streams(planted.cache, source.runs, tested, OPTIONS)
    assert len(found.drops) == 3 * len(METHODS) * 2
    assert all((drop.sd_of_draws is None) == (drop.method in {"missing", "mean"}) for drop in found.drops)


def test_a_cache_with_other_features_is_refused(tmp_path, planted, source_of, write_cache):
    source = source_of("ridge")
    (tested,) = read_tested([source.chosen], source.runs)
    other = {"a": ("hog", np.zeros((150, 6), np.float32), np.ones(150, np.uint8))}
    cache = open_cache(
        write_cache(tmp_path / "other.zarr", ("joy", "fear", "calm"), planted.truth, ["test"] * 150, other)
    )
    with pytest.raises(StaleCacheError, match=r"run 'ridge' was trained on '\w+' with digest .*, the cache has"):
        suppress_streams(cache, source.runs, tested, OPTIONS)


def test_a_cache_without_the_samples_is_refused(tmp_path, source_of, write_cache):
    source = source_of("ridge")
    (tested,) = read_tested([source.chosen], source.runs)
    other = {"a": ("hog", np.zeros((3, 6), np.float32), np.ones(3, np.uint8))}
    cache = open_cache(write_cache(tmp_path / "other.zarr", ("joy",), np.zeros(3, int), ["test"] * 3, other))
    with pytest.raises(ResultsError, match=r"has no sample .* test rows are absent"):
        suppress_streams(cache, source.runs, tested, OPTIONS)
