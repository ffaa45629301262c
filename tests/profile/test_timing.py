"""How calls are repeated, and what is made of their times."""

from __future__ import annotations

import pytest
import torch

from emofuse.profile.figures import Timing
from emofuse.profile.timing import Clock, Repeats, repeat_timed


def test_median_and_95th_percentile_of_calls_are_divided_by_their_images():
    timing = Timing.of(4, [0.001 * n for n in range(1, 102)])
    assert (timing.batch, timing.repeats) == (4, 101)
    assert (timing.median_ms, timing.p95_ms) == (pytest.approx(51), pytest.approx(96))
    assert timing.median_ms_per_image == pytest.approx(51 / 4)
    assert timing.p95_ms_per_image == pytest.approx(96 / 4)


def test_one_call_is_its_own_median():
    timing = Timing.of(1, [0.25])
    assert (timing.median_ms, timing.p95_ms) == (250, 250)


@pytest.mark.parametrize(
    ("done", "seconds", "enough"),
    [(0, 99, False), (4, 99, False), (5, 9.9, False), (5, 10, True), (99, 9.9, False), (100, 0, True)],
)
def test_calls_end_by_number_or_by_time_but_not_before_the_fewest(done, seconds, enough):
    assert Repeats(most=100, least=5, seconds=10).enough(done, seconds) == enough


def test_fewer_calls_than_the_fewest_can_be_asked_for():
    assert Repeats(most=1, least=5, seconds=10).enough(1, 0)


def test_calls_that_warm_up_are_counted_and_not_kept():
    numbers = []
    given = repeat_timed(
        lambda number: numbers.append(number) or number, Repeats(most=3, warm_up=2), Clock(torch.device("cpu"))
    )
    assert numbers == [0, 1, 2, 3, 4]
    assert given == [2, 3, 4]


def test_time_goes_forward():
    clock = Clock(torch.device("cpu"))
    first, second = clock(), clock()
    assert second >= first
