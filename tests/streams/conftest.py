"""Fixtures of the stream tests: a real detector and a real face."""

from __future__ import annotations

import pytest
from skimage import data

from emofuse.errors import StreamError
from emofuse.specs import FaceSpec
from emofuse.streams.faces import make_face_detector


@pytest.fixture(scope="session")
def face_mesh():
    """Face Mesh; tests that need it skip where the installed MediaPipe no longer has it."""
    try:
        detector = make_face_detector(FaceSpec())
    except StreamError as error:
        pytest.skip(str(error))
    yield detector
    detector.close()


@pytest.fixture(scope="session")
def astronaut():
    """(512, 512, 3) uint8 RGB, one smiling face."""
    return data.astronaut()


@pytest.fixture(scope="session")
def astronaut_face(face_mesh, astronaut):
    return face_mesh.detect(astronaut)
