"""The progress of long work, from the code that does it to whoever shows it.

Long work calls `report_progress` with its state, or runs inside a `step`. Both do nothing without a follower, which
`followed` sets for all calls inside it. A thread that is started there has no follower: only the thread that drives the
work calls it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

Advance = Callable[[int, int | None], None]
"""Takes how many parts of a step are done, and how many there are in all (None if that is unknown)."""


@dataclass(frozen=True)
class BuildState:
    """The progress of a build.

    Attributes:
        rows: the rows that this build has computed so far.
        total: the rows that this build has to compute.
        seconds: the seconds since extraction started.
        counts: stream -> status name in lower case -> rows that this build has computed; statuses without a row are
            left out.
        noun: what the rows are, in the plural.
    """

    rows: int
    total: int
    seconds: float
    counts: Mapping[str, Mapping[str, int]]
    noun: str = "images"

    @property
    def rows_per_s(self) -> float:
        """The mean speed of this build; 0 before the first block."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The seconds that remain at the mean speed; None before the first block."""
        return (self.total - self.rows) / self.rows_per_s if self.rows else None


@dataclass(frozen=True)
class TrainingState:
    """The progress of training runs, those of a search or those that a user listed.

    Attributes:
        runs: the runs that are done, by this process or another one.
        total: the runs in all, at most; None if that is unknown.
        what: the kind of work, `training` or `searching`.
        epoch: the last epoch that the runs in training have finished; 0 before the first.
        epochs: the epochs of the runs in training, at most; 0 if no run is known to be in training.
        losses: the mean training and validation loss of the runs in training; None before their first epoch.
        heads: the heads that this call has trained so far.
        rows: the rows that those heads and the ones in training have learned from, counted again in each epoch.
        work: the share of this call's work that is done, 0 to 1, by the estimates of its plans; batches that a search
            has not decided on yet count as much as those before them.
        seconds: the seconds since training began.
        best: the best configuration so far and its validation score; None before the first.
        select: the name of that score.
        waiting_for: the processes that train what is missing; () while this process trains.
    """

    runs: int
    total: int | None
    what: str = "searching"
    epoch: int = 0
    epochs: int = 0
    losses: tuple[float, float] | None = None
    heads: int = 0
    rows: int = 0
    work: float = 0.0
    seconds: float = 0.0
    best: tuple[str, float] | None = None
    select: str = "macro_f1"
    waiting_for: tuple[str, ...] = ()

    @property
    def heads_per_s(self) -> float:
        """The mean speed of this call; 0 before the first group is done."""
        return self.heads / self.seconds if self.seconds > 0 else 0.0

    @property
    def rows_per_s(self) -> float:
        """The mean speed of this call; 0 before the first epoch is done."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The seconds that remain, estimated from the work that is done; None before there is any."""
        return self.seconds * (1 - self.work) / self.work if self.work > 0 else None


@dataclass(frozen=True)
class StepState:
    """The progress of a step that has no state class of its own, such as reading features or writing a report.

    Attributes:
        what: what the step does, as in `reading features`.
        done: the parts that are done.
        total: the parts in all; None if that is unknown.
        unit: the unit of the parts, in the plural; `bytes` are shown as MiB.
        seconds: the seconds since the step began.
        ended: whether this is its last state.
        failed: whether an error or an interrupt ended it.
    """

    what: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    seconds: float = 0.0
    ended: bool = False
    failed: bool = False

    @property
    def seconds_left(self) -> float | None:
        """The seconds that remain, estimated from the parts that are done; None without such parts or a total."""
        return self.seconds * (self.total - self.done) / self.done if self.total and self.done else None


State = BuildState | TrainingState | StepState


class Progress(Protocol):
    """A follower of long work."""

    def update(self, state: State) -> None:
        """Take a state: called before the work, after each part and at the end, in the process that drives the work."""
        ...


def format_duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds (`1:02:03`), or as minutes and seconds (`2:03`)."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_FOLLOWER: ContextVar[Progress | None] = ContextVar("follower", default=None)


@contextmanager
def followed(progress: Progress | None) -> Iterator[None]:
    """Pass all progress inside the context to this follower; None keeps the follower outside, if there is one."""
    if progress is None:
        yield
        return
    token = _FOLLOWER.set(progress)
    try:
        yield
    finally:
        _FOLLOWER.reset(token)


def current_follower() -> Progress | None:
    """Return the follower of this context, if there is one."""
    return _FOLLOWER.get()


def report_progress(state: State) -> None:
    """Pass a state to the follower, if there is one."""
    follower = _FOLLOWER.get()
    if follower is not None:
        follower.update(state)


@contextmanager
def step(what: str, total: int | None = None, unit: str = "") -> Iterator[Advance]:
    """Report a step from its beginning to its end; a short one is not shown.

    Args:
        what: what the step does, as in `reading features`.
        total: the parts in all; None if that is still unknown.
        unit: the unit of the parts, in the plural.

    Yields:
        A function to call with how many parts are done, and how many there are.
    """
    started = time.monotonic()
    last = [0, total]

    def advance(done: int, total: int | None) -> None:
        last[:] = done, total
        report_progress(StepState(what, done, total, unit, time.monotonic() - started))

    def end(*, failed: bool) -> None:
        seconds = time.monotonic() - started
        report_progress(StepState(what, last[0] or 0, last[1], unit, seconds, ended=True, failed=failed))

    report_progress(StepState(what, 0, total, unit))
    try:
        yield advance
    except BaseException:
        end(failed=True)
        raise
    end(failed=False)
