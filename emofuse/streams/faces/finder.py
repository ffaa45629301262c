"""The faces of a picture as a spec asks for them: enlarged pictures, turned pictures, small faces, the chosen face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from emofuse.specs import FaceSpec
from emofuse.streams.base import Face

if TYPE_CHECKING:
    from emofuse.streams.faces.detectors import FaceDetector

_LEAST_OVERLAP = 0.1
"""The least overlap, as intersection over union, of a face with the box that a row names."""

_TURNS = (1, 3, 2)


class FaceFinder:
    """A detector with the options of a spec. Two threads must not use it at once.

    Args:
        detector: the detector, which the finder owns.
        spec: the options.
    """

    def __init__(self, detector: FaceDetector, spec: FaceSpec) -> None:
        self._detector = detector
        self._spec = spec

    def detect(self, image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32] | None = None) -> Face | None:
        """Return the face of a picture that the spec chooses; None if there is none.

        Args:
            image: the picture, (H, W, 3) uint8 RGB, of any size.
            box: the left, top, right and bottom of the face that is meant, in pixels; None where the spec chooses.
        """
        return self.chosen(self.detect_all(image), image.shape[:2], box)

    def detect_all(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Return the faces of a picture, (H, W, 3) uint8 RGB, that are not too small."""
        seen, scales = self._enlarged(image)
        for turns in (0, *_TURNS) if self._spec.turned else (0,):
            found = self._detector.detect_all(np.ascontiguousarray(np.rot90(seen, turns)) if turns else seen)
            faces = [_scaled(_turned_back(face, seen.shape[:2], turns), scales) for face in found]
            faces = [face for face in faces if np.min(face.box[2:] - face.box[:2]) >= self._spec.min_px]
            if faces:
                return faces
        return []

    def chosen(
        self, faces: Sequence[Face], shape: tuple[int, ...], box: npt.NDArray[np.float32] | None = None
    ) -> Face | None:
        """Return the face that overlaps most with a box, or else that which the spec chooses; None of none.

        `which: all` chooses the largest where no box is given.

        Args:
            faces: the faces of a picture.
            shape: its height and width.
            box: as at `detect`. If no face overlaps with it by a tenth, there is none.
        """
        if not faces:
            return None
        if box is not None:
            overlaps = [overlap(face.box, box) for face in faces]
            best = int(np.argmax(overlaps))
            return faces[best] if overlaps[best] >= _LEAST_OVERLAP else None
        if self._spec.which == "central":
            middle = np.array([shape[1], shape[0]], dtype=np.float32) / 2
            return min(faces, key=lambda face: float(np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - middle)))
        return max(faces, key=lambda face: face.area)

    def close(self) -> None:
        """Release the detector. A second call does nothing."""
        self._detector.close()

    def _enlarged(self, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], tuple[float, float]]:
        """Return the picture in which faces are detected, and its width and height over those of the picture."""
        height, width = image.shape[:2]
        side = min(height, width)
        if side >= self._spec.upscale_below_px:
            return image, (1.0, 1.0)
        import cv2

        factor = self._spec.upscale_below_px / side
        size = (round(width * factor), round(height * factor))
        enlarged = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        return np.asarray(enlarged, dtype=np.uint8), (size[0] / width, size[1] / height)


def overlap(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Return the intersection of two boxes (left, top, right, bottom) as a share of their union."""
    sides = np.maximum(0, np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]))
    both = float(np.prod(sides))
    areas = sum(float(np.prod(box[2:] - box[:2])) for box in (one, other))
    return both / (areas - both) if areas > both else 0.0


def _turned_back(face: Face, shape: tuple[int, ...], turns: int) -> Face:
    """Return a face of the picture that was turned counter-clockwise by quarter turns, in places of the picture.

    Args:
        face: the face in the turned picture.
        shape: the height and width of the picture before it was turned.
        turns: the number of quarter turns.
    """
    if not turns:
        return face
    height, width = shape

    def back(places: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        moved = places.copy()
        x, y = places[..., 0], places[..., 1]
        moved[..., 0], moved[..., 1] = {1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[turns]
        return moved

    corners = back(face.box.reshape(2, 2))
    return replace(
        face,
        points=None if face.points is None else back(face.points),
        box=np.concatenate([corners.min(axis=0), corners.max(axis=0)]),
        five=back(face.five),
        turns=turns,
    )


def _scaled(face: Face, scales: tuple[float, float]) -> Face:
    """Return a face of an enlarged picture in places of the picture."""
    if scales == (1.0, 1.0):
        return face
    by = np.array([scales[0], scales[1], scales[0]], dtype=np.float32)
    return replace(
        face,
        points=None if face.points is None else face.points / by,
        box=face.box / np.tile(by[:2], 2),
        five=face.five / by[:2],
    )
