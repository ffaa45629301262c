"""Aligned faces: the places of their points, margins, turns, borders, sizes, and augmented views."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emofuse.media.views import View, apply_view, view_matrix
from emofuse.specs import FaceSpec
from emofuse.streams.base import Face
from emofuse.streams.faces.alignment import TEMPLATE, crop_face, crop_matrix, similarity
from emofuse.testing import example_face


def places(matrix, points):
    return points[:, :2] @ matrix[:2, :2].T + matrix[:2, 2]


def turned(degrees, scale, shift):
    angle = np.deg2rad(degrees)
    return scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), np.array(shift)


def five_at(linear, shift):
    return Face(box=np.array([0, 0, 9, 9], np.float32), five=(TEMPLATE @ linear.T + shift).astype(np.float32))


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 2.5), (-90, 0.4), (180, 1)])
@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_five_points_of_any_turn_and_size_come_to_the_places_of_the_template(degrees, scale, margin):
    face = five_at(*turned(degrees, scale, (40, 70)))
    found = places(crop_matrix(face, FaceSpec(size_px=224, margin=margin)), face.five)
    expected = (TEMPLATE - 56) * 2 / (1 + 2 * margin) + 112
    assert found == pytest.approx(expected, abs=1e-3)


def test_the_similarity_is_that_of_umeyama():
    rng = np.random.default_rng(0)
    points, targets = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    first, second = points - points.mean(axis=0), targets - targets.mean(axis=0)
    left, singular, right = np.linalg.svd(second.T @ first)
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    linear = (left * signs) @ right * (singular @ signs) / (first**2).sum()
    expected = points @ linear.T + targets.mean(axis=0) - linear @ points.mean(axis=0)
    assert places(similarity(points, targets), points) == pytest.approx(expected)


def test_five_points_on_one_place_are_refused():
    face = Face(box=np.array([0, 0, 9, 9], np.float32), five=np.full((5, 2), 3, np.float32))
    with pytest.raises(ValueError, match="the five points of the face lie on one place"):
        crop_matrix(face, FaceSpec())


@pytest.mark.parametrize("degrees", [0, 25, 90, 180])
def test_the_mesh_is_turned_upright_and_fills_the_square_but_for_its_margin(degrees):
    points = example_face().points
    linear, _ = turned(degrees, 1, (0, 0))
    moved = points.copy()
    moved[:, :2] = points[:, :2] @ linear.T
    spec = FaceSpec(align="mesh", size_px=100, margin=0.25)
    found = places(crop_matrix(Face(moved), spec), moved)
    right, left = found[[33, 133]].mean(axis=0), found[[263, 362]].mean(axis=0)
    assert right[1] == pytest.approx(left[1], abs=1e-3)
    assert right[0] < left[0]
    assert np.ptp(found, axis=0).max() == pytest.approx(100 / 1.5, abs=1e-3)
    assert (found.min(axis=0) + found.max(axis=0)) / 2 == pytest.approx([50, 50], abs=1e-3)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_the_box_is_cut_square_and_turned_by_quarters_alone(turns):
    image = np.zeros((120, 200, 3), np.uint8)
    image[40:80, 60:80] = 50  # the left half of a box of 40 x 40 pixels
    image[40:80, 80:100] = 200
    image = np.ascontiguousarray(np.rot90(image, -turns))
    low = {0: (60, 40), 1: (40, 60), 2: (100, 40), 3: (40, 100)}[turns]
    face = Face(box=np.array([*low, low[0] + 40, low[1] + 40], np.float32), five=np.ones((5, 2), np.float32))
    crop = crop_face(
        image, Face(box=face.box, five=face.five, turns=turns), FaceSpec(align="box", size_px=40, margin=0)
    )
    assert (crop[:, :20] == 50).all()
    assert (crop[:, 20:] == 200).all()


def test_what_lies_beyond_the_border_is_black():
    image = np.full((50, 50, 3), 90, np.uint8)
    face = Face(box=np.array([-20, 10, 20, 50], np.float32), five=np.ones((5, 2), np.float32))
    crop = crop_face(image, face, FaceSpec(align="box", size_px=40, margin=0))
    assert (crop[:, :20] == 0).all()
    assert (crop[:, 20:] == 90).all()


def test_a_large_face_is_averaged_and_not_sampled():
    board = (np.indices((1200, 1200)).sum(axis=0) % 2 * 255).astype(np.uint8)  # single black and white pixels
    image = np.repeat(board[..., None], 3, axis=2)
    face = Face(box=np.array([101, 57, 1001, 957], np.float32), five=np.ones((5, 2), np.float32))
    crop = crop_face(image, face, FaceSpec(align="box", size_px=48, margin=0))
    assert crop.std() < 3
    assert crop.mean() == pytest.approx(127.5, abs=2)


def test_a_large_face_has_its_points_where_a_small_one_has_them():
    image = np.zeros((1600, 1600, 3), np.uint8)
    face = five_at(*turned(20, 8, (500, 100)))
    for x, y in face.five:
        cv2.circle(image, (round(float(x)), round(float(y))), 24, (255, 255, 255), -1)
    grey = crop_face(image, face, FaceSpec(size_px=112))[..., 0]
    _, _, _, middles = cv2.connectedComponentsWithStats((grey > 127).astype(np.uint8))
    found = middles[1:][np.lexsort(middles[1:].T)]
    assert found + 0.5 == pytest.approx(TEMPLATE[np.lexsort(TEMPLATE.T)], abs=0.6)


def test_a_view_turns_the_aligned_face_and_shows_what_lies_beside_it():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8), (0, 0), 3)
    face = Face(box=np.array([60, 60, 240, 240], np.float32), five=np.ones((5, 2), np.float32))
    spec = FaceSpec(align="box", size_px=180, margin=0)
    view = View(mirrored=True, angle_deg=8.0, shift=(0.1, -0.05))
    crop = crop_face(image, face, spec, view_matrix(view, 180, 180))
    whole = apply_view(crop_face(image, face, spec), view)
    inner = (slice(40, 140), slice(40, 140))
    assert np.abs(crop[inner].astype(int) - whole[inner]).max() <= 2
    assert (crop > 0).all()  # the picture goes on beyond the face


def test_a_plain_face_has_its_box_and_five_points_from_its_mesh():
    face = example_face()
    assert face.box == pytest.approx([*face.points[:, :2].min(axis=0), *face.points[:, :2].max(axis=0)])
    assert face.five[2] == pytest.approx(face.points[1, :2])
    assert face.five[0, 0] < face.five[1, 0]
    assert face.five[3, 0] < face.five[4, 0]
    assert np.isnan(face.confidence)


def test_a_face_without_a_mesh_says_so():
    face = Face(box=np.zeros(4, np.float32), five=np.zeros((5, 2), np.float32))
    with pytest.raises(ValueError, match="the face has no mesh"):
        face.mesh  # noqa: B018
