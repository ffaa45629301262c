from __future__ import annotations

import numpy as np
import pytest
from skimage.data import astronaut

from emofuse.media.views import View, apply_view, draw_view, view_matrix
from emofuse.specs import AugmentSpec

SPEC = AugmentSpec()
STILL = View(mirrored=False, angle_deg=0.0, shift=(0.0, 0.0))


def test_a_draw_depends_on_seed_sample_and_view_alone():
    assert draw_view(SPEC, "a", 1) == draw_view(AugmentSpec(), "a", 1)
    others = [draw_view(SPEC, "a", 2), draw_view(SPEC, "b", 1), draw_view(AugmentSpec(seed=1), "a", 1)]
    assert len({draw_view(SPEC, "a", 1), *others}) == 4


def test_a_golden_draw():
    """The draws behind a cache must not change under its owner."""
    view = draw_view(SPEC, "amusement_00001", 1)
    assert view.mirrored
    assert (view.angle_deg, *view.shift) == pytest.approx((6.336602372651667, 0.05180199081047035, 0.01250121745521))


def test_draws_fill_their_ranges_evenly():
    views = [draw_view(AugmentSpec(flip=0.25, rotation_deg=8, padding=0.1), f"s{row}", 1) for row in range(4000)]
    assert np.mean([view.mirrored for view in views]) == pytest.approx(0.25, abs=0.03)
    for values, most in (([view.angle_deg for view in views], 8), ([view.shift[0] for view in views], 0.1)):
        counts = np.histogram(values, bins=8, range=(-most, most))[0]
        assert counts.sum() == 4000
        assert counts.min() > 400


def test_no_change_is_no_change():
    assert draw_view(AugmentSpec(flip=0, rotation_deg=0, padding=0), "a", 1) == STILL
    assert np.array_equal(apply_view(astronaut(), STILL), astronaut())


def test_a_mirrored_picture_is_the_picture_mirrored():
    image = astronaut()[:100, :77]
    assert np.array_equal(apply_view(image, View(True, 0.0, (0.0, 0.0))), image[:, ::-1])


def test_a_whole_pixel_shift_moves_pixels_and_reflects_the_rest():
    image = astronaut()[:80, :100]
    moved = apply_view(image, View(False, 0.0, (0.1, 0.0)))
    assert np.array_equal(moved[:, 10:], image[:, :-10])
    assert np.array_equal(moved[:, :10], image[:, 10:0:-1])


def test_a_turn_is_counter_clockwise_about_the_centre():
    image = np.zeros((101, 101, 3), np.uint8)
    image[50, 90] = 255
    turned = apply_view(image, View(False, 90.0, (0.0, 0.0)))
    assert np.argwhere(turned[..., 0] > 128).tolist() == [[10, 50]]


@pytest.mark.parametrize("number", range(1, 6))
def test_points_move_with_the_picture(number):
    image = np.zeros((160, 120, 3), np.uint8)
    image[70:73, 50:53] = 255
    view = draw_view(SPEC, "dot", number)
    rows, columns = np.nonzero(apply_view(image, view)[..., 0])
    values = apply_view(image, view)[rows, columns, 0].astype(float)
    found = [np.average(columns, weights=values), np.average(rows, weights=values)]
    assert (view_matrix(view, 120, 160) @ [51.0, 71.0, 1.0])[:2] == pytest.approx(found, abs=0.3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (2, 2), (33, 500)])
def test_pictures_of_any_shape_have_views(shape):
    image = np.full((*shape, 3), 7, np.uint8)
    for number in range(1, 4):
        view = apply_view(image, draw_view(SPEC, "x", number))
        assert view.shape == image.shape
        assert view.flags.c_contiguous
        assert (view == 7).all()
