"""The filter over time: its step response, independence of the frame rate, and what resets it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from emofuse.predict.smoothing import Smoothing

LOW, HIGH = np.float32([1, 0]), np.float32([0, 1])


@pytest.mark.parametrize("frames", [1, 10, 100])
def test_a_step_is_followed_by_its_share_after_the_time_constant_at_any_frame_rate(frames):
    smoothing = Smoothing(0.5)
    smoothing.update(1, 0.0, LOW)
    for frame in range(1, frames + 1):
        smoothed = smoothing.update(1, 0.5 * frame / frames, HIGH)
    assert smoothed[1] == pytest.approx(1 - math.exp(-1), abs=1e-5)
    assert smoothed.sum() == pytest.approx(1.0, abs=1e-6)


def test_zero_changes_nothing():
    smoothing = Smoothing(0.0)
    smoothing.update(1, 0.0, LOW)
    assert np.array_equal(smoothing.update(1, 0.01, HIGH), HIGH)


def test_a_new_face_begins_with_its_outputs_and_faces_do_not_mix():
    smoothing = Smoothing(0.5)
    smoothing.update(1, 0.0, LOW)
    assert np.array_equal(smoothing.update(2, 0.01, HIGH), HIGH)
    assert smoothing.update(1, 0.01, LOW)[0] == 1


def test_a_face_that_is_forgotten_begins_anew():
    smoothing = Smoothing(0.5)
    smoothing.update(1, 0.0, LOW)
    smoothing.keep({2})
    assert np.array_equal(smoothing.update(1, 0.01, HIGH), HIGH)
