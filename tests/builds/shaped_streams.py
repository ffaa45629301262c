"""Streams of a few lines that are no vectors: sequences, maps, and sequences of maps, of what the images show.

A step of a sequence is a strip of three pixels of the image's width: wide images have three of them, the others two and
padding. Nothing is detected in the second strip of every fifth image, and in no strip of the image of row 4.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.status import Status, Step
from emofuse.streams.base import NEEDS_IMAGE, Rows, Sample

FLAKY = "EMOFUSE_TEST_FLAKY"
STEPS = 3
_STRIP_PX = 3


class StripsSpec(CustomStreamSpec):
    """A sequence of vectors."""

    kind: Literal["strips"] = "strips"
    scale: float = 1.0

    def make(self, device: str) -> Strips:
        return Strips(self.scale)


class Strips:
    """Mean colour of each strip, times its number."""

    shape: tuple[int, ...] = (STEPS, 3)
    dimensions: tuple[str, ...] = ("time", "feature")
    dtype = np.dtype("float32")
    needs = NEEDS_IMAGE
    flag_names = ()
    columns: tuple[str, ...] = ("red", "green", "blue")

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def extract(self, samples: Sequence[Sample]) -> Rows:
        rows = Rows.empty_of(self, len(samples), Status.NO_DETECTION)
        for row, sample in enumerate(samples):
            fail_as_told(sample)
            rows.mask[row] = steps_of(sample)
            for step in np.flatnonzero(rows.mask[row] == Step.OK).tolist():
                strip = sample.image[:, _STRIP_PX * step : _STRIP_PX * (step + 1)]
                rows.features[row, step] = (step + 1) * self.scale * self.values(strip)
            rows.status[row] = Status.OK if (rows.mask[row] == Step.OK).any() else Status.NO_DETECTION
        return rows

    def values(self, strip: np.ndarray) -> np.ndarray:
        return strip.mean(axis=(0, 1))

    def close(self) -> None:
        pass


class FilmSpec(CustomStreamSpec):
    """A sequence of maps."""

    kind: Literal["film"] = "film"
    dtype: Literal["float16", "float32"] = "float16"

    def make(self, device: str) -> Film:
        return Film()


class Film(Strips):
    """The upper left corner of each strip."""

    shape = (STEPS, 3, 4, 2)
    dimensions = ("time", "channel", "y", "x")
    columns = ()

    def values(self, strip: np.ndarray) -> np.ndarray:
        return strip[:4, :2].transpose(2, 0, 1)


class ThumbnailSpec(CustomStreamSpec):
    """A map."""

    kind: Literal["thumbnail"] = "thumbnail"

    def make(self, device: str) -> Thumbnail:
        return Thumbnail()


class Thumbnail:
    """The upper left corner of the image; nothing is seen in the image of row 4."""

    shape = (3, 5, 6)
    dimensions = ("channel", "y", "x")
    dtype = np.dtype("float32")
    needs = NEEDS_IMAGE
    flag_names = ()
    columns = ()

    def extract(self, samples: Sequence[Sample]) -> Rows:
        rows = Rows.empty_of(self, len(samples), Status.NO_DETECTION)
        for row, sample in enumerate(samples):
            fail_as_told(sample)
            if red_of(sample) != 4:
                rows.features[row] = sample.image[:5, :6].transpose(2, 0, 1)
                rows.status[row] = Status.OK
        return rows

    def close(self) -> None:
        pass


def red_of(sample: Sample) -> int:
    """How much red an image has, which is the number of its row."""
    return int(sample.image[0, 0, 0])


def steps_of(sample: Sample) -> np.ndarray:
    """(STEPS,) uint8 of `Step`."""
    steps = np.where(np.arange(STEPS) < sample.image.shape[1] // _STRIP_PX, Step.OK, Step.PADDING).astype(np.uint8)
    if red_of(sample) % 5 == 0:
        steps[1] = Step.NO_DETECTION
    if red_of(sample) == 4:
        steps[steps == Step.OK] = Step.NO_DETECTION
    return steps


def fail_as_told(sample: Sample) -> None:
    """Raises for the rows that the environment names."""
    if str(red_of(sample)) in os.environ.get(FLAKY, "").split(","):
        raise ZeroDivisionError("as the environment says")


class DeadlyStripsSpec(CustomStreamSpec):
    """Strips of colours, whose process ends at the image with this much red."""

    kind: Literal["deadly_strips"] = "deadly_strips"
    red: int

    def make(self, device: str) -> DeadlyStrips:
        return DeadlyStrips(self.red)


class DeadlyStrips(Strips):
    def __init__(self, red: int) -> None:
        super().__init__()
        self.red = red

    def extract(self, samples: Sequence[Sample]) -> Rows:
        if self.red in map(red_of, samples):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().extract(samples)


SHAPES = (StripsSpec(), FilmSpec(), ThumbnailSpec())
