from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from emofuse.errors import StreamError, WeightsError
from emofuse.specs import FaceSpec, digest
from emofuse.streams.faces import FaceFinder, LandmarkerDetector, face_identity, make_face_detector
from emofuse.streams.faces.detectors import native_log_muted

LANDMARKER = FaceSpec(detector="landmarker")


@pytest.fixture(scope="session")
def task_file(shared_data):
    return shared_data / "models" / "face_landmarker.task"


@pytest.fixture(scope="session")
def landmarker(task_file):
    detector = FaceFinder(LandmarkerDetector(task_file, min_confidence=0.5), LANDMARKER)
    yield detector
    detector.close()


@pytest.fixture(params=["face_mesh", "landmarker"])
def detector(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def imported_landmarker(task_file):
    from emofuse.weights import import_weights

    import_weights(task_file)


def test_points_are_pixels_of_the_picture(detector, astronaut):
    points = detector.detect(astronaut).points
    assert (points.shape, points.dtype) == ((468, 3), np.float32)
    assert points[1, :2] == pytest.approx([223, 131], abs=4)  # nose tip
    assert points[33, 0] < points[263, 0]  # the subject's right eye is on the left of the picture
    assert points[159, 1] < points[13, 1] < points[152, 1]  # lid, lip, chin
    assert points[1, 2] < points[234, 2]  # the nose is nearer than the ear


def test_both_generations_put_the_points_in_nearly_the_same_places(face_mesh, landmarker, astronaut):
    one, other = face_mesh.detect(astronaut).points, landmarker.detect(astronaut).points
    eyes = np.linalg.norm(one[33, :2] - one[263, :2])
    assert np.abs(one - other)[:, :2].mean() / eyes < 0.05


def test_x_and_y_scale_with_a_picture_that_is_not_square(detector, astronaut):
    wide = astronaut[:256]
    whole, cropped = detector.detect(astronaut).points, detector.detect(wide).points
    assert cropped[:, :2] == pytest.approx(whole[:, :2], abs=6)


def test_the_same_picture_gives_the_same_points_whatever_came_before(detector, astronaut):
    first = detector.detect(astronaut).points
    detector.detect(astronaut[:, ::-1])
    detector.detect(np.zeros((90, 40, 3), np.uint8))
    assert np.array_equal(detector.detect(astronaut).points, first)


def test_of_two_faces_the_larger_one_is_taken(detector, astronaut):
    face = astronaut[20:220, 120:320]
    small = cv2.resize(face, (120, 120), interpolation=cv2.INTER_AREA)
    for large_on_the_left in (True, False):
        both = np.full((240, 400, 3), 90, dtype=np.uint8)
        large_x, small_x = (10, 260) if large_on_the_left else (190, 20)
        both[20:220, large_x : large_x + 200] = face
        both[60:180, small_x : small_x + 120] = small
        nose = detector.detect(both).points[1]
        assert large_x < nose[0] < large_x + 200


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 2), (5, 7), (64, 64), (3000, 2), (1500, 1500)])
def test_pictures_without_a_face_have_none_whatever_their_size(detector, shape):
    assert detector.detect(np.full((*shape, 3), 80, dtype=np.uint8)) is None


def test_grey_and_non_contiguous_pictures_are_accepted(detector, astronaut):
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    assert detector.detect(np.repeat(grey[..., None], 3, axis=2)) is not None
    assert detector.detect(astronaut[:, ::-1]) is not None


def test_a_huge_picture_is_looked_at_smaller_and_measured_in_its_own_pixels(detector, astronaut):
    huge = cv2.resize(astronaut, (4096, 4096), interpolation=cv2.INTER_CUBIC)
    points, expected = detector.detect(huge).points, detector.detect(astronaut).points * 8
    eyes = np.linalg.norm(expected[33, :2] - expected[263, :2])
    assert np.abs(points - expected)[:, :2].max() / eyes < 0.1


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_face_mesh_runs_one_native_thread(face_mesh, astronaut):
    face_mesh.detect(astronaut)
    before = _threads()
    detector = make_face_detector(FaceSpec())
    detector.detect(astronaut)
    assert _threads() - before == 1
    detector.close()
    assert _threads() == before


def _threads():
    return len(list(Path("/proc/self/task").iterdir()))


