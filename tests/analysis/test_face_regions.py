"""Contributions of action units and blendshapes by region of the face, and their picture."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from emofuse.analysis.face_plot import plot_faces
from emofuse.analysis.face_regions import (
    OUTLINES,
    OVAL,
    REGIONS,
    by_region,
    is_of_face,
    mean_face,
    points_of,
    region_of,
)
from emofuse.analysis.facs import facs_name
from emofuse.streams.action_units import ActionUnitsStream
from emofuse.streams.faces.blendshape_names import BLENDSHAPES


def test_every_measurement_and_every_blendshape_but_neutral_has_its_place_on_the_face():
    assert all(region_of(name) is not None for name in ActionUnitsStream.columns)
    assert [name for name in BLENDSHAPES if region_of(name) is None] == ["_neutral"]
    assert region_of("browOuterUpLeft (AU 2)") == ("outer brows", "left")
    assert region_of("mouthSmileRight") == ("lip corners", "right")
    assert region_of("jawLeft") == ("jaw", "both")
    assert region_of("lip_corner_lift (AU 12)") == ("lip corners", "both")
    assert region_of("mouthRight") == ("mouth", "both")
    assert region_of("r1_030") is None


def test_streams_of_the_face_are_recognised_by_their_values():
    assert is_of_face([facs_name(name) for name in ActionUnitsStream.columns[:15]])
    assert is_of_face(BLENDSHAPES)
    assert not is_of_face([f"r1_{code:03d}" for code in range(256)])
    assert not is_of_face(())


def test_contributions_of_a_region_sum_and_sides_stay_apart():
    columns = ("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "jawOpen", "unknown")
    corners, jaw = by_region(columns, [0.3, 0.1, -0.5, 0.1, 9.0])
    assert (corners.region, corners.strongest) == ("lip corners", "mouthStretchLeft")
    assert (corners.right, corners.left) == pytest.approx((0.1, -0.2))
    assert (jaw.region, jaw.right, jaw.left) == ("jaw", 0.1, 0.1)


def test_the_mean_face_has_every_point_that_is_drawn_and_its_right_lies_left_in_the_picture():
    points = mean_face()
    assert {
        *OVAL,
        *(p for line in OUTLINES for p in line),
        *(p for sides in REGIONS.values() for s in sides for p in s),
    } == set(points)
    for sides in REGIONS.values():
        centres = [np.mean([points[p] for p in side], axis=0) for side in sides]
        if len(centres) == 2:
            assert centres[0][0] < 0 < centres[1][0]
            assert centres[0][1] == pytest.approx(centres[1][1], abs=0.06)
    assert points[10][1] < points[1 if 1 in points else 4][1] < points[152][1]  # y points down


def test_faces_are_drawn_with_the_colour_of_each_region():
    mesh = np.zeros((468, 3), np.float32)
    for number, place in mean_face().items():
        mesh[number, :2] = place
    smile = by_region(["mouthSmileLeft", "mouthSmileRight"], [0.4, -0.4])
    figure = plot_faces(["joy", "fear"], [smile, []], points_of(mesh.ravel()))
    assert isinstance(figure, Figure)
    right, left = (patch.get_facecolor() for patch in figure.axes[0].patches)
    assert right[0] > right[2]  # red: against the class
    assert left[2] > left[0]  # blue: towards it
    assert not figure.axes[1].patches
    assert "R −0.40, L +0.40" in figure.axes[0].texts[0].get_text()
