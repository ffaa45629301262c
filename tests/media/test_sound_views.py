"""Views of sounds: shift, gain and noise, drawn by seed, sample and view."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.media.sound import Sound
from emofuse.media.sound_views import SoundView, apply_sound_view, draw_sound_view
from emofuse.media.views import draw_view
from emofuse.specs import AugmentSpec, CacheSpec, LbpSpec, SoundAugmentSpec
from emofuse.streams import augment_identity
from emofuse.testing import example_sound

SPEC = SoundAugmentSpec()
STILL = SoundView(shift_s=0.0, gain_db=0.0, snr_db=None, noise_seed=1)


def power(samples):
    return float(np.mean(np.square(samples, dtype=np.float64)))


def test_a_draw_depends_on_seed_sample_and_view_alone():
    first = draw_sound_view(SPEC, 0, "a", 1)
    assert draw_sound_view(SoundAugmentSpec(), 0, "a", 1) == first
    others = [draw_sound_view(SPEC, *rest) for rest in ((1, "a", 1), (0, "b", 1), (0, "a", 2))]
    assert len({first, *others}) == 4


def test_draws_are_the_same_for_ever():
    view = draw_sound_view(SPEC, 0, "a", 1)
    assert (view.shift_s, view.gain_db, view.snr_db, view.noise_seed) == (
        -0.028339150320317308,
        4.245005815678147,
        20.0,
        7164887346243346851,
    )


def test_draws_fill_their_ranges():
    spec = SoundAugmentSpec(shift_s=0.2, gain_db=3, noise=0.25, snr_db=10)
    views = [draw_sound_view(spec, 0, f"s{row}", 1) for row in range(4000)]
    for values, most in (([view.shift_s for view in views], 0.2), ([view.gain_db for view in views], 3)):
        assert -most <= min(values) < -0.99 * most
        assert 0.99 * most < max(values) <= most
        assert abs(np.mean(values)) < 0.05 * most
    assert {view.snr_db for view in views} == {None, 10}
    assert np.mean([view.snr_db is not None for view in views]) == pytest.approx(0.25, abs=0.03)


def test_the_draws_of_pictures_are_untouched():
    assert draw_view(AugmentSpec(sound=SoundAugmentSpec(gain_db=1)), "a", 1) == draw_view(AugmentSpec(), "a", 1)


def test_a_still_view_is_the_sound():
    sound = example_sound(0.5)
    seen = apply_sound_view(sound, STILL)
    assert np.array_equal(seen.samples, sound.samples)
    assert (seen.samples.dtype, seen.rate_hz) == (np.float32, sound.rate_hz)


@pytest.mark.parametrize(
    ("shift_s", "expected"), [(0.2, [0, 0, 1, 2, 3]), (-0.2, [3, 4, 5, 0, 0]), (9, [0] * 5), (-9, [0] * 5)]
)
def test_a_shift_keeps_the_length_and_leaves_silence(shift_s, expected):
    sound = Sound(np.arange(1, 6, dtype=np.float32), 10)
    view = SoundView(shift_s=shift_s, gain_db=0.0, snr_db=None, noise_seed=1)
    assert apply_sound_view(sound, view).samples.tolist() == expected


def test_gain_is_in_decibels():
    sound = example_sound(0.5)
    seen = apply_sound_view(sound, SoundView(shift_s=0.0, gain_db=20.0, snr_db=None, noise_seed=1))
    assert seen.samples == pytest.approx(10 * sound.samples, rel=1e-6)


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_stated_ratio_to_the_sound(snr_db):
    sound = example_sound(2)
    view = SoundView(shift_s=0.0, gain_db=-6.0, snr_db=snr_db, noise_seed=7)
    clean = apply_sound_view(sound, SoundView(shift_s=0.0, gain_db=-6.0, snr_db=None, noise_seed=7)).samples
    noise = apply_sound_view(sound, view).samples - clean
    assert 10 * np.log10(power(clean) / power(noise)) == pytest.approx(snr_db, abs=0.1)
    assert abs(noise.mean()) < 0.02 * noise.std()
    assert np.array_equal(apply_sound_view(sound, view).samples, apply_sound_view(sound, view).samples)


def test_silence_stays_silent():
    sound = Sound(np.zeros(100, np.float32), 16_000)
    assert not apply_sound_view(sound, SoundView(shift_s=0.1, gain_db=6.0, snr_db=0.0, noise_seed=1)).samples.any()


def test_views_of_pictures_keep_their_identity():
    former = {"version": 1, "flip": 0.5, "rotation_deg": 10.0, "padding": 0.125, "seed": 0}
    assert augment_identity(CacheSpec(streams=(LbpSpec(),), views=2)) == former
    changed = AugmentSpec(sound=SoundAugmentSpec(noise=0))
    assert augment_identity(CacheSpec(streams=(LbpSpec(),), views=2, augment=changed))["sound"]["noise"] == 0
