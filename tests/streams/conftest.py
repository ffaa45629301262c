"""Fixtures of the stream tests: Face Mesh and a real face."""

from __future__ import annotations

from contextlib import ExitStack, closing

import pytest
from skimage import data

from emofuse.specs import FaceSpec
from emofuse.specs.streams import NEEDS_FACE
from emofuse.streams.faces import make_face_detector


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


@pytest.fixture
def make_finder(request, face_options):
    """Open a detector with face options; it is closed behind the test."""
    with ExitStack() as opened:

        def make(name, needs=NEEDS_FACE, **options):
            return opened.enter_context(closing(make_face_detector(face_options(name, **options), needs)))

        yield make
