"""Augmented views of a sound: seeded draws of time shift, gain and noise, one draw for all streams of a view.

View 0 is the sound itself. Every other view is the sound, shifted in time with silence at the free end, louder or
softer, and with white noise or without. Its length and rate stay the same. The draw does not depend on that of the
picture of the same view, so that caches of pictures keep their views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emofuse.checksum import seed_of
from emofuse.media.sound import Sound
from emofuse.specs.caches import SoundAugmentSpec

VERSION = 1
"""The version of views of sounds, part of the digest of augmented views of streams of sound."""

_WORD = 2.0**64


@dataclass(frozen=True)
class SoundView:
    """One draw of the augmentation of a sound.

    Attributes:
        shift_s: the shift to later times, in seconds.
        gain_db: the gain in decibels.
        snr_db: the ratio of the power of the sound to that of the noise, in decibels; None for a view without noise.
        noise_seed: the seed of the noise.
    """

    shift_s: float
    gain_db: float
    snr_db: float | None
    noise_seed: int


def draw_sound_view(spec: SoundAugmentSpec, seed: int, sample_id: str, view: int) -> SoundView:
    """Return the draw of a sample's view. It depends only on the spec, the seed, the sample's id and the view.

    Args:
        spec: the strength of the augmentation.
        seed: the seed of the augmentation of the cache.
        sample_id: the id of the sample in the manifest.
        view: the number of the view, 1 or more.
    """
    entropy = seed_of("sound", seed, view, sample_id)
    # NumPy promises the raw words of PCG64 for all its versions, unlike the draws of a Generator.
    shift, gain, noise, noise_seed = np.random.PCG64(entropy).random_raw(4).tolist()
    return SoundView(
        shift_s=(2 * shift / _WORD - 1) * spec.shift_s,
        gain_db=(2 * gain / _WORD - 1) * spec.gain_db,
        snr_db=spec.snr_db if noise / _WORD < spec.noise else None,
        noise_seed=noise_seed,
    )


def apply_sound_view(sound: Sound, view: SoundView) -> Sound:
    """Return the sound as the view has it: shifted, then with gain, then with noise.

    The noise is white. Its power is that of the whole shifted sound divided by the ratio; silence stays silent.
    """
    samples = _shifted(sound.samples, round(view.shift_s * sound.rate_hz)) * np.float32(10 ** (view.gain_db / 20))
    if view.snr_db is not None:
        power = float(np.mean(np.square(samples, dtype=np.float64)))
        amplitude = np.sqrt(3 * power / 10 ** (view.snr_db / 10))  # uniform noise has a third of its square as power
        samples = samples + (amplitude * _uniform(len(samples), view.noise_seed)).astype(np.float32)
    return Sound(samples.astype(np.float32), sound.rate_hz)


def _shifted(samples: npt.NDArray[np.float32], places: int) -> npt.NDArray[np.float32]:
    """Return the samples, later by some places, with zeros in the places that become free."""
    shifted = np.zeros_like(samples)
    if places >= 0:
        shifted[places:] = samples[: len(samples) - places]
    else:
        shifted[:places] = samples[-places:]
    return shifted


def _uniform(count: int, seed: int) -> npt.NDArray[np.float64]:
    """Return seeded white noise, uniform from -1 to 1."""
    words = np.random.PCG64(seed).random_raw(count)
    return np.asarray(words / (_WORD / 2) - 1)
