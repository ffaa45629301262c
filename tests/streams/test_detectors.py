"""YuNet and RetinaFace beside MediaPipe: boxes, five points, meshes on them, turned and enlarged pictures, choices."""

from __future__ import annotations

import importlib.util
import sys

import cv2
import numpy as np
import pytest
import torch

from emofuse.errors import SpecError, StreamError, WeightsError
from emofuse.specs import FaceSpec, digest, parse_spec
from emofuse.streams.base import Face
from emofuse.streams.faces import FaceFinder, face_identity, make_face_detector
from emofuse.streams.faces.detectors import overlap
from emofuse.streams.faces.finder import quarter_turns
from emofuse.streams.faces.retinaface import anchors_of

FIVE = np.array([[204, 102], [246, 104], [223, 129], [202, 140], [245, 142]])  # of the astronaut
DETECTORS = ("face_mesh", "landmarker", "yunet", "retinaface")


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_finds_the_box_and_the_five_points_of_a_face(make_finder, astronaut, name):
    face = make_finder(name).detect(astronaut)
    assert face.five == pytest.approx(FIVE, abs=6)
    assert face.box == pytest.approx([179, 66, 271, 177], abs=7)
    assert (face.box.dtype, face.five.dtype) == (np.float32, np.float32)
    assert name == "landmarker" or 0.5 < face.confidence <= 1


@pytest.mark.parametrize("name", ["yunet", "retinaface"])
def test_face_mesh_lays_the_mesh_on_the_box_of_another_detector(make_finder, astronaut, name):
    plain = make_finder(name, needs={"image", "crop"}).detect(astronaut)
    assert plain.points is None
    expected = make_finder("face_mesh").detect(astronaut).points
    points = make_finder(name).detect(astronaut).points
    eyes = np.linalg.norm(expected[33, :2] - expected[263, :2])
    assert np.abs(points - expected)[:, :2].max() / eyes < 0.1


@pytest.mark.parametrize("name", ["face_mesh", "yunet", "retinaface"])
def test_the_landmarker_gives_the_blendshapes_of_the_faces_of_other_detectors(make_finder, astronaut, name):
    needs = {"image", "face", "blendshapes"}
    expected = make_finder("landmarker", needs=needs).detect(astronaut)
    face = make_finder(name, needs=needs).detect(astronaut)
    assert face.blendshapes.shape == (52,)
    assert face.blendshapes == pytest.approx(expected.blendshapes, abs=0.15)
    assert face.transform[:3, :3] == pytest.approx(expected.transform[:3, :3], abs=0.15)


@pytest.mark.parametrize(
    ("name", "turns"),
    # The landmarker gives no confidence, and finds this face upside down as well.
    [(name, turns) for name in DETECTORS for turns in (1, 2, 3) if (name, turns) != ("landmarker", 2)],
)
def test_a_turned_face_has_the_places_of_the_upright_one(make_finder, portrait, name, turns):
    finder = make_finder(name, turned=True)
    upright, turned = finder.detect(portrait), finder.detect(np.ascontiguousarray(np.rot90(portrait, -turns)))
    assert (upright.turns, turned.turns) == (0, turns)
    height, width = portrait.shape[:2]
    x, y = upright.five.T
    expected = {1: (height - y, x), 2: (width - x, height - y), 3: (y, width - x)}[turns]
    assert turned.five == pytest.approx(np.stack(expected, axis=1), abs=5)
    sides = (upright.box[2:] - upright.box[:2])[:: -1 if turns % 2 else 1]
    assert turned.box[2:] - turned.box[:2] == pytest.approx(sides, abs=8)


@pytest.mark.parametrize("name", DETECTORS)
def test_small_pictures_are_enlarged_and_measured_in_their_own_pixels(make_finder, astronaut, name):
    small = cv2.resize(astronaut[50:210, 150:310], (48, 48), interpolation=cv2.INTER_AREA)
    face = make_finder(name, upscale_below_px=192).detect(small)
    assert face.five == pytest.approx((FIVE - (150, 50)) * 0.3, abs=2)
    assert 0 <= face.points[1, 0] < 48


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 2), (5, 7), (64, 64), (3000, 2), (1500, 1500)])
def test_pictures_without_a_face_have_none_of_any_size(make_finder, name, shape):
    finder = make_finder(name, turned=True, upscale_below_px=48)
    assert finder.detect(np.full((*shape, 3), 80, dtype=np.uint8)) is None


