"""Log-mel spectrograms and cepstral coefficients of waveforms, computed with NumPy alone.

A waveform is mono float32 at a known rate. Values beyond full scale (-1 to 1) are used as they are. The formulas are
those of librosa with its defaults: centred windows over a mirrored border, a periodic Hann window, triangular bands of
equal area, decibels above a floor.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from emofuse.specs.audio import MelSettings

Wave = npt.NDArray[np.float32]

FLOOR_DB = -100.0
"""The least value of a spectrogram, that of silence."""
PICTURE_RANGE_DB = 80.0
"""The range of the picture of a spectrogram, below its loudest value."""

_SLANEY_LINEAR_HZ = 200.0 / 3  # the width of a mel below 1 kHz
_SLANEY_KNEE_HZ = 1000.0
_SLANEY_LOG_STEP = np.log(6.4) / 27.0  # the logarithm of the ratio of two mels above 1 kHz


def fixed_length(wave: Wave, count: int) -> Wave:
    """Return the middle `count` samples of a longer waveform, or a shorter one followed by zeros."""
    if len(wave) >= count:
        start = (len(wave) - count) // 2
        return wave[start : start + count]
    return np.pad(wave, (0, count - len(wave)))


def log_mel(wave: Wave, settings: MelSettings) -> npt.NDArray[np.float32]:
    """Return the log-mel spectrogram of a waveform at the settings' rate, whatever its length.

    Returns:
        10 log10 of the power in every band, (bands, T) float32 with T = 1 + n // hop, at least `FLOOR_DB`.
    """
    power = _power(wave, settings.window, settings.hop, settings.transform)
    floor = 10.0 ** (FLOOR_DB / 10)
    bands = _filters(settings) @ power
    decibels: npt.NDArray[np.float32] = (10 * np.log10(np.maximum(bands, floor))).astype(np.float32)
    return decibels


def mel_picture(spectrogram: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return a spectrogram (bands, T) as a grey picture (bands, T, 3) uint8 with low bands at the bottom.

    White is the loudest value of the spectrogram, black is `PICTURE_RANGE_DB` below it or less. Silence is black.
    """
    top = float(spectrogram.max())
    if top <= FLOOR_DB:
        return np.zeros((*spectrogram.shape, 3), dtype=np.uint8)
    shares = np.clip((spectrogram - top) / PICTURE_RANGE_DB + 1, 0, 1)
    grey = np.round(255 * shares[::-1]).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def mfcc(spectrogram: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """Return the first mel-frequency cepstral coefficients of every step: the orthonormal DCT-II over the bands.

    Args:
        spectrogram: the log-mel spectrogram, (bands, T).
        count: the number of coefficients, at most that of the bands.

    Returns:
        (count, T) float32.
    """
    from scipy.fft import dct

    coefficients: npt.NDArray[np.float32] = dct(spectrogram.astype(np.float64), type=2, norm="ortho", axis=0)[:count]
    return coefficients.astype(np.float32)


def deltas(values: npt.NDArray[np.float32], reach: int = 2) -> npt.NDArray[np.float32]:
    """Return the slope of every row over time: its regression over `reach` steps to both sides (HTK book).

    Steps beyond the border repeat the first and the last step.

    Args:
        values: the rows, (n, T).
        reach: the number of steps to each side.

    Returns:
        (n, T) float32.
    """
    padded = np.pad(values.astype(np.float64), ((0, 0), (reach, reach)), mode="edge")
    steps = values.shape[1]
    slope = np.zeros(values.shape)
    for offset in range(1, reach + 1):
        later = padded[:, reach + offset : reach + offset + steps]
        earlier = padded[:, reach - offset : reach - offset + steps]
        slope += offset * (later - earlier)
    total: npt.NDArray[np.float32] = (slope / (2 * sum(offset**2 for offset in range(1, reach + 1)))).astype(np.float32)
    return total


def empty_bands(settings: MelSettings) -> int:
    """Return the number of bands that hold no frequency of the Fourier transform: there are too many bands."""
    filters = _filters(settings)
    return int((filters.max(axis=1) == 0).sum())


def _power(wave: Wave, window: int, hop: int, transform: int) -> npt.NDArray[np.float64]:
    """Return the power spectrum of centred windows, (1 + transform // 2, T) float64."""
    half = transform // 2
    # A waveform of a few samples cannot be mirrored so far: NumPy then mirrors it several times.
    padded = np.pad(wave.astype(np.float64), half, mode="reflect") if len(wave) > 1 else np.full(2 * half + 1, wave[0])
    frames = np.lib.stride_tricks.sliding_window_view(padded, transform)[::hop]
    spectrum = np.fft.rfft(frames * _window(window, transform), axis=1)
    power: npt.NDArray[np.float64] = (spectrum.real**2 + spectrum.imag**2).T
    return power


@lru_cache(maxsize=16)
def _window(window: int, transform: int) -> npt.NDArray[np.float64]:
    """Return a periodic Hann window in the middle of the transform's length."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    before = (transform - window) // 2
    padded: npt.NDArray[np.float64] = np.pad(hann, (before, transform - window - before))
    padded.setflags(write=False)
    return padded


@lru_cache(maxsize=16)
def _filters(settings: MelSettings) -> npt.NDArray[np.float64]:
    """Return triangular filters of equal area, (bands, 1 + transform // 2) float64."""
    frequencies = np.linspace(0, settings.rate_hz / 2, 1 + settings.transform // 2)
    lowest, highest = _to_mel(np.array([settings.low_hz, settings.top_hz]), settings.scale).tolist()
    edges = _to_hz(np.linspace(lowest, highest, settings.bands + 2), settings.scale)
    widths = np.diff(edges)
    ramps = edges[:, None] - frequencies[None, :]
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    filters: npt.NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    filters *= (2 / (edges[2:] - edges[:-2]))[:, None]
    filters.setflags(write=False)
    return filters


def _to_mel(hz: npt.NDArray[np.float64], scale: Literal["slaney", "htk"]) -> npt.NDArray[np.float64]:
    if scale == "htk":
        return np.asarray(2595 * np.log10(1 + hz / 700))
    knee = _SLANEY_KNEE_HZ / _SLANEY_LINEAR_HZ
    above = knee + np.log(np.maximum(hz, _SLANEY_KNEE_HZ) / _SLANEY_KNEE_HZ) / _SLANEY_LOG_STEP
    return np.where(hz < _SLANEY_KNEE_HZ, hz / _SLANEY_LINEAR_HZ, above)


def _to_hz(mel: npt.NDArray[np.float64], scale: Literal["slaney", "htk"]) -> npt.NDArray[np.float64]:
    if scale == "htk":
        return np.asarray(700 * (10 ** (mel / 2595) - 1))
    knee = _SLANEY_KNEE_HZ / _SLANEY_LINEAR_HZ
    above = _SLANEY_KNEE_HZ * np.exp(_SLANEY_LOG_STEP * (np.maximum(mel, knee) - knee))
    return np.where(mel < knee, mel * _SLANEY_LINEAR_HZ, above)
