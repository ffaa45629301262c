"""Streams of clips that tests build: of frames, of sounds, and of whole clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.status import Status
from emofuse.streams.base import NEEDS_AUDIO, NEEDS_IMAGE, Rows, Sample


class Grey:
    """The mean grey and red of a picture; no detection in pictures as dark as those of frames 0 to 4."""

    shape = (2,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs = NEEDS_IMAGE
    flag_names = ("bright",)
    columns = ("grey", "red")

    def __init__(self, *, fails_at: float | None = None) -> None:
        self.fails_at = fails_at
        self.calls = []

    def extract(self, samples: Sequence[Sample]) -> Rows:
        self.calls.append(len(samples))
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.OK)
        for index, sample in enumerate(samples):
            height, width = sample.image.shape[:2]
            grey = float(sample.image[height // 3 :, width // 2 :].mean())
            if self.fails_at is not None and abs(grey - self.fails_at) < 2:
                raise ZeroDivisionError("a frame as grey as this")
            if grey < 38:
                rows.status[index] = Status.NO_DETECTION
                continue
            rows.features[index] = grey, sample.image[0, 0, 0]
            rows.flags[index] = grey > 200
        return rows

    def close(self) -> None:
        pass


class GreySpec(CustomStreamSpec):
    uses_gpu: ClassVar[bool] = False
    kind: Literal["grey"] = "grey"
    fails_at: float | None = None

    def make(self, device: str) -> Grey:
        return Grey(fails_at=self.fails_at)


class Pixels(Grey):
    """A map: the picture, reduced to 3 x 4 pixels."""

    shape = (3, 3, 4)
    dimensions = ("channel", "y", "x")
    flag_names = ()
    columns = ()

    def extract(self, samples: Sequence[Sample]) -> Rows:
        features = np.zeros((len(samples), *self.shape), np.float32)
        for index, sample in enumerate(samples):
            step = sample.image.shape[0] // 3, sample.image.shape[1] // 4
            features[index] = sample.image[:: step[0], :: step[1]][:3, :4].transpose(2, 0, 1) + 1.0
        return Rows.ok(features)


class PixelsSpec(CustomStreamSpec):
    uses_gpu: ClassVar[bool] = False
    kind: Literal["pixels"] = "pixels"

    def make(self, device: str) -> Pixels:
        return Pixels()


class Loudness:
    """The root mean square of a sound at 8 kHz, and its length in seconds."""

    shape = (2,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs = NEEDS_AUDIO
    flag_names = ()
    columns = ("rms", "seconds")

    def extract(self, samples: Sequence[Sample]) -> Rows:
        sounds = [sample.sound.at(8000).samples for sample in samples]
        rows = [(float(np.sqrt(np.mean(np.square(sound)))), len(sound) / 8000) for sound in sounds]
        return Rows.ok(np.array(rows, np.float32).reshape(-1, 2))

    def close(self) -> None:
        pass


class LoudnessSpec(CustomStreamSpec):
    uses_gpu: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = NEEDS_AUDIO
    kind: Literal["loudness"] = "loudness"

    def make(self, device: str) -> Loudness:
        return Loudness()


class Motion:
    """The mean change of brightness from frame to frame of a whole clip, per second."""

    shape = (1,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs = frozenset({"frames"})
    flag_names = ()
    columns = ()

    def extract(self, samples: Sequence[Sample]) -> Rows:
        rows = []
        for sample in samples:
            greys = np.array([frame.mean() for frame in sample.clip.frames])
            rows.append([np.abs(np.diff(greys)).sum() / np.ptp(sample.clip.times_s)])
        return Rows.ok(np.array(rows, np.float32).reshape(-1, 1))

    def close(self) -> None:
        pass


class MotionSpec(CustomStreamSpec):
    uses_gpu: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"frames"})
    kind: Literal["motion"] = "motion"

    def make(self, device: str) -> Motion:
        return Motion()
