"""Local phase quantisation, held against a loop over windows and against pictures whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from emofuse.specs import CacheSpec
from emofuse.status import Status
from emofuse.streams.base import Sample
from emofuse.streams.lpq import CODES, LpqSpec, _decorrelation, histogram, lpq_codes
from emofuse.streams.regions import face_region, square_grey
from emofuse.streams.texture import lbp_codes
from emofuse.testing import check_stream, example_samples


def fourier_parts(window):
    """Sum a 7 x 7 window against the four waves: real and imaginary part of each coefficient."""
    parts = []
    for right, down in ((1, 0), (0, 1), (1, 1), (-1, 1)):
        total = 0j
        for row in range(7):
            for column in range(7):
                total += window[row, column] * np.exp(-2j * np.pi * (right * (column - 3) + down * (row - 3)) / 7)
        parts += [total.real, total.imag]
    return np.array(parts)


def naive_codes(grey):
    height, width = grey.shape
    codes = np.zeros((height - 6, width - 6), dtype=int)
    for row in range(height - 6):
        for column in range(width - 6):
            values = _decorrelation() @ fourier_parts(grey[row : row + 7, column : column + 7].astype(float))
            codes[row, column] = sum(2**bit for bit, value in enumerate(values) if value > 1e-6)
    return codes


@pytest.mark.parametrize("region", ["mesh", "face", "image"])
@pytest.mark.parametrize("without_face", ["whole_image", "no_detection"])
def test_lpq_is_a_stream(region, without_face):
    check_stream(LpqSpec(region=region, without_face=without_face))


def test_codes_of_a_photograph_equal_a_naive_loop():
    grey = data.camera()[100:124, 200:230]
    assert np.array_equal(lpq_codes(grey), naive_codes(grey))


@pytest.mark.parametrize("levels", [2, 256])
def test_codes_of_noise_equal_a_naive_loop(levels):
    grey = np.random.default_rng(levels).integers(0, levels, (15, 19), dtype=np.uint8)
    assert np.array_equal(lpq_codes(grey), naive_codes(grey))


def test_the_decorrelation_makes_the_covariance_of_the_model_diagonal():
    windows = np.eye(49).reshape(49, 7, 7)
    parts = np.stack([fourier_parts(window) for window in windows], axis=1)
    down, right = np.divmod(np.arange(49), 7)
    model = 0.9 ** np.hypot(down[:, None] - down, right[:, None] - right)
    turned = _decorrelation() @ parts @ model @ parts.T @ _decorrelation().T
    assert np.abs(turned - np.diag(np.diag(turned))).max() < 1e-4 * turned.max()
    assert np.allclose(_decorrelation() @ _decorrelation().T, np.eye(8))


def test_the_signs_of_the_decorrelation_are_fixed():
    for vector in _decorrelation():
        large = np.flatnonzero(np.abs(vector) > np.abs(vector).max() / 2)
        assert vector[large[0]] > 0


@pytest.mark.parametrize("level", [0, 1, 77, 201, 255])
def test_a_flat_picture_has_code_0_alone(level):
    assert np.flatnonzero(histogram(np.full((40, 40), level, np.uint8))).tolist() == [0]


def test_a_brighter_picture_of_more_contrast_has_the_same_codes():
    grey = np.random.default_rng(0).integers(0, 120, (30, 30), dtype=np.uint8)
    assert np.array_equal(histogram(grey), histogram(2 * grey + 10))


def test_blur_moves_lpq_less_than_lbp():
    grey = data.camera()
    blurred = cv2.GaussianBlur(grey, (0, 0), 1.0)
    same = (lpq_codes(grey) == lpq_codes(blurred)).mean()
    assert same > 0.3  # of 256 codes
    assert same > 1.5 * (lbp_codes(grey, 1) == lbp_codes(blurred, 1)).mean()


def test_the_histogram_has_256_bins_and_sums_to_one():
    shares = histogram(data.camera()[:64, :64])
    assert (shares.shape, shares.dtype) == ((CODES,), np.float32)
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    assert lpq_codes(data.camera()).max() == 255


def test_it_sees_the_region_of_lbp_or_the_whole_picture():
    sample = example_samples()[0]
    mesh = LpqSpec(region_px=48).make("cpu").extract([sample]).features[0]
    whole = LpqSpec(region_px=48, region="image").make("cpu").extract([sample]).features[0]
    assert np.array_equal(mesh, histogram(square_grey(face_region(sample.image, sample.face), 48)))
    assert np.array_equal(whole, histogram(square_grey(sample.image, 48)))


def test_a_picture_without_a_face_is_flagged_or_left_out():
    bare = Sample(example_samples()[2].image)
    rows = LpqSpec(without_face="whole_image").make("cpu").extract([bare])
    assert (rows.status[0], rows.flags[0]) == (Status.OK, 1)
    rows = LpqSpec().make("cpu").extract([bare])
    assert (rows.status[0], rows.flags[0], rows.features.any()) == (Status.NO_DETECTION, 0, False)


def test_a_cache_spec_names_it_by_its_kind():
    (spec,) = CacheSpec.model_validate({"streams": [{"kind": "lpq"}]}).streams
    assert (spec.name, spec.needs, spec.stored_shape) == ("lpq", {"image", "face"}, (256,))
