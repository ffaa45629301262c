"""All frames of a video, or every n-th, in the order of time: of a file, or of an address that sends one.

Clips of a cache have a fixed number of frames (`emofuse.media.video`). Here a video may be of any length: frames are
decoded one after another and handed on, so that memory holds one. Colours and rotation are those of clips.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emofuse.datasets.sources import Source
from emofuse.media.containers import open_address, open_container, span_of
from emofuse.media.files import open_source
from emofuse.media.video import FrameReader, ShownFrame, video_stream
from emofuse.specs import DecodeSpec


@dataclass(frozen=True, slots=True)
class NumberedFrame:
    """One frame of a video.

    Attributes:
        number: its number in the video, from 0. Behind a jump in time it is computed from the time and the mean rate,
            which is exact for a constant rate.
        time_s: the time at which it is shown, in seconds from the start of the video.
        image: the picture, (H, W, 3) uint8 RGB, upright.
    """

    number: int
    time_s: float
    image: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class VideoFacts:
    """What the header of a video says.

    Attributes:
        end_s: its length in seconds.
        rate_hz: its mean number of frames a second; None if no header states it.
        has_sound: whether it has a sound track.
    """

    end_s: float
    rate_hz: float | None
    has_sound: bool


@dataclass(frozen=True)
class FrameChoice:
    """The frames that are taken of a video.

    Attributes:
        every: take every n-th frame.
        every_s: take the frame that is shown every so many seconds instead; None for `every`.
        start_s: the begin of the span; None for the start.
        end_s: the end of the span; None for the end.
    """

    every: int = 1
    every_s: float | None = None
    start_s: float | None = None
    end_s: float | None = None


def read_facts(path: Path) -> VideoFacts:
    """Read the header of a video file; a file whose header states no length is read to its end, without decoding.

    Raises:
        DecodeError: the file is missing, unreadable, or has no video track. The message is one line without the path.
        StreamError: PyAV is not installed.
    """
    with open_source(Source(path), "video") as opened, open_container(opened.file, "video", "video") as container:
        stream = video_stream(container)
        end = container.end_s(stream)
        if end is None:
            end = FrameReader(container, stream, DecodeSpec()).find_end_s()
        rate = stream.average_rate or stream.guessed_rate
        return VideoFacts(end, float(rate) if rate else None, bool(container.inner.streams.audio))


def read_frames(path: Path, choice: FrameChoice, decode: DecodeSpec) -> Iterator[NumberedFrame]:
    """Iterate over the frames of a video file.

    Raises:
        DecodeError: the file is missing, unreadable, damaged or cut off, has no frame, or the span lies outside of it.
            The frames in front of a damaged place have been returned by then.
        StreamError: PyAV is not installed.
    """
    with open_source(Source(path), "video") as opened, open_container(opened.file, "video", "video") as container:
        stream = video_stream(container)
        reader = FrameReader(container, stream, decode)
        stated = container.end_s(stream)
        start, end = span_of(choice.start_s, choice.end_s, reader.find_end_s() if stated is None else stated)
        if choice.end_s is None:
            end = math.inf  # the last frame may be shown a little behind the end that the header states
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        if choice.every_s is None:
            yield from _every_nth(reader, choice.every, start, end, rate)
        else:
            last = stated if choice.end_s is None and stated is not None else end
            yield from _every_seconds(reader, choice.every_s, start, last, rate)
        if choice.end_s is None and (opened.is_whole or choice.every_s is None):
            reader.check_is_whole()


def read_live_frames(
    address: str, choice: FrameChoice, decode: DecodeSpec, *, timeout_s: float
) -> Iterator[NumberedFrame]:
    """Iterate over the frames that an address sends, from now on; see `open_address`.

    Raises:
        DecodeError: the server does not answer, what it sends is no video, or it is damaged.
        StreamError: PyAV is not installed.
    """
    with open_address(address, timeout_s=timeout_s) as container:
        reader = FrameReader(container, video_stream(container), decode)
        due = choice.start_s or 0.0
        for number, frame in enumerate(reader.frames()):
            if choice.end_s is not None and frame.time >= choice.end_s:
                return
            if frame.time < due or (choice.every_s is None and number % choice.every):
                continue
            if choice.every_s is not None:
                due = frame.time + choice.every_s
            yield NumberedFrame(number, frame.time, reader.picture(frame))


def _every_nth(reader: FrameReader, every: int, start: float, end: float, rate: float) -> Iterator[NumberedFrame]:
    first = reader.frame_at(start)
    base = 0 if start == 0 else round(first.time * rate)
    for index, frame in enumerate(reader.after(first)):
        if frame.time >= end:
            return
        if index % every == 0:
            yield NumberedFrame(base + index, frame.time, reader.picture(frame))


def _every_seconds(
    reader: FrameReader, every_s: float, start: float, end: float, rate: float
) -> Iterator[NumberedFrame]:
    before: ShownFrame | None = None
    for step in range(max(1, math.ceil((end - start) / every_s - 1e-9))):
        frame = reader.frame_at(start + step * every_s)
        if frame is not before:
            yield NumberedFrame(round(frame.time * rate), frame.time, reader.picture(frame))
        before = frame
