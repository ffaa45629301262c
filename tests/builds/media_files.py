"""Clips and sounds that tests write: every frame shows its number, and the sound is a tone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 25
WIDTH, HEIGHT = 64, 48
HZ = 440


def frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame that is as grey as its number says, with a red square at its top left."""
    picture = np.full((height, width, 3), 20 + 4 * (number % 50), dtype=np.uint8)
    picture[: height // 4, : width // 4] = (250, 0, 0)
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number of a frame, from the grey of its right half's middle."""
    height, width = picture.shape[:2]
    grey = picture[height // 3 : 2 * height // 3, width // 2 : 3 * width // 4].mean()
    return round((float(grey) + 1.5 - 20) / 4)  # the encoder loses one or two


def tone(seconds: float, rate_hz: int, hz: float = HZ) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def write_clip(
    path: Path,
    *,
    frames: int = 50,
    codec: str = "libx264",
    sound: str | None = None,
    times_ms: list[int] | None = None,
    rotation: int = 0,
    mirrored: str = "",
    pixel_aspect: Fraction | None = None,
    sound_from_s: float = 0.0,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    key_frames: int = 12,
    options: dict[str, str] | None = None,
    sound_hz: int = 44100,
    picture=frame,
) -> Path:
    """Write a clip. The container follows from the suffix; with `codec=""` it has no video track."""
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=RATE) if codec else None
        audio = container.add_stream(sound, rate=sound_hz, layout="mono") if sound else None
        if video is not None:
            video.width, video.height = size
            video.pix_fmt = "yuv420p"
            video.codec_context.gop_size = key_frames
            if codec == "libx264":
                video.options = {"crf": "4", "preset": "ultrafast", "keyint_min": str(key_frames)}
            else:
                video.bit_rate = 4_000_000
            if rotation or mirrored:
                video.set_display_rotation(rotation, hflip="h" in mirrored, vflip="v" in mirrored)
            if pixel_aspect is not None:
                video.codec_context.sample_aspect_ratio = pixel_aspect
            for number in range(frames):
                shown = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
                if times_ms is not None:
                    shown.pts, shown.time_base = times_ms[number], Fraction(1, 1000)
                container.mux(video.encode(shown))
            container.mux(video.encode())
        if audio is not None:
            seconds = (times_ms[-1] / 1000 if times_ms else frames / RATE) if video is not None else 2.0
            _encode(container, audio, tone(seconds, sound_hz), sound_hz, round(sound_from_s * sound_hz))
    return path


def _encode(container, audio, samples: np.ndarray, rate_hz: int, begin: int) -> None:
    size = audio.codec_context.frame_size or 1024
    kind = audio.codec_context.format.name
    for start in range(0, len(samples), size):
        part = av.AudioFrame.from_ndarray(samples[None, start : start + size], format="fltp", layout="mono")
        part.sample_rate, part.pts, part.time_base = rate_hz, begin + start, Fraction(1, rate_hz)
        for resampled in av.AudioResampler(format=kind, layout="mono", rate=rate_hz).resample(part):
            container.mux(audio.encode(resampled))
    container.mux(audio.encode())


def cut(path: Path, share: float) -> Path:
    """The first part of a file, as a broken download leaves it, beside it."""
    data = path.read_bytes()
    part = path.with_name(f"cut_{path.name}")
    part.write_bytes(data[: round(len(data) * share)])
    return part


def write_sound(
    path: Path, *, seconds: float = 1.0, rate_hz: int = 16000, subtype: str | None = None, channels: int = 1
) -> Path:
    """Write a tone, in channel c at 1 / (c + 1) of its strength."""
    mono = tone(seconds, rate_hz)
    soundfile.write(path, np.stack([mono / (c + 1) for c in range(channels)], axis=1), rate_hz, subtype=subtype)
    return path


class CountedFile:
    """A file that counts the bytes that are read from it."""

    def __init__(self, path, counts):
        self._file, self._counts = path.open("rb"), counts

    def read(self, size=-1):
        data = self._file.read(size)
        self._counts.append(len(data))
        return data

    def __getattr__(self, name):
        return getattr(self._file, name)
