# ruff: noqa: N806 - the names are those of the table of definitions
from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from emofuse.datasets.demo.face import warp_expression
from emofuse.specs import ActionUnitsSpec
from emofuse.status import Status
from emofuse.streams.action_units import ActionUnitsStream, measure
from emofuse.streams.base import Face, Sample
from emofuse.testing import check_stream, example_face

MESH = example_face().points
NAMES = ActionUnitsStream.columns


def plainly_measured(mesh):
    """The table of definitions, read line by line with plain Python numbers."""
    P = [(float(x), float(y)) for x, y, _ in mesh]
    depth = [float(z) for *_, z in mesh]
    cR = ((P[33][0] + P[133][0]) / 2, (P[33][1] + P[133][1]) / 2)
    cL = ((P[362][0] + P[263][0]) / 2, (P[362][1] + P[263][1]) / 2)
    D = math.dist(cL, cR)
    u = ((cL[0] - cR[0]) / D, (cL[1] - cR[1]) / D)
    v = (-u[1], u[0])
    m = ((cR[0] + cL[0]) / 2, (cR[1] + cL[1]) / 2)

    def in_frame(p):
        return (
            ((p[0] - m[0]) * u[0] + (p[1] - m[1]) * u[1]) / D,
            ((p[0] - m[0]) * v[0] + (p[1] - m[1]) * v[1]) / D,
        )

    X = [in_frame(p)[0] for p in P]
    Y = [in_frame(p)[1] for p in P]
    Z = [z / D for z in depth]
    ye_right, ye_left = in_frame(cR)[1], in_frame(cL)[1]
    yc = (Y[61] + Y[291]) / 2

    def d(i, j):
        return math.dist((X[i], Y[i]), (X[j], Y[j]))

    def mean(a, b):
        return (a + b) / 2

    ear_right = (d(160, 144) + d(158, 153)) / (2 * d(33, 133))
    ear_left = (d(387, 373) + d(385, 380)) / (2 * d(263, 362))
    return {
        "lip_corner_lift": Y[2] - yc,
        "lips_part": d(13, 14),
        "inner_brow_raise": mean(Y[133] - Y[107], Y[362] - Y[336]),
        "brow_lid_gap": mean(Y[159] - Y[52], Y[386] - Y[282]),
        "eye_openness": mean(ear_right, ear_left),
        "mouth_width": d(61, 291),
        "outer_brow_raise": mean(Y[33] - Y[70], Y[263] - Y[300]),
        "jaw_drop": Y[152] - Y[2],
        "lip_corner_droop": yc - (Y[13] + Y[14]) / 2,
        "upper_lip_raise": Y[2] - Y[0],
        "upper_lid_raise": mean(ye_right - Y[159], ye_left - Y[386]),
        "lower_lid_raise": mean(ye_right - Y[145], ye_left - Y[374]),
        "eye_to_lip_corner": mean(d(33, 61), d(263, 291)),
        "lip_thickness": d(0, 13) + d(14, 17),
        "brow_gap": d(55, 285),
        "mouth_to_nose_width": d(61, 291) / d(129, 358),
        "mouth_aspect": d(13, 14) / d(78, 308),
        "nose_wing_lift": mean(Y[133] - Y[129], Y[362] - Y[358]),
        "chin_boss": Y[152] - Y[17],
        "brow_obliquity": mean(
            math.atan2(Y[70] - Y[107], abs(X[70] - X[107])), math.atan2(Y[300] - Y[336], abs(X[300] - X[336]))
        ),
        "lip_corner_asymmetry": Y[61] - Y[291],
        "eye_openness_asymmetry": ear_right - ear_left,
        "brow_asymmetry": (ye_right - Y[105]) - (ye_left - Y[334]),
        "wing_to_lip_corner": mean(d(129, 61), d(358, 291)),
        "lower_lip_drop": Y[14] - yc,
        "nostril_width": d(98, 327),
        "upper_lip_thickness": d(0, 13),
        "lip_corner_angle": mean(
            math.atan2(Y[0] - Y[61], abs(X[0] - X[61])), math.atan2(Y[0] - Y[291], abs(X[0] - X[291]))
        ),
        "lip_protrusion": (Z[0] + Z[17]) / 2 - Z[2],
        "jaw_sideways": X[152] - X[168],
    }


def value(mesh, name):
    return float(measure(mesh[None])[0, NAMES.index(name)])


def test_the_order_is_that_of_the_table():
    assert tuple(plainly_measured(MESH)) == NAMES
    assert len(NAMES) == len(set(NAMES)) == 30


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_every_measurement_equals_a_plain_reading_of_its_formula(seed):
    mesh = MESH if seed is None else MESH + np.random.default_rng(seed).normal(0, 4, MESH.shape).astype(np.float32)
    expected = plainly_measured(mesh)
    for name, found in zip(NAMES, measure(mesh[None])[0], strict=True):
        assert found == pytest.approx(expected[name], abs=1e-5), name


