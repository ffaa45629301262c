"""Shows progress as a live bar on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from emofuse.cli.live import Clock, LivePicture, OngoingStep
from emofuse.progress import format_duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

SECONDS_BEFORE_A_STEP = 1.0
SECONDS_BETWEEN_PICTURES = 0.1


class Bar:
    """A display of a bar with speed and time left, and further lines below it.

    The bar of work stays on the terminal at its end; that of a step is removed.
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
        """Draw the work; at its end, draw it for the last time."""
        self._work = picture
        if picture.is_over:
            self._draw(picture)
            self._work = None
            self.stop()
        elif self._is_due():
            self.tick()

    def step(self, name: str, step: OngoingStep) -> None:
        """Draw a step that has lasted for a moment."""
        self._steps[name] = step
        if self._is_due():
            self.tick()

    def end_step(self, name: str, seconds: float, *, failed: bool = False) -> None:  # noqa: ARG002  it shows no ended step
        """Draw the work again that the step replaced."""
        self._steps.pop(name, None)
        if not self._steps and self._work is None and self._live is not None:
            self._live.transient = True
            self.stop()

    def tick(self) -> None:
        """Draw the current step or work as of now."""
        for step in reversed(self._steps.values()):
            seconds = self._clock() - step.began
            if seconds >= SECONDS_BEFORE_A_STEP:
                self._draw(step.picture_at(seconds))
                return
        if self._work is not None:
            self._draw(self._work)

    def stop(self) -> None:
        """Stop drawing; the last picture stays on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _is_due(self) -> bool:
        return self._drawn_at is None or self._clock() - self._drawn_at >= self._seconds_between

    def _draw(self, picture: LivePicture) -> None:
        from rich.console import Group
        from rich.live import Live

        if self._live is None:
            # Standard output that is no terminal holds results, which must not be redirected.
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())
            self._live.start()
        self._live.update(Group(_make_bar(self._console, picture), *picture.below()), refresh=True)
        self._drawn_at = self._clock()


def error_console() -> Console:
    """Return the error stream. Its cursor is never hidden, so that a killed process leaves the terminal as it was."""
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
