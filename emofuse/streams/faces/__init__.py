"""Faces: detectors behind one small protocol, the choice of a face, and its alignment.

`face_mesh` runs Face Mesh of MediaPipe 0.10.x up to 0.10.21, whose wheel contains the models. `landmarker` runs the
Tasks face landmarker, also of later releases, whose model is a file of the weights registry. Both run BlazeFace, then a
mesh of 468 points on each face (Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video", 2019). The
points have the same meaning. Their places differ by a few hundredths of the distance between the eyes, most at lips and
chin, so the detector is part of a stream's digest. `yunet` and `retinaface` give a box and five points.

Of several faces the **most prominent** one is taken unless the spec asks for others: the one with the largest box,
among the first `MAX_FACES` faces. The networks see the whole picture at 128 x 128 and a face at 192 x 192. A picture is
therefore reduced to a long side of at most `MAX_SIDE_PX`: a face that can be detected keeps its detail, and a huge
photograph costs little more than a small one.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from emofuse.checksum import hash_file
from emofuse.errors import StreamError
from emofuse.specs import FaceSpec, FileWeights, HubWeights, RegistryWeights
from emofuse.specs.streams import NEEDS_FACE
from emofuse.streams.faces.alignment import VERSION as CROP_VERSION
from emofuse.streams.faces.alignment import crop_face
from emofuse.streams.faces.detectors import MAX_FACES, MAX_FACES_OF_ALL, MAX_SIDE_PX, FaceDetector, FollowingDetector
from emofuse.streams.faces.face_mesh import FaceMeshDetector, face_mesh_files
from emofuse.streams.faces.finder import FaceFinder
from emofuse.streams.faces.landmarker import LandmarkerDetector, landmarker_file, landmarker_sha256
from emofuse.streams.faces.retinaface import SIDE_PX as RETINAFACE_SIDE_PX
from emofuse.streams.faces.retinaface import VERSION as RETINAFACE_VERSION
from emofuse.streams.faces.retinaface import RetinaFaceDetector
from emofuse.streams.faces.yunet import SIDE_PX as YUNET_SIDE_PX
from emofuse.streams.faces.yunet import VERSION as YUNET_VERSION
from emofuse.streams.faces.yunet import YunetDetector
from emofuse.weights import ResolvedWeights, resolve_weights

__all__ = [
    "MAX_FACES",
    "MAX_SIDE_PX",
    "FaceDetector",
    "FaceFinder",
    "FaceMeshDetector",
    "FollowingDetector",
    "LandmarkerDetector",
    "RetinaFaceDetector",
    "YunetDetector",
    "crop_face",
    "face_identity",
    "face_weights",
    "make_face_detector",
    "make_following_detector",
    "model_files",
]

LAID_VERSION = 1
"""Increase it whenever another mesh or other blendshapes are laid on the same face of another detector."""
LAID_CONFIDENCE = 0.3
"""The least confidence of a mesh on a face that another detector has found: it need not be found again."""

_DEFAULT_WEIGHTS = {"yunet": "yunet", "retinaface": "retinaface-resnet50"}

VERSION = 1
"""Increase it whenever the same picture gives other points. It is part of the digest of streams that need a face."""

Needs = Iterable[str]


def make_face_detector(spec: FaceSpec, needs: Needs = NEEDS_FACE, *, device: str = "cpu") -> FaceFinder:
    """Make the detector of a spec and load its models.

    Args:
        spec: the detector and its options.
        needs: what the streams need of a sample (see `emofuse.specs.streams.NEEDS`).
        device: the device of RetinaFace, as torch names it; the others run on the CPU.

    Raises:
        StreamError: an installed library cannot run it.
        WeightsError: its model is missing or another one.
    """
    needs = frozenset(needs)
    with ExitStack() as opened:

        def kept(detector: FaceDetector) -> FaceDetector:
            return opened.enter_context(closing(detector))

        detector = kept(_detector(spec, needs, device))
        mesh = kept(FaceMeshDetector(min_confidence=LAID_CONFIDENCE)) if _lays_mesh(spec, needs) else None
        expressions = (
            kept(LandmarkerDetector(landmarker_file(), min_confidence=LAID_CONFIDENCE, expressions=True))
            if _lays_expressions(spec, needs)
            else None
        )
        opened.pop_all()
    return FaceFinder(detector, spec, mesh=mesh, expressions=expressions)


def make_following_detector(spec: FaceSpec, needs: Needs = NEEDS_FACE) -> FollowingDetector | None:
    """Make the detector of a spec that follows faces from frame to frame; None if there is none.

    Pictures that are turned until a face is found cannot be followed: the face before lies elsewhere in them.

    Args:
        spec: the detector and its options.
        needs: what the streams need of a sample.

    Raises:
        StreamError: an installed library cannot run it.
        WeightsError: its model is missing.
    """
    if spec.turned:
        return None
    match spec.detector:
        case "face_mesh":
            return _face_mesh(spec, follows=True)
        case "landmarker":
            return _landmarker(spec, frozenset(needs), follows=True)
        case _:
            return None


def face_identity(spec: FaceSpec, needs: Needs = NEEDS_FACE) -> dict[str, Any]:
    """Return everything that decides the faces that a stream sees, as plain JSON: a part of a stream's digest.

    This function loads no model. Options with their default are not written, so that digests from before there were
    options stay the same.

    Args:
        spec: the detector and its options.
        needs: what the stream needs of a sample.

    Raises:
        StreamError: the models of Face Mesh are needed and not installed.
        WeightsError: the model of another detector is missing.
    """
    needs = frozenset(needs)
    identity: dict[str, Any] = {
        "detector": spec.detector,
        "version": VERSION,
        "min_confidence": spec.min_confidence,
        "models": _models(spec),
    }
    written = spec.model_dump(mode="json")
    identity |= {name: written[name] for name in ("which", "min_px", "upscale_below_px", "turned") if name in written}
    if not _gives_mesh(spec):
        version = {"yunet": YUNET_VERSION, "retinaface": RETINAFACE_VERSION}[spec.detector]
        identity |= {"detector_version": version, "detect_px": _side_px(spec)}
    if _lays_mesh(spec, needs):
        identity["mesh"] = {"version": LAID_VERSION, "models": _models(FaceSpec(detector="face_mesh"))}
    if _lays_expressions(spec, needs):
        identity["expressions"] = {"version": LAID_VERSION, "models": _models(FaceSpec(detector="landmarker"))}
    if "crop" in needs:
        identity["crop"] = {
            "version": CROP_VERSION,
            "align": spec.align,
            "size_px": spec.size_px,
            "margin": spec.crop_margin,
        }
    return identity


def model_files(spec: FaceSpec, needs: Needs = NEEDS_FACE) -> tuple[Path, ...]:
    """Return the files of the networks that detect a face and give what streams need of it.

    Raises:
        StreamError: the models of Face Mesh are needed and not installed.
        WeightsError: the model of another detector is missing.
    """
    needs = frozenset(needs)
    match spec.detector:
        case "face_mesh":
            files = face_mesh_files()
        case "landmarker":
            files = (landmarker_file(),)
        case _:
            files = (_weights_file(spec),)
    files += face_mesh_files() if _lays_mesh(spec, needs) else ()
    return (*files, landmarker_file()) if _lays_expressions(spec, needs) else files


def face_weights(spec: FaceSpec) -> RegistryWeights | FileWeights | HubWeights | None:
    """Return the weights of a detector that the spec names, or its default; None of a detector with its own models."""
    if _gives_mesh(spec):
        return None
    return spec.weights or RegistryWeights(name=_DEFAULT_WEIGHTS[spec.detector])


def _detector(spec: FaceSpec, needs: frozenset[str], device: str) -> FaceDetector:
    match spec.detector:
        case "face_mesh":
            return _face_mesh(spec)
        case "landmarker":
            return _landmarker(spec, needs)
        case "yunet":
            return YunetDetector(_weights_file(spec), min_confidence=spec.min_confidence, side_px=_side_px(spec))
        case "retinaface":
            return RetinaFaceDetector(
                _weights_file(spec), min_confidence=spec.min_confidence, side_px=_side_px(spec), device=device
            )


def _face_mesh(spec: FaceSpec, *, follows: bool = False) -> FaceMeshDetector:
    return FaceMeshDetector(min_confidence=spec.min_confidence, max_faces=_max_faces(spec), follows=follows)


def _landmarker(spec: FaceSpec, needs: frozenset[str], *, follows: bool = False) -> LandmarkerDetector:
    return LandmarkerDetector(
        landmarker_file(),
        min_confidence=spec.min_confidence,
        max_faces=_max_faces(spec),
        expressions="blendshapes" in needs,
        follows=follows,
    )


def _max_faces(spec: FaceSpec) -> int:
    return MAX_FACES if spec.which == "largest" else MAX_FACES_OF_ALL


def _weights_file(spec: FaceSpec) -> Path:
    path = _resolved(spec).path
    if path is None:
        raise StreamError(f"the weights of the face detector {spec.detector!r} resolve to no file")
    return path


def _resolved(spec: FaceSpec) -> ResolvedWeights:
    weights = face_weights(spec)
    if weights is None:
        raise StreamError(f"the face detector {spec.detector!r} has no weights of its own")
    return resolve_weights(weights)


def _models(spec: FaceSpec) -> dict[str, str]:
    """Return name -> SHA-256 of the models of the detector alone."""
    match spec.detector:
        case "face_mesh":
            return {path.name: hash_file(path) for path in face_mesh_files()}
        case "landmarker":
            return {"face_landmarker.task": landmarker_sha256()}
        case _:  # by its kind and not by its file, which may have any name
            return {spec.detector: str(_resolved(spec).sha256)}


def _side_px(spec: FaceSpec) -> int:
    default = YUNET_SIDE_PX if spec.detector == "yunet" else RETINAFACE_SIDE_PX
    return default if spec.detect_px is None else spec.detect_px


def _gives_mesh(spec: FaceSpec) -> bool:
    return spec.detector in {"face_mesh", "landmarker"}


def _lays_mesh(spec: FaceSpec, needs: frozenset[str]) -> bool:
    """Return whether Face Mesh lays the mesh on the faces of another detector."""
    needs_mesh = bool(needs & {"face", "blendshapes"}) or ("crop" in needs and spec.align == "mesh")
    return needs_mesh and not _gives_mesh(spec)


def _lays_expressions(spec: FaceSpec, needs: frozenset[str]) -> bool:
    """Return whether the landmarker gives the blendshapes of the faces of another detector."""
    return "blendshapes" in needs and spec.detector != "landmarker"
