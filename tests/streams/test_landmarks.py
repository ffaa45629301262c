from __future__ import annotations

import numpy as np
import pytest

from emofuse.specs import LandmarksSpec
from emofuse.status import Status
from emofuse.streams.base import Face, Sample
from emofuse.streams.landmarks import TEMPLATE, LandmarksStream, align
from emofuse.testing import check_stream, example_face

MESH = example_face().points


def turned(points, degrees):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.concatenate([points[:, :2] @ turn, points[:, 2:]], axis=1)


def test_three_points_come_to_lie_on_the_template():
    aligned = align(MESH)
    for point, place in TEMPLATE.items():
        assert aligned[point, :2] == pytest.approx(place, abs=1e-6)
    assert aligned[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("degrees", [-170, -20, 5, 90])
def test_roll_drops_out(degrees):
    assert align(turned(MESH, degrees)) == pytest.approx(align(MESH), abs=1e-4)


def test_position_drops_out():
    assert align(MESH + np.float32([300, -40, 12])) == pytest.approx(align(MESH), abs=1e-4)


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_size_drops_out(factor):
    assert align(MESH * np.float32(factor)) == pytest.approx(align(MESH), abs=1e-4)


def test_foreshortening_and_shear_in_the_plane_drop_out():
    squeezed = MESH.copy()
    squeezed[:, :2] = MESH[:, :2] @ np.array([[0.8, 0.1], [0.05, 0.95]])
    assert align(squeezed)[:, :2] == pytest.approx(align(MESH)[:, :2], abs=1e-4)


def test_the_expression_stays():
    smiling = MESH.copy()
    smiling[[61, 291], 1] -= 5
    moved = np.abs(align(smiling) - align(MESH)).max(axis=1)
    assert set(np.flatnonzero(moved > 1e-3)) == {61, 291}


def test_lengths_are_in_inter_ocular_distances():
    eyes = [(MESH[33] + MESH[133]) / 2, (MESH[263] + MESH[362]) / 2]
    distance = np.linalg.norm((eyes[1] - eyes[0])[:2])
    aligned = align(MESH)
    assert aligned[:, 2] == pytest.approx((MESH[:, 2] - MESH[1, 2]) / distance, abs=1e-5)
    found = [(aligned[33] + aligned[133]) / 2, (aligned[263] + aligned[362]) / 2]
    assert np.linalg.norm((found[1] - found[0])[:2]) == pytest.approx(1, abs=0.15)


def test_a_face_whose_eyes_and_nose_lie_on_one_line_is_refused():
    flat = MESH.copy()
    flat[:, 1] = 0.5 * flat[:, 0]
    with pytest.raises(ValueError, match="inner eye corners and nose tip lie on one line"):
        align(flat)
    with pytest.raises(ValueError, match="inner eye corners and nose tip lie on one line"):
        align(np.zeros((468, 3), np.float32))


def test_values_are_ordered_point_by_point():
    rows = LandmarksStream().extract([Sample(np.zeros((9, 9, 3), np.uint8), Face(MESH))])
    assert rows.features.shape == (1, 1404)
    assert np.array_equal(rows.features[0].reshape(468, 3), align(MESH))
    assert LandmarksStream.columns[:4] == ("x0", "y0", "z0", "x1")
    assert LandmarksStream.columns[-1] == "z467"


def test_a_sample_without_a_face_keeps_its_row():
    image = np.zeros((9, 9, 3), np.uint8)
    rows = LandmarksStream().extract([Sample(image), Sample(image, Face(MESH)), Sample(image)])
    assert rows.status.tolist() == [Status.NO_DETECTION, Status.OK, Status.NO_DETECTION]
    assert not rows.features[[0, 2]].any()


def test_the_stream_keeps_the_contract():
    check_stream(LandmarksSpec())
