"""Yaw, pitch and roll of the head, from the face mesh or from the transform of MediaPipe's face landmarker.

The angles are in degrees, 0 for a face that looks straight into the camera, and named from the viewer of the picture:

- yaw is positive when the nose points to the right of the picture (the subject turns to its left);
- pitch is positive when the nose points up;
- roll is positive when the head is turned clockwise in the picture.

The head is pitched first, then yawed, then rolled, each about the axes of the camera: turning the picture changes the
roll alone. Mirroring it changes the signs of yaw and roll.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from emofuse.specs.streams import StreamSpecBase
from emofuse.status import Status
from emofuse.streams.base import NEEDS_BLENDSHAPES, NEEDS_FACE, VECTOR, Face, Rows, Sample

Matrix = npt.NDArray[np.float64]

# The points of MediaPipe's canonical face by which the landmarker aligns it (face_landmarker.task, Apache-2.0), which
# hardly move with the expression: right point, left point (the same in the middle), half of the weight, and x, y, z of
# the left one in centimetres; x to the left of the subject, y up, z out of the face.
_BASIS = (
    (4, 4, 0.035455, 0.0, -0.463, 7.587),
    (6, 6, 0.01605, 0.0, 2.473, 5.789),
    (10, 10, 0.004224, 0.0, 8.262, 4.482),
    (33, 263, 0.058724, 4.446, 2.664, 3.173),
    (54, 284, 0.007667, 6.279, 6.615, 1.426),
    (67, 297, 0.009078, 3.524, 8.006, 3.729),
    (117, 346, 0.009792, 5.259, 0.946, 2.974),
    (119, 348, 0.014565, 3.301, 0.862, 3.873),
    (121, 350, 0.018591, 1.821, 1.468, 4.224),
    (127, 356, 0.005198, 7.743, 2.365, -2.005),
    (129, 358, 0.120625, 1.786, -0.978, 4.850),
    (132, 361, 0.00556, 7.271, -2.891, -2.252),
    (133, 362, 0.053286, 1.856, 2.585, 3.758),
    (136, 365, 0.06689, 5.085, -7.179, 0.715),
    (143, 372, 0.014817, 6.408, 2.236, 1.561),
    (147, 376, 0.014263, 6.235, -1.944, 1.664),
    (198, 420, 0.025462, 1.247, 0.230, 5.681),
    (205, 425, 0.047252, 3.833, -1.537, 4.138),
)
_INDICES = np.array([each[side] for side in (0, 1) for each in _BASIS])
_WEIGHTS = np.array([each[2] for _ in (0, 1) for each in _BASIS])
# In the axes of a picture: x right, y down, z away from the camera.
_CANONICAL = np.array([(sign * x, -y, -z) for sign in (-1, 1) for *_, x, y, z in _BASIS])

_FLIP = np.diag([1.0, -1.0, -1.0])
"""The map between the axes of the landmarker's camera (x right, y up, z to the viewer) and those of a picture."""


class HeadPoseSpec(StreamSpecBase):
    """Yaw, pitch and roll of the head in degrees.

    `source: mesh` fits a rigid head to the mesh of any detector. `source: transform` takes the rotation that the
    landmarker estimates for a camera with perspective, and needs the weights `face_landmarker`.
    """

    stored_shape: ClassVar[tuple[int, ...]] = (3,)

    kind: Literal["head_pose"] = "head_pose"
    source: Literal["mesh", "transform"] = "mesh"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # other kinds need the same for all their specs
        """What the stream uses of a sample, as its source decides."""
        return _NEEDS[self.source]

    def make(self, device: str) -> HeadPoseStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return HeadPoseStream(source=self.source)


class HeadPoseStream:
    """Yaw, pitch and roll of the head -> 3 values in degrees; see the module for their signs.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (3,)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ("yaw_deg", "pitch_deg", "roll_deg")

    def __init__(self, *, source: Literal["mesh", "transform"]) -> None:
        self.needs = _NEEDS[source]
        self._rotation = {"mesh": _rotation_of_mesh, "transform": _rotation_of_transform}[source]

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the poses of n samples.

        Returns:
            features (n, 3) float32 in degrees; status (n,) uint8: NO_DETECTION without a face.
        """
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.NO_DETECTION)
        for index, sample in enumerate(samples):
            rotation = None if sample.face is None else self._rotation(sample.face)
            if rotation is not None:
                rows.features[index] = angles_deg(rotation)
                rows.status[index] = Status.OK
        return rows

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def angles_deg(rotation: Matrix) -> tuple[float, float, float]:
    """Return yaw, pitch and roll in degrees of a rotation (3, 3) of the head in the axes of the picture.

    The axes are x right, y down, z away from the camera. The rotation is Rz(roll) Ry(-yaw) Rx(-pitch).
    """
    yaw = np.arctan2(rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0]))
    pitch = -np.arctan2(rotation[2, 1], rotation[2, 2])
    roll = np.arctan2(rotation[1, 0], rotation[0, 0])
    return float(np.degrees(yaw)), float(np.degrees(pitch)), float(np.degrees(roll))


def fit_rotation(points: Matrix, targets: Matrix, weights: Matrix) -> Matrix:
    """Return the rotation (3, 3) that brings points (n, 3) nearest to targets (n, 3), free in place and size.

    It is the weighted fit of Kabsch (Acta Crystallographica A, 1976).

    Raises:
        ValueError: the targets lie on one line, which defines no rotation.
    """
    shares = weights[:, None] / weights.sum()
    centred, target = (each - (shares * each).sum(axis=0) for each in (points, targets))
    left, sizes, right = np.linalg.svd((shares * target).T @ centred)
    if not sizes[1] > 1e-9 * max(sizes[0], 1e-9):
        raise ValueError("the points of the face lie on one line: its pose is unknown")
    sign = np.sign(np.linalg.det(left @ right))
    rotation: Matrix = left @ np.diag([1.0, 1.0, sign]) @ right
    return rotation


def _rotation_of_mesh(face: Face) -> Matrix:
    return fit_rotation(_CANONICAL, face.mesh[_INDICES].astype(np.float64), _WEIGHTS)


def _rotation_of_transform(face: Face) -> Matrix | None:
    """Return the rotation of the landmarker's transform; None of a face without one."""
    if face.transform is None:
        return None
    left, _, right = np.linalg.svd(face.transform[:3, :3].astype(np.float64))
    rotation: Matrix = _FLIP @ left @ right @ _FLIP
    return rotation


_NEEDS = {"mesh": NEEDS_FACE, "transform": NEEDS_BLENDSHAPES}
