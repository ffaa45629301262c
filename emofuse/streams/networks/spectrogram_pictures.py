"""The pictures of log-mel spectrograms that networks of pictures see in place of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from emofuse.media.spectrogram import Wave, fixed_length, log_mel, mel_picture
from emofuse.specs.audio import MelSettings
from emofuse.streams.base import Sample, SampleBatch
from emofuse.streams.mel import check_bands
from emofuse.streams.sounds import waveforms


class SpectrogramPictures:
    """The pictures of the log-mel spectrograms of sounds, of the size that a network sees.

    Attributes:
        windows: the number of pictures of a sound of full length.
        settings: what decides the pictures of a sound.
    """

    def __init__(self, settings: MelSettings, windows: int, size: tuple[int, int]) -> None:
        check_bands(settings, "backbone")
        self.windows = windows
        self.settings = ("spectrograms", settings, windows, size)
        self._settings, self._size = settings, size

    def pictures(self, samples: Sequence[Sample]) -> list[list[npt.NDArray[np.uint8]]]:
        """Return the pictures (3, h, w) of every sample: none without a sound, else one for each window with sound.

        Networks with the same settings share the pictures of a batch.
        """
        batch = SampleBatch.of(samples)
        return batch.once(
            self.settings,
            lambda: [[] if wave is None else self._of(wave) for wave in waveforms(batch, self._settings.rate_hz)],
        )

    def _of(self, wave: Wave) -> list[npt.NDArray[np.uint8]]:
        whole = fixed_length(wave, self._settings.samples)
        bounds = np.linspace(0, len(whole), self.windows + 1).round().astype(int)
        sounding = [(start, end) for start, end in pairwise(bounds) if start < len(wave)]
        return [self._picture(log_mel(whole[start:end], self._settings)) for start, end in sounding]

    def _picture(self, spectrogram: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Draw a spectrogram and resize it to the size of the network, bilinear with antialiasing."""
        height, width = self._size
        drawn = Image.fromarray(mel_picture(spectrogram)).resize((width, height), Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(drawn).transpose(2, 0, 1))
