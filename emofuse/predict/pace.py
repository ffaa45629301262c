"""The speed of live prediction: how long each step takes, and which streams cannot keep up with a frame rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_FRAMES = 90
_FEWEST = 15  # the first frames load caches, and count little


class Pace:
    """Medians of the steps of the last frames, and the rate of frames."""

    def __init__(self) -> None:
        self._steps: dict[str, deque[float]] = {}
        self._ends: deque[float] = deque(maxlen=_FRAMES)

    def add(self, seconds: Mapping[str, float], end_s: float) -> None:
        """Count a frame: the seconds of its steps, and the time of its end on any clock."""
        for name in dict.fromkeys((*self._steps, *seconds)):
            self._steps.setdefault(name, deque(maxlen=_FRAMES)).append(seconds.get(name, 0.0))
        self._ends.append(end_s)

    @property
    def frames(self) -> int:
        """The number of frames that the medians are of."""
        return len(self._ends)

    @property
    def steps(self) -> dict[str, float]:
        """Step -> its median seconds over the last frames."""
        return {name: float(np.median(values)) for name, values in self._steps.items()}

    @property
    def rate_hz(self) -> float:
        """The number of frames a second over the last frames; 0 before the second one."""
        passed = self._ends[-1] - self._ends[0] if len(self._ends) > 1 else 0.0
        return (len(self._ends) - 1) / passed if passed > 0 else 0.0

    def forget(self) -> None:
        """Measure anew, because other streams run now."""
        self._steps.clear()
        self._ends.clear()


class SlowStreams:
    """Chooses the streams that are left out so that the others keep up with a frame rate.

    The slowest streams go first. The last stream stays, also if it cannot keep up. A stream that was left out stays so.

    Args:
        rate_hz: the frames a second to keep up with.
        streams: the names of the streams of the run.
        of_faces: the names of the streams for which faces are detected.
    """

    def __init__(self, rate_hz: float, streams: Sequence[str], of_faces: Iterable[str]) -> None:
        self._budget_s = 1 / rate_hz
        self._rate_hz = rate_hz
        self._streams = tuple(streams)
        self._of_faces = frozenset(of_faces)
        self._has_complained = False
        self.left_out: frozenset[str] = frozenset()

    def choose(self, pace: Pace) -> str | None:
        """Decide by the pace of some frames; return a sentence if something has changed, else None.

        `left_out` has the streams that are to be left out from now on.
        """
        if pace.frames < _FEWEST:
            return None
        steps = pace.steps
        running = [name for name in self._streams if name not in self.left_out]
        dropped: list[str] = []
        while self._cost(steps, running) > self._budget_s and len(running) > 1:
            slowest = max(running, key=lambda name: steps.get(name, 0.0))
            running.remove(slowest)
            dropped.append(slowest)
        needed_s = self._cost(steps, running)
        fits = needed_s <= self._budget_s
        if dropped:
            self.left_out |= frozenset(dropped)
            named = ", ".join(f"{name} ({steps.get(name, 0.0) * 1000:.0f} ms a frame)" for name in dropped)
            state = f"the others keep up with {self._rate_hz:g} frames/s" if fits else self._too_slow(running, needed_s)
            return f"Left out, because too slow: {named}; {state}."
        if not fits and not self._has_complained:
            self._has_complained = True
            return f"No stream can be left out: {self._too_slow(running, needed_s)}."
        return None

    def _too_slow(self, running: Sequence[str], needed_s: float) -> str:
        return (
            f"{', '.join(running)} and the other steps take {needed_s * 1000:.0f} ms a frame, more than the "
            f"{self._budget_s * 1000:.0f} ms of {self._rate_hz:g} frames/s"
        )

    def _cost(self, steps: Mapping[str, float], running: Sequence[str]) -> float:
        """Return the seconds a frame takes with these streams alone."""
        left_out = set(self._streams) - set(running)
        if not self._of_faces.intersection(running):
            left_out |= {"detect", "align"}
        return sum(seconds for name, seconds in steps.items() if name not in left_out)
