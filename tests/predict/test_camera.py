"""A camera that is missing, that goes away, and one that works."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emofuse.errors import DecodeError
from emofuse.media.frames import FrameChoice
from emofuse.predict import camera
from emofuse.predict.camera import read_camera


class Scripted:
    """A capture of OpenCV that shows some blue frames, and then nothing."""

    def __init__(self, frames):
        self.frames, self.released = frames, False

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        self.frames -= 1
        return (True, np.full((4, 6, 3), (255, 0, 0), np.uint8)) if self.frames >= 0 else (False, None)

    def release(self):
        self.released = True


@pytest.fixture
def plug_in(monkeypatch):
    def plug_in_(frames):
        scripted = Scripted(frames)
        monkeypatch.setattr(cv2, "VideoCapture", lambda index: scripted)
        monkeypatch.setattr(camera, "_WAIT_S", 0.001)
        return scripted

    return plug_in_


def test_frames_are_rgb_with_times_from_zero(plug_in):
    plug_in(3)
    frames = read_camera(0, FrameChoice())
    first, second = next(frames), next(frames)
    assert (first.number, first.time_s, second.number) == (0, 0.0, 1)
    assert first.image[0, 0].tolist() == [0, 0, 255]
    assert second.time_s >= 0


def test_a_camera_that_goes_away_is_named_behind_its_frames_and_released(plug_in):
    scripted, read = plug_in(3), []
    with pytest.raises(DecodeError, match=r"camera 2 sends no picture any more: was it unplugged\?"):
        read.extend(read_camera(2, FrameChoice()))
    assert len(read) == 3
    assert scripted.released


def test_a_camera_is_released_when_nobody_wants_more(plug_in):
    scripted = plug_in(100)
    frames = read_camera(0, FrameChoice(every=2))
    assert [next(frames).number, next(frames).number] == [0, 2]
    frames.close()
    assert scripted.released


def test_a_missing_camera_is_said_in_one_line(capfd):
    with pytest.raises(DecodeError, match="there is no camera 99 on this machine, or another program uses it"):
        next(read_camera(99, FrameChoice()))
    assert capfd.readouterr() == ("", "")
