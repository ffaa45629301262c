"""Train several groups at the same time on a CPU, each in a thread of its own with its share of the cores.

Two cores rarely take half of the time for one group: only its large operations are spread over them. Two groups side by
side, one core each, do. The groups are the same, and each gives the same results as in its turn with that many cores,
bit by bit. (With more cores, some sums round differently.)

The thread that drives the work takes the groups, and gets what they report and return. It alone writes and shows
anything. If it ends early, by an interrupt or an error, the groups stop at their next step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import torch

SHORTEST_S = 1.0
"""Groups that are estimated to take less than this are trained in turn: there is nothing to gain."""

GAIN = 0.25
"""The exponent of the speed that one group gains from cores: 2 cores train it at 1.2 times the speed, 16 at twice. (The
demo's groups of 6 and 9 of the paper's heads at batch 64 gained 1.1 from a second core.)"""


class Planned(Protocol):
    """A group before its training.

    Attributes:
        seconds: the estimated time.
        memory_bytes: the memory that it takes, with its features.
    """

    @property
    def seconds(self) -> float:
        """The estimated time."""
        ...

    @property
    def memory_bytes(self) -> int:
        """The memory."""
        ...


Group = TypeVar("Group", bound=Planned)
Result = TypeVar("Result")
Report = Callable[..., None]


class StoppedError(BaseException):
    """The end of a group that nobody waits for any more; no error for anybody to catch."""


_THREAD = threading.local()


def stop_if_asked() -> None:
    """End the group that trains in this thread if its driver has ended; called in every step."""
    asked: threading.Event | None = getattr(_THREAD, "stop", None)
    if asked is not None and asked.is_set():
        raise StoppedError


def cores_of(device: torch.device) -> int:
    """Return the cores among which groups can be shared: those of torch on a CPU, and 1 beside a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def groups_at_once(seconds: Sequence[float], cores: int) -> int:
    """Return how many of these groups to train at the same time, so that all of them end soonest.

    Args:
        seconds: the estimated time of each group on one core, in the order in which they start.
        cores: the cores that there are.
    """
    long = [each for each in seconds if each >= SHORTEST_S]
    choices = range(1, min(cores, len(long)) + 1)
    return min(choices, key=lambda count: _end(seconds, count) / (cores // count) ** GAIN, default=1)


def _end(seconds: Sequence[float], count: int) -> float:
    """Return when the last of these groups ends, each started when one of `count` threads is free."""
    ends = [0.0] * count
    for each in seconds:
        ends.sort()
        ends[0] += each
    return max(ends)


@dataclass
class SideBySide(Generic[Group, Result]):
    """Trains groups, up to `at_once` of them at the same time.

    Attributes:
        train: trains a group, given a function to report with; called in other threads if `at_once` is above 1.
        on_report: receives the group and what it reports, in the thread that drives the work.
        at_once: the most groups at the same time.
        memory_bytes: the memory of all groups at the same time; one alone may take more.
    """

    train: Callable[[Group, Report], Result]
    on_report: Callable[..., None]
    at_once: int
    memory_bytes: int
    _running: list[Group] = field(default_factory=list)
    _events: SimpleQueue[tuple[str, Group, Any]] = field(default_factory=SimpleQueue)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, take: Callable[[], Group | None]) -> Generator[tuple[Group, Result], None, None]:
        """Yield every group with its result as it finishes.

        Args:
            take: returns the next group, or None if there is none at the moment; it is asked again after each group.
        """
        if self.at_once < 2:
            while (group := take()) is not None:
                yield group, self.train(group, self._reporting_directly(group))
            return
        threads: list[threading.Thread] = []
        waiting: Group | None = None
        try:
            while True:
                while len(self._running) < self.at_once and (waiting := waiting or take()) is not None:
                    if self._running and self._memory() + waiting.memory_bytes > self.memory_bytes:
                        break
                    threads.append(self._start(waiting))
                    waiting = None
                if not self._running:
                    return
                kind, group, found = self._events.get()
                if kind == "report":
                    self.on_report(group, *found)
                    continue
                self._running = [each for each in self._running if each is not group]
                if kind == "failed":
                    raise found
                yield group, found
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _memory(self) -> int:
        return sum(group.memory_bytes for group in self._running)

    def _reporting_directly(self, group: Group) -> Report:
        return lambda *found: self.on_report(group, *found)

    def _start(self, group: Group) -> threading.Thread:
        cores = max(1, torch.get_num_threads() // self.at_once)
        thread = threading.Thread(target=self._train, args=(group, cores), name="emofuse-group", daemon=True)
        self._running.append(group)
        thread.start()
        return thread

    def _train(self, group: Group, cores: int) -> None:
        """Train a group in this thread, which alone has this number of cores."""
        torch.set_num_threads(cores)
        _THREAD.stop = self._stop
        try:
            result = self.train(group, lambda *found: self._events.put(("report", group, found)))
        except BaseException as error:  # noqa: BLE001  it is raised again by the thread that drives the work
            self._events.put(("failed", group, error))
        else:
            self._events.put(("done", group, result))


@contextmanager
def beside(work: Callable[[], Result], *, at_once: bool) -> Iterator[Callable[[], Result]]:
    """Do other work, of one core, while the block trains; give a function that waits for its result.

    If the block ends early, the work stops at its next step.

    Args:
        work: the work, which shows nothing.
        at_once: whether to begin it now in a thread; otherwise it is done when its result is asked for.
    """
    if not at_once:
        yield work
        return
    results: SimpleQueue[Callable[[], Result]] = SimpleQueue()
    stop = threading.Event()

    def do() -> None:
        torch.set_num_threads(1)
        _THREAD.stop = stop
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  it is raised again where the result is asked for
            results.put(partial(_raise, error))
        else:
            results.put(lambda: result)

    def wait() -> Result:
        return results.get()()

    thread = threading.Thread(target=do, name="emofuse-beside", daemon=True)
    thread.start()
    try:
        yield wait
    finally:
        stop.set()
        thread.join()


def _raise(error: BaseException) -> NoReturn:
    raise error