def test_one_thread_gives_the_points_of_the_solution_itself(face_mesh, astronaut):
    from mediapipe.python.solutions.face_mesh import FaceMesh

    with FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=False) as solution:
        found = solution.process(astronaut).multi_face_landmarks[0].landmark
    expected = np.array([(point.x, point.y, point.z) for point in found], dtype=np.float32) * np.float32(512)
    assert np.array_equal(face_mesh.detect(astronaut).points, expected)


def test_closing_twice_is_harmless(face_mesh, task_file):
    for detector in (make_face_detector(FaceSpec()), LandmarkerDetector(task_file, min_confidence=0.5)):
        detector.close()
        detector.close()


@pytest.mark.usefixtures("face_mesh")
def test_a_higher_confidence_finds_fewer_faces(astronaut):
    blurred = cv2.GaussianBlur(cv2.resize(astronaut, (96, 96)), (0, 0), 2.0)
    found = []
    for confidence in (0.05, 0.99):
        detector = make_face_detector(FaceSpec(min_confidence=confidence))
        found.append(detector.detect(blurred) is not None)
        detector.close()
    assert found == [True, False]


@pytest.mark.usefixtures("face_mesh")
def test_starting_and_finding_write_nothing_to_stderr():
    code = (
        "from skimage import data; from emofuse.specs import FaceSpec;"
        "from emofuse.streams.faces import make_face_detector; detector = make_face_detector(FaceSpec());"
        "assert detector.detect(data.astronaut()); detector.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_muting_gives_stderr_back(capfd):
    with native_log_muted():
        os.write(2, b"native remark")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.usefixtures("face_mesh")
def test_the_identity_of_face_mesh_holds_the_hashes_of_its_models():
    folder = Path(importlib.util.find_spec("mediapipe").submodule_search_locations[0]) / "modules"
    identity = face_identity(FaceSpec())
    assert identity["detector"] == "face_mesh"
    assert identity["models"] == {
        "face_detection_short_range.tflite": _sha256(folder / "face_detection" / "face_detection_short_range.tflite"),
        "face_landmark.tflite": _sha256(folder / "face_landmark" / "face_landmark.tflite"),
    }


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("imported_landmarker")
def test_the_identity_of_the_landmarker_holds_the_hash_of_its_file():
    models = face_identity(LANDMARKER)["models"]
    assert models == {"face_landmarker.task": "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"}


@pytest.mark.usefixtures("imported_landmarker")
def test_identities_differ_by_detector_and_confidence_and_are_plain_json(face_mesh):
    identities = [face_identity(spec) for spec in (FaceSpec(), FaceSpec(min_confidence=0.6), LANDMARKER)]
    assert len({digest(identity) for identity in identities}) == 3
    assert json.loads(json.dumps(identities)) == identities


@pytest.mark.usefixtures("imported_landmarker")
def test_the_spec_chooses_the_detector(astronaut):
    detector = make_face_detector(LANDMARKER)
    assert isinstance(detector._detector, LandmarkerDetector)
    assert detector.detect(astronaut) is not None
    detector.close()


def test_without_its_file_the_landmarker_names_the_command_that_fetches_it():
    for function in (make_face_detector, face_identity):
        with pytest.raises(WeightsError, match="face_landmarker"):
            function(LANDMARKER)


@pytest.mark.parametrize("installed", [True, False])
def test_without_face_mesh_the_error_names_both_ways_out(monkeypatch, tmp_path, installed):
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)]) if installed else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2.2")
    why = r"mediapipe 1\.2\.2 no longer has it" if installed else "mediapipe is not installed"
    ways = r"pip install 'mediapipe==0\.10\.21', or set face\.detector to 'landmarker' and run: emofuse weights fetch "
    for function in (make_face_detector, face_identity):
        with pytest.raises(StreamError, match=rf"{why}\. Either {ways}face_landmarker$"):
            function(FaceSpec())


def test_a_model_that_cannot_be_started_says_so(tmp_path):
    model = tmp_path / "broken.task"
    model.write_bytes(b"no model")
    with pytest.raises(StreamError, match=r"^the face detector 'landmarker' cannot start: "):
        LandmarkerDetector(model, min_confidence=0.5)


def test_the_astronaut_of_the_tests_is_the_one_that_is_shipped(face_mesh, astronaut):
    from emofuse.testing import example_face

    assert example_face().points == pytest.approx(face_mesh.detect(astronaut).points, abs=0.06)
