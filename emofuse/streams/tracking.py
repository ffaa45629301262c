"""The face of a clip, followed from frame to frame where the frames are close in time.

Face Mesh, and the landmarker in its video mode, can look for a face where it was in the frame before (Kartynnik et al.
2019), which keeps a face that turns away. If the frames are far apart, the face has moved on, and a mesh that is laid
where it was is wrong: then it is detected anew, as in a picture. Other detectors look for faces in every frame, and
the one that overlaps with the face before is taken.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from emofuse.specs import FaceSpec
from emofuse.specs.streams import NEEDS_FACE
from emofuse.streams.base import Face
from emofuse.streams.faces import FaceFinder, FollowingDetector, make_following_detector
from emofuse.streams.faces.detectors import overlap

_VERSIONS = {"landmarker": 2}
"""The versions of the tracking, 1 unless given. In version 2 a face that is lost is detected anew in the same frame."""

CLOSE_S = 0.2
"""The largest distance of two frames between which a face is followed. Measured on real clips: faces that were followed
over 0.15 s lie within 2 % of the picture's side of those that were detected, over 1.2 s beside the face."""

_SAME_FACE = 0.3


def tracking_version(spec: FaceSpec) -> int:
    """Return the version of the tracking by a detector, part of the digest of streams that need a face, on clips."""
    return _VERSIONS.get(spec.detector, 1)


class FaceTracker:
    """The most prominent face of the frames of clips, one clip after another. Two threads must not use it at once."""

    def __init__(self, detector: FaceFinder, spec: FaceSpec, needs: Iterable[str] = NEEDS_FACE) -> None:
        self._detector = detector
        self._spec = spec
        self._needs = frozenset(needs)
        self._following: FollowingDetector | None = None  # made for the first two frames that are close
        self._finder: FaceFinder | None = None
        self._can_follow = True
        self._is_following = False
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
        before = self._face if is_close else None
        finder = self._started() if is_close else None
        try:
            faces = (finder or self._detector).find_all(image)
            if finder is not None and not faces and tracking_version(self._spec) >= 2:
                faces = self._detector.find_all(image)
            face = _same(faces, before) or self._detector.chosen(faces, image.shape)
            self._face = None if face is None else self._detector.complete(image, face)
        except Exception:
            self._clip = None  # the next frame starts anew
            raise
        self._is_following = finder is not None
        return self._face

    def _started(self) -> FaceFinder | None:
        """Return the finder that follows the face; None if the detector follows none."""
        if self._following is None and self._can_follow:
            self._following = make_following_detector(self._spec, self._needs)
            self._can_follow = self._following is not None
            self._finder = None if self._following is None else FaceFinder(self._following, self._spec)
        if self._following is not None and not self._is_following:
            self._following.forget()
        return self._finder

    def forget(self) -> None:
        """Let the next frame be the first of a clip."""
        self._clip = None

    def close(self) -> None:
        """Release the graph that follows faces; not the detector, which its owner closes."""
        finder, self._finder, self._following = self._finder, None, None
        if finder is not None:
            finder.close()


def _same(faces: list[Face], before: Face | None) -> Face | None:
    """Return the face that overlaps with the one before; None if none does."""
    if before is None or not faces:
        return None
    overlaps = [overlap(face.box, before.box) for face in faces]
    return faces[int(np.argmax(overlaps))] if max(overlaps) >= _SAME_FACE else None
