"""The angles of the head, held against faces that are turned by known angles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emofuse.specs import CacheSpec, FaceSpec
from emofuse.status import Status
from emofuse.streams.base import Face, Sample
from emofuse.streams.faces import FaceFinder
from emofuse.streams.head_pose import HeadPoseSpec, _rotation_of_mesh, angles_deg, fit_rotation
from emofuse.testing import check_stream, example_face, example_samples


def turn(axis, degrees):
    """Rotation about an axis of the picture: x right, y down, z away from the camera."""
    angle = np.radians(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return {
        "x": np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]),
        "y": np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]),
        "z": np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]),
    }[axis]


def frontal():
    """The example's face, turned so that its pose is zero."""
    points = example_face().mesh.astype(np.float64)
    return (points - points.mean(axis=0)) @ _rotation_of_mesh(example_face())


def turned(rotation, size=1.0, shift=(200, 150, 0)):
    return Face((size * frontal() @ rotation.T + np.array(shift)).astype(np.float32))


def pose(face, source="mesh"):
    rows = HeadPoseSpec(source=source).make("cpu").extract([Sample(np.zeros((4, 4, 3), np.uint8), face)])
    assert rows.status[0] == Status.OK
    return rows.features[0]


@pytest.mark.parametrize("source", ["mesh", "transform"])
def test_head_pose_is_a_stream(source):
    check_stream(HeadPoseSpec(source=source))


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (30, 0, 0), (0, -20, 0), (0, 0, 45), (-25, 15, 170)])
def test_a_face_turned_by_known_angles_has_these_angles(yaw, pitch, roll):
    rotation = turn("z", roll) @ turn("y", -yaw) @ turn("x", -pitch)
    assert pose(turned(rotation)) == pytest.approx([yaw, pitch, roll], abs=0.01)


def test_the_signs_are_those_of_the_picture():
    nose, middle = 1, frontal().mean(axis=0)
    right = turned(turn("y", -20))
    assert pose(right)[0] == pytest.approx(20, abs=0.01)
    assert right.mesh[nose, 0] - (middle[0] + 200) > 5  # the nose points to the right of the picture
    up = turned(turn("x", -20))
    assert pose(up)[1] == pytest.approx(20, abs=0.01)
    assert up.mesh[nose, 1] < turned(np.eye(3)).mesh[nose, 1]  # y points down
    clockwise = turned(turn("z", 30))
    assert pose(clockwise)[2] == pytest.approx(30, abs=0.01)
    assert clockwise.mesh[10, 0] > clockwise.mesh[152, 0]  # the forehead is to the right of the chin


def test_place_and_size_do_not_count():
    rotation = turn("y", -12) @ turn("x", 7)
    assert pose(turned(rotation, 3.0, (900, 20, -40))) == pytest.approx(pose(turned(rotation)), abs=0.01)


def test_turning_the_picture_changes_the_roll_alone():
    face = turned(turn("y", 25) @ turn("x", 10))
    yaw, pitch, roll = pose(face)
    rolled = Face((face.mesh @ turn("z", 40).T).astype(np.float32))
    assert pose(rolled) == pytest.approx([yaw, pitch, roll + 40], abs=0.01)


def test_a_mirrored_picture_changes_the_signs_of_yaw_and_roll():
    rotation = turn("z", 10) @ turn("y", -20) @ turn("x", -5)
    mirror = np.diag([-1.0, 1.0, 1.0])
    assert angles_deg(mirror @ rotation @ mirror) == pytest.approx([-20, 5, -10])


def test_the_example_looks_into_the_camera():
    yaw, pitch, roll = pose(example_face())
    assert abs(yaw) < 20
    assert abs(pitch) < 20
    assert abs(roll) < 20


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (30, 0, 0), (0, -20, 0), (-25, 15, 70)])
def test_the_transform_of_the_landmarker_has_the_same_signs(yaw, pitch, roll):
    rotation = turn("z", roll) @ turn("y", -yaw) @ turn("x", -pitch)
    flip = np.diag([1.0, -1.0, -1.0])  # its camera has y up and z to the viewer
    transform = np.eye(4, dtype=np.float32)
    transform[:3, :3] = 1.1 * flip @ rotation @ flip
    face = replace(example_face(), transform=transform)
    assert pose(face, "transform") == pytest.approx([yaw, pitch, roll], abs=0.01)


@pytest.mark.parametrize(("turns", "roll"), [(1, 90), (2, 180), (3, -90)])
def test_a_face_found_in_a_turned_picture_has_the_roll_of_the_picture_itself(turns, roll):
    upright = replace(example_face(), transform=np.eye(4, dtype=np.float32))
    faces = FaceFinder(Seen(upright, turns), FaceSpec(turned=True)).detect_all(np.zeros((512, 512, 3), np.uint8))
    assert abs(pose(faces[0], "transform")[2]) == pytest.approx(abs(roll), abs=0.01)
    of_mesh = pose(upright, "mesh")[2]
    assert (pose(faces[0], "mesh")[2] - of_mesh - roll) % 360 == pytest.approx(0, abs=0.01)


class Seen:
    """A detector that finds a face in the picture turned so many times alone."""

    def __init__(self, face, turns):
        self.face, self.calls, self.found_at = face, 0, (0, 1, 3, 2).index(turns)

    def detect_all(self, image):
        self.calls += 1
        return [self.face] if self.calls == self.found_at + 1 else []

    def close(self):
        pass


def test_the_fit_is_weighted_and_never_a_mirror():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(9, 3))
    rotation = turn("x", 30) @ turn("z", 100)
    moved = points @ rotation.T
    moved[0] += 50  # of no weight
    weights = np.array([0.0, *[1.0] * 8])
    assert fit_rotation(points, moved, weights) == pytest.approx(rotation)
    flat = points * [1, 1, 0]
    assert np.linalg.det(fit_rotation(flat, flat * [1, -1, 1], np.ones(9))) == pytest.approx(1)


def test_points_on_a_line_have_no_pose():
    line = np.linspace(0, 1, 9)[:, None] * np.ones(3)
    with pytest.raises(ValueError, match="lie on one line"):
        fit_rotation(np.random.default_rng(0).normal(size=(9, 3)), line, np.ones(9))


def test_a_picture_without_a_face_has_none():
    bare = next(each for each in example_samples() if each.face is None)
    for source in ("mesh", "transform"):
        rows = HeadPoseSpec(source=source).make("cpu").extract([bare])
        assert (rows.status[0], rows.features.any()) == (Status.NO_DETECTION, False)


def test_the_source_decides_what_it_needs():
    (spec,) = CacheSpec.model_validate({"streams": [{"kind": "head_pose"}]}).streams
    assert (spec.name, spec.needs, spec.stored_shape) == ("head_pose", {"image", "face"}, (3,))
    assert "blendshapes" in HeadPoseSpec(source="transform").needs
