"""How far long work is: told here by whoever does it, shown by whoever follows.

What takes long calls `tell` with the state of its work, or is a `step`. Both do nothing without a follower, which
`followed` names for all calls inside it. Threads that these start have none: a follower is called by the thread that
drives the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

Advance = Callable[[int, int | None], None]
"""Is given what is done of a step, and how much there is in all, None if that is not known."""


@dataclass(frozen=True)
class BuildState:
    """How far a build is.

    Attributes:
        rows: computed by this build so far.
        total: rows that this build has to compute.
        seconds: since extraction started.
        counts: stream -> status name in lower case -> rows computed by this build; statuses of no row are left out.
    """

    rows: int
    total: int
    seconds: float
    counts: Mapping[str, Mapping[str, int]]

    @property
    def images_per_s(self) -> float:
        """Mean speed of this build, 0 before the first block."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the mean speed, None before the first block."""
        return (self.total - self.rows) / self.images_per_s if self.rows else None


@dataclass(frozen=True)
class TrainingState:
    """How far the training of runs is, those of a search or those that were asked for.

    Attributes:
        runs: that are done, whoever trained them.
        total: runs in all, at most; None if that is not known.
        what: is done, `training` or `searching`.
        epoch: that the runs in training have finished, 0 before the first.
        epochs: of the runs in training, at most; 0 if none is known to be in training.
        losses: mean training and validation loss of the runs in training; None before their first epoch.
        heads: trained by this call so far.
        rows: that those heads, and the ones in training, have learned from, counted each epoch anew.
        work: share of this call's work that is done, 0 to 1, by the estimates of its plans; batches that a search has
            yet to decide on are taken to be like those before them.
        seconds: since training began.
        best: the best configuration so far and its validation score; None before the first.
        select: what the score is.
        waiting_for: living processes that train what is missing; () while this one trains.
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
        """Mean speed of this call, 0 before the first group is done."""
        return self.heads / self.seconds if self.seconds > 0 else 0.0

    @property
    def rows_per_s(self) -> float:
        """Mean speed of this call, 0 before the first epoch is done."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated from what is done; None before there is any."""
        return self.seconds * (1 - self.work) / self.work if self.work > 0 else None


@dataclass(frozen=True)
class StepState:
    """How far a step is that has no state of its own kind: reading features, writing a report.

    Attributes:
        what: it does, as in `reading features`.
        done: of its parts.
        total: parts in all; None if that is not known.
        unit: of the parts, in the plural; `bytes` are shown as MiB.
        seconds: since it began.
        ended: whether this is its last state.
    """

    what: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    seconds: float = 0.0
    ended: bool = False

    @property
    def seconds_left(self) -> float | None:
        """Estimated from what is done; None before there is any, or without a total."""
        return self.seconds * (self.total - self.done) / self.done if self.total and self.done else None


State = BuildState | TrainingState | StepState


class Progress(Protocol):
    """Follows long work."""

    def update(self, state: State) -> None:
        """Called before work, after each part of it, and at its end, in the process that drives it."""
        ...


def format_duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds (`1:02:03`), or as minutes and seconds (`2:03`)."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_FOLLOWER: ContextVar[Progress | None] = ContextVar("follower", default=None)


@contextmanager
def followed(progress: Progress | None) -> Iterator[None]:
    """What is told inside is given to this follower; None leaves it to the one outside, if there is one."""
    if progress is None:
        yield
        return
    token = _FOLLOWER.set(progress)
    try:
        yield
    finally:
        _FOLLOWER.reset(token)


def tell(state: State) -> None:
    """Gives a state to the follower, if there is one."""
    follower = _FOLLOWER.get()
    if follower is not None:
        follower.update(state)


@contextmanager
def step(what: str, total: int | None = None, unit: str = "") -> Iterator[Advance]:
    """Tells of a step from its beginning to its end; it shows only if it lasts.

    Args:
        what: is done, as in `reading features`.
        total: parts in all; None if that is not known yet.
        unit: of the parts, in the plural.

    Yields:
        A function that is given how many parts are done, and how many there are.
    """
    started = time.monotonic()
    last = [0, total]

    def advance(done: int, total: int | None) -> None:
        last[:] = done, total
        tell(StepState(what, done, total, unit, time.monotonic() - started))

    tell(StepState(what, 0, total, unit))
    try:
        yield advance
    finally:
        tell(StepState(what, last[0] or 0, last[1], unit, time.monotonic() - started, ended=True))
