"""Gabor responses, held against sums over 2-D kernels and against waves whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from emofuse.specs import CacheSpec
from emofuse.status import Status
from emofuse.streams.base import Sample
from emofuse.streams.gabor import LENGTH, GaborSpec, GaborStream, describe, responses
from emofuse.streams.regions import face_region, square_grey
from emofuse.testing import check_stream, example_samples


def naive_magnitudes(grey, wavelength, angle):
    """Sum a whole 2-D kernel over every pixel, with the even and the odd phase one by one."""
    reach = int(np.ceil(4 * wavelength))
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    gauss = np.exp(-(down**2 + right**2) / (2 * wavelength**2))
    phase = 2 * np.pi * (right * np.cos(angle) + down * np.sin(angle)) / wavelength
    padded = np.pad(grey / 255, reach, mode="reflect")
    magnitudes = np.empty(grey.shape)
    for row, column in np.ndindex(grey.shape):
        window = padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1] * gauss / gauss.sum()
        magnitudes[row, column] = np.hypot((window * np.cos(phase)).sum(), (window * np.cos(phase - np.pi / 2)).sum())
    return magnitudes


def wave(side_px, wavelength, angle, amplitude=100):
    down, right = np.mgrid[:side_px, :side_px]
    return np.rint(
        127 + amplitude * np.sin(2 * np.pi * (right * np.cos(angle) + down * np.sin(angle)) / wavelength)
    ).astype(np.uint8)


@pytest.mark.parametrize("region", ["mesh", "face", "image"])
@pytest.mark.parametrize("without_face", ["whole_image", "no_detection"])
def test_gabor_is_a_stream(region, without_face):
    check_stream(GaborSpec(region_px=32, region=region, without_face=without_face))


@pytest.mark.parametrize("side_px", [20, 41])  # the largest filter is wider than both: its reflection goes round twice
def test_responses_equal_sums_over_whole_kernels(side_px):
    grey = data.camera()[100 : 100 + side_px, 200 : 200 + side_px]
    for scale in range(5):
        ours = np.abs(responses(grey, scale))
        for turn in (0, 1, 4, 6):
            naive = naive_magnitudes(grey, 4 * 2 ** (scale / 2), turn * np.pi / 8)
            assert np.abs(ours[turn] - naive).max() < 1e-6


def test_the_features_are_means_then_deviations_scale_by_scale():
    grey = data.camera()[100:132, 200:232]
    row = describe(grey).reshape(2, 5, 8)
    naive = naive_magnitudes(grey, 8, 3 * np.pi / 8)
    assert row[0, 2, 3] == pytest.approx(naive.mean(), abs=1e-6)
    assert row[1, 2, 3] == pytest.approx(naive.std(), abs=1e-6)
    assert (GaborStream.columns[19], GaborStream.columns[59]) == ("mean_scale2_67.5deg", "std_scale2_67.5deg")
    assert len(set(GaborStream.columns)) == LENGTH == 80


@pytest.mark.parametrize("scale", [0, 2, 4])
@pytest.mark.parametrize("turn", range(8))
def test_a_wave_excites_its_own_filter_by_half_its_amplitude(scale, turn):
    grey = wave(96, 4 * 2 ** (scale / 2), turn * np.pi / 8)
    means = describe(grey)[:40].reshape(5, 8)
    assert np.unravel_index(means.argmax(), means.shape) == (scale, turn)
    middle = np.abs(responses(grey, scale))[turn, 48, 48]
    assert middle == pytest.approx(100 / 255 / 2, rel=0.02)


def test_a_flat_picture_has_no_response():
    assert np.abs(describe(np.full((64, 64), 211, np.uint8))).max() < 1e-5  # 0.003 is usual on photographs


def test_it_sees_the_region_of_lbp_or_the_whole_picture():
    sample = example_samples()[0]
    mesh = GaborSpec(region_px=48).make("cpu").extract([sample]).features[0]
    whole = GaborSpec(region_px=48, region="image").make("cpu").extract([sample]).features[0]
    assert np.array_equal(mesh, describe(square_grey(face_region(sample.image, sample.face), 48)))
    assert np.array_equal(whole, describe(square_grey(sample.image, 48)))


def test_a_picture_without_a_face_is_flagged_or_left_out():
    bare = Sample(example_samples()[2].image)
    rows = GaborSpec(without_face="whole_image").make("cpu").extract([bare])
    assert (rows.status[0], rows.flags[0]) == (Status.OK, 1)
    rows = GaborSpec().make("cpu").extract([bare])
    assert (rows.status[0], rows.flags[0], rows.features.any()) == (Status.NO_DETECTION, 0, False)
    rows = GaborSpec(region="image").make("cpu").extract([bare])
    assert (rows.status[0], rows.flags[0]) == (Status.OK, 0)


def test_a_cache_spec_names_it_by_its_kind_and_asks_for_faces_only_if_needed():
    face, image = CacheSpec.model_validate(
        {"streams": [{"kind": "gabor"}, {"kind": "gabor", "name": "whole", "region": "image"}]}
    ).streams
    assert (face.name, face.needs, face.stored_shape) == ("gabor", {"image", "face"}, (80,))
    assert image.needs == {"image"}
