"""The face of a clip, followed from frame to frame where the frames are close in time.

Face Mesh can look for a face where it was in the frame before (Kartynnik et al. 2019), which keeps a face that turns
away and costs less than detection. If the frames are far apart, the face has moved on, and a mesh that is laid where it
was is wrong: then it is detected anew, as in a picture. The landmarker detects faces in every frame.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from emofuse.specs import FaceSpec
from emofuse.streams.base import Face
from emofuse.streams.faces import FaceDetector, FaceMeshDetector

VERSION = 1
"""The version of the tracking, part of the digest of streams that need a face, on clips."""

CLOSE_S = 0.2
"""The largest distance of two frames between which a face is followed. Measured on real clips: faces that were followed
over 0.15 s lie within 2 % of the picture's side of those that were detected, over 1.2 s beside the face."""

_SAME_FACE = 0.3


class FaceTracker:
    """The most prominent face of the frames of clips, one clip after another. Two threads must not use it at once."""

    def __init__(self, detector: FaceDetector, spec: FaceSpec) -> None:
        self._detector = detector
        self._spec = spec
        self._tracking: FaceMeshDetector | None = None
        self._is_tracking = False
        self._clip: int | None = None
        self._time_s = 0.0
        self._face: Face | None = None

    def detect(self, image: npt.NDArray[np.uint8], clip: int, time_s: float) -> Face | None:
        """Return the face in a frame; None if there is none. The result depends on the frames of the clip alone.

        Args:
            image: the frame, (H, W, 3) uint8 RGB.
            clip: the number of its clip; another number starts anew.
            time_s: the time of the frame, not before that of the last one of the clip.
        """
        is_close = clip == self._clip and time_s - self._time_s <= CLOSE_S
        self._clip, self._time_s = clip, time_s
        if self._spec.detector != "face_mesh" or not is_close:
            self._is_tracking = False
            self._face = self._detector.detect(image)
            return self._face
        if self._tracking is None:
            self._tracking = FaceMeshDetector(min_confidence=self._spec.min_confidence, follows=True)
        if not self._is_tracking:
            self._tracking.forget()
            self._is_tracking = True
        try:
            faces = self._tracking.detect_all(image)
        except Exception:
            self._clip = None  # the next frame starts anew
            raise
        self._face = _chosen(faces, self._face)
        return self._face

    def forget(self) -> None:
        """Let the next frame be the first of a clip."""
        self._clip = None

    def close(self) -> None:
        """Release the graph that follows faces; not the detector, which its owner closes."""
        tracking, self._tracking = self._tracking, None
        if tracking is not None:
            tracking.close()


def _chosen(faces: list[Face], before: Face | None) -> Face | None:
    """Return the face that overlaps with the one before, or else the largest; None of none."""
    if not faces:
        return None
    if before is not None:
        overlaps = [_overlap(_box(face), _box(before)) for face in faces]
        if max(overlaps) >= _SAME_FACE:
            return faces[int(np.argmax(overlaps))]
    return max(faces, key=lambda face: float(np.prod(np.ptp(face.points[:, :2], axis=0))))


def _box(face: Face) -> npt.NDArray[np.float32]:
    """Return the left, top, right and bottom of a face."""
    points = face.points[:, :2]
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _overlap(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Return the intersection of two boxes as a share of their union."""
    sides = np.maximum(0, np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]))
    both = float(np.prod(sides))
    areas = sum(float(np.prod(box[2:] - box[:2])) for box in (one, other))
    return both / (areas - both) if areas > both else 0.0
