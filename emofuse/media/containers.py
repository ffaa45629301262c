"""Containers of clips and sounds, opened by PyAV: their tracks, their length, and the times of what they hold.

Times are seconds from the start of the file, which is the start of its first track, so that picture and sound of one
file have one clock. Only the formats of `_FORMATS` are tried: FFmpeg knows others that name further files (playlists),
which would lead out of the dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from emofuse.errors import DecodeError, StoreError
from emofuse.media.libraries import import_library

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

_FORMATS = (
    "3gp,aac,ac3,aiff,amr,asf,au,avi,caf,dv,flac,flv,gif,matroska,mov,mp3,mp4,mpeg,mpegts,mxf,nut,ogg,rm,w64,wav,webm"
)
_PROTOCOLS = "crypto,hls,http,https,rtmp,rtmps,rtp,rtsp,rtsps,srtp,tcp,tls,udp"
_TOLERANCE_S = 0.3
_TOLERANCE_SHARE = 0.05


@dataclass
class Container:
    """An open container.

    Attributes:
        inner: the container of PyAV.
        origin_s: the time stamp of the start of the file.
        errors: the class of the errors of FFmpeg.
        read_until_s: the end of the last packet that was read, of any track; 0 before one was read.
    """

    inner: InputContainer
    origin_s: float
    errors: type[Exception]
    read_until_s: float = 0.0

    def end_s(self, stream: Stream) -> float | None:
        """Return the end of a track as its header states it, or else that of the whole file; None if neither does."""
        if stream.duration and stream.time_base:
            return float((stream.duration + (stream.start_time or 0)) * stream.time_base) - self.origin_s
        return self.stated_end_s

    @property
    def stated_end_s(self) -> float | None:
        """The length of the file as its header states it; None if it does not."""
        return self.inner.duration / 1e6 if self.inner.duration and self.inner.duration > 0 else None

    def packets(self, stream: Stream) -> Iterator[Any]:
        """Iterate over the packets of one track from the present place on; the others are read and skipped."""
        for packet in self.inner.demux():
            if packet.pts is not None and packet.time_base is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.origin_s
                self.read_until_s = max(self.read_until_s, end)
            if packet.stream.index == stream.index:
                if packet.is_corrupt:
                    raise DecodeError(f"damaged or cut off at {self.read_until_s:.2f} s")
                yield packet

    def seek(self, time_s: float, stream: Stream) -> None:
        """Go to the last key frame of a track before a time, or to the start if the file's index does not reach it."""
        base: Any = stream.time_base
        try:
            self.inner.seek(int((time_s + self.origin_s) / base), stream=stream, backward=True)
        except self.errors:
            self.inner.seek(0)

    def check_is_whole(self, noun: str) -> None:
        """Raise if a file that was read to its end ends long before the end that its header states.

        Raises:
            DecodeError: it does.
        """
        end = self.stated_end_s
        if end is not None and self.read_until_s < end - max(_TOLERANCE_S, _TOLERANCE_SHARE * end):
            raise DecodeError(f"cut off: its {noun} ends at {self.read_until_s:.2f} s, its header says {end:.2f} s")

    def tracks(self) -> str:
        """Return the kinds of its tracks, for messages."""
        return ", ".join(stream.type for stream in self.inner.streams) or "none"


@contextmanager
def open_container(file: BinaryIO, noun: str, extra: str) -> Iterator[Container]:
    """Open a container, and turn the errors of FFmpeg inside the context into one-line reasons.

    Args:
        file: the bytes, which can be sought.
        noun: what it should be, for messages: "clip", "sound".
        extra: the extra of emofuse that installs PyAV.

    Raises:
        DecodeError: the bytes are no container of a known format, or damaged.
        StoreError: the store that the file lies on does not answer.
        StreamError: PyAV is not installed.
    """
    library: Any = import_library("av", extra=extra, purpose=f"{noun}s")
    file.seek(0)
    try:
        inner = library.open(file, options={"format_whitelist": _FORMATS}, metadata_errors="replace")
    except StoreError:
        raise
    except Exception:  # noqa: BLE001 - damaged headers raise anything
        raise DecodeError("no clip or sound of a known format, or damaged or cut off") from None
    with _reasons(library), inner:
        yield Container(inner, (inner.start_time or 0) / 1e6, library.error.FFmpegError)


@contextmanager
def open_address(address: str, *, timeout_s: float) -> Iterator[Container]:
    """Open a live or remote video by its address; as `open_container` otherwise.

    Only protocols of networks are allowed, so that a playlist of a server names no file of this machine.

    Args:
        address: the address, `rtsp://...`, `https://...`.
        timeout_s: the longest wait for the server, when it is asked and between two packets.

    Raises:
        DecodeError: the server does not answer or refuses, or what it sends is no video.
        StreamError: PyAV is not installed.
    """
    library: Any = import_library("av", extra="video", purpose="videos")
    options = {"protocol_whitelist": _PROTOCOLS}
    if address.lower().startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    try:
        inner = library.open(address, options=options, metadata_errors="replace", timeout=timeout_s)
    except library.error.FFmpegError as error:
        raise DecodeError(f"cannot be opened: {error.strerror or type(error).__name__}") from None
    with _reasons(library), inner:
        yield Container(inner, (inner.start_time or 0) / 1e6, library.error.FFmpegError)


@contextmanager
def _reasons(library: Any) -> Iterator[None]:
    """Turn errors of FFmpeg inside the context into one-line reasons."""
    try:
        yield
    except (DecodeError, StoreError):
        raise
    except library.error.InvalidDataError:
        raise DecodeError("cannot be decoded: damaged or cut off") from None
    except library.error.FFmpegError as error:
        raise DecodeError(f"cannot be decoded: {error.strerror or type(error).__name__}") from error
    except MemoryError:
        raise DecodeError("cannot be decoded: needs more memory than there is") from None
    except Exception as error:  # damaged files have impossible rates, sizes and times
        text = " ".join(str(error).split())[:200]
        raise DecodeError(f"cannot be decoded: {type(error).__name__}{f': {text}' if text else ''}") from error


def span_of(start_s: float | None, end_s: float | None, stated_end_s: float) -> tuple[float, float]:
    """Return the span of a sample in a file of a known length.

    Args:
        start_s: the begin of the span; None for the start of the file.
        end_s: its end; None for the end of the file. It may lie a little behind it, because annotations round.
        stated_end_s: the length of the file.

    Raises:
        DecodeError: the span is empty or lies outside of the file.
    """
    start, end = start_s or 0.0, stated_end_s if end_s is None else end_s
    if not 0 <= start < end:
        raise DecodeError(f"the span from {start:g} to {end:g} s is empty")
    if start >= stated_end_s or end > stated_end_s + _TOLERANCE_S:
        length = f"which has {stated_end_s:.2f} s"
        raise DecodeError(f"the span from {start:g} to {end:g} s lies outside of the file, {length}")
    return start, min(end, stated_end_s)
