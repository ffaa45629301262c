"""Calls, repeated and timed: warmed up, on a clock that only goes forward, finished before it is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Repeats:
    """How often something is timed.

    Attributes:
        most: calls at most.
        least: calls at least (or `most`, if that is less), however long they take.
        seconds: after so many, no further call.
        warm_up: calls before those.
    """

    most: int = 100
    least: int = 5
    seconds: float = 10.0
    warm_up: int = 2

    def enough(self, done: int, seconds: float) -> bool:
        """Whether so many timed calls, which took so long together, will do."""
        return done >= self.most or (done >= self.least and seconds >= self.seconds)


class Clock:
    """Reads the time when the device has done what it was given."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self) -> float:
        """Seconds since some moment."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def repeat_timed(call: Callable[[int], T], repeats: Repeats, clock: Clock) -> list[T]:
    """What each timed call gave, after those that warm up.

    Args:
        call: is given the number of the call, counted from 0 with those that warm up.
        repeats: how often.
        clock: of the device that works.
    """
    for number in range(repeats.warm_up):
        call(number)
    given: list[T] = []
    start = clock()
    while not repeats.enough(len(given), clock() - start):
        given.append(call(repeats.warm_up + len(given)))
    return given