@pytest.mark.parametrize("name", ["yunet", "retinaface"])
def test_the_same_picture_gives_the_same_face_after_any_other(make_finder, astronaut, name):
    finder = make_finder(name)
    first = finder.detect(astronaut)
    finder.detect(astronaut[:, ::-1])
    finder.detect(np.zeros((90, 40, 3), np.uint8))
    again = finder.detect(astronaut)
    for part in ("points", "box", "five", "confidence"):
        assert np.array_equal(getattr(again, part), getattr(first, part))


def faces_at(*boxes):
    return [Face(box=np.array(box, np.float32), five=np.zeros((5, 2), np.float32)) for box in boxes]


class Given:
    def __init__(self, faces):
        self.faces = faces

    def detect_all(self, image):
        return self.faces

    def close(self):
        pass


@pytest.mark.parametrize(
    ("options", "box", "chosen"),
    [
        ({}, None, 0),
        ({"which": "central"}, None, 1),
        ({"which": "all"}, None, 0),
        ({}, [150, 0, 190, 30], 2),
        ({}, [60, 60, 70, 70], None),
        ({"min_px": 31}, [150, 0, 190, 30], None),
    ],
)
def test_of_several_faces_the_spec_or_a_box_chooses(options, box, chosen):
    faces = faces_at([0, 0, 50, 50], [85, 30, 125, 70], [150, 0, 180, 30])
    box = None if box is None else np.array(box, np.float32)
    found = FaceFinder(Given(faces), FaceSpec(**options)).detect(np.zeros((100, 200, 3), np.uint8), box)
    assert found is (None if chosen is None else faces[chosen])


def test_small_faces_are_ignored():
    faces = faces_at([0, 0, 50, 50], [85, 30, 125, 60])
    finder = FaceFinder(Given(faces), FaceSpec(min_px=31))
    assert finder.detect_all(np.zeros((100, 200, 3), np.uint8)) == faces[:1]


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (40, 0), (90, 1), (130, 1), (180, 2), (-90, 3)])
def test_quarter_turns_bring_a_face_nearest_to_upright(degrees, turns):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # clockwise in a picture
    five = np.array([[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]]) @ turn.T
    assert quarter_turns(Face(box=np.zeros(4, np.float32), five=five.astype(np.float32))) == turns


def test_boxes_overlap_by_their_intersection_over_union():
    one = np.array([0, 0, 2, 2], np.float32)
    assert overlap(one, one) == 1
    assert overlap(one, np.array([1, 0, 3, 2], np.float32)) == pytest.approx(1 / 3)
    assert overlap(one, np.array([5, 5, 6, 6], np.float32)) == 0


@pytest.mark.parametrize("shape", [(224, 320), (97, 33), (1, 1)])
def test_the_anchors_of_retinaface_are_those_of_batch_face(batch_face, shape):
    expected = batch_face.PriorBox(batch_face.cfg_mnet, image_size=shape).forward().numpy()
    sizes = tuple(map(tuple, batch_face.cfg_mnet["min_sizes"]))
    assert anchors_of(*shape, tuple(batch_face.cfg_mnet["steps"]), sizes) == pytest.approx(expected)


def test_retinaface_finds_what_batch_face_finds(batch_face, make_finder, shared_data, astronaut):
    weights = shared_data / "models" / "retinaface_mobilenet0.25.pth"
    network = batch_face.load_net(str(weights), "cpu", "mobilenet")
    bgr = np.ascontiguousarray(astronaut[:, :, ::-1])
    with torch.inference_mode():
        (expected,) = batch_face.batch_detect(network, [bgr], "cpu", threshold=0.5)
    found = make_finder("retinaface", needs={"image", "crop"}).detect_all(astronaut)
    assert len(found) == len(expected)
    for face, (box, five, confidence) in zip(found, expected, strict=True):
        assert face.box == pytest.approx(box, abs=0.01)
        assert face.five == pytest.approx(five, abs=0.01)
        assert face.confidence == pytest.approx(confidence, abs=1e-4)


