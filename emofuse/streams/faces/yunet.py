"""YuNet (Wu, Peng & Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023), by OpenCV: a box and five points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import StreamError
from emofuse.streams.base import Face
from emofuse.streams.faces.detectors import bounded, start_errors

VERSION = 1
"""Increase it whenever the same picture gives another face. It is part of the digest of streams that look at faces."""

SIDE_PX = 320
"""The long side to which larger pictures are reduced unless the spec asks for another one. The network was made for
faces of 10 to 300 pixels: of photographs that a face fills, it is surest at this side."""

LEAST_SIDE_PX = 64
"""The side to which thinner pictures are padded with black: below 33 pixels OpenCV 4.11 computes on memory that nothing
has written, and finds faces of any size far outside of the picture."""

_OVERLAP = 0.3
_TOP = 5000


class YunetDetector:
    """YuNet, run by OpenCV.

    Args:
        model: its ONNX file.
        min_confidence: the least confidence of a face.
        side_px: the long side to which larger pictures are reduced.
    """

    def __init__(self, model: Path, *, min_confidence: float, side_px: int = SIDE_PX) -> None:
        import cv2

        self._side_px = side_px
        with start_errors("yunet", cv2.error):
            self._network: Any = cv2.FaceDetectorYN.create(
                str(model), "", (side_px, side_px), min_confidence, _OVERLAP, _TOP
            )

    def detect_all(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """See `FaceDetector.detect_all`: faces without a mesh, the surest one first."""
        if self._network is None:
            raise StreamError("the face detector 'yunet' is closed")
        seen = bounded(image, self._side_px, averages=True)
        height, width = seen.shape[:2]
        below, beside = (max(0, LEAST_SIDE_PX - side) for side in (height, width))
        padded = np.pad(seen[:, :, ::-1], ((0, below), (0, beside), (0, 0)))
        self._network.setInputSize(padded.shape[1::-1])
        _, found = self._network.detect(np.ascontiguousarray(padded))
        if found is None:
            return []
        scales = np.array([image.shape[1] / width, image.shape[0] / height], dtype=np.float32)
        return [_face(row, scales) for row in found if np.isfinite(row).all()]

    def close(self) -> None:
        """See `FaceDetector.close`."""
        self._network = None


def _face(row: npt.NDArray[np.float32], scales: npt.NDArray[np.float32]) -> Face:
    """Return the face of a row of 15 values: left, top, width, height, five points, confidence."""
    corner, size = row[:2] * scales, row[2:4] * scales
    return Face(
        box=np.concatenate([corner, corner + size]).astype(np.float32),
        five=(row[4:14].reshape(5, 2) * scales).astype(np.float32),
        confidence=float(row[14]),
    )
