from __future__ import annotations

import time

import numpy as np
import pytest
from skimage import data

from emofuse.specs import LbpSpec
from emofuse.status import Status
from emofuse.streams.base import Face, Sample
from emofuse.streams.regions import MARGIN, face_region, square_grey
from emofuse.streams.texture import LbpStream, histograms, lbp_codes
from emofuse.testing import check_stream, example_samples

CLOCKWISE = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]


def naive_codes(grey, radius):
    height, width = grey.shape
    codes = np.zeros((height - 2 * radius, width - 2 * radius), dtype=int)
    for row in range(radius, height - radius):
        for column in range(radius, width - radius):
            for bit, (down, right) in enumerate(CLOCKWISE):
                if grey[row + radius * down, column + radius * right] >= grey[row, column]:
                    codes[row - radius, column - radius] += 2**bit
    return codes


def face_with_box(left, top, right, bottom):
    points = np.zeros((468, 3), dtype=np.float32)
    points[:, 0] = np.linspace(left, right, 468)
    points[:, 1] = np.linspace(top, bottom, 468)
    return Face(points)


def test_the_textbook_patch_has_code_241():
    assert lbp_codes(np.array([[6, 5, 2], [7, 6, 1], [9, 8, 7]], dtype=np.uint8), 1).tolist() == [[241]]


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_codes_equal_a_naive_loop_bit_for_bit(radius, seed):
    rng = np.random.default_rng(seed)
    for levels in (2, 7, 256):  # few levels make ties, where >= and > differ
        grey = rng.integers(0, levels, (23, 31), dtype=np.uint8)
        assert np.array_equal(lbp_codes(grey, radius), naive_codes(grey, radius))


def test_codes_of_a_photograph_equal_a_naive_loop():
    grey = data.camera()[100:148, 200:240]
    for radius in (1, 2):
        assert np.array_equal(lbp_codes(grey, radius), naive_codes(grey, radius))


def test_radius_two_looks_at_the_outer_ring_alone():
    grey = np.full((5, 5), 9, dtype=np.uint8)
    grey[1:4, 1:4] = [[0, 99, 0], [99, 10, 99], [0, 99, 0]]
    assert lbp_codes(grey, 2).tolist() == [[0]]
    grey[0, 0] = grey[2, 4] = 10
    assert lbp_codes(grey, 2).tolist() == [[1 + 8]]


def test_a_brighter_picture_has_the_same_codes():
    grey = np.random.default_rng(0).integers(0, 120, (20, 20), dtype=np.uint8)
    assert np.array_equal(histograms(grey), histograms(2 * grey + 10))


def test_each_half_of_the_histogram_sums_to_one():
    shares = histograms(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    assert shares.dtype == np.float32
    assert shares[:256].sum() == pytest.approx(1, abs=1e-5)
    assert shares[256:].sum() == pytest.approx(1, abs=1e-5)


def test_a_flat_picture_has_all_bits_set():
    shares = histograms(np.full((16, 16), 7, dtype=np.uint8))
    assert np.flatnonzero(shares).tolist() == [255, 511]


def test_the_region_is_a_square_around_the_mesh_with_a_margin():
    image = np.zeros((400, 300, 3), dtype=np.uint8)
    image[:] = np.arange(300, dtype=np.uint16)[None, :, None] % 256
    region = face_region(image, face_with_box(100, 150, 180, 250))
    side = round(100 * (1 + 2 * MARGIN))
    assert region.shape == (side, side, 3)
    assert region[0, 0, 0] == 140 - side // 2
    assert np.shares_memory(region, image)


@pytest.mark.parametrize(
    ("box", "side"),
    [
        ((-40, -30, 60, 50), 100),  # over the top left corner: as large as the picture, shifted in
        ((-500, -500, 500, 500), 100),  # larger than the picture
        ((190, 40, 230, 80), 48),  # over the right edge
        ((50, 50, 50, 50), 1),  # no extent at all
        ((900, 900, 920, 920), 24),  # outside
    ],
)
def test_the_region_stays_square_and_inside_the_picture(box, side):
    assert face_region(np.zeros((100, 200, 3), np.uint8), face_with_box(*box)).shape == (side, side, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2), (128, 128), (500, 700), (60, 500)])
def test_regions_of_any_size_become_the_asked_square(shape):
    region = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    grey = square_grey(region, 128)
    assert (grey.shape, grey.dtype) == ((128, 128), np.uint8)


def test_grey_is_weighed_by_luma_and_shrinking_averages():
    region = np.zeros((8, 8, 3), dtype=np.uint8)
    region[:, :, 1] = 100
    region[::2, :, 1] = 200
    assert np.all(square_grey(region, 4) == round(0.587 * 150))


def test_without_a_face_the_row_has_no_lbp():
    image = data.astronaut()
    rows = LbpStream(region_px=64, without_face="no_detection").extract([Sample(image)])
    assert rows.status.tolist() == [Status.NO_DETECTION]
    assert not rows.features.any()
    assert rows.flags.tolist() == [0]


def test_without_a_face_the_whole_picture_is_taken_and_flagged(astronaut_face):
    image = data.astronaut()
    rows = LbpStream(region_px=64, without_face="whole_image").extract([Sample(image), Sample(image, astronaut_face)])
    assert rows.status.tolist() == [Status.OK, Status.OK]
    assert rows.flags.tolist() == [1, 0]
    assert np.array_equal(rows.features[0], histograms(square_grey(image, 64)))
    assert np.array_equal(rows.features[1], histograms(square_grey(face_region(image, astronaut_face), 64)))


@pytest.mark.parametrize("region", ["mesh", "face", "image"])
@pytest.mark.parametrize("without_face", ["whole_image", "no_detection"])
def test_the_stream_keeps_the_contract(region, without_face):
    check_stream(LbpSpec(region=region, without_face=without_face))


def test_a_picture_of_one_pixel_is_no_problem():
    rows = LbpStream(region_px=8, without_face="whole_image").extract([Sample(np.zeros((1, 1, 3), np.uint8))])
    assert np.flatnonzero(rows.features[0]).tolist() == [255, 511]


def test_a_region_takes_about_a_millisecond():
    stream = LbpStream(region_px=128, without_face="whole_image")
    samples = example_samples() * 4
    seconds = []
    for _ in range(5):
        start = time.process_time()  # the time of the clock would tell of other processes
        stream.extract(samples)
        seconds.append((time.process_time() - start) / len(samples))
    assert min(seconds) < 5e-3  # 0.6 ms measured
