"""What is drawn on a frame, and where."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.media.frames import NumberedFrame
from emofuse.predict import ActionUnit
from emofuse.predict.drawing import Drawer
from emofuse.predict.frames import FramePrediction, PredictedFrame
from emofuse.predict.lettering import put_text, text_size
from emofuse.streams.base import Face

GREY = 100


def predicted(*boxes, shape=(360, 640), outputs=(0.7, 0.2, 0.1)):
    faces = [Face(box=np.float32(box), five=np.zeros((5, 2), np.float32)) for box in boxes]
    values = None if outputs is None else np.float32(outputs)
    units = (ActionUnit("mouth_width", 0.5, 2.0),)
    each = [
        FramePrediction(number, face, values, values, units, units, {}) for number, face in enumerate(faces, start=1)
    ] or [FramePrediction(None, None, values, values, (), (), {} if outputs else {"a": "no_detection"})]
    return PredictedFrame(NumberedFrame(0, 0.0, np.full((*shape, 3), GREY, np.uint8)), tuple(each), {})


def drawer(kind="class"):
    return Drawer(("happiness", "sadness", "Überraschung"), kind)


def changed(before, after):
    return (before.frame.image != after).any(axis=2)


def test_the_box_is_drawn_at_the_face_and_the_frame_itself_stays():
    frame = predicted((100, 80, 200, 220))
    where = changed(frame, drawer().draw(frame))
    assert where[80, 100:200].all()
    assert where[80:220, 100].all()
    assert not where[100:200, 110:190].any()
    assert (frame.frame.image == GREY).all()


@pytest.mark.parametrize(("box", "side"), [((100, 80, 200, 220), "right"), ((500, 80, 630, 220), "left")])
def test_the_panel_is_beside_the_face_where_there_is_room(box, side):
    frame = predicted(box)
    where = changed(frame, drawer().draw(frame))
    beside = where[:, round(box[2]) + 4 :] if side == "right" else where[:, : round(box[0]) - 4]
    assert beside.sum() > 2000
    assert not where[:, 2 : round(box[0]) - 6].any() if side == "right" else True


def test_a_panel_stays_on_its_side_while_the_face_trembles():
    draws, sides = drawer(), []
    for shift in range(12):
        left = 250 + 3 * (shift % 2)
        frame = predicted((left, 80, left + 140, 220))
        sides.append(bool(changed(frame, draws.draw(frame))[:, left + 150 :].any()))
    assert len(set(sides)) == 1


def test_panels_of_two_faces_do_not_cover_each_other_or_the_other_face():
    boxes = ((150, 100, 250, 230), (380, 100, 480, 230))
    frame = predicted(*boxes)
    where = changed(frame, drawer().draw(frame))
    for left, top, right, bottom in boxes:
        assert where[top + 5 : bottom - 5, left + 5 : right - 5].mean() < 0.05


def test_a_small_frame_and_a_face_beyond_the_border_are_drawn_without_an_error():
    for shape in ((40, 60), (8, 8), (100, 30)):
        for box in ((5, 5, 30, 30), (-20, -20, 200, 200), (500, 500, 600, 600)):
            assert drawer().draw(predicted(box, shape=shape)).shape == (*shape, 3)


def test_a_frame_without_a_face_says_so_and_a_run_on_whole_pictures_shows_its_outputs():
    assert drawer()._lines(predicted(outputs=None).predictions[0]) == [("no face", None)]
    (each,) = predicted().predictions
    assert [text for text, _ in drawer()._lines(each)] == ["happiness 70%", "sadness 20%", "Überraschung 10%"]


def test_numbers_are_drawn_as_values_without_bars():
    (each,) = predicted((0, 0, 9, 9), outputs=(1.5, -2.0, 0.25)).predictions
    lines = drawer("regression")._lines(each)
    assert lines[1:4] == [("happiness 1.50", None), ("sadness -2.00", None), ("Überraschung 0.25", None)]


def test_letters_beyond_ascii_are_drawn_and_clipped_at_the_border():
    image = np.zeros((30, 40, 3), np.uint8)
    put_text(image, "Überraschung", (30, 20), size_px=20, colour=(255, 255, 255))
    assert image[20:, 30:].any()
    assert not image[:20].any()
    put_text(image, "far away", (100, 100), size_px=20, colour=(255, 255, 255))
    put_text(image, "above", (-5, -5), size_px=20, colour=(255, 255, 255))
    assert text_size("ÜÜ", 20)[0] > text_size("Ü", 20)[0]
