"""Thirty geometric measurements of facial action units (FACS: Ekman, Friesen & Hager, 2002) from the face mesh.

All are measured in the frame of the face: the origin is between the eyes, X points from the subject's right eye to
the left one, Y points down the face, and the unit is the distance between the eye centres. The measurements do not
depend on position, roll and size; they depend on pitch and yaw. They are raw: the paper's activation, a deviation from
the neutral face, is derived when a cache is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from emofuse.specs.streams import StreamSpecBase, Value, Variant
from emofuse.status import Status
from emofuse.streams.base import NEEDS_FACE, VECTOR, Rows, Sample

Values = npt.NDArray[np.float64]


class _Frame:
    """Coordinates of n meshes in their own frames: X, Y, Z by landmark number, each (n,) in inter-ocular distances."""

    def __init__(self, points: npt.NDArray[np.float32]) -> None:
        mesh = points.astype(np.float64)
        right_eye = (mesh[:, 33, :2] + mesh[:, 133, :2]) / 2
        left_eye = (mesh[:, 362, :2] + mesh[:, 263, :2]) / 2
        across = left_eye - right_eye
        unit = np.linalg.norm(across, axis=1)
        u = across / unit[:, None]
        v = np.stack([-u[:, 1], u[:, 0]], axis=1)
        centred = mesh[:, :, :2] - ((right_eye + left_eye) / 2)[:, None]
        self._x: Values = np.einsum("npk,nk->np", centred, u) / unit[:, None]
        self._y: Values = np.einsum("npk,nk->np", centred, v) / unit[:, None]
        self._z: Values = mesh[:, :, 2] / unit[:, None]

    def x(self, point: int) -> Values:
        return self._x[:, point]

    def y(self, point: int) -> Values:
        return self._y[:, point]

    def z(self, point: int) -> Values:
        return self._z[:, point]

    def d(self, one: int, other: int) -> Values:
        """Return the distance of two points in the plane."""
        return np.hypot(self.x(one) - self.x(other), self.y(one) - self.y(other))

    def mouth_y(self) -> Values:
        """Return Y of the middle between the mouth corners."""
        return (self.y(61) + self.y(291)) / 2

    def ear_right(self) -> Values:
        """Return the aspect ratio of the subject's right eye: mean opening over width (Soukupova & Cech, CVWW 2016)."""
        return (self.d(160, 144) + self.d(158, 153)) / (2 * self.d(33, 133))

    def ear_left(self) -> Values:
        return (self.d(387, 373) + self.d(385, 380)) / (2 * self.d(263, 362))

    def rise(self, low: int, high: int) -> Values:
        """Return the angle in radians at which `high` lies above `low`, the same for both sides of the face."""
        return np.arctan2(self.y(low) - self.y(high), np.abs(self.x(low) - self.x(high)))


def _mean(one: Values, other: Values) -> Values:
    return (one + other) / 2


