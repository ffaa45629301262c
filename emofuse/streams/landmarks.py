"""The aligned face mesh, 468 points of three coordinates: the paper's geometric stream (section 2.3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from emofuse.specs.streams import StreamSpecBase
from emofuse.status import Status
from emofuse.streams.base import Rows, Sample

POINTS = 468
NOSE_TIP = 1
RIGHT_INNER, LEFT_INNER = 133, 362  # inner eye corners; right and left are the subject's
RIGHT_OUTER, LEFT_OUTER = 33, 263

# Where the alignment puts the three points, in inter-ocular distances (x right, y down, nose tip at the origin):
# rounded medians of the frontal photographs that the stream was tried on.
TEMPLATE = {RIGHT_INNER: (-0.28, -0.63), LEFT_INNER: (0.28, -0.63), NOSE_TIP: (0.0, 0.0)}

# A triangle of less than this share of the squared size of the mesh is a line: it fixes no affine map.
_MIN_TRIANGLE = 1e-5


class LandmarksSpec(StreamSpecBase):
    """468 aligned face landmarks, 1404 values."""

    needs_face: ClassVar[bool] = True
    stored_shape: ClassVar[tuple[int, ...]] = (3 * POINTS,)
    # What all meshes are aligned by. They differ by the rounding of larger coordinates, which no look at the columns
    # could tell from a signal.
    fixed_columns: ClassVar[tuple[int, ...]] = (
        *(3 * point + axis for point in (NOSE_TIP, RIGHT_INNER, LEFT_INNER) for axis in (0, 1)),
        3 * NOSE_TIP + 2,
    )

    kind: Literal["landmarks"] = "landmarks"

    def make(self, device: str) -> LandmarksStream:  # noqa: ARG002 - it runs on the CPU
        """The extractor."""
        return LandmarksStream()


class LandmarksStream:
    """The face mesh, aligned and scaled -> 1404 values (x, y, z of point 0, then of point 1, ...).

    The paper aligns by an affine map on the inner eye corners and the nose tip, then scales by the inter-ocular
    distance with the nose tip as origin. Here this is one affine map in the picture's plane: the one that takes the
    three points to `TEMPLATE`, which has the nose tip at the origin and one inter-ocular distance as unit. z is taken
    relative to the nose tip and divided by the inter-ocular distance measured in the picture (between the centres of
    the eyes).

    What it removes: position, roll, size, and, as the map is affine and not a mere similarity, also the foreshortening
    and shear of the triangle of eyes and nose, which is most of what small yaw and pitch do to a face. What is lost
    with it: the individual shape of that triangle (eye distance against nose length); the six x and y of the three
    points, and z of the nose tip, are constants. z keeps the head's turn.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    dim = POINTS * 3
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    needs_face = True
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = tuple(f"{axis}{point}" for point in range(POINTS) for axis in "xyz")

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Aligned meshes of n samples.

        Returns:
            features (n, 1404) float32 in inter-ocular distances; status (n,) uint8: NO_DETECTION without a face.

        Raises:
            ValueError: the eyes and nose of a mesh lie on one line, so that no affine map is fixed.
        """
        rows = Rows.empty(len(samples), self.dim, self.dtype, Status.NO_DETECTION)
        for index, sample in enumerate(samples):
            if sample.face is not None:
                rows.features[index] = align(sample.face.points).ravel()
                rows.status[index] = Status.OK
        return rows

    def close(self) -> None:
        """Nothing to release."""


def align(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Aligns one mesh: (468, 3) in pixels -> (468, 3) float32 in inter-ocular distances.

    Raises:
        ValueError: the inner eye corners and the nose tip lie on one line.
    """
    mesh = points.astype(np.float64)
    tip = mesh[NOSE_TIP]
    edges = np.stack([mesh[RIGHT_INNER, :2] - tip[:2], mesh[LEFT_INNER, :2] - tip[:2]])
    size = float(np.ptp(mesh[:, :2], axis=0).max())
    if abs(np.linalg.det(edges)) <= _MIN_TRIANGLE * size**2:
        raise ValueError("inner eye corners and nose tip lie on one line: the face cannot be aligned")
    wanted = np.array([TEMPLATE[RIGHT_INNER], TEMPLATE[LEFT_INNER]])
    linear = np.linalg.solve(edges, wanted)  # edges @ linear == wanted
    right_eye = (mesh[RIGHT_OUTER, :2] + mesh[RIGHT_INNER, :2]) / 2
    left_eye = (mesh[LEFT_OUTER, :2] + mesh[LEFT_INNER, :2]) / 2
    aligned = np.empty_like(mesh)
    aligned[:, :2] = (mesh[:, :2] - tip[:2]) @ linear
    aligned[:, 2] = (mesh[:, 2] - tip[2]) / np.linalg.norm(left_eye - right_eye)
    return aligned.astype(np.float32)
