"""The live loop: what it shows, what it leaves out, and how it ends."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from face_videos import scene

from emofuse.errors import DecodeError
from emofuse.media.frames import NumberedFrame
from emofuse.predict.drawing import Drawer
from emofuse.predict.frames import LEFT_OUT, FramePredictor
from emofuse.predict.interrupt import StopRequest
from emofuse.predict.live import at_its_speed, watch
from emofuse.predict.pace import SlowStreams

PICTURE = scene([(20, 40)])


class Viewer:
    """Keeps what it was shown, and is closed by its user after some frames."""

    def __init__(self, frames=10**9, then=lambda: None):
        self.shown, self.frames, self.then = [], frames, then

    def show(self, image, state):
        self.shown.append((image, state))
        if len(self.shown) == self.frames:
            self.then()
        return len(self.shown) < self.frames

    def close(self):
        pass


def camera(count=10**9, error=None):
    """Frames as a camera sends them: each waits until the last one was taken or a moment has passed."""
    for number in range(count):
        time.sleep(0.01)
        yield NumberedFrame(number, number / 1000, PICTURE)
    if error is not None:
        time.sleep(1.0)
        raise error


@pytest.fixture
def watch_run(open_run):
    def watch_run_(name, frames, viewer, **options):
        predictor = open_run(name)
        with FramePredictor(predictor) as of_frames:
            drawer = Drawer(predictor.record.classes, predictor.record.target_kind)
            options.setdefault("stop", StopRequest())
            return watch(frames, of_frames, drawer, viewer, **options), of_frames

    return watch_run_


def test_a_viewer_sees_faces_outputs_and_the_time_of_each_step_until_it_is_closed(watch_run):
    viewer = Viewer(frames=3)
    summary, _ = watch_run("faces", camera(), viewer)
    assert summary.frames == 3
    assert summary.problem is None
    image, state = viewer.shown[-1]
    assert image.shape == PICTURE.shape
    assert not np.array_equal(image, PICTURE)
    assert {"detect", "landmarks", "action_units", "head", "draw", "show"} <= state["steps_ms"].keys()
    assert state["latency_ms"] == pytest.approx(sum(state["steps_ms"].values()), abs=0.1)
    (face,) = state["faces"]
    assert face["title"] == "face 1"
    assert [name for name, _, _ in face["outputs"]] == ["bright", "dark"]
    assert sum(value for _, value, _ in face["outputs"]) == pytest.approx(1, abs=1e-3)


def test_a_stop_ends_it_behind_the_present_frame(watch_run):
    stop = StopRequest()
    viewer = Viewer(frames=2, then=stop.ask)
    viewer.show = lambda image, state, show=viewer.show: show(image, state) or True
    summary, _ = watch_run("faces", camera(), viewer, stop=stop)
    assert summary.frames == 2
    assert summary.problem is None


def test_a_camera_that_goes_away_ends_it_with_the_reason(watch_run):
    summary, _ = watch_run("faces", camera(2, DecodeError("camera 0 sends no picture any more")), Viewer())
    assert summary.frames >= 1
    assert summary.problem == "camera 0 sends no picture any more"


def test_frames_that_come_too_fast_are_skipped_and_counted(watch_run):
    sent = []

    def counted():
        for frame in camera(40):
            sent.append(frame.number)
            yield frame

    class Slow(Viewer):
        """Shows a frame for as long as the camera takes for eight more."""

        def show(self, image, state):
            last = min(len(sent) + 8, 40)
            while len(sent) < last:
                time.sleep(0.01)
            return super().show(image, state)

    viewer = Slow()
    summary, _ = watch_run("picture", counted(), viewer)
    assert summary.frames + summary.skipped == 40
    assert summary.skipped > 10


def test_streams_that_cannot_keep_up_are_left_out_and_it_is_said(watch_run, open_run, monkeypatch):
    stream = open_run("both").extractor.streams["squeezenet1_1"]
    extract = type(stream).extract

    def slow(self, batch):
        time.sleep(0.5)
        return extract(self, batch)

    monkeypatch.setattr(type(stream), "extract", slow)
    monkeypatch.setattr("emofuse.predict.pace._FEWEST", 3)
    said, viewer = [], Viewer(frames=5)
    streams = ["action_units", "squeezenet1_1"]
    _, of_frames = watch_run("both", camera(), viewer, slow=SlowStreams(4, streams, ["action_units"]), say=said.append)
    assert of_frames.left_out == {"squeezenet1_1"}
    found = re.match(r"Left out, because too slow: squeezenet1_1 \((\d+)", said[0])
    assert int(found[1]) >= 500
    assert viewer.shown[-1][1]["notes"] == said
    assert viewer.shown[-1][1]["faces"][0]["missing"] == {"squeezenet1_1": LEFT_OUT}


def test_a_file_is_read_at_the_speed_at_which_it_plays():
    began = time.monotonic()
    frames = [NumberedFrame(n, 600 + n * 0.1, PICTURE) for n in range(4)]
    assert [frame.number for frame in at_its_speed(iter(frames))] == [0, 1, 2, 3]
    assert 0.29 < time.monotonic() - began < 300
