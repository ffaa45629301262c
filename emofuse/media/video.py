"""Decoding of a clip to a few frames, chosen by the time at which they are shown.

Of the T equal parts of a clip (or of its span), the frame that is shown in the middle of each is taken, so that clips
of any length and frame rate, also a variable one, give T steps; a frame that is shown for long is taken several times.
With `every: k`, every k-th frame is taken instead, at most T of them.

Long gaps between the chosen frames are sought, from the key frame before the next one, and only the chosen frames are
kept and converted to RGB. So neither memory nor time grows with the length of the file. FFmpeg decodes, on one thread,
and converts colours as the file states (BT.601, BT.709, ...). Frames are shown as a player shows them: turned and
mirrored as the file notes, and with square pixels, for which the shorter side of its pixels is stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emofuse.datasets.sources import Source
from emofuse.errors import DecodeError
from emofuse.media.channel_pca import keep_variance
from emofuse.media.clip import Clip
from emofuse.media.containers import Container, open_container, span_of
from emofuse.media.files import OnRead, OpenFile, open_source
from emofuse.specs import ClipSpec, DecodeSpec

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

VERSION = 1
"""The version of the choice and decoding of frames, part of a stream's digest. It rises when a file gives others."""

_SHORTEST_SEEK_S = 1.0
_BACK_S = 5.0

TimedFrame = tuple[float, npt.NDArray[np.uint8]]
"""The time at which a frame is shown, in seconds from the start of the file, and the frame, (H, W, 3) uint8 RGB."""


def read_clip(source: Source, spec: ClipSpec, decode: DecodeSpec, on_read: OnRead | None = None) -> Clip:
    """Read and decode the chosen frames of one clip.

    Args:
        source: the clip, or the span of one.
        spec: the choice of the frames.
        decode: the limits of what is decoded.
        on_read: receives the bytes of a file that is read whole, before they are decoded.

    Raises:
        DecodeError: the file is missing or unreadable, has no video track or no frame, is damaged or cut off, or the
            span lies outside of it. The message is one line without the path.
        StreamError: PyAV is not installed.
    """
    with open_source(source, "clip", on_read) as opened:
        chosen = list(iterate_frames(opened, source, spec, decode))
    return Clip(tuple(image for _, image in chosen), np.array([time for time, _ in chosen], dtype=np.float64))


def iterate_frames(opened: OpenFile, source: Source, spec: ClipSpec, decode: DecodeSpec) -> Iterator[TimedFrame]:
    """Iterate over the chosen frames of an open clip, in the order of time; see `read_clip`."""
    with open_container(opened.file, "clip", "video") as container:
        stream = video_stream(container)
        reader = FrameReader(container, stream, decode)
        end = container.end_s(stream)
        if end is None:
            end = reader.find_end_s()
        start, end = span_of(source.start_s, source.end_s, end)
        times = _middles(start, end, spec.frames)
        if spec.every is None:
            yield from ((frame.time, reader.picture(frame)) for frame in map(reader.frame_at, times))
        else:
            yield from reader.every(start, end, spec.every, spec.frames)
        if opened.is_whole and source.end_s is None:
            reader.check_is_whole()


def _middles(start: float, end: float, count: int) -> list[float]:
    return [start + (index + 0.5) * (end - start) / count for index in range(count)]


def video_stream(container: Container) -> VideoStream:
    """Return the first video track that is no cover picture of a sound.

    Raises:
        DecodeError: there is none.
    """
    from av.stream import Disposition

    for stream in container.inner.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            stream.codec_context.thread_count = 1
            return stream
    raise DecodeError(f"no video track (its tracks: {container.tracks()})")


class ShownFrame:
    """A decoded frame and the time from which on it is shown."""

    __slots__ = ("inner", "time")

    def __init__(self, inner: VideoFrame, time: float) -> None:
        self.inner = inner
        self.time = time


