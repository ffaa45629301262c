"""Progress on the error stream, so that output stays clean: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 5.0


class Stoppable(Protocol):
    """What is drawn until it is stopped."""

    def stop(self) -> None:
        """Leaves the last picture on the terminal."""
        ...


Lines = TypeVar("Lines")
Drawn = TypeVar("Drawn", bound=Stoppable)


@contextmanager
def lines_or_bar(make_lines: Callable[[], Lines], make_bar: Callable[[Console], Drawn]) -> Iterator[Lines | Drawn]:
    """The bar where the error stream is a terminal, else the lines."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield make_lines()
        return
    bar = make_bar(console)
    try:
        yield bar
    finally:
        bar.stop()


class Pace:
    """Lets a line through every so many seconds."""

    def __init__(self, seconds_between: float) -> None:
        self._seconds_between = seconds_between
        self._next = 0.0

    def is_due(self) -> bool:
        """Whether it is time for a line."""
        return time.monotonic() >= self._next

    def said(self) -> None:
        """Takes note that a line was printed."""
        self._next = time.monotonic() + self._seconds_between


class LiveBar:
    """A bar with speed and time left, and something under it. It appears when it is first drawn."""

    def __init__(self, console: Console, what: str) -> None:
        """`what` is done, in one word."""
        self._console = console
        self._what = what
        self._bar: Bar | None = None
        self._live: Live | None = None

    def draw(
        self, done: int, total: int | None, *, speed: str, seconds_left: float | None, below: list[RenderableType]
    ) -> None:
        """Shows a state; the bar stays on the terminal when all is done."""
        from rich.console import Group
        from rich.live import Live

        if self._live is None or self._bar is None:
            self._bar = _make_bar(self._console)
            self._bar.add_task(self._what, total=total, speed="", left="")
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()
        left = "" if seconds_left is None else f"{format_seconds(seconds_left)} left"
        self._bar.update(self._bar.task_ids[0], total=total, completed=done, speed=speed, left=left)
        self._live.update(Group(self._bar, *below), refresh=True)
        if total is not None and done >= total:
            self.stop()

    def stop(self) -> None:
        """Leaves the last picture on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def format_seconds(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _make_bar(console: Console) -> Bar:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[left]}"),
        console=console,
    )
