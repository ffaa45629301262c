"""Log-mel spectrograms and cepstral coefficients, held against their formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from emofuse.media.spectrogram import (
    FLOOR_DB,
    deltas,
    empty_bands,
    fixed_length,
    log_mel,
    mel_picture,
    mfcc,
)
from emofuse.specs.audio import MelSettings

SMALL = MelSettings(rate_hz=8000, window_s=0.008, hop_s=0.004, bands=6, low_hz=100, high_hz=3800, seconds=0.03)


def noise(count, seed=0):
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def naive_log_mel(wave, settings):
    """The same by loops: centred windows over a mirrored border, a DFT by its sum, triangles of equal area."""
    rate, window, hop, size = settings.rate_hz, settings.window, settings.hop, settings.transform
    left = (size - window) // 2
    hann = [0.0] * size
    for index in range(window):
        hann[left + index] = 0.5 - 0.5 * math.cos(2 * math.pi * index / window)

    def mirrored(index):
        while not 0 <= index < len(wave):
            index = -index if index < 0 else 2 * (len(wave) - 1) - index
        return float(wave[index])

    def to_mel(hz):
        if settings.scale == "htk":
            return 2595 * math.log10(1 + hz / 700)
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)

    def to_hz(mel):
        if settings.scale == "htk":
            return 700 * (10 ** (mel / 2595) - 1)
        return mel * 200 / 3 if mel < 15 else 1000 * math.exp(math.log(6.4) * (mel - 15) / 27)

    low, high = to_mel(settings.low_hz), to_mel(settings.top_hz)
    edges = [to_hz(low + (high - low) * index / (settings.bands + 1)) for index in range(settings.bands + 2)]
    columns = []
    for step in range(1 + len(wave) // hop):
        frame = [hann[index] * mirrored(step * hop + index - size // 2) for index in range(size)]
        column = []
        for lower, centre, upper in zip(edges, edges[1:], edges[2:], strict=False):
            energy = 0.0
            for line in range(size // 2 + 1):
                hz = line * rate / size
                height = max(0.0, min((hz - lower) / (centre - lower), (upper - hz) / (upper - centre)))
                if height:
                    real = sum(value * math.cos(2 * math.pi * line * k / size) for k, value in enumerate(frame))
                    imaginary = sum(value * math.sin(2 * math.pi * line * k / size) for k, value in enumerate(frame))
                    energy += height * 2 / (upper - lower) * (real**2 + imaginary**2)
            column.append(10 * math.log10(max(energy, 1e-10)))
        columns.append(column)
    return np.array(columns).T


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_a_spectrogram_is_that_of_the_formula(scale):
    settings = SMALL.model_copy(update={"scale": scale})
    wave = noise(240)
    assert log_mel(wave, settings) == pytest.approx(naive_log_mel(wave, settings), abs=1e-4)


def test_a_spectrogram_is_that_of_transformers():
    utils = pytest.importorskip("transformers.audio_utils")
    settings, wave = MelSettings(), 0.1 * noise(16_000)
    filters = utils.mel_filter_bank(257, 64, 0, 8000, 16_000, norm="slaney", mel_scale="slaney")
    window = utils.window_function(400, "hann", frame_length=512, center=True)
    expected = utils.spectrogram(
        wave,
        window,
        frame_length=512,
        hop_length=160,
        fft_length=512,
        power=2.0,
        mel_filters=filters,
        log_mel="dB",
        min_value=1e-10,
    )
    assert log_mel(wave, settings) == pytest.approx(expected, abs=1e-4)


def test_a_sine_is_loudest_in_the_band_of_its_frequency():
    settings = MelSettings(scale="htk")
    time_s = np.arange(16_000) / 16_000
    spectrogram = log_mel(np.sin(2 * np.pi * 1000 * time_s).astype(np.float32), settings)
    mels = np.linspace(0, 2595 * math.log10(1 + 8000 / 700), 66)[1:-1]
    nearest = int(np.abs(700 * (10 ** (mels / 2595) - 1) - 1000).argmin())
    assert (spectrogram[:, 10:-10].argmax(axis=0) == nearest).all()


def test_silence_is_the_floor_and_gain_adds_decibels():
    settings = MelSettings()
    assert (log_mel(np.zeros(4000, np.float32), settings) == FLOOR_DB).all()
    wave = noise(4000)
    assert log_mel(10 * wave, settings) == pytest.approx(log_mel(wave, settings) + 20, abs=1e-3)


@pytest.mark.parametrize("count", [1, 2, 3, 100, 401])
def test_a_sound_of_any_length_has_a_spectrogram(count):
    spectrogram = log_mel(noise(count), MelSettings())
    assert spectrogram.shape == (64, 1 + count // 160)
    assert np.isfinite(spectrogram).all()


def test_a_fixed_length_is_the_middle_or_is_followed_by_silence():
    wave = np.arange(10, dtype=np.float32)
    assert fixed_length(wave, 4).tolist() == [3, 4, 5, 6]
    assert fixed_length(wave, 10).tolist() == wave.tolist()
    assert fixed_length(wave[:2], 4).tolist() == [0, 1, 0, 0]


def test_the_picture_of_a_spectrogram_has_low_bands_at_the_bottom():
    spectrogram = np.array([[0, -20], [-40, -80], [-81, -100]], dtype=np.float32)
    picture = mel_picture(spectrogram)
    assert picture.shape == (3, 2, 3)
    assert picture[:, :, 0].tolist() == [[0, 0], [128, 0], [255, 191]]
    assert (mel_picture(np.full((3, 2), FLOOR_DB, np.float32)) == 0).all()


def test_coefficients_are_an_orthonormal_cosine_transform_over_the_bands():
    spectrogram = noise(20).reshape(5, 4)
    expected = np.array(
        [
            [
                math.sqrt((1 if k == 0 else 2) / 5)
                * sum(spectrogram[n, t] * math.cos(math.pi * k * (n + 0.5) / 5) for n in range(5))
                for t in range(4)
            ]
            for k in range(3)
        ]
    )
    assert mfcc(spectrogram, 3) == pytest.approx(expected, abs=1e-5)


def test_slopes_are_the_regression_over_two_steps_to_both_sides():
    ramp = np.arange(8, dtype=np.float32)[None] * 3
    assert deltas(ramp)[0, 2:-2].tolist() == pytest.approx([3] * 4)
    assert deltas(ramp)[0, 0] == pytest.approx((1 * 3 + 2 * 6) / 10)  # steps before the first repeat it
    assert deltas(np.ones((2, 1), np.float32)).tolist() == [[0], [0]]


def test_too_many_bands_are_counted():
    assert empty_bands(MelSettings()) == 0
    assert empty_bands(MelSettings(bands=300)) > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"high_hz": 9000}, "high_hz must be at most half of rate_hz, 8000, got 9000"),
        ({"low_hz": 8000}, "low_hz must be below high_hz, 8000, got 8000"),
        ({"window_s": 0.00001}, "window_s must hold at least two samples at 16000 Hz"),
        ({"seconds": 0.01}, r"seconds must be at least window_s, 0\.025, got 0\.01"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        MelSettings(**fields)
