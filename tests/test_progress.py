"""Who tells and who follows."""

from __future__ import annotations

import threading

import pytest

from emofuse.progress import StepState, TrainingState, followed, format_duration, report_progress, step


class Follower:
    def __init__(self):
        self.states = []

    def update(self, state):
        self.states.append(state)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_durations_are_minutes_and_seconds_with_hours_where_there_are_some(seconds, text):
    assert format_duration(seconds) == text


def test_nobody_follows_unless_asked_to():
    report_progress(TrainingState(0, 1))
    with step("planning", 3, "runs") as advance:
        advance(1, 3)


def test_a_step_is_told_from_its_beginning_to_its_end():
    follower = Follower()
    with followed(follower), step("checking", unit="blocks") as advance:
        advance(1, 4)
    told = [(state.what, state.done, state.total, state.unit, state.ended) for state in follower.states]
    assert told == [
        ("checking", 0, None, "blocks", False),
        ("checking", 1, 4, "blocks", False),
        ("checking", 1, 4, "blocks", True),
    ]


def test_a_step_that_fails_has_ended_too():
    follower = Follower()

    def fails():
        with followed(follower), step("checking"):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert follower.states[-1].ended
    assert follower.states[-1].failed


def test_the_innermost_follower_is_told_and_none_leaves_it_to_the_outer_one():
    outer, inner = Follower(), Follower()
    with followed(outer):
        with followed(inner):
            report_progress(TrainingState(1, 3))
        with followed(None):
            report_progress(TrainingState(2, 3))
    report_progress(TrainingState(3, 3))
    assert [state.runs for state in inner.states] == [1]
    assert [state.runs for state in outer.states] == [2]


def test_threads_of_the_work_tell_nobody():
    follower = Follower()
    with followed(follower):
        thread = threading.Thread(target=report_progress, args=[TrainingState(1, 3)])
        thread.start()
        thread.join()
    assert follower.states == []


def test_the_time_left_of_a_step_is_estimated_from_what_is_done():
    assert StepState("checking", 25, 100, seconds=10).seconds_left == 30
    assert StepState("checking", 0, 100, seconds=10).seconds_left is None
    assert StepState("checking", 3, None, seconds=10).seconds_left is None
