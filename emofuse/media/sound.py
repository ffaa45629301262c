"""A decoded sound, and its resampling.

Every sound is mono float32. `soxr` resamples (R. Sykora and R. Sykes, the SoX Resampler library) at its quality HQ,
which keeps 20 bits: a band-limited conversion that is the same on every machine and needs no network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Self

import numpy as np
import numpy.typing as npt

from emofuse.media.libraries import import_library

VERSION = 1
"""The version of the decoding and resampling of sounds, part of the digest of streams that need sound."""


@dataclass(frozen=True)
class Sound:
    """A mono sound.

    Attributes:
        samples: float32 (n,), n >= 1, full scale is -1 to 1. A float file may exceed it.
        rate_hz: the number of samples a second.
    """

    samples: npt.NDArray[np.float32]
    rate_hz: int
    _resampled: dict[int, Sound] = field(default_factory=dict, repr=False, compare=False)

    @property
    def duration_s(self) -> float:
        """The length in seconds."""
        return len(self.samples) / self.rate_hz

    def at(self, rate_hz: int) -> Self | Sound:
        """Return the sound at another rate. All streams that ask for one rate share the result.

        Args:
            rate_hz: the number of samples a second, 1 or more.

        Returns:
            The sound itself if it has the rate; otherwise ceil(n * rate_hz / self.rate_hz) samples, at least one.

        Raises:
            StreamError: `soxr` is not installed.
        """
        if rate_hz == self.rate_hz:
            return self
        if rate_hz not in self._resampled:
            self._resampled[rate_hz] = Sound(_resampled(self.samples, self.rate_hz, rate_hz), rate_hz)
        return self._resampled[rate_hz]


def _resampled(samples: npt.NDArray[np.float32], rate_hz: int, wanted_hz: int) -> npt.NDArray[np.float32]:
    soxr: ModuleType = import_library("soxr", extra="audio", purpose="sounds at another rate")
    count = -(-len(samples) * wanted_hz // rate_hz)
    converted = np.zeros(max(1, count), dtype=np.float32)
    made = np.asarray(soxr.resample(samples, rate_hz, wanted_hz, quality="HQ"), dtype=np.float32)[: len(converted)]
    converted[: len(made)] = made  # soxr rounds the length to the nearest sample
    return converted
