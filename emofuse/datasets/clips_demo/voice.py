"""The voices of the demo of clips: a vowel of a speaker's own pitch, steady or trembling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RATE_HZ = 16_000
_HARMONICS = 24
_TREMOLO_HZ = (6.0, 8.0)
_TREMOLO_DEPTH = 0.7
_NOISE = 0.01


@dataclass(frozen=True)
class Voice:
    """The voice of a speaker.

    Attributes:
        pitch_hz: the fundamental frequency.
        formants_hz: the frequencies of the two resonances of the vowel.
    """

    pitch_hz: float
    formants_hz: tuple[float, float]


def draw_voice(rng: np.random.Generator) -> Voice:
    """Draw the voice of a speaker."""
    return Voice(float(rng.uniform(95, 260)), (float(rng.uniform(450, 800)), float(rng.uniform(1100, 1900))))


def draw_sound(voice: Voice, seconds: float, *, trembles: bool, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return the sound of a clip, float32 (n,) from -1 to 1.

    Args:
        voice: the voice of the speaker.
        seconds: the length.
        trembles: whether the loudness trembles, at the same mean power as a steady voice.
        rng: the draws of the clip.
    """
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    pitch = voice.pitch_hz * rng.uniform(0.96, 1.04)
    sound = np.zeros_like(time)
    for number in range(1, _HARMONICS + 1):
        frequency = number * pitch
        if frequency < RATE_HZ / 2:
            resonance = sum(np.exp(-(((frequency - formant) / 250) ** 2)) for formant in voice.formants_hz)
            phase = 2 * np.pi * (frequency * time + rng.random())
            sound += (0.15 + resonance) / number * np.sin(phase)
    tremolo = np.sin(2 * np.pi * (rng.uniform(*_TREMOLO_HZ) * time + rng.random()))
    if trembles:
        sound *= (1 + _TREMOLO_DEPTH * tremolo) / np.sqrt(1 + _TREMOLO_DEPTH**2 / 2)
    loudness = 0.1 * rng.uniform(0.6, 1.4) / np.sqrt(np.mean(sound**2))
    noisy = sound * loudness + rng.normal(0, _NOISE, size=len(time))
    heard: npt.NDArray[np.float32] = np.clip(noisy, -1, 1).astype(np.float32)
    return heard
