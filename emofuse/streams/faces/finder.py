"""The faces of a picture as a spec asks for them: enlarged pictures, turned pictures, small faces, the chosen face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from emofuse.specs import FaceSpec
from emofuse.streams.base import Face
from emofuse.streams.faces.detectors import FaceDetector, overlap

_LEAST_OVERLAP = 0.1
"""The least overlap, as intersection over union, of a face with the box that a row names."""

_SAME_FACE = 0.3
"""The least overlap of a face with the one that another detector finds around it."""

_ENLARGED = 1.8
"""The side of the part of a picture around a face, over the longer side of its box."""

_TURNS = (0, 1, 3, 2)
"""The quarter turns in which a face is looked for. Detectors also find faces that stand on their head, with points at
wrong places: of real faces, the surest turn is the right one for 92 % (Face Mesh), 98 % (RetinaFace) and 100 % (YuNet),
but the first turn with a face is wrong for 42 % (Face Mesh) to 95 % (YuNet) of those upside down."""


class FaceFinder:
    """A detector with the options of a spec. Two threads must not use it at once.

    Args:
        detector: the detector, which the finder owns.
        spec: the options.
        mesh: what lays a mesh on a face that has none; the finder owns it. None where no stream needs one.
        expressions: what gives blendshapes of a face that has none; the finder owns it. None where none are needed.
    """

    def __init__(
        self,
        detector: FaceDetector,
        spec: FaceSpec,
        *,
        mesh: FaceDetector | None = None,
        expressions: FaceDetector | None = None,
    ) -> None:
        self._detector = detector
        self._spec = spec
        self._mesh = mesh
        self._expressions = expressions

    @property
    def runtime(self) -> str | None:
        """What computes the network of the detector, see `emofuse.streams.runtimes`; None of one with its own."""
        return getattr(self._detector, "runtime", None)

    def detect(self, image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32] | None = None) -> Face | None:
        """Return the face of a picture that the spec chooses; None if there is none.

        Args:
            image: the picture, (H, W, 3) uint8 RGB, of any size.
            box: the left, top, right and bottom of the face that is meant, in pixels; None where the spec chooses.
        """
        face = self.chosen(self.find_all(image), image.shape[:2], box)
        return None if face is None else self.complete(image, face)

    def detect_all(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Return the faces of a picture, (H, W, 3) uint8 RGB, that are not too small, with all that streams need."""
        return [self.complete(image, face) for face in self.find_all(image)]

    def complete(self, image: npt.NDArray[np.uint8], face: Face) -> Face:
        """Return a face of a picture with the mesh and the blendshapes that streams need.

        They are laid on the face as it is in the square part of the picture around its box, turned upright by quarter
        turns. Where none can be laid, the face stays without.
        """
        if self._mesh is not None and face.points is None:
            laid = _laid(self._mesh, image, face)
            face = face if laid is None else replace(face, points=laid.points)
        if self._expressions is not None and face.blendshapes is None:
            laid = _laid(self._expressions, image, face)
            if laid is not None:
                face = replace(face, blendshapes=laid.blendshapes, transform=laid.transform)
        return face

    def find_all(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Return the faces of a picture as the detector gives them, (H, W, 3) uint8 RGB, that are not too small."""
        seen, scales = self._enlarged(image)
        best: list[Face] = []
        best_score = -1.0
        for turns in _TURNS if self._spec.turned else (0,):
            found = self._detector.detect_all(np.ascontiguousarray(np.rot90(seen, turns)) if turns else seen)
            faces = [_scaled(_turned_back(face, seen.shape[:2], turns), scales) for face in found]
            faces = [face for face in faces if np.min(face.box[2:] - face.box[:2]) >= self._spec.min_px]
            score = max((face.confidence for face in faces), default=-1.0)
            if math.isnan(score):  # of a detector that gives no confidence, the first turn with a face counts
                best = faces
                break
            if faces and score > best_score:
                best, best_score = faces, score
        return [replace(face, turns=quarter_turns(face)) for face in best] if self._spec.turned else best

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
        for detector in (self._detector, self._mesh, self._expressions):
            if detector is not None:
                detector.close()

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


def _laid(detector: FaceDetector, image: npt.NDArray[np.uint8], face: Face) -> Face | None:
    """Return what another detector finds in the part of a picture around a face; None if it does not find that face."""
    height, width = image.shape[:2]
    middle = (face.box[:2] + face.box[2:]) / 2
    half = _ENLARGED * float(np.max(face.box[2:] - face.box[:2])) / 2
    left, top = (max(0, int(place - half)) for place in middle)
    right, bottom = min(width, int(middle[0] + half) + 1), min(height, int(middle[1] + half) + 1)
    if right <= left or bottom <= top:
        return None
    part = image[top:bottom, left:right]
    turns = quarter_turns(face)
    found = detector.detect_all(np.ascontiguousarray(np.rot90(part, turns)) if turns else np.ascontiguousarray(part))
    shift = np.array([left, top], dtype=np.float32)
    laid = [_moved(_turned_back(each, part.shape[:2], turns), shift) for each in found]
    overlaps = [overlap(each.box, face.box) for each in laid]
    best = int(np.argmax(overlaps)) if laid else 0
    return laid[best] if laid and overlaps[best] >= _SAME_FACE else None


def quarter_turns(face: Face) -> int:
    """Return the number of counter-clockwise quarter turns of the picture that bring a face nearest to upright."""
    eyes, mouth = face.five[:2].mean(axis=0), face.five[3:].mean(axis=0)
    x, y = (mouth - eyes).tolist()
    if math.isnan(x) or (x == 0 and y == 0):
        return face.turns
    return round(math.atan2(-x, y) / (math.pi / 2)) % 4


def _moved(face: Face, shift: npt.NDArray[np.float32]) -> Face:
    """Return a face of a part of a picture in places of the picture."""
    points = None if face.points is None else face.points + np.append(shift, np.float32(0))
    return replace(face, points=points, box=face.box + np.tile(shift, 2), five=face.five + shift)


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
        transform=None if face.transform is None else (np.linalg.matrix_power(_QUARTER, turns) @ face.transform),
        turns=turns,
    )


# A quarter turn clockwise in the picture, in the axes of the landmarker's camera: x right, y up, z to the viewer.
_QUARTER = np.array([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float32)


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
