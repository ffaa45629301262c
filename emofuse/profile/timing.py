"""Repeats and times calls: after a warm-up, with a monotonic clock, and with the device waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Repeats:
    """How often a call is timed.

    Attributes:
        most: the largest number of calls.
        least: the smallest number of calls (or `most`, if that is less), however long they take.
        seconds: the time after which no further call begins.
        warm_up: the number of calls before the timed ones.
    """

    most: int = 100
    least: int = 5
    seconds: float = 10.0
    warm_up: int = 2

    def enough(self, done: int, seconds: float) -> bool:
        """Return whether this number of timed calls, which took this many seconds together, is enough."""
        return done >= self.most or (done >= self.least and seconds >= self.seconds)


class Clock:
    """Reads the time once the device has finished its work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self) -> float:
        """Return the seconds since some moment."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def repeat_timed(call: Callable[[int], T], repeats: Repeats, clock: Clock) -> list[T]:
    """Return the results of the timed calls, which follow the calls of the warm-up.

    Args:
        call: the function; it is given the number of the call, counted from 0 with the warm-up.
        repeats: the number of calls.
        clock: the clock of the device that works.
    """
    for number in range(repeats.warm_up):
        call(number)
    results: list[T] = []
    start = clock()
    while not repeats.enough(len(results), clock() - start):
        results.append(call(repeats.warm_up + len(results)))
    return results
