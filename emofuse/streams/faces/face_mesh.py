"""MediaPipe Face Mesh, and the points of its meshes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.errors import StreamError
from emofuse.streams.base import Face
from emofuse.streams.faces.detectors import MAX_FACES, bounded, native_log_muted, overlap, start_errors

POINTS = 468

_MESH_GRAPH = "modules/face_landmark/face_landmark_front_cpu.binarypb"
_MESH_MODELS = (
    "modules/face_detection/face_detection_short_range.tflite",
    "modules/face_landmark/face_landmark.tflite",
)
_MESH_DETECTION = "facedetectionshortrangecpu__facedetectionshortrange__facedetection__TensorsToDetectionsCalculator"
_MESH_PRESENCE = "facelandmarkcpu__ThresholdingCalculator"


class FaceMeshDetector:
    """MediaPipe Face Mesh: no refinement of lips and irises, one native thread.

    This class builds the graph itself, because `mp.solutions.face_mesh` would run a thread per core in each worker.

    Args:
        min_confidence: the least confidence of detection and mesh.
        max_faces: the largest number of faces.
        follows: whether faces are looked for where they were in the picture before, for frames of a clip. Otherwise
            every picture stands alone.
    """

    def __init__(self, *, min_confidence: float, max_faces: int = MAX_FACES, follows: bool = False) -> None:
        folder = mesh_folder()
        self._seen_a_face = False
        with native_log_muted(), start_errors("face_mesh"):
            # The import registers the extension; without it, the copy of the graph loses the thread count.
            from mediapipe.framework import calculator_pb2, thread_pool_executor_pb2  # noqa: F401
            from mediapipe.python.solution_base import SolutionBase

            graph = calculator_pb2.CalculatorGraphConfig.FromString((folder / _MESH_GRAPH).read_bytes())
            graph.num_threads = 1
            self._graph = SolutionBase(
                graph_config=graph,
                side_inputs={"num_faces": max_faces, "with_attention": False, "use_prev_landmarks": follows},
                calculator_params={
                    f"{_MESH_DETECTION}.min_score_thresh": min_confidence,
                    f"{_MESH_PRESENCE}.threshold": min_confidence,
                },
                outputs=["multi_face_landmarks", "face_detections"],
            )
            self._graph.process({"image": np.zeros((64, 64, 3), np.uint8)})  # starts the graph, which logs

    def detect_all(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """See `FaceDetector.detect_all`: at most `max_faces` faces, each with its mesh."""
        with nullcontext() if self._seen_a_face else native_log_muted():
            found = self._graph.process({"image": bounded(image)})
        faces = [Face(mesh_points(face.landmark, image)) for face in found.multi_face_landmarks or ()]
        self._seen_a_face = self._seen_a_face or bool(faces)
        return [replace(face, confidence=_confidence(face, found.face_detections or (), image)) for face in faces]

    def forget(self) -> None:
        """Forget the faces of the picture before."""
        with native_log_muted():
            self._graph.reset()
            self._graph.process({"image": np.zeros((64, 64, 3), np.uint8)})  # starts the graph, which logs

    def close(self) -> None:
        """See `FaceDetector.close`."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()


def _confidence(face: Face, detections: Sequence[Any], image: npt.NDArray[np.uint8]) -> float:
    """Return the confidence of the detection that a mesh was laid on; NaN of a face that was followed."""
    height, width = image.shape[:2]
    best, confidence = 0.0, math.nan
    for detection in detections:
        place = detection.location_data.relative_bounding_box
        corner = np.array([place.xmin * width, place.ymin * height], dtype=np.float32)
        size = np.array([place.width * width, place.height * height], dtype=np.float32)
        share = overlap(face.box, np.concatenate([corner, corner + size]))
        if share > best:
            best, confidence = share, float(detection.score[0])
    return confidence


def mesh_points(face: Sequence[Any], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the points of a mesh (468, 3), in pixels.

    Args:
        face: the points as MediaPipe returns them: x and y are fractions of width and height, z has the scale of x.
        image: the picture, (H, W, 3).
    """
    height, width = image.shape[:2]
    scale = np.array([width, height, width], dtype=np.float32)
    return np.array([(p.x, p.y, p.z) for p in face[:POINTS]], dtype=np.float32) * scale


def face_mesh_files() -> tuple[Path, ...]:
    """Return the files of the networks of Face Mesh.

    Raises:
        StreamError: the installed MediaPipe does not have them.
    """
    folder = mesh_folder()
    return tuple(folder / name for name in _MESH_MODELS)


def mesh_folder() -> Path:
    """Return the folder of the installed MediaPipe, if it has Face Mesh. MediaPipe is slow to import, so it is not.

    Raises:
        StreamError: MediaPipe or Face Mesh is not installed; the message names both remedies.
    """
    package = importlib.util.find_spec("mediapipe")
    folders = [Path(place) for place in (package.submodule_search_locations or ())] if package is not None else []
    for folder in folders:
        if (folder / "python" / "solution_base.py").is_file() and (folder / _MESH_GRAPH).is_file():
            return folder
    version = importlib.metadata.version("mediapipe") if folders else ""
    installed = f"mediapipe {version} no longer has it" if folders else "mediapipe is not installed"
    raise StreamError(
        f"face.detector 'face_mesh' needs Face Mesh of MediaPipe 0.10.x, but {installed}. Either pip install "
        "'mediapipe==0.10.21', or set face.detector to 'landmarker' and run: emofuse weights fetch face_landmarker"
    )
