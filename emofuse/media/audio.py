"""Decoding of a sound, or of the sound of a clip, to mono float32.

FFmpeg decodes every format. Integers of any width are scaled to -1..1, floats are kept. The channels of stereo and
surround sound are averaged with equal weights. Of a longer file, only the span of the sample is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emofuse.datasets.sources import Source
from emofuse.errors import DecodeError
from emofuse.media.containers import Container, open_container, span_of
from emofuse.media.files import OnRead, OpenFile, open_source
from emofuse.media.sound import Sound
from emofuse.specs import DecodeSpec

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

_BEFORE_S = 0.5
"""A span is decoded from this far before its begin: compressed sound depends on the packets before."""

_GAP_S = 0.1
"""A gap in a track is filled with silence from this length on: time stamps of some formats are rounded to 1 ms."""


def read_sound(source: Source, decode: DecodeSpec | None = None, on_read: OnRead | None = None) -> Sound:
    """Read and decode the sound of a source: `audio_path`, if it has one, or else `path`.

    Args:
        source: the sound or clip, or the span of one.
        decode: the limits of what is decoded; None means `DecodeSpec()`.
        on_read: receives the bytes of a file that is read whole, before they are decoded.

    Raises:
        DecodeError: the file is missing or unreadable, has no audio track or no samples, is damaged or cut off or too
            long, or the span lies outside of it. The message is one line without the path.
        StreamError: PyAV is not installed.
    """
    if source.audio_path is not None:
        source = replace(source, path=source.audio_path, audio_path=None, member=None)
    with open_source(source, "sound", on_read) as opened:
        return decode_sound(opened, source, decode or DecodeSpec())


def decode_sound(opened: OpenFile, source: Source, decode: DecodeSpec) -> Sound:
    """Decode the sound of an open file; see `read_sound`."""
    with open_container(opened.file, "sound", "audio") as container:
        stream = _audio_stream(container)
        end = container.end_s(stream)
        span = _span(source, end) if source.is_span else None
        length = span[1] - span[0] if span is not None else end
        if length is not None and length > decode.max_sound_s:
            raise DecodeError(_too_long(decode))
        samples = _samples(container, stream, span, decode)
        if not len(samples):
            raise DecodeError("no sound can be decoded: it has no samples")
        if opened.is_whole and not source.is_span:
            container.check_is_whole("sound")
        return Sound(samples, stream.rate)


def _audio_stream(container: Container) -> AudioStream:
    for stream in container.inner.streams.audio:
        stream.codec_context.thread_count = 1
        return stream
    raise DecodeError(f"no audio track (its tracks: {container.tracks()})")


def _span(source: Source, end: float | None) -> tuple[float, float]:
    return span_of(source.start_s, source.end_s, math.inf if end is None else end)


def _samples(
    container: Container, stream: AudioStream, span: tuple[float, float] | None, decode: DecodeSpec
) -> npt.NDArray[np.float32]:
    """Return the samples of a span (None for the whole), float32 (n,).

    Where the track has no sound yet, and in long gaps of it, there is silence, so that samples and frames have one
    clock.
    """
    rate = stream.rate
    start, stop = span or (0.0, math.inf)
    wanted = math.inf if math.isinf(stop) else round((stop - start) * rate)
    parts: list[npt.NDArray[np.float32]] = []
    count = 0
    for at, part in _from(container, stream, start):
        missing = int(min(wanted, round((at - start) * rate))) - count
        if missing > (_GAP_S * rate if parts else 0):
            _check_length(count + missing, decode, rate)
            parts.append(np.zeros(missing, dtype=np.float32))
            count += missing
        first = 0 if parts else max(0, round((start - at) * rate))
        taken = part[first:] if math.isinf(wanted) else part[first : first + int(wanted) - count]
        if len(taken):
            parts.append(taken)
            count += len(taken)
        _check_length(count, decode, rate)
        if count >= wanted:
            break
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _check_length(count: float, decode: DecodeSpec, rate: int) -> None:
    if count > decode.max_sound_s * rate:
        raise DecodeError(_too_long(decode))


def _from(container: Container, stream: AudioStream, start: float) -> Iterator[tuple[float, npt.NDArray[np.float32]]]:
    """Decode from a little before a time on: the time of the first sample of each part, and the part, float32 (n,)."""
    decoded = _decoded(container, stream)
    first, late = None, 0.0
    if stream.codec_context.name == "vorbis" and container.inner.format.name == "ogg":
        # The first packet of Vorbis has no samples of its own. In some Ogg files FFmpeg counts it nevertheless, so that
        # all times are late by it, some 16 ms.
        first = next(decoded, None)
        late = 0.0 if first is None else first[0]
    if start > _BEFORE_S:
        container.seek(start - _BEFORE_S + late, stream)
        decoded = _decoded(container, stream)
        first = next(decoded, None)
        if first is None or first[0] - late > start:  # the format has an inexact index, or the track begins later
            container.seek(0.0, stream)
            first, decoded = None, _decoded(container, stream)
    for at, part in decoded if first is None else chain([first], decoded):
        yield at - late, part


def _decoded(container: Container, stream: AudioStream) -> Iterator[tuple[float, npt.NDArray[np.float32]]]:
    """Decode from the present place on: the time of the first sample of each part, and the part, float32 (n,)."""
    at = 0.0
    for packet in container.packets(stream):
        for frame in packet.decode():
            if frame.pts is not None and frame.time_base is not None:
                at = float(frame.pts * frame.time_base) - container.origin_s
            part = _mono(frame)
            yield at, part
            at += len(part) / stream.rate


def _mono(frame: Any) -> npt.NDArray[np.float32]:
    """Return the mean of the channels of an audio frame, float32 (n,)."""
    values = frame.to_ndarray()
    channels = frame.layout.nb_channels
    values = values.reshape(-1, channels).T if not frame.format.is_planar else values
    if values.dtype.kind == "u":
        scaled = (values.astype(np.float64) - 128) / 128
    elif values.dtype.kind == "i":
        scaled = values.astype(np.float64) / float(1 << (8 * values.dtype.itemsize - 1))
    else:
        scaled = values.astype(np.float64)
    mono: npt.NDArray[np.float32] = scaled.mean(axis=0).astype(np.float32)
    return mono


def _too_long(decode: DecodeSpec) -> str:
    limit = f"longer than decode.max_sound_s = {decode.max_sound_s:g} s"
    return f"{limit}. Give the span of the sample (start_s and end_s), or raise the limit"
