"""All faces of the frames of a video, one frame after another.

Face Mesh can look for a face where it was in the frame before, which costs about half of a detection and lets the mesh
tremble less. A graph that follows n faces detects again only while it sees fewer. So a graph is kept for every number
of faces, and a whole detection looks for further faces twice a second. Other detectors detect in every frame.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from emofuse.specs import FaceSpec
from emofuse.streams.base import Face
from emofuse.streams.faces import FaceFinder, FaceMeshDetector, make_face_detector
from emofuse.streams.tracking import CLOSE_S

LOOK_EVERY_S = 0.5
"""The time between two detections in whole frames, while faces are followed."""


class FrameFaces:
    """The faces of the frames of one video after another. Two threads must not use it at once.

    Args:
        spec: the detection of faces.
        needs: what the streams need of a sample.
        follow: whether faces are followed from frame to frame where the detector can. Otherwise every frame is
            detected as a picture is.

    Raises:
        StreamError: the detector cannot run on this machine, or does not give what the streams need.
        WeightsError: its model is missing.
    """

    def __init__(self, spec: FaceSpec, needs: Iterable[str], *, follow: bool = True) -> None:
        self._spec = spec
        self._detector = make_face_detector(spec, needs)
        self._follows = follow and spec.detector == "face_mesh" and not spec.turned
        self._graphs: dict[int, FaceMeshDetector] = {}
        self._count = 0
        self._used: int | None = None  # the graph that saw the frame before
        self._time_s = -np.inf
        self._looked_s = -np.inf

    def find(self, image: npt.NDArray[np.uint8], time_s: float) -> list[Face]:
        """Return the faces of a frame, (H, W, 3) uint8 RGB, whose time is not before that of the last one."""
        is_close = 0 <= time_s - self._time_s <= CLOSE_S
        self._time_s = time_s
        if not self._follows or not is_close or not self._count:
            return self._detect(image, time_s)
        if time_s - self._looked_s >= LOOK_EVERY_S:
            faces = self._detect(image, time_s)
            if len(faces) != self._count or self._used is None:
                return faces
        return self._follow(image)

    def start(self) -> None:
        """Forget the faces of the video before."""
        self._count, self._used = 0, None
        self._time_s = self._looked_s = -np.inf

    def close(self) -> None:
        """Release the detector and the graphs. A second call does nothing."""
        self._detector.close()
        for graph in self._graphs.values():
            graph.close()
        self._graphs = {}

    def _detect(self, image: npt.NDArray[np.uint8], time_s: float) -> list[Face]:
        faces = self._detector.detect_all(image)
        self._looked_s = time_s
        if len(faces) != self._count:
            self._count, self._used = len(faces), None
        return faces

    def _follow(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        count = self._count
        if count not in self._graphs:
            self._graphs[count] = FaceMeshDetector(
                min_confidence=self._spec.min_confidence, max_faces=count, follows=True
            )
        elif self._used != count:
            self._graphs[count].forget()
        self._used = count
        faces = FaceFinder(self._graphs[count], self._spec).find_all(image)
        return [self._detector.complete(image, face) for face in faces]
