"""What heads see of stored features: derived variants, and standardisation fitted on training rows alone."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.errors import CacheError, TrainingError
from emofuse.features import derive, derived_features, neutral_rows
from emofuse.specs import FeaturesSpec

CLASSES = ("joy", "fear", "calm")

# ---------------------------------------------------------------------------------------------- derived


def test_lbp_bins_are_derived_from_the_512_stored():
    stored = np.random.default_rng(0).random((12, 512)).astype(np.float32)
    assert np.array_equal(derive("lbp", stored, (("bins", 512),)), stored)
    assert np.array_equal(derived_features("lbp", stored, FeaturesSpec(streams=("lbp",)), "lbp"), stored[:, :256])
    merged = derive("lbp", stored, (("bins", 128),))
    expected = np.zeros((12, 128))
    for code in range(256):
        expected[:, code >> 1] += stored[:, code]
    np.testing.assert_allclose(merged, expected, rtol=1e-6)
    assert merged.dtype == np.float32


@pytest.mark.parametrize("count", [15, 20, 25, 30])
def test_the_first_action_units_are_taken(count):
    stored = np.random.default_rng(0).normal(size=(12, 30)).astype(np.float32)
    spec = FeaturesSpec(streams=("action_units",), action_units=count)
    assert np.array_equal(derived_features("action_units", stored, spec, "action_units"), stored[:, :count])


def test_other_kinds_are_seen_as_stored():
    stored = np.random.default_rng(0).normal(size=(12, 9)).astype(np.float16)
    found = derived_features("backbone", stored, FeaturesSpec(streams=("resnet50",)), "resnet50")
    assert found.dtype == np.float32
    assert np.array_equal(found, stored.astype(np.float32))


def test_derived_features_hold_no_part_of_the_stored_array_alive():
    for dtype in (np.float16, np.float32):
        stored = np.ones((4, 512), dtype)
        for bins in (128, 256):
            found = derived_features("lbp", stored, FeaturesSpec(streams=("lbp",), lbp_bins=bins), "lbp")
            assert not np.shares_memory(found, stored)
            assert found.flags.c_contiguous


@pytest.mark.parametrize(("kind", "dim", "expected"), [("lbp", 256, 512), ("action_units", 25, 30)])
def test_a_stream_of_another_width_is_refused(kind, dim, expected):
    with pytest.raises(CacheError, match=f"kind '{kind}' must hold {expected} values a row, got {dim}"):
        derived_features(kind, np.zeros((2, dim)), FeaturesSpec(streams=("x",)), "x")


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