class FrameReader:
    """The frames of one video track, at increasing times.

    Args:
        container: the open container.
        stream: its video track, see `video_stream`.
        decode: the limits of what is decoded.
    """

    def __init__(self, container: Container, stream: VideoStream, decode: DecodeSpec) -> None:
        self._container = container
        self._stream = stream
        self._decode = decode
        self._frames = self._decoded()
        self._shown: ShownFrame | None = None  # at the time that was asked for last
        self._next: ShownFrame | None = None  # the frame behind it, already decoded
        self._seek_s = _SHORTEST_SEEK_S

    def frame_at(self, time: float) -> ShownFrame:
        """Return the frame that is shown at a time, which is not before that of the last call.

        Before the first frame it is the first, and behind the last frame the last.
        """
        is_known = self._shown is not None and self._next is not None and self._next.time > time
        if not is_known and time - (0.0 if self._shown is None else self._shown.time) > self._seek_s:
            self._seek(time)
        if self._shown is None:
            self._shown = next(self._frames, None)
        if self._shown is None:
            raise DecodeError("no frame can be decoded")
        while True:
            self._next = self._next or next(self._frames, None)
            if self._next is None:
                self._container.check_is_whole("picture")
                return self._shown
            if self._next.time > time:
                return self._shown
            self._shown, self._next = self._next, None

    def every(self, start: float, end: float, step: int, most: int) -> Iterator[TimedFrame]:
        """Iterate over every `step`-th frame of a span, at most `most` of them."""
        first = self.frame_at(start)
        for index, frame in enumerate(self.after(first)):
            if frame.time >= end or index >= step * most:
                return
            if index % step == 0:
                yield frame.time, self.picture(frame)

    def frames(self) -> Iterator[ShownFrame]:
        """Iterate over all frames from the present place on."""
        return self._frames

    def picture(self, frame: ShownFrame) -> npt.NDArray[np.uint8]:
        """Return a frame as an upright picture with square pixels, (H, W, 3) uint8 RGB."""
        from av.video.reformatter import Interpolation

        exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        width, height = self._square(frame.inner)
        pixels: Any = frame.inner.to_ndarray(format="rgb24", width=width, height=height, interpolation=exact, threads=1)
        upright = np.ascontiguousarray(_upright(pixels, frame.inner))
        share = self._decode.pca_variance
        return upright if share is None else keep_variance(upright, share)

    def _square(self, frame: VideoFrame) -> tuple[int, int]:
        """Return the width and height of a frame with square pixels."""
        ratio = float(self._stream.sample_aspect_ratio or 1)
        if not 0 < ratio < math.inf:
            return frame.width, frame.height
        width, height = round(frame.width * max(1.0, ratio)), round(frame.height * max(1.0, 1 / ratio))
        self._check_size(width, height)
        return width, height

    def _check_size(self, width: int, height: int) -> None:
        pixels = width * height
        if pixels > self._decode.max_pixels:
            shape = f"{width} x {height} = {pixels:,} pixels"
            raise DecodeError(f"{shape}, more than max_pixels = {self._decode.max_pixels:,}")

    def find_end_s(self) -> float:
        """Return the end of a track whose length no header states: that of its last packet. Nothing is decoded."""
        end = 0.0
        for packet in self._container.packets(self._stream):
            if packet.pts is not None and packet.time_base is not None:
                length = packet.duration or 0
                end = max(end, float((packet.pts + length) * packet.time_base) - self._container.origin_s)
        if end <= 0:
            raise DecodeError("no frame can be decoded")
        self._restart(0.0)
        return end

    def check_is_whole(self) -> None:
        """Raise if the file ends before its header says; the rest of it is read, but not decoded."""
        for _ in self._container.packets(self._stream):
            pass
        self._container.check_is_whole("picture")

    def after(self, first: ShownFrame) -> Iterator[ShownFrame]:
        """Iterate over a frame that `frame_at` returned last, and all frames behind it."""
        yield first
        if self._next is not None:
            yield self._next
        yield from self._frames

    def _decoded(self) -> Iterator[ShownFrame]:
        """Decode the frames from the present place on."""
        count = 0
        for packet in self._container.packets(self._stream):
            for frame in packet.decode():
                self._check_size(frame.width, frame.height)
                yield ShownFrame(frame, self._time(frame, count))
                count += 1

    def _time(self, frame: VideoFrame, count: int) -> float:
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is None or frame.time_base is None:  # a bare stream of frames: they are as far apart as its rate says
            return count / float(self._stream.average_rate or self._stream.guessed_rate or 25)
        return float(stamp * frame.time_base) - self._container.origin_s

    def _seek(self, time: float) -> None:
        """Go to the first frame behind the last key frame that is not behind a time."""
        here = -1.0 if self._shown is None else self._shown.time
        back = 0.0
        while True:
            at = max(0.0, time - back)
            self._restart(at)
            if at == 0.0 or (self._shown is not None and self._shown.time <= time):
                break
            back = max(_BACK_S, 2 * back)  # the format has an inexact index
        if self._shown is not None and self._shown.time <= here:  # no key frame between: decode up to the next time
            self._seek_s = max(self._seek_s, time - self._shown.time)

    def _restart(self, time: float) -> None:
        """Seek the last key frame before a time, or the start of the file, and decode one frame."""
        self._container.seek(time, self._stream)
        self._frames = self._decoded()
        self._shown, self._next = next(self._frames, None), None


def _upright(pixels: npt.NDArray[np.uint8], frame: VideoFrame) -> npt.NDArray[np.uint8]:
    """Return the pixels (H, W, 3) of a frame as its display matrix shows them: turned, mirrored, or both.

    The matrix [[a, b, u], [c, d, v], [x, y, w]] takes the place (p, q), right and down, to (a p + c q, b p + d q).
    Turns by other angles are rounded to quarters.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(matrix, dtype="<i4")[:5].tolist()
    if max(abs(a), abs(d)) >= max(abs(b), abs(c)):
        right, down = a, d
    else:
        pixels, right, down = pixels.transpose(1, 0, 2), c, b
    pixels = pixels[:, ::-1] if right < 0 else pixels
    return pixels[::-1] if down < 0 else pixels
