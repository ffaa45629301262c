"""The aligned face mesh, 468 points of three coordinates: the paper's geometric stream (section 2.3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from emofuse.specs.streams import StreamSpecBase
from emofuse.status import Status
from emofuse.streams.base import NEEDS_FACE, VECTOR, Rows, Sample

POINTS = 468
LENGTH = 3 * POINTS
NOSE_TIP = 1
RIGHT_INNER, LEFT_INNER = 133, 362  # inner eye corners; right and left are those of the subject
RIGHT_OUTER, LEFT_OUTER = 33, 263

# The places of the three points after alignment, in inter-ocular distances (x right, y down, nose tip at the origin):
# rounded medians over frontal photographs.
TEMPLATE = {RIGHT_INNER: (-0.28, -0.63), LEFT_INNER: (0.28, -0.63), NOSE_TIP: (0.0, 0.0)}

# A triangle of less than this share of the squared size of the mesh counts as a line, which defines no affine map.
_MIN_TRIANGLE = 1e-5


class LandmarksSpec(StreamSpecBase):
    """468 aligned face landmarks, 1404 values."""

    needs: ClassVar[frozenset[str]] = NEEDS_FACE
    stored_shape: ClassVar[tuple[int, ...]] = (LENGTH,)
    # The coordinates by which all meshes are aligned. They vary by the rounding of larger coordinates, which the values
    # alone do not distinguish from a signal.
    fixed_columns: ClassVar[tuple[int, ...]] = (
        *(3 * point + axis for point in (NOSE_TIP, RIGHT_INNER, LEFT_INNER) for axis in (0, 1)),
        3 * NOSE_TIP + 2,
    )

    kind: Literal["landmarks"] = "landmarks"

    def make(self, device: str) -> LandmarksStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return LandmarksStream()


class LandmarksStream:
    """The face mesh, aligned and scaled -> 1404 values (x, y, z of point 0, then of point 1, ...).

    The paper aligns by an affine map on the inner eye corners and the nose tip, then scales by the inter-ocular
    distance with the nose tip as origin. This class uses one affine map in the picture's plane, which takes the three
    points to `TEMPLATE`: the nose tip is the origin and one inter-ocular distance is the unit. z is relative to the
    nose tip and divided by the inter-ocular distance in the picture (between the centres of the eyes).

    The map removes position, roll and size. It is affine and not a mere similarity, so that it also removes the
    foreshortening and shear of the triangle of eyes and nose, which is most of the effect of small yaw and pitch. The
    individual shape of that triangle (eye distance against nose length) is lost: x and y of the three points, and z of
    the nose tip, are constants. z keeps the turn of the head.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (LENGTH,)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    needs = NEEDS_FACE
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = tuple(f"{axis}{point}" for point in range(POINTS) for axis in "xyz")

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the aligned meshes of n samples.

        Returns:
            features (n, 1404) float32 in inter-ocular distances; status (n,) uint8: NO_DETECTION without a face.

        Raises:
            ValueError: the eyes and nose of a mesh lie on one line, which defines no affine map.
        """
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.NO_DETECTION)
        for index, sample in enumerate(samples):
            if sample.face is not None:
                rows.features[index] = align(sample.face.mesh).ravel()
                rows.status[index] = Status.OK
        return rows

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def align(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Align one mesh: (468, 3) in pixels -> (468, 3) float32 in inter-ocular distances.

    Raises:
        ValueError: the inner eye corners and the nose tip lie on one line.
    """
    mesh = points.astype(np.float64)
    tip = mesh[NOSE_TIP]
    edges = np.stack([mesh[RIGHT_INNER, :2] - tip[:2], mesh[LEFT_INNER, :2] - tip[:2]])
    size = float(np.ptp(mesh[:, :2], axis=0).max())
    if abs(np.linalg.det(edges)) <= _MIN_TRIANGLE * size**2:
        raise ValueError("inner eye corners and nose tip lie on one line: the face cannot be aligned")
    targets = np.array([TEMPLATE[RIGHT_INNER], TEMPLATE[LEFT_INNER]])
    linear = np.linalg.solve(edges, targets)  # edges @ linear == targets
    right_eye = (mesh[RIGHT_OUTER, :2] + mesh[RIGHT_INNER, :2]) / 2
    left_eye = (mesh[LEFT_OUTER, :2] + mesh[LEFT_INNER, :2]) / 2
    aligned = np.empty_like(mesh)
    aligned[:, :2] = (mesh[:, :2] - tip[:2]) @ linear
    aligned[:, 2] = (mesh[:, 2] - tip[2]) / np.linalg.norm(left_eye - right_eye)
    return aligned.astype(np.float32)