# Name and formula, in the order of the cache: the first ones are the paper's smaller sets (see `COUNTS`). Lengths are
# in inter-ocular distances, angles in radians. Y of an eye's centre is 0 by the choice of the frame.
MEASUREMENTS: tuple[tuple[str, Callable[[_Frame], Values]], ...] = (
    ("lip_corner_lift", lambda f: f.y(2) - f.mouth_y()),  # AU 12
    ("lips_part", lambda f: f.d(13, 14)),  # AU 25
    ("inner_brow_raise", lambda f: _mean(f.y(133) - f.y(107), f.y(362) - f.y(336))),  # AU 1
    ("brow_lid_gap", lambda f: _mean(f.y(159) - f.y(52), f.y(386) - f.y(282))),  # AU 4, smaller when lowered
    ("eye_openness", lambda f: _mean(f.ear_right(), f.ear_left())),  # AU 5; 43 and 45 the other way
    ("mouth_width", lambda f: f.d(61, 291)),  # AU 20 and 12; 18 the other way
    ("outer_brow_raise", lambda f: _mean(f.y(33) - f.y(70), f.y(263) - f.y(300))),  # AU 2
    ("jaw_drop", lambda f: f.y(152) - f.y(2)),  # AU 26
    ("lip_corner_droop", lambda f: f.mouth_y() - _mean(f.y(13), f.y(14))),  # AU 15
    ("upper_lip_raise", lambda f: f.y(2) - f.y(0)),  # AU 10
    ("upper_lid_raise", lambda f: _mean(-f.y(159), -f.y(386))),  # AU 5
    ("lower_lid_raise", lambda f: _mean(-f.y(145), -f.y(374))),  # AU 7 and 6, less negative when raised
    ("eye_to_lip_corner", lambda f: _mean(f.d(33, 61), f.d(263, 291))),  # AU 6 with 12, smaller in a smile
    ("lip_thickness", lambda f: f.d(0, 13) + f.d(14, 17)),  # AU 23 and 24, smaller when pressed
    ("brow_gap", lambda f: f.d(55, 285)),  # AU 4, smaller when drawn together
    ("mouth_to_nose_width", lambda f: f.d(61, 291) / f.d(129, 358)),  # AU 20; 18 the other way
    ("mouth_aspect", lambda f: f.d(13, 14) / f.d(78, 308)),  # AU 27 and 22
    ("nose_wing_lift", lambda f: _mean(f.y(133) - f.y(129), f.y(362) - f.y(358))),  # AU 9
    ("chin_boss", lambda f: f.y(152) - f.y(17)),  # AU 17
    ("brow_obliquity", lambda f: _mean(f.rise(70, 107), f.rise(300, 336))),  # AU 1 with 4, radians
    ("lip_corner_asymmetry", lambda f: f.y(61) - f.y(291)),  # AU 12, 14, 15 on one side
    ("eye_openness_asymmetry", lambda f: f.ear_right() - f.ear_left()),  # AU 46
    ("brow_asymmetry", lambda f: f.y(334) - f.y(105)),  # AU 1 and 2 on one side
    ("wing_to_lip_corner", lambda f: _mean(f.d(129, 61), f.d(358, 291))),  # AU 11 and 12, smaller in a smile
    ("lower_lip_drop", lambda f: f.y(14) - f.mouth_y()),  # AU 16
    ("nostril_width", lambda f: f.d(98, 327)),  # AU 38; 39 the other way
    ("upper_lip_thickness", lambda f: f.d(0, 13)),  # AU 28, smaller when sucked in
    ("lip_corner_angle", lambda f: _mean(f.rise(0, 61), f.rise(0, 291))),  # AU 13 and 12, radians
    ("lip_protrusion", lambda f: _mean(f.z(0), f.z(17)) - f.z(2)),  # AU 18 and 22, smaller when pursed
    ("jaw_sideways", lambda f: f.x(152) - f.x(168)),  # AU 30
)

COUNTS = (15, 20, 25, len(MEASUREMENTS))  # the numbers of measurements that heads can see; the paper compares them


class ActionUnitsSpec(StreamSpecBase):
    """30 raw geometric measurements of facial action units, of which heads see the first 15, 20, 25 or all."""

    needs: ClassVar[frozenset[str]] = NEEDS_FACE
    stored_shape: ClassVar[tuple[int, ...]] = (len(MEASUREMENTS),)
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("count", COUNTS, 25, factor="action_units", place_in_every_run=1),
    )

    kind: Literal["action_units"] = "action_units"

    def make(self, device: str) -> ActionUnitsStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return ActionUnitsStream()

    @classmethod
    def derive(cls, stored: npt.NDArray[Any], choice: Mapping[str, Value]) -> npt.NDArray[np.floating[Any]]:
        """Return the first measurements, (n, count)."""
        return stored[:, : int(choice["count"])]


class ActionUnitsStream:
    """The extractor of thirty raw measurements of the face mesh, named by `columns`.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (len(MEASUREMENTS),)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    needs = NEEDS_FACE
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = tuple(name for name, _ in MEASUREMENTS)

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the measurements of n samples.

        Returns:
            features (n, 30) float32; status (n,) uint8: NO_DETECTION without a face, FAILED where a mesh is so flat
            that a formula divides by zero.
        """
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.NO_DETECTION)
        with_face = [index for index, sample in enumerate(samples) if sample.face is not None]
        meshes = [sample.face.mesh for sample in samples if sample.face is not None]
        if meshes:
            values = measure(np.stack(meshes))
            finite = np.isfinite(values).all(axis=1)
            rows.features[with_face] = np.where(finite[:, None], values, 0)
            rows.status[with_face] = np.where(finite, Status.OK, Status.FAILED)
        return rows

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def measure(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Measure n meshes: (n, 468, 3) in pixels -> (n, 30) float32, not finite where a mesh is degenerate."""
    with np.errstate(divide="ignore", invalid="ignore"):
        frame = _Frame(points)
        values = np.stack([formula(frame) for _, formula in MEASUREMENTS], axis=1)
    return values.astype(np.float32)
