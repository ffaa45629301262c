"""Statistics of mel-frequency cepstral coefficients over a sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from emofuse.media.spectrogram import Wave, deltas, fixed_length, log_mel, mfcc
from emofuse.specs.audio import MelSettings
from emofuse.specs.streams import StreamSpecBase
from emofuse.streams.base import VECTOR, Rows, Sample
from emofuse.streams.mel import check_bands
from emofuse.streams.sounds import rows_of_sounds


class MfccSpec(StreamSpecBase):
    """Means and standard deviations over time of mel-frequency cepstral coefficients and of their slopes.

    The coefficients are the orthonormal DCT-II of the log-mel spectrogram in decibels, the slopes are regressions over
    two steps to both sides. A row has 4 * `coefficients` values: mean and deviation of the coefficients, then of the
    slopes. The whole sound is seen, up to `seconds`, of which the middle is kept.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"audio"})

    kind: Literal["mfcc"] = "mfcc"
    coefficients: int = Field(20, ge=1, le=512)
    rate_hz: int = Field(16_000, ge=1_000, le=192_000)
    window_s: float = Field(0.025, gt=0, le=1)
    hop_s: float = Field(0.010, gt=0, le=1)
    bands: int = Field(64, ge=1, le=512)
    seconds: float = Field(60.0, gt=0, le=600)

    @property
    def mel(self) -> MelSettings:
        """The settings of the spectrogram."""
        names = ("rate_hz", "window_s", "hop_s", "bands", "seconds")
        return MelSettings(**{name: getattr(self, name) for name in names})

    @model_validator(mode="after")
    def _coefficients_fit(self) -> Self:
        if self.coefficients > self.bands:
            raise ValueError(f"coefficients must be at most bands, {self.bands}, got {self.coefficients}")
        _ = self.mel
        return self

    def make(self, device: str) -> MfccStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor.

        Raises:
            SpecError: there are more bands than the window can part.
        """
        return MfccStream(self.mel, self.coefficients)


class MfccStream:
    """Waveforms -> means and standard deviations of cepstral coefficients and of their slopes.

    Holds no per-sample state: one instance serves every block of a worker.

    Attributes:
        shape: (4 * count,).
    """

    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    needs = MfccSpec.needs
    flag_names: tuple[str, ...] = ()

    def __init__(self, settings: MelSettings, count: int) -> None:
        check_bands(settings, "mfcc")
        self._settings, self._count = settings, count
        self.shape = (4 * count,)
        self.columns = tuple(
            f"{what}_{index}_{statistic}"
            for what in ("mfcc", "slope")
            for statistic in ("mean", "std")
            for index in range(count)
        )

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the statistics of n samples.

        Returns:
            features (n, 4 * count) float32; status (n,) uint8, NO_DETECTION without a sound.
        """
        return rows_of_sounds(self, samples, self._settings.rate_hz, self._describe)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _describe(self, wave: Wave) -> npt.NDArray[np.float32]:
        seen = wave if len(wave) <= self._settings.samples else fixed_length(wave, self._settings.samples)
        coefficients = mfcc(log_mel(seen, self._settings), self._count)
        slopes = deltas(coefficients)
        statistics = [f(each.astype(np.float64), axis=1) for each in (coefficients, slopes) for f in (np.mean, np.std)]
        described: npt.NDArray[np.float32] = np.concatenate(statistics).astype(np.float32)
        return described
