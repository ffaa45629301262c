"""The processors' seconds and the memory of a process and of all processes below it, also of those that have ended."""

from __future__ import annotations

from threading import Event, Lock, Thread
from typing import Self

import psutil

LOOK_S = 0.25


class ProcessTree:
    """Looks at a process and those below it four times a second, while its context lasts.

    A process that has ended keeps the seconds of the last look at it, because those that nobody waited for cannot be
    asked. One that lives for less than `LOOK_S` may be missed.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seconds: dict[tuple[int, float], float] = {}
        self._peak_bytes = 0
        self._lock, self._stop = Lock(), Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def cpu_s(self) -> float:
        """Return the processors' seconds so far."""
        self._look()
        with self._lock:
            return sum(self._seconds.values())

    @property
    def peak_bytes(self) -> int:
        """The largest sum of resident memory so far; pages that processes share are counted in each."""
        return self._peak_bytes

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return
        resident = 0
        for process in processes:
            try:
                times, memory = process.cpu_times(), process.memory_info().rss
                with self._lock:
                    self._seconds[process.pid, process.create_time()] = times.user + times.system
                resident += memory
            except psutil.Error:
                continue
        self._peak_bytes = max(self._peak_bytes, resident)
