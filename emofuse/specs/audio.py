"""The settings of spectrograms of sounds."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from emofuse.specs.base import Spec


class MelSettings(Spec):
    """The settings of a log-mel spectrogram.

    Attributes:
        rate_hz: the rate to which sounds are resampled.
        window_s: the length of one Hann window. The length of the Fourier transform is the next power of two.
        hop_s: the time from one window to the next.
        bands: the number of mel bands.
        low_hz: the lower edge of the first band.
        high_hz: the upper edge of the last band; half the rate unless given.
        scale: the mel scale: `slaney` is linear below 1 kHz (Auditory Toolbox, librosa's default), `htk` is
            2595 log10(1 + f / 700).
        seconds: the length that is seen. A longer sound is cut to its middle, a shorter one is followed by silence.
    """

    rate_hz: int = Field(16_000, ge=1_000, le=192_000)
    window_s: float = Field(0.025, gt=0, le=1)
    hop_s: float = Field(0.010, gt=0, le=1)
    bands: int = Field(64, ge=1, le=512)
    low_hz: float = Field(0.0, ge=0)
    high_hz: float | None = Field(None, gt=0)
    scale: Literal["slaney", "htk"] = "slaney"
    seconds: float = Field(4.0, gt=0, le=600)

    @property
    def top_hz(self) -> float:
        """The upper edge of the last band."""
        return self.rate_hz / 2 if self.high_hz is None else self.high_hz

    @property
    def window(self) -> int:
        """The length of the window in samples."""
        return max(1, round(self.window_s * self.rate_hz))

    @property
    def hop(self) -> int:
        """The samples from one window to the next."""
        return max(1, round(self.hop_s * self.rate_hz))

    @property
    def transform(self) -> int:
        """The length of the Fourier transform in samples, a power of two."""
        return max(2, 1 << (self.window - 1).bit_length())

    @property
    def samples(self) -> int:
        """The length that is seen, in samples."""
        return max(1, round(self.seconds * self.rate_hz))

    @property
    def steps(self) -> int:
        """The number of windows of the length that is seen: one every `hop_s`, the first at time 0."""
        return 1 + self.samples // self.hop

    @model_validator(mode="after")
    def _bands_fit(self) -> Self:
        if self.top_hz > self.rate_hz / 2:
            raise ValueError(f"high_hz must be at most half of rate_hz, {self.rate_hz / 2:g}, got {self.top_hz:g}")
        if self.low_hz >= self.top_hz:
            raise ValueError(f"low_hz must be below high_hz, {self.top_hz:g}, got {self.low_hz:g}")
        if self.window < 2:
            raise ValueError(f"window_s must hold at least two samples at {self.rate_hz} Hz, got {self.window_s:g} s")
        if self.seconds < self.window_s:
            raise ValueError(f"seconds must be at least window_s, {self.window_s:g}, got {self.seconds:g}")
        return self
