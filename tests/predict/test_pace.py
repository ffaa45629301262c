"""Which streams are left out so that the others keep up, and what is said."""

from __future__ import annotations

import pytest

from emofuse.predict.pace import Pace, SlowStreams


def pace(frames=20, **steps):
    measured = Pace()
    for number in range(frames):
        measured.add(steps, number * 0.1)
    return measured


def test_medians_and_the_rate_are_of_the_last_frames():
    measured = pace(detect=0.004, head=0.001)
    assert measured.steps == {"detect": 0.004, "head": 0.001}
    assert measured.rate_hz == pytest.approx(10)
    measured.add({"detect": 5.0, "head": 5.0}, 2.0)
    assert measured.steps["detect"] == 0.004


def test_the_slowest_streams_are_left_out_until_the_others_keep_up():
    slow = SlowStreams(30, ["a", "b", "c"], ["a"])
    line = slow.choose(pace(detect=0.005, a=0.002, b=0.02, c=0.09, head=0.001))
    assert slow.left_out == {"c"}
    assert line == "Left out, because too slow: c (90 ms a frame); the others keep up with 30 frames/s."
    assert slow.choose(pace(detect=0.005, a=0.002, b=0.02, c=0.0, head=0.001)) is None


def test_streams_that_keep_up_stay():
    slow = SlowStreams(30, ["a", "b"], [])
    assert slow.choose(pace(a=0.01, b=0.01)) is None
    assert not slow.left_out


def test_detection_is_saved_with_the_last_stream_of_faces():
    slow = SlowStreams(50, ["a", "b"], ["a"])
    slow.choose(pace(detect=0.03, a=0.012, b=0.011))
    assert slow.left_out == {"a"}


def test_the_last_stream_stays_and_what_is_missed_is_said_once():
    slow = SlowStreams(30, ["a"], ["a"])
    line = slow.choose(pace(detect=0.05, a=0.01))
    assert (
        line
        == "No stream can be left out: a and the other steps take 60 ms a frame, more than the 33 ms of 30 frames/s."
    )
    assert slow.choose(pace(detect=0.05, a=0.01)) is None
    assert not slow.left_out


def test_nothing_is_decided_on_the_first_frames():
    assert SlowStreams(30, ["a", "b"], []).choose(pace(frames=5, a=1.0, b=1.0)) is None
