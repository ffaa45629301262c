"""Frames of a camera of this machine, by OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from emofuse.errors import DecodeError
from emofuse.media.frames import FrameChoice, NumberedFrame

_FAILURES = 10
_WAIT_S = 0.05


def read_camera(index: int, choice: FrameChoice) -> Iterator[NumberedFrame]:
    """Iterate over the frames of a camera, until it goes away or the end of the span. Times begin with the first frame.

    Raises:
        DecodeError: there is no such camera, it is in use, or it sends nothing any more.
    """
    import cv2

    level = cv2.getLogLevel()
    cv2.setLogLevel(0)  # OpenCV writes warnings of its own for a camera that is missing
    try:
        camera = cv2.VideoCapture(index)
    finally:
        cv2.setLogLevel(level)
    try:
        if not camera.isOpened():
            raise DecodeError(
                f"there is no camera {index} on this machine, or another program uses it. Cameras are numbered from 0; "
                "a video file can take its place"
            )
        yield from _frames(camera, index, choice)
    finally:
        camera.release()


def _frames(camera: Any, index: int, choice: FrameChoice) -> Iterator[NumberedFrame]:
    import cv2

    began: float | None = None
    due, number, failures = choice.start_s or 0.0, -1, 0
    while True:
        is_read, image = camera.read()
        if not is_read or image is None:
            failures += 1
            if failures >= _FAILURES:
                raise DecodeError(f"camera {index} sends no picture any more: was it unplugged?")
            time.sleep(_WAIT_S)
            continue
        now = time.monotonic()
        began = now if began is None else began
        time_s, number, failures = now - began, number + 1, 0
        if choice.end_s is not None and time_s >= choice.end_s:
            return
        if time_s < due or (choice.every_s is None and number % choice.every):
            continue
        if choice.every_s is not None:
            due = time_s + choice.every_s
        pixels = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        yield NumberedFrame(number, time_s, pixels)
