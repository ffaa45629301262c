"""Log-mel spectrograms of sounds, as maps of a fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from emofuse.errors import SpecError
from emofuse.media.spectrogram import empty_bands, fixed_length, log_mel
from emofuse.specs.audio import MelSettings
from emofuse.specs.streams import StreamSpecBase
from emofuse.streams.base import Rows, Sample
from emofuse.streams.sounds import rows_of_sounds


class MelSpec(MelSettings, StreamSpecBase):
    """The log-mel spectrogram of the sound as a map (1, bands, steps), in decibels from -100 (silence) up.

    Its settings are those of `MelSettings`: a window of 25 ms every 10 ms, 64 bands up to 8 kHz and 4 s unless given.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    stored_dimensions: ClassVar[tuple[str, ...]] = ("channel", "band", "step")

    kind: Literal["mel"] = "mel"

    def make(self, device: str) -> MelStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor.

        Raises:
            SpecError: there are more bands than the window can part.
        """
        return MelStream(self)


class MelStream:
    """Waveforms -> log-mel spectrograms of a fixed length.

    Holds no per-sample state: one instance serves every block of a worker.

    Attributes:
        shape: (1, bands, steps).
    """

    dimensions = MelSpec.stored_dimensions
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    needs = MelSpec.needs
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __init__(self, settings: MelSettings) -> None:
        check_bands(settings, "mel")
        self._settings = settings
        self.shape = (1, settings.bands, settings.steps)

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the spectrograms of n samples.

        Returns:
            features (n, 1, bands, steps) float32 in decibels; status (n,) uint8, NO_DETECTION without a sound.
        """
        settings = self._settings
        return rows_of_sounds(
            self,
            samples,
            settings.rate_hz,
            lambda wave: log_mel(fixed_length(wave, settings.samples), settings)[None],
        )

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def check_bands(settings: MelSettings, where: str) -> None:
    """Check that every band holds a frequency of the Fourier transform.

    Raises:
        SpecError: some hold none.
    """
    empty = empty_bands(settings)
    if empty:
        window = f"a window of {settings.window_s:g} s"
        fault = (
            f"bands: {empty} of {settings.bands} bands hold no frequency of {window}: use fewer, or a longer window_s"
        )
        raise SpecError(where, [fault])
