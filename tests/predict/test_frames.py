"""Predictions of frames: the same as of images, with numbers, smoothing, and streams that are left out."""

from __future__ import annotations

import numpy as np
import pytest
from face_videos import RUNS, scene
from PIL import Image

from emofuse.media.frames import FrameChoice, NumberedFrame, read_frames
from emofuse.predict.frames import LEFT_OUT, FramePredictor
from emofuse.specs import DecodeSpec
from emofuse.status import Status


def frames_of(path, **choice):
    return list(read_frames(path, FrameChoice(**choice), DecodeSpec()))


@pytest.mark.parametrize("name", RUNS)
def test_a_frame_without_following_is_predicted_as_the_same_image_is(open_run, face_video, tmp_path, name):
    predictor = open_run(name)
    frames = frames_of(face_video, every=5)
    paths = []
    for frame in frames:
        paths.append(tmp_path / f"{frame.number}.png")
        Image.fromarray(frame.image).save(paths[-1])
    with FramePredictor(predictor, follow=False, smooth_s=0) as of_frames:
        predicted = [of_frames.predict(frame) for frame in frames]
    compared = 0
    for image, frame in zip(predictor.predict(paths), predicted, strict=True):
        (each,) = frame.predictions
        assert image.missing == each.missing
        if each.outputs is None:
            assert set(each.missing) == set(RUNS[name])
            continue
        compared += 1
        outputs = dict(zip(predictor.record.classes, each.outputs.tolist(), strict=True))
        assert outputs == pytest.approx(dict(image.probs), abs=1e-5)
        units = {unit.name: unit.value for unit in each.action_units}
        assert units == pytest.approx({unit.name: unit.value for unit in image.action_units}, abs=1e-5)
    assert compared >= (4 if name in {"both", "picture"} else 3)


def test_faces_are_numbered_and_a_short_absence_keeps_the_number(open_run, face_video):
    with FramePredictor(open_run("faces")) as predictor:
        numbers = [[each.number for each in predictor.predict(frame).predictions] for frame in frames_of(face_video)]
    assert numbers == [[1]] * 8 + [[None]] * 4 + [[1]] * 8


def test_followed_faces_lie_where_detected_ones_do(open_run, face_video):
    frames = frames_of(face_video)[:8]
    faces = []
    for follow in (True, False):
        with FramePredictor(open_run("faces"), follow=follow) as predictor:
            faces.append([predictor.predict(frame).predictions[0].face.points for frame in frames])
    eyes = np.linalg.norm(faces[1][0][33, :2] - faces[1][0][263, :2])
    assert np.linalg.norm(np.array(faces[0]) - np.array(faces[1]), axis=2).mean(axis=1).max() < 0.1 * eyes


def test_another_video_begins_with_face_one(open_run, face_video):
    with FramePredictor(open_run("faces")) as predictor:
        for _ in range(2):
            predictor.start()
            assert predictor.predict(frames_of(face_video)[0]).predictions[0].number == 1


def test_two_faces_have_a_row_each_and_the_whole_picture_is_seen_once(open_run, monkeypatch):
    predictor = open_run("both")
    seen = []
    stream = predictor.extractor.streams["squeezenet1_1"]
    extract = type(stream).extract
    monkeypatch.setattr(type(stream), "extract", lambda self, batch: seen.append(len(batch)) or extract(self, batch))
    with FramePredictor(predictor) as of_frames:
        picture = scene([(20, 40), (300, 40)], size=(480, 240), side=160)
        one, two = of_frames.predict(NumberedFrame(0, 0.0, picture)).predictions
    assert [one.number, two.number] == [1, 2]
    assert seen == [1]
    assert one.outputs is not None
    assert not one.missing
    assert not two.missing


def test_a_frame_without_a_face_has_a_row_without_outputs_if_the_run_sees_faces_alone(open_run):
    with FramePredictor(open_run("faces")) as predictor:
        (each,) = predictor.predict(NumberedFrame(0, 0.0, scene([]))).predictions
    assert (each.number, each.face, each.outputs, each.smoothed) == (None, None, None, None)
    assert each.missing == dict.fromkeys(RUNS["faces"], Status.NO_DETECTION.name.lower())


def test_a_stream_that_is_left_out_does_not_run_and_is_masked(open_run, monkeypatch):
    predictor = open_run("both")
    stream = predictor.extractor.streams["squeezenet1_1"]
    monkeypatch.setattr(type(stream), "extract", lambda *_: pytest.fail("it ran"))
    with FramePredictor(predictor) as of_frames:
        of_frames.leave_out(["squeezenet1_1"])
        predicted = of_frames.predict(NumberedFrame(0, 0.0, scene([(20, 40)])))
    (each,) = predicted.predictions
    assert each.missing == {"squeezenet1_1": LEFT_OUT}
    assert each.outputs is not None
    assert "squeezenet1_1" not in predicted.seconds


def test_faces_are_not_looked_for_if_no_stream_needs_them_any_more(open_run):
    with FramePredictor(open_run("both")) as of_frames:
        of_frames.leave_out(["action_units"])
        predicted = of_frames.predict(NumberedFrame(0, 0.0, scene([(20, 40)])))
    assert "detect" not in predicted.seconds
    assert predicted.predictions[0].missing == {"action_units": LEFT_OUT}


def test_outputs_are_smoothed_per_face_and_begin_anew_with_a_new_face(open_run):
    times = [0.0, 0.04, 0.08, 5.0]
    with FramePredictor(open_run("picture"), smooth_s=0.5) as predictor:
        pictures = [scene([]), scene([(20, 40)]), scene([(20, 40)]), scene([])]
        rows = [
            predictor.predict(NumberedFrame(index, time, picture)).predictions[0]
            for index, (time, picture) in enumerate(zip(times, pictures, strict=True))
        ]
    assert np.array_equal(rows[0].smoothed, rows[0].outputs)
    weight = 1 - np.exp(-0.04 / 0.5)
    expected = rows[0].outputs + weight * (rows[1].outputs - rows[0].outputs)
    assert rows[1].smoothed == pytest.approx(expected, abs=1e-6)
