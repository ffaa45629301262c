"""Face detectors: two generations of MediaPipe behind one small protocol.

`FaceMeshDetector` runs Face Mesh of MediaPipe 0.10.x up to 0.10.21, whose wheel contains the models.
`LandmarkerDetector` runs the Tasks face landmarker, also of later releases, whose model is a file of the weights
registry. Both run BlazeFace, then a mesh of 468 points on each face (Kartynnik et al., "Real-time Facial Surface
Geometry from Monocular Video", 2019). The points have the same meaning. Their places differ by a few hundredths of the
distance between the eyes, most at lips and chin, so the detector is part of a stream's digest.

A detector returns the **most prominent** of several faces: the one whose mesh has the largest bounding box, among the
first `MAX_FACES` faces. The networks see the whole picture at 128 x 128 and a face at 192 x 192. A picture is therefore
reduced to a long side of at most `MAX_SIDE_PX`: a face that can be detected keeps its detail, and a huge photograph
costs little more than a small one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from emofuse.checksum import hash_file
from emofuse.errors import StreamError
from emofuse.specs import FaceSpec, RegistryWeights
from emofuse.streams.base import Face
from emofuse.weights import resolve_weights

VERSION = 1
"""Increase it whenever the same picture gives other points. It is part of the digest of streams that need a face."""

POINTS = 468
MAX_FACES = 4
MAX_SIDE_PX = 1280

_MESH_GRAPH = "modules/face_landmark/face_landmark_front_cpu.binarypb"
_MESH_MODELS = (
    "modules/face_detection/face_detection_short_range.tflite",
    "modules/face_landmark/face_landmark.tflite",
)
_MESH_DETECTION = "facedetectionshortrangecpu__facedetectionshortrange__facedetection__TensorsToDetectionsCalculator"
_MESH_PRESENCE = "facelandmarkcpu__ThresholdingCalculator"
_LANDMARKER_WEIGHTS = RegistryWeights(name="face_landmarker")
_MUTE = threading.Lock()  # two threads that mute stderr at once would leave it muted


class FaceDetector(Protocol):
    """A detector of the most prominent face. Two threads must not use it at once."""

    def detect(self, image: npt.NDArray[np.uint8]) -> Face | None:
        """Return the most prominent face of an (H, W, 3) uint8 RGB picture of any size; None if there is none."""
        ...

    def close(self) -> None:
        """Release the native graph and its threads. The detector is not used afterwards; a second call does nothing."""
        ...


def make_face_detector(spec: FaceSpec) -> FaceDetector:
    """Make the detector of a spec and load its models.

    Raises:
        StreamError: the installed MediaPipe cannot run it.
        WeightsError: its model is missing.
    """
    match spec.detector:
        case "face_mesh":
            return FaceMeshDetector(min_confidence=spec.min_confidence)
        case "landmarker":
            model = resolve_weights(_LANDMARKER_WEIGHTS).path
            if model is None:
                raise StreamError("the weights 'face_landmarker' resolve to no file")
            return LandmarkerDetector(model, min_confidence=spec.min_confidence)


def face_identity(spec: FaceSpec) -> dict[str, Any]:
    """Return everything that decides the places of the points, as plain JSON: a part of a stream's digest.

    This function loads no model.

    Raises:
        StreamError: the spec names Face Mesh, whose models are not installed.
        WeightsError: the spec names the landmarker, whose model is missing.
    """
    match spec.detector:
        case "face_mesh":
            folder = _mesh_folder()
            models = {Path(name).name: hash_file(folder / name) for name in _MESH_MODELS}
        case "landmarker":
            models = {"face_landmarker.task": str(resolve_weights(_LANDMARKER_WEIGHTS).sha256)}
    return {"detector": spec.detector, "version": VERSION, "min_confidence": spec.min_confidence, "models": models}


def model_files(spec: FaceSpec) -> tuple[Path, ...]:
    """Return the files of the networks that detect a face and its points.

    Raises:
        StreamError: the spec names Face Mesh, whose models are not installed.
        WeightsError: the spec names the landmarker, whose model is missing.
    """
    match spec.detector:
        case "face_mesh":
            folder = _mesh_folder()
            return tuple(folder / name for name in _MESH_MODELS)
        case "landmarker":
            model = resolve_weights(_LANDMARKER_WEIGHTS).path
            return (model,) if model is not None else ()


class FaceMeshDetector:
    """MediaPipe Face Mesh: no refinement of lips and irises, one native thread.

    This class builds the graph itself, because `mp.solutions.face_mesh` would run a thread per core in each worker.

    Args:
        min_confidence: the least confidence of detection and mesh.
        follows: whether faces are looked for where they were in the picture before, for frames of a clip. Otherwise
            every picture stands alone.
    """

    def __init__(self, *, min_confidence: float, follows: bool = False) -> None:
        folder = _mesh_folder()
        self._seen_a_face = False
        with _native_log_muted(), _start_errors("face_mesh"):
            # The import registers the extension; without it, the copy of the graph loses the thread count.
            from mediapipe.framework import calculator_pb2, thread_pool_executor_pb2  # noqa: F401
            from mediapipe.python.solution_base import SolutionBase

            graph = calculator_pb2.CalculatorGraphConfig.FromString((folder / _MESH_GRAPH).read_bytes())
            graph.num_threads = 1
            self._graph = SolutionBase(
                graph_config=graph,
                side_inputs={"num_faces": MAX_FACES, "with_attention": False, "use_prev_landmarks": follows},
                calculator_params={
                    f"{_MESH_DETECTION}.min_score_thresh": min_confidence,
                    f"{_MESH_PRESENCE}.threshold": min_confidence,
                },
                outputs=["multi_face_landmarks"],
            )
            self._graph.process({"image": np.zeros((64, 64, 3), np.uint8)})  # starts the graph, which logs

    def detect(self, image: npt.NDArray[np.uint8]) -> Face | None:
        """See `FaceDetector.detect`."""
        faces = self._process(image)
        return _most_prominent(faces, image) if faces else None

    def detect_all(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Return all faces of an (H, W, 3) uint8 RGB picture, at most `MAX_FACES`."""
        return [Face(points) for points in _meshes(self._process(image), image)]

    def forget(self) -> None:
        """Forget the faces of the picture before."""
        with _native_log_muted():
            self._graph.reset()
            self._graph.process({"image": np.zeros((64, 64, 3), np.uint8)})  # starts the graph, which logs

    def _process(self, image: npt.NDArray[np.uint8]) -> list[Sequence[Any]]:
        with nullcontext() if self._seen_a_face else _native_log_muted():
            faces = self._graph.process({"image": _bounded(image)}).multi_face_landmarks
        self._seen_a_face = self._seen_a_face or bool(faces)
        return [face.landmark for face in faces or ()]

    def close(self) -> None:
        """See `FaceDetector.close`."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()


class LandmarkerDetector:
    """The MediaPipe Tasks face landmarker on single pictures; the first 468 of its 478 points are Face Mesh's.

    Python cannot choose the threads of its graph: it holds a few, which sleep between the steps of one picture.
    """

    def __init__(self, model: Path, *, min_confidence: float) -> None:
        self._seen_a_face = False
        with _native_log_muted(), _start_errors("landmarker"):
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            self._mediapipe = mediapipe
            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=BaseOptions(model_asset_path=str(model)),
                    num_faces=MAX_FACES,
                    min_face_detection_confidence=min_confidence,
                    min_face_presence_confidence=min_confidence,
                )
            )

    def detect(self, image: npt.NDArray[np.uint8]) -> Face | None:
        """See `FaceDetector.detect`."""
        packet = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=_bounded(image))
        with nullcontext() if self._seen_a_face else _native_log_muted():
            faces = self._landmarker.detect(packet).face_landmarks
        if not faces:
            return None
        self._seen_a_face = True
        return _most_prominent(faces, image)

    def close(self) -> None:
        """See `FaceDetector.close`."""
        landmarker, self._landmarker = self._landmarker, None
        if landmarker is not None:
            landmarker.close()


def _bounded(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the picture with a long side of at most `MAX_SIDE_PX`, contiguous.

    It is sampled linearly, as MediaPipe samples its input: averaging over areas costs more than it saves.
    """
    height, width = image.shape[:2]
    scale = MAX_SIDE_PX / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    import cv2

    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _most_prominent(faces: Sequence[Sequence[Any]], image: npt.NDArray[np.uint8]) -> Face:
    """Return the face with the largest box, in pixels.

    Args:
        faces: the points of each face: x and y are fractions of width and height, z has the scale of x.
        image: the picture, (H, W, 3).
    """
    meshes = _meshes(faces, image)
    areas = [float(np.ptp(points[:, 0]) * np.ptp(points[:, 1])) for points in meshes]
    return Face(points=meshes[int(np.argmax(areas))])


def _meshes(faces: Sequence[Sequence[Any]], image: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    """Return the points of each face (468, 3), in pixels."""
    height, width = image.shape[:2]
    scale = np.array([width, height, width], dtype=np.float32)
    return [np.array([(p.x, p.y, p.z) for p in face[:POINTS]], dtype=np.float32) * scale for face in faces]


def _mesh_folder() -> Path:
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


@contextmanager
def _start_errors(detector: str) -> Iterator[None]:
    """Name the detector in the errors that MediaPipe raises when it cannot be imported or started."""
    try:
        yield
    except (ImportError, OSError, RuntimeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise StreamError(f"the face detector {detector!r} cannot start: {text}") from error


@contextmanager
def _native_log_muted() -> Iterator[None]:
    """Redirect the process's stderr to the null device inside the context.

    MediaPipe's native code writes useless lines (delegates, feedback tensors) straight to the file descriptor when a
    graph starts and when it sees its first face, and it ignores log levels. Its errors still become Python exceptions.
    """
    with _MUTE:
        try:
            kept = os.dup(2)
        except OSError:  # a service has closed its stderr: there is nothing to mute
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
