"""Fixtures of the stream tests: Face Mesh and a real face."""

from __future__ import annotations

import pytest
from skimage import data

from emofuse.specs import FaceSpec
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
