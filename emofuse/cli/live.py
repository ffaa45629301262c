"""The pictures that displays of progress draw, the interface of displays, and the thread that lets them tick.

`emofuse.cli.progress` turns a state into a `LivePicture`. A display (`emofuse.cli.bar` on a terminal,
`emofuse.cli.lines` elsewhere) knows pictures and time alone. It writes to the error stream, so that standard output
holds results only. Work has one picture at a time. A step within it takes its place once it has lasted a moment, so
that short steps do not flicker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.console import RenderableType

_SECONDS_BETWEEN_TICKS = 0.5

Clock = Callable[[], float]


@dataclass(frozen=True)
class LivePicture:
    """The picture of a state.

    Attributes:
        what: the name of the work in a word or two.
        line: the whole state in one plain line.
        count: the count, such as `450/1575`.
        done: the part of the total that is done, in any unit.
        total: the total; None if it is unknown.
        speed: the speed in words.
        seconds_left: the time left in seconds; None if it is unknown.
        below: a function that returns what is drawn below the bar.
        is_news: whether a line is due at once.
        is_over: whether this is the last picture of its work.
        waiting_for: the names of other processes that this one waits for; a change is news.
    """

    what: str
    line: str
    count: str
    done: float
    total: float | None
    speed: str = ""
    seconds_left: float | None = None
    below: Callable[[], list[RenderableType]] = list
    is_news: bool = False
    is_over: bool = False
    waiting_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class OngoingStep:
    """A step that has begun.

    Attributes:
        began: the time of its beginning by the clock of the display.
        picture_at: a function of the seconds that the step has lasted, which returns its picture.
    """

    began: float
    picture_at: Callable[[float], LivePicture]


class Display(Protocol):
    """Shows pictures. Several threads call its methods, one at a time."""

    def work(self, picture: LivePicture) -> None:
        """Show how far the work is."""
        ...

    def step(self, name: str, step: OngoingStep) -> None:
        """Show that a step has begun, or how far it is."""
        ...

    def end_step(self, name: str, seconds: float, *, failed: bool = False) -> None:
        """Show that a step has ended, or that an error or an interrupt ended it."""
        ...

    def tick(self) -> None:
        """Show what changes with time alone."""
        ...

    def stop(self) -> None:
        """Stop, and leave the last picture."""
        ...


Shown = TypeVar("Shown", bound=Display)


@contextmanager
def ticking(display: Shown, lock: threading.RLock) -> Iterator[Shown]:
    """Let a display tick in a background thread, and stop it when the work ends or fails."""
    is_over = threading.Event()

    def tick() -> None:
        while not is_over.wait(_SECONDS_BETWEEN_TICKS):
            with lock, suppress(OSError):  # a closed error stream must not end the work
                display.tick()

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield display
    finally:
        is_over.set()
        thread.join()
        display.stop()
