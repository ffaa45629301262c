"""Sounds are resampled by a band-limited conversion, once for each rate."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from emofuse.errors import StreamError
from emofuse.media.sound import Sound


def tone(rate_hz, seconds=0.5, hz=440):
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    return Sound(np.sin(2 * np.pi * hz * times).astype(np.float32), rate_hz)


@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 48000, 96000])
def test_a_tone_at_16_khz_is_the_same_tone(rate_hz):
    made = tone(rate_hz).at(16000)
    assert (made.rate_hz, len(made.samples), made.samples.dtype) == (16000, 8000, np.float32)
    inner = slice(400, -400)  # the filter rings at both ends
    np.testing.assert_allclose(made.samples[inner], tone(16000).samples[inner], atol=2e-3)


def test_what_lies_above_the_new_band_is_gone():
    assert np.abs(tone(48000, hz=12000).at(16000).samples[400:-400]).max() < 1e-3


def test_a_sound_at_its_own_rate_is_itself_and_another_rate_is_made_once():
    sound = tone(44100)
    assert sound.at(44100) is sound
    assert sound.at(16000) is sound.at(16000)
    assert sound.duration_s == pytest.approx(0.5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_sound_of_a_few_samples_has_samples_at_every_rate(count):
    assert len(Sound(np.ones(count, np.float32), 96000).at(16000).samples) == 1


def test_without_soxr_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(StreamError, match=r"^sounds at another rate need soxr, which is not installed: pip install "):
        tone(8000).at(16000)
