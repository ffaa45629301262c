"""The places of all faces of a picture, the largest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from emofuse.specs.streams import NEEDS_FACES, StreamSpecBase
from emofuse.status import Status
from emofuse.streams.base import VECTOR, Rows, Sample

FACES = 32
"""The number of faces that a row has room for."""
VALUES = ("left", "top", "width", "height", "confidence")


class FaceBoxesSpec(StreamSpecBase):
    """The boxes of up to 32 faces of a picture, the largest first: 160 values.

    Each face has left, top, width and height in pixels, and the confidence of the detector, 0 if it gives none. Behind
    the last face there are zeros. With `face: {which: largest}`, Face Mesh and the landmarker look for four faces.
    """

    needs: ClassVar[frozenset[str]] = NEEDS_FACES
    stored_shape: ClassVar[tuple[int, ...]] = (FACES * len(VALUES),)

    kind: Literal["face_boxes"] = "face_boxes"

    def make(self, device: str) -> FaceBoxesStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return FaceBoxesStream()


class FaceBoxesStream:
    """The boxes of up to 32 faces -> 160 values.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (FACES * len(VALUES),)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    needs = NEEDS_FACES
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = tuple(f"{name}{face}" for face in range(FACES) for name in VALUES)

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the boxes of the faces of n samples.

        Returns:
            features (n, 160) float32 in pixels; status (n,) uint8: NO_DETECTION without a face.
        """
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.NO_DETECTION)
        for index, sample in enumerate(samples):
            faces = sorted(sample.faces, key=lambda face: -face.area)[:FACES]
            if faces:
                rows.status[index] = Status.OK
            for place, face in enumerate(faces):
                size = face.box[2:] - face.box[:2]
                values = np.concatenate([face.box[:2], size, [np.nan_to_num(face.confidence)]])
                rows.features[index, len(VALUES) * place : len(VALUES) * (place + 1)] = values
        return rows

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def boxes_of(features: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the left, top, width and height of the faces of one row of features, (m, 4), the largest first."""
    faces = np.asarray(features, dtype=np.float64).reshape(FACES, len(VALUES))[:, :4]
    return np.asarray(faces[(faces[:, 2:] > 0).all(axis=1)])
