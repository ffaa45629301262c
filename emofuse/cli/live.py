"""Draws progress on the error stream, so that results stay alone on standard output: a live bar, or plain lines.

`emofuse.cli.progress` turns a state into a `LivePicture`; this module knows pictures and time alone. Work has one
picture at a time. A step within it takes its place once it has lasted a moment, so that short steps do not flicker.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import typer

from emofuse.progress import format_duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

SECONDS_BETWEEN_LINES = 5.0
SECONDS_UNCHANGED = 30.0
"""A line is repeated after so long without news."""

SECONDS_BEFORE_A_STEP = 1.0
SECONDS_BETWEEN_PICTURES = 0.1
_SECONDS_BETWEEN_TICKS = 0.5

Clock = Callable[[], float]


@dataclass(frozen=True)
class LivePicture:
    """What is shown of a state.

    Attributes:
        what: is done, in a word or two.
        line: all of it in one plain line.
        count: `450/1575`.
        done: of the total, in any unit.
        total: None if it is not known.
        speed: in words.
        seconds_left: None if it is not known.
        below: makes what is drawn under the bar.
        is_news: whether a line is due at once.
        is_over: whether this is the last picture of its work.
        waiting_for: who is waited for; another one is news.
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
        began: by the clock.
        picture_at: its picture, given how many seconds it has lasted.
    """

    began: float
    picture_at: Callable[[float], LivePicture]


class Drawn(Protocol):
    """Shows pictures; all is called from several threads, one at a time."""

    def work(self, picture: LivePicture) -> None:
        """The work is so far."""
        ...

    def step(self, name: str, step: OngoingStep) -> None:
        """A step has begun or is so far."""
        ...

    def end_step(self, name: str, seconds: float) -> None:
        """A step has ended."""
        ...

    def tick(self) -> None:
        """Time has passed."""
        ...

    def stop(self) -> None:
        """Leaves the last picture."""
        ...


class Lines:
    """A line every few seconds, fewer while nothing changes, one at once for news; steps only if they last."""

    def __init__(self, seconds_between: float = SECONDS_BETWEEN_LINES, clock: Clock = time.monotonic) -> None:
        self._seconds_between = seconds_between
        self._clock = clock
        self._said_at: float | None = None
        self._said = ""
        self._work: tuple[LivePicture, float] | None = None
        self._waiting_for: tuple[str, ...] = ()
        self._steps: dict[str, OngoingStep] = {}
        self._said_steps: set[str] = set()

    def work(self, picture: LivePicture) -> None:
        """Says a line if it is time for one, or if there is news."""
        if picture.is_news or picture.waiting_for != self._waiting_for or self._is_due(picture.line):
            self._say(picture.line)
        self._waiting_for = picture.waiting_for
        self._work = None if picture.is_over else (picture, self._clock())

    def step(self, name: str, step: OngoingStep) -> None:
        """Says a line if the step has lasted for a while and it is time for one."""
        self._steps[name] = step
        self._say_step()

    def end_step(self, name: str, seconds: float) -> None:
        """Says how long a step took that was spoken of."""
        self._steps.pop(name, None)
        if name in self._said_steps:
            self._said_steps.discard(name)
            self._say(f"{name}: done in {format_duration(seconds)}")

    def tick(self) -> None:
        """Says a line of a step that lasts, or that work goes on without news."""
        if self._steps:
            self._say_step()
        elif self._work is not None:
            picture, since = self._work
            if self._is_due(picture.line):
                unchanged = self._clock() - since
                without_news = f", unchanged for {format_duration(unchanged)}" if picture.line == self._said else ""
                self._say(picture.line + without_news, said=picture.line)

    def stop(self) -> None:
        """Lines stay where they are."""

    def _say_step(self) -> None:
        name, step = next(reversed(self._steps.items()))
        seconds = self._clock() - step.began
        picture = step.picture_at(seconds)
        if seconds >= self._seconds_between and self._is_due(picture.count + name):
            self._say(picture.line, said=picture.count + name)
            self._said_steps.add(name)

    def _is_due(self, text: str) -> bool:
        if self._said_at is None:
            return True
        return self._clock() - self._said_at >= (SECONDS_UNCHANGED if text == self._said else self._seconds_between)

    def _say(self, line: str, *, said: str | None = None) -> None:
        typer.echo(line, err=True)
        self._said_at, self._said = self._clock(), line if said is None else said


class Bar:
    """A bar with speed and time left, and something under it. It appears when there is something to show.

    The bar of work stays on the terminal at its end, that of a step goes away.
    """

    def __init__(
        self, console: Console, seconds_between: float = SECONDS_BETWEEN_PICTURES, clock: Clock = time.monotonic
    ) -> None:
        self._console = console
        self._seconds_between = seconds_between
        self._clock = clock
        self._live: Live | None = None
        self._drawn_at: float | None = None
        self._work: LivePicture | None = None
        self._steps: dict[str, OngoingStep] = {}

    def work(self, picture: LivePicture) -> None:
        """Draws the work, at the end for the last time."""
        self._work = picture
        if picture.is_over:
            self._draw(picture)
            self._work = None
            self.stop()
        elif self._is_due():
            self.tick()

    def step(self, name: str, step: OngoingStep) -> None:
        """Draws a step that has lasted for a moment."""
        self._steps[name] = step
        if self._is_due():
            self.tick()

    def end_step(self, name: str, seconds: float) -> None:  # noqa: ARG002  what has ended is not drawn
        """Draws what was under the step."""
        self._steps.pop(name, None)
        if not self._steps and self._work is None and self._live is not None:
            self._live.transient = True
            self.stop()

    def tick(self) -> None:
        """Draws what goes on, as of now."""
        for step in reversed(self._steps.values()):
            seconds = self._clock() - step.began
            if seconds >= SECONDS_BEFORE_A_STEP:
                self._draw(step.picture_at(seconds))
                return
        if self._work is not None:
            self._draw(self._work)

    def stop(self) -> None:
        """Leaves the last picture on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _is_due(self) -> bool:
        return self._drawn_at is None or self._clock() - self._drawn_at >= self._seconds_between

    def _draw(self, picture: LivePicture) -> None:
        from rich.console import Group
        from rich.live import Live

        if self._live is None:
            # Standard output is left alone where it is no terminal: results in a file are not progress.
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())
            self._live.start()
        self._live.update(Group(_make_bar(self._console, picture), *picture.below()), refresh=True)
        self._drawn_at = self._clock()


