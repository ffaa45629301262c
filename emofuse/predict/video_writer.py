"""Writing of an annotated video as MP4 (H.264, or MPEG-4 where it cannot be encoded), with the sound of the original.

Frames keep their times, so that a video of which some frames were taken plays at the speed of the original. The file is
written beside its place and moved there when it is finished, so that a file of that name is always whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.datasets.sources import Source
from emofuse.errors import DatasetError, DecodeError
from emofuse.media.containers import open_container
from emofuse.media.files import open_source
from emofuse.media.libraries import import_library
from emofuse.predict.rows import check_folder_of

SUFFIXES = (".mp4", ".m4v", ".mov")
_CODECS = ("libx264", "h264", "mpeg4")
_TICKS = 90_000
_COPIED = ("aac", "mp3", "mp3float", "ac3", "alac", "opus")


class VideoWriter:
    """An annotated video that is being written.

    Attributes:
        frames: the number of frames written.
        sound: a sentence on why the sound of the original is left out; None if it is copied or there is none.
    """

    def __init__(self, container: Any, av: Any, rate_hz: float | None) -> None:
        self.frames = 0
        self.sound: str | None = None
        self._container, self._av = container, av
        self._rate = Fraction(rate_hz or 25).limit_denominator(1001)
        self._stream: Any = None
        self._sound: Iterator[Any] | None = None
        self._waiting: Any = None
        self._first_s: float | None = None
        self._last_pts = -1

    def add(self, time_s: float, image: npt.NDArray[np.uint8]) -> None:
        """Append a frame, (H, W, 3) uint8 RGB; all have the size of the first one."""
        if self._stream is None:
            self._first_s = time_s
            self._start(image)
        height, width = self._stream.height, self._stream.width
        if image.shape[:2] != (height, width):
            image = _fitted(image, height, width)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        pts = max(self._last_pts + 1, round((time_s - (self._first_s or 0.0)) * _TICKS))
        frame.pts, frame.time_base, self._last_pts = pts, Fraction(1, _TICKS), pts
        self._mux(self._stream.encode(frame))
        self._copy_sound(time_s)
        self.frames += 1

    def copy_sound_of(self, packets: Iterator[Any], template: Any) -> None:
        """Copy the packets of a sound track, in the order of time; called before the first frame."""
        self._template, self._sound = template, packets

    def finish(self, end_s: float | None = None) -> None:
        """Write what the encoder holds, and the sound up to a time; None for the time of the last frame."""
        if self._stream is None:
            return
        self._mux(self._stream.encode(None))
        if end_s is not None:
            self._copy_sound(end_s)

    def _start(self, image: npt.NDArray[np.uint8]) -> None:
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2  # both codecs halve the colours
        if min(height, width) < 2:
            raise DatasetError(f"frames of {image.shape[1]} x {image.shape[0]} pixels are too small for a video")
        for codec in _CODECS:
            if codec in self._av.codecs_available:
                with suppress(self._av.error.FFmpegError, ValueError):
                    stream = self._container.add_stream(codec, rate=self._rate)
                    break
        else:
            raise DatasetError(f"PyAV has no encoder of these: {', '.join(_CODECS)}; pip install 'emofuse[video]'")
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        if codec == "mpeg4":
            stream.codec_context.time_base = Fraction(1, 30_000)  # MPEG-4 stores 16 bits
            stream.bit_rate = 4 * width * height
        else:
            stream.options = {"crf": "20", "preset": "veryfast"}
        self._stream = stream
        if self._sound is not None:
            try:
                self._sound_stream = self._container.add_stream_from_template(self._template)
            except (self._av.error.FFmpegError, ValueError) as error:
                self.sound = f"the sound is left out: {' '.join(str(error).split())}"
                self._sound = None

    def _copy_sound(self, until_s: float) -> None:
        """Write the packets of the sound that begin before a time."""
        while self._sound is not None:
            if self._waiting is None:
                self._waiting = next(self._sound, None)
            if self._waiting is None:
                self._sound = None
                return
            begin_s, packet = self._waiting
            if begin_s > until_s:
                return
            self._waiting = None
            shift = round((self._first_s or 0.0) / packet.time_base)
            if packet.pts - shift < 0:
                continue
            packet.pts -= shift
            packet.dts = packet.pts
            packet.stream = self._sound_stream
            self._mux([packet])

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self._container.mux(packet)


@contextmanager
def writing_video(path: Path, *, rate_hz: float | None, sound_of: Path | None) -> Iterator[VideoWriter]:
    """Write a video; it is whole when the context ends, also by an error. Without a frame no file is written.

    Args:
        path: the file.
        rate_hz: the mean number of frames a second; None if it is unknown.
        sound_of: the video whose sound is copied; None for no sound.

    Raises:
        DatasetError: the name does not end in .mp4, .m4v or .mov, its folder does not exist, or nothing encodes it.
        StreamError: PyAV is not installed.
    """
    check_video_path(path)
    av: Any = import_library("av", extra="video", purpose="annotated videos")
    partial = path.with_name(f".{path.name}.partial")
    failure: BaseException | None = None
    try:
        with ExitStack() as opened:
            container = opened.enter_context(av.open(str(partial), "w", format="mp4"))
            writer = VideoWriter(container, av, rate_hz)
            if sound_of is not None:
                _open_sound(sound_of, writer, opened)
            try:
                yield writer
            except BaseException as error:  # noqa: BLE001 - raised again after the video is finished
                failure = error
            writer.finish()
        if writer.frames:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if failure is not None:
        raise failure


def check_video_path(path: Path) -> None:
    """Raise if a video cannot be written to a path.

    Raises:
        DatasetError: as `writing_video`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(f"{path}: a video is written as {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}")
    check_folder_of(path)


def _open_sound(path: Path, writer: VideoWriter, opened: ExitStack) -> None:
    """Let a writer copy the first sound track of a video, if its format can be copied to MP4."""
    try:
        file = opened.enter_context(open_source(Source(path), "video"))
        container = opened.enter_context(open_container(file.file, "video", "video"))
    except DecodeError as error:
        writer.sound = f"the sound is left out: {error}"
        return
    if not container.inner.streams.audio:
        return
    track = container.inner.streams.audio[0]
    if track.codec_context.name not in _COPIED:
        writer.sound = f"the sound is left out: MP4 holds no {track.codec_context.name} that could be copied"
        return

    def packets() -> Iterator[tuple[float, Any]]:
        for packet in container.packets(track):
            if packet.pts is not None and packet.time_base is not None:
                begin_s = float(packet.pts * packet.time_base) - container.origin_s
                packet.pts -= round(container.origin_s / packet.time_base)
                yield begin_s, packet

    writer.copy_sound_of(packets(), track)


def _fitted(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return the picture without an odd last row or column, or resized if its size has changed."""
    if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
        return image[:height, :width]
    import cv2

    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