def test_the_identity_of_a_stream_holds_the_hashes_of_all_its_face_models(face_options):
    spec = face_options("yunet")
    crop, mesh = face_identity(spec, {"image", "crop"}), face_identity(spec, {"image", "face"})
    assert crop["models"] == {"yunet": "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0"}
    assert "mesh" not in crop
    assert set(mesh["mesh"]["models"]) == {"face_detection_short_range.tflite", "face_landmark.tflite"}
    assert crop["crop"] == {"version": 1, "align": "five_point", "size_px": 224, "margin": 0.0}
    assert "crop" not in mesh


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("which", "central"),
        ("min_px", 20),
        ("upscale_below_px", 64),
        ("turned", True),
        ("detect_px", 480),
        ("min_confidence", 0.7),
        ("align", "box"),
        ("size_px", 96),
        ("margin", 0.2),
    ],
)
def test_every_option_that_changes_the_crop_changes_its_identity(face_options, field, value):
    plain, other = face_options("yunet"), face_options("yunet", **{field: value})
    needs = {"image", "crop"}
    assert digest(face_identity(plain, needs)) != digest(face_identity(other, needs))
    same = digest(face_identity(plain)) == digest(face_identity(other))
    assert same == (field in {"align", "size_px", "margin"})


def test_default_options_are_not_written():
    assert FaceSpec().model_dump(mode="json") == {"detector": "face_mesh", "min_confidence": 0.5}


def test_options_of_other_detectors_are_refused():
    with pytest.raises(SpecError, match="detect_px: options of yunet and retinaface, got face_mesh"):
        parse_spec(FaceSpec, {"detect_px": 320}, "face")


def test_yunet_without_its_file_names_the_command_that_fetches_it():
    for function in (make_face_detector, face_identity):
        with pytest.raises(WeightsError, match=r"Get them: emofuse weights fetch yunet$"):
            function(FaceSpec(detector="yunet"))


def test_retinaface_is_with_resnet_50_unless_the_spec_names_other_weights():
    with pytest.raises(WeightsError, match=r"Get them: emofuse weights fetch retinaface-resnet50$"):
        make_face_detector(FaceSpec(detector="retinaface"))


def test_a_broken_yunet_file_says_so(tmp_path):
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"no model")
    with pytest.raises(StreamError, match=r"^the face detector 'yunet' cannot start: "):
        make_face_detector(FaceSpec(detector="yunet", weights={"kind": "file", "path": file}))


def test_weights_of_another_network_are_refused(batch_face, tmp_path):
    file = tmp_path / "other.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), file)
    with pytest.raises(
        WeightsError, match=r"does not hold the parameters of RetinaFace with ResNet-50: \d+ names are "
    ):
        make_face_detector(FaceSpec(detector="retinaface", weights={"kind": "file", "path": file}))


@pytest.mark.usefixtures("batch_face")
def test_retinaface_with_resnet_50_runs_with_its_own_parameters(tmp_path, astronaut):
    from emofuse.streams.faces.retinaface import _library

    library = _library()
    torch.manual_seed(0)
    file = tmp_path / "resnet50.pth"
    state = library.RetinaFace(cfg=library.cfg_re50, phase="test").state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, file)
    spec = FaceSpec(detector="retinaface", min_confidence=0.99, weights={"kind": "file", "path": file})
    make_face_detector(spec, {"image", "crop"}).detect_all(astronaut[:64, :64])


def test_without_batch_face_the_error_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "batch_face.face_detection.alignment", raising=False)
    file = tmp_path / "weights.pth"
    torch.save({}, file)
    with pytest.raises(
        StreamError, match=r"needs batch-face, which is not installed: pip install --no-deps 'batch-face"
    ):
        make_face_detector(FaceSpec(detector="retinaface", weights={"kind": "file", "path": file}))
