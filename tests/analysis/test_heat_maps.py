"""Heat of backbones: where it lies on the map, on the picture, and on the picture of a turned face."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from emofuse.analysis.heat_maps import draw_heat, heat_of, heat_on_picture, overlay, overlay_of_face
from emofuse.analysis.photographs import Photograph
from emofuse.errors import StreamError
from emofuse.specs import CacheSpec, parse_spec
from emofuse.streams import make_stream
from emofuse.streams.base import Face, Sample, SampleBatch
from emofuse.streams.faces.alignment import TEMPLATE, crop_face, crop_matrix

SPEC = parse_spec(
    CacheSpec,
    {
        "streams": [
            {"kind": "backbone", "model": "squeezenet1_1", "region": "face", "weights": {"kind": "random", "seed": 0}}
        ]
    },
    "test",
)


def face_turned_by(degrees, scale=1.2, middle=(150.0, 170.0)):
    """A face whose aligned picture is turned by this angle and enlarged in its picture."""
    angle = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    five = (TEMPLATE - 56) @ linear.T + middle
    return Face(box=np.array([0, 0, 9, 9], np.float32), five=five.astype(np.float32))


class _Finds:
    def __init__(self, face):
        self.face = face

    def detect(self, image, box=None):
        return self.face

    def close(self):
        pass


def test_heat_is_where_channels_that_raise_the_score_are_active():
    maps = np.zeros((2, 2, 2), np.float32)
    maps[0, 0, 0], maps[1, 1, 1], maps[0, 1, 0] = 4, 8, 2
    heat = heat_of(maps, np.array([1.0, -1.0]))
    assert heat.tolist() == [[1.0, 0.0], [0.5, 0.0]]
    assert heat_of(maps, np.array([0.0, -1.0])).max() == 0


def test_the_overlay_shows_the_picture_and_its_heat_side_by_side():
    picture = np.full((8, 10, 3), 100, np.uint8)
    image = np.asarray(overlay(picture, np.array([[0.0, 1.0], [0.0, 0.0]])))
    assert image.shape == (8, 26, 3)
    assert (image[:, :10] == 100).all()
    assert image[0, -1].sum() > image[-1, 16].sum()


@pytest.mark.parametrize("degrees", [0, 30, -90, 180])
def test_heat_of_an_aligned_face_comes_back_to_the_pixels_that_it_was_cut_from(degrees):
    """A bright spot of the picture is found in the crop, and its heat lies on the spot again."""
    picture = np.zeros((320, 300, 3), np.uint8)
    face = face_turned_by(degrees)
    corner = np.linalg.inv(crop_matrix(face, SPEC.face)) @ [60.0, 70.0, 1.0]  # in the crop's left upper quarter
    x, y = np.rint(corner[:2]).astype(int)
    picture[y - 4 : y + 5, x - 4 : x + 5] = 255
    crop = crop_face(picture, face, SPEC.face)
    heat = crop[..., 0] / 255
    assert heat[:112, :112].sum() == pytest.approx(heat.sum())
    moved = heat_on_picture(heat, crop_matrix(face, SPEC.face), picture.shape[:2])
    rows, columns = np.mgrid[:320, :300]
    assert (moved * columns).sum() / moved.sum() == pytest.approx(x, abs=0.25)
    assert (moved * rows).sum() / moved.sum() == pytest.approx(y, abs=0.25)
    assert moved[picture[..., 0] == 255].min() > 0.2
    assert moved[picture[..., 0] == 0].max() < 0.9
    assert moved[np.abs(columns - x) + np.abs(rows - y) > 40].max() == 0


@pytest.mark.parametrize("degrees", [0, 30])
def test_a_network_that_sees_the_face_has_its_heat_on_the_informative_corner_of_the_picture(monkeypatch, degrees):
    """The head looks at what a bright patch beside the eye changes, so that the heat lies on the patch."""
    rng = np.random.default_rng(0)
    plain = rng.integers(90, 110, (320, 300, 3)).astype(np.uint8)
    face, (spec,) = face_turned_by(degrees), SPEC.streams
    x, y = (np.linalg.inv(crop_matrix(face, SPEC.face)) @ [56.0, 56.0, 1.0])[:2].astype(int)
    marked = plain.copy()
    marked[y - 22 : y + 22, x - 22 : x + 22] = rng.integers(0, 255, (44, 44, 3))
    stream = make_stream(spec)
    crops = [Sample(crop=crop_face(picture, face, SPEC.face)) for picture in (plain, marked)]
    without, pooled = stream.extract(SampleBatch(crops)).features
    monkeypatch.setattr("emofuse.analysis.photographs.make_face_detector", lambda *_: _Finds(face))
    drawn = np.asarray(draw_heat(Photograph(marked, SPEC), spec, pooled, (pooled - without).astype(float)))
    assert drawn.shape == (320, 300 + 6 + 300 + 6 + 320, 3)
    assert np.array_equal(drawn[:, :300], marked)
    heat = drawn[:, 306:606].astype(float)
    hot = heat[..., 0] - heat[..., 2]  # of inferno; grey has none
    rows, columns = np.mgrid[:320, :300]
    warm = np.clip(hot - 0.6 * hot.max(), 0, None)
    assert (warm * columns).sum() / warm.sum() == pytest.approx(x, abs=18)
    assert (warm * rows).sum() / warm.sum() == pytest.approx(y, abs=18)


def test_a_face_that_is_not_found_again_and_a_vector_of_another_picture_are_named(monkeypatch):
    picture, (spec,) = np.zeros((80, 80, 3), np.uint8), SPEC.streams
    monkeypatch.setattr("emofuse.analysis.photographs.make_face_detector", lambda *_: _Finds(None))
    with pytest.raises(StreamError, match="no face is found in the picture, although the row has one"):
        draw_heat(Photograph(picture, SPEC), spec, np.zeros(512), np.zeros(512))
    monkeypatch.setattr("emofuse.analysis.photographs.make_face_detector", lambda *_: _Finds(face_turned_by(0)))
    with pytest.raises(StreamError, match="its vector is not the mean of its last map"):
        draw_heat(Photograph(picture, SPEC), spec, np.full(512, 9.0), np.zeros(512))


def test_a_large_picture_is_drawn_small_with_a_frame_around_what_the_network_sees():
    picture = np.full((600, 900, 3), 40, np.uint8)
    face = face_turned_by(0, scale=2.0, middle=(450.0, 300.0))
    crop = crop_face(picture, face, SPEC.face)
    drawn = overlay_of_face(picture, crop, np.zeros((7, 7)), crop_matrix(face, SPEC.face))
    assert isinstance(drawn, Image.Image)
    assert drawn.size == (448 + 6 + 448 + 6 + 299, 299)
    pixels = np.asarray(drawn)[:, 454:902]
    frame = np.argwhere((pixels == 255).all(axis=2))
    left, right = (450 - 112) * 448 / 900, (450 + 112) * 448 / 900
    assert frame[:, 1].min() == pytest.approx(left, abs=2)
    assert frame[:, 1].max() == pytest.approx(right, abs=2)
