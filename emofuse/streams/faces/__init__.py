"""Faces: detectors behind one small protocol, the choice of a face, and its alignment.

`face_mesh` runs Face Mesh of MediaPipe 0.10.x up to 0.10.21, whose wheel contains the models. `landmarker` runs the
Tasks face landmarker, also of later releases, whose model is a file of the weights registry. Both run BlazeFace, then a
mesh of 468 points on each face (Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video", 2019). The
points have the same meaning. Their places differ by a few hundredths of the distance between the eyes, most at lips and
chin, so the detector is part of a stream's digest.

Of several faces the **most prominent** one is taken unless the spec asks for others: the one with the largest box,
among the first `MAX_FACES` faces. The networks see the whole picture at 128 x 128 and a face at 192 x 192. A picture is
therefore reduced to a long side of at most `MAX_SIDE_PX`: a face that can be detected keeps its detail, and a huge
photograph costs little more than a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emofuse.checksum import hash_file
from emofuse.errors import StreamError
from emofuse.specs import FaceSpec
from emofuse.specs.streams import NEEDS_FACE
from emofuse.streams.faces.alignment import VERSION as CROP_VERSION
from emofuse.streams.faces.alignment import crop_face
from emofuse.streams.faces.detectors import MAX_FACES, MAX_FACES_OF_ALL, MAX_SIDE_PX, FaceDetector, FollowingDetector
from emofuse.streams.faces.face_mesh import FaceMeshDetector, face_mesh_files
from emofuse.streams.faces.finder import FaceFinder
from emofuse.streams.faces.landmarker import LandmarkerDetector, landmarker_file, landmarker_sha256

__all__ = [
    "MAX_FACES",
    "MAX_SIDE_PX",
    "FaceDetector",
    "FaceFinder",
    "FaceMeshDetector",
    "FollowingDetector",
    "LandmarkerDetector",
    "crop_face",
    "face_identity",
    "make_face_detector",
    "make_following_detector",
    "model_files",
]

VERSION = 1
"""Increase it whenever the same picture gives other points. It is part of the digest of streams that need a face."""

Needs = Iterable[str]


def make_face_detector(spec: FaceSpec, needs: Needs = NEEDS_FACE) -> FaceFinder:
    """Make the detector of a spec and load its models.

    Args:
        spec: the detector and its options.
        needs: what the streams need of a sample (see `emofuse.specs.streams.NEEDS`).

    Raises:
        StreamError: an installed library cannot run it, or it does not give what the streams need.
        WeightsError: its model is missing.
    """
    needs = frozenset(needs)
    _check_gives(spec, needs)
    return FaceFinder(_DETECTORS[spec.detector].make(spec, needs), spec)


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
    following = _DETECTORS[spec.detector].following
    return None if following is None or spec.turned else following(spec, frozenset(needs))


def face_identity(spec: FaceSpec, needs: Needs = NEEDS_FACE) -> dict[str, Any]:
    """Return everything that decides the faces that a stream sees, as plain JSON: a part of a stream's digest.

    This function loads no model. Options with their default are not written, so that digests from before there were
    options stay the same.

    Args:
        spec: the detector and its options.
        needs: what the stream needs of a sample.

    Raises:
        StreamError: the models of Face Mesh are not installed.
        WeightsError: the model of another detector is missing.
    """
    needs = frozenset(needs)
    _check_gives(spec, needs)
    identity: dict[str, Any] = {
        "detector": spec.detector,
        "version": VERSION,
        "min_confidence": spec.min_confidence,
        "models": _DETECTORS[spec.detector].models(spec),
    }
    written = spec.model_dump(mode="json")
    identity |= {name: written[name] for name in ("which", "min_px", "upscale_below_px", "turned") if name in written}
    if "crop" in needs:
        identity["crop"] = {
            "version": CROP_VERSION,
            "align": spec.align,
            "size_px": spec.size_px,
            "margin": spec.crop_margin,
        }
    return identity


def model_files(spec: FaceSpec, needs: Needs = NEEDS_FACE) -> tuple[Path, ...]:  # noqa: ARG001 - to come
    """Return the files of the networks that detect a face and its points.

    Raises:
        StreamError: the models of Face Mesh are not installed.
        WeightsError: the model of another detector is missing.
    """
    return _DETECTORS[spec.detector].files(spec)


@dataclass(frozen=True)
class _Kind:
    """A kind of detectors.

    Attributes:
        make: returns the detector of a spec, for what streams need.
        files: returns the files of its networks.
        models: returns name -> SHA-256 of these files.
        following: returns the detector that follows faces from frame to frame; None if there is none.
    """

    make: Callable[[FaceSpec, frozenset[str]], FaceDetector]
    files: Callable[[FaceSpec], tuple[Path, ...]]
    models: Callable[[FaceSpec], dict[str, str]]
    following: Callable[[FaceSpec, frozenset[str]], FollowingDetector] | None = None


def _max_faces(spec: FaceSpec) -> int:
    return MAX_FACES if spec.which == "largest" else MAX_FACES_OF_ALL


def _landmarker(spec: FaceSpec, needs: frozenset[str], *, follows: bool = False) -> LandmarkerDetector:
    return LandmarkerDetector(
        landmarker_file(),
        min_confidence=spec.min_confidence,
        max_faces=_max_faces(spec),
        expressions="blendshapes" in needs,
        follows=follows,
    )


_DETECTORS = {
    "face_mesh": _Kind(
        make=lambda spec, needs: FaceMeshDetector(  # noqa: ARG005
            min_confidence=spec.min_confidence, max_faces=_max_faces(spec)
        ),
        files=lambda spec: face_mesh_files(),  # noqa: ARG005
        models=lambda spec: {path.name: hash_file(path) for path in face_mesh_files()},  # noqa: ARG005
        following=lambda spec, needs: FaceMeshDetector(  # noqa: ARG005
            min_confidence=spec.min_confidence, max_faces=_max_faces(spec), follows=True
        ),
    ),
    "landmarker": _Kind(
        make=_landmarker,
        files=lambda spec: (landmarker_file(),),  # noqa: ARG005
        models=lambda spec: {"face_landmarker.task": landmarker_sha256()},  # noqa: ARG005
        following=lambda spec, needs: _landmarker(spec, needs, follows=True),
    ),
}


def _check_gives(spec: FaceSpec, needs: frozenset[str]) -> None:
    if "blendshapes" in needs and spec.detector != "landmarker":
        raise StreamError(
            f"face.detector {spec.detector!r} gives no blendshapes: set face.detector to 'landmarker' and run: emofuse "
            "weights fetch face_landmarker"
        )
