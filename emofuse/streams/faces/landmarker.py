"""The face landmarker of MediaPipe Tasks: a mesh, and on request 52 blendshapes and the pose of the face."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import StreamError
from emofuse.specs import RegistryWeights
from emofuse.streams.base import Face
from emofuse.streams.faces.blendshape_names import BLENDSHAPES
from emofuse.streams.faces.detectors import MAX_FACES, bounded, native_log_muted, start_errors
from emofuse.streams.faces.face_mesh import mesh_points
from emofuse.weights import resolve_weights

_WEIGHTS = RegistryWeights(name="face_landmarker")


class LandmarkerDetector:
    """The MediaPipe Tasks face landmarker; the first 468 of its 478 points are Face Mesh's.

    Python cannot choose the threads of its graph: it holds a few, which sleep between the steps of one picture.

    Args:
        model: the file of its bundle.
        min_confidence: the least confidence of detection and mesh.
        max_faces: the largest number of faces.
        expressions: whether faces have blendshapes and a transform, which costs a further network. Points are the same.
        follows: whether faces are also looked for where they were in the picture before, for frames of a clip (its
            video mode). Otherwise every picture stands alone.
    """

    def __init__(
        self,
        model: Path,
        *,
        min_confidence: float,
        max_faces: int = MAX_FACES,
        expressions: bool = False,
        follows: bool = False,
    ) -> None:
        # The video mode smooths a single face over time, so that it would depend on all frames before it.
        max_faces = max(2, max_faces) if follows else max_faces
        self._seen_a_face = False
        self._follows = follows
        self._pictures = 0
        with native_log_muted(), start_errors("landmarker"):
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            self._mediapipe = mediapipe
            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=BaseOptions(model_asset_path=str(model)),
                    running_mode=vision.RunningMode.VIDEO if follows else vision.RunningMode.IMAGE,
                    num_faces=max_faces,
                    min_face_detection_confidence=min_confidence,
                    min_face_presence_confidence=min_confidence,
                    min_tracking_confidence=min_confidence,
                    output_face_blendshapes=expressions,
                    output_facial_transformation_matrixes=expressions,
                )
            )

    def detect_all(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """See `FaceDetector.detect_all`: at most `max_faces` faces, each with its mesh."""
        with nullcontext() if self._seen_a_face else native_log_muted():
            result = self._process(bounded(image))
        self._seen_a_face = self._seen_a_face or bool(result.face_landmarks)
        return [
            Face(
                mesh_points(points, image),
                blendshapes=_scores(result.face_blendshapes[index]) if result.face_blendshapes else None,
                transform=np.array(result.facial_transformation_matrixes[index], dtype=np.float32)
                if result.facial_transformation_matrixes
                else None,
            )
            for index, points in enumerate(result.face_landmarks)
        ]

    def forget(self) -> None:
        """Forget the faces of the picture before: they are not in a black one."""
        self._process(np.zeros((64, 64, 3), np.uint8))

    def _process(self, image: npt.NDArray[np.uint8]) -> Any:
        packet = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=image)
        if not self._follows:
            return self._landmarker.detect(packet)
        self._pictures += 1  # as a time in milliseconds, which must grow and decides nothing without smoothing
        return self._landmarker.detect_for_video(packet, self._pictures)

    def close(self) -> None:
        """See `FaceDetector.close`."""
        landmarker, self._landmarker = self._landmarker, None
        if landmarker is not None:
            landmarker.close()


def _scores(blendshapes: Any) -> npt.NDArray[np.float32]:
    """Return the coefficients in the order of `BLENDSHAPES`."""
    scores = {category.category_name: category.score for category in blendshapes}
    return np.array([scores[name] for name in BLENDSHAPES], dtype=np.float32)


def landmarker_file() -> Path:
    """Return the file of the landmarker.

    Raises:
        WeightsError: it is missing.
    """
    model = resolve_weights(_WEIGHTS).path
    if model is None:
        raise StreamError("the weights 'face_landmarker' resolve to no file")
    return model


def landmarker_sha256() -> str:
    """Return the SHA-256 of the file of the landmarker.

    Raises:
        WeightsError: it is missing.
    """
    return str(resolve_weights(_WEIGHTS).sha256)