def test_many_faces_at_once_equal_one_by_one():
    rng = np.random.default_rng(0)
    meshes = np.stack([MESH + rng.normal(0, 3, MESH.shape).astype(np.float32) for _ in range(5)])
    assert np.array_equal(measure(meshes), np.concatenate([measure(mesh[None]) for mesh in meshes]))


@pytest.mark.parametrize("degrees", [-30, 15, 120])
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_roll_size_and_position_drop_out(degrees, factor):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    moved = ((MESH @ turn) * factor + [900, -50, 0]).astype(np.float32)
    assert measure(moved[None])[0] == pytest.approx(measure(MESH[None])[0], abs=2e-4)


@pytest.mark.parametrize(
    ("name", "points", "move", "sign"),
    [
        ("lip_corner_lift", [61, 291], (0, -5, 0), 1),
        ("lips_part", [14], (0, 5, 0), 1),
        ("inner_brow_raise", [107, 336], (0, -5, 0), 1),
        ("brow_lid_gap", [52, 282], (0, 5, 0), -1),
        ("eye_openness", [144, 153, 373, 380], (0, 5, 0), 1),
        ("jaw_drop", [152], (0, 5, 0), 1),
        ("upper_lip_raise", [0], (0, -5, 0), 1),
        ("upper_lid_raise", [159, 386], (0, -5, 0), 1),
        ("lower_lid_raise", [145, 374], (0, -5, 0), 1),
        ("brow_obliquity", [107, 336], (0, -5, 0), 1),
        ("lip_corner_asymmetry", [291], (0, -5, 0), 1),
        ("lip_corner_angle", [61, 291], (0, -5, 0), 1),
        ("lip_protrusion", [0, 17], (0, 0, -5), -1),
        ("jaw_sideways", [152], (5, 0, 0), 1),
    ],
)
def test_a_movement_has_the_sign_of_its_action_unit(name, points, move, sign):
    moved = MESH.copy()
    moved[points] += np.float32(move)
    assert sign * (value(moved, name) - value(MESH, name)) > 0.01


def test_the_astronaut_smiles_as_measured_elsewhere(astronaut_face):
    """Values of the same photograph by the refined mesh; the plain mesh lies a few hundredths beside it."""
    values = dict(zip(NAMES, measure(astronaut_face.points[None])[0].tolist(), strict=True))
    expected = {
        "lip_corner_lift": -0.18,
        "lips_part": 0.16,
        "inner_brow_raise": 0.33,
        "brow_lid_gap": 0.17,
        "eye_openness": 0.33,
        "mouth_width": 1.03,
        "outer_brow_raise": 0.22,
        "lip_corner_droop": -0.16,
        "upper_lip_raise": -0.19,
        "upper_lid_raise": 0.11,
        "lower_lid_raise": -0.05,
        "eye_to_lip_corner": 0.91,
        "lip_thickness": 0.17,
        "brow_gap": 0.42,
        "mouth_aspect": 0.17,
        "nose_wing_lift": -0.48,
        "brow_obliquity": np.deg2rad(6.0),
        "lip_corner_asymmetry": 0,
        "eye_openness_asymmetry": 0,
        "brow_asymmetry": 0,
        "wing_to_lip_corner": 0.40,
        "lower_lip_drop": 0.24,
        "nostril_width": 0.66,
        "upper_lip_thickness": 0.07,
        "lip_corner_angle": np.deg2rad(1),
        "lip_protrusion": 0.11,
        "jaw_sideways": 0,
    }
    for name, wanted in expected.items():
        assert values[name] == pytest.approx(wanted, abs=0.06), name
    for name, wanted in {"jaw_drop": 1.07, "mouth_to_nose_width": 1.35, "chin_boss": 0.54}.items():
        assert values[name] == pytest.approx(wanted, abs=0.12), name


def test_warping_the_mouth_corners_up_raises_the_lift_at_every_step(face_detector, astronaut):
    photo = cv2.resize(astronaut, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    lifts = []
    for amount in (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3):
        face = face_detector.detect(warp_expression(photo, amount))
        lifts.append(value(face.points, "lip_corner_lift"))
    assert np.all(np.diff(lifts) > 0.005), lifts
    assert lifts[-1] - lifts[0] > 0.1


def test_a_mesh_without_extent_fails_its_row_alone():
    image = np.zeros((9, 9, 3), np.uint8)
    broken = MESH.copy()
    broken[358] = broken[129]  # a nose without width
    faces = [Face(MESH), Face(np.zeros((468, 3), np.float32)), Face(broken), None]
    rows = ActionUnitsStream().extract([Sample(image, face) for face in faces])
    assert rows.status.tolist() == [Status.OK, Status.FAILED, Status.FAILED, Status.NO_DETECTION]
    assert not rows.features[1:].any()


def test_the_stream_keeps_the_contract():
    check_stream(ActionUnitsSpec())