Shown = TypeVar("Shown", bound=Drawn)


@contextmanager
def ticking(drawn: Shown, lock: threading.RLock) -> Iterator[Shown]:
    """Lets time pass for what is drawn, in a thread of its own, and stops it in the end, whatever ended the work."""
    is_over = threading.Event()

    def tick() -> None:
        while not is_over.wait(_SECONDS_BETWEEN_TICKS):
            with lock, suppress(OSError):  # an error stream that is gone is no reason to end the work
                drawn.tick()

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield drawn
    finally:
        is_over.set()
        thread.join()
        drawn.stop()


def error_console() -> Console:
    """The error stream, whose cursor is never hidden: whatever ends the process leaves the terminal as it was."""
    from rich.console import Console

    class PlainCursorConsole(Console):
        def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
            return False

    return PlainCursorConsole(stderr=True, highlight=False)


def _make_bar(console: Console, picture: LivePicture) -> RenderableType:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("what", "count", "speed", "left")]
    bar = Progress(columns[0], BarColumn(), *columns[1:], console=console, auto_refresh=False)
    left = "" if picture.seconds_left is None else f"{format_duration(picture.seconds_left)} left"
    task = bar.add_task("", total=picture.total, what=picture.what, count=picture.count, speed=picture.speed, left=left)
    bar.update(task, completed=picture.done)
    return bar
