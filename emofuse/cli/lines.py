"""Shows progress as plain lines on the error stream, for logs and pipes."""

from __future__ import annotations

import time

import typer

from emofuse.cli.live import Clock, LivePicture, OngoingStep
from emofuse.progress import format_duration

SECONDS_BETWEEN_LINES = 5.0
SECONDS_UNCHANGED = 30.0
"""Time after which a line is repeated without news."""


class Lines:
    """A display of plain lines: one every few seconds, fewer while nothing changes, and one at once for news.

    Steps are shown only if they last.
    """

    def __init__(self, seconds_between: float = SECONDS_BETWEEN_LINES, clock: Clock = time.monotonic) -> None:
        self._seconds_between = seconds_between
        self._clock = clock
        self._printed_at: float | None = None
        self._printed = ""
        self._work: tuple[LivePicture, float] | None = None
        self._waiting_for: tuple[str, ...] = ()
        self._steps: dict[str, OngoingStep] = {}
        self._printed_steps: set[str] = set()

    def work(self, picture: LivePicture) -> None:
        """Print a line if one is due, or if there is news."""
        if picture.is_news or picture.waiting_for != self._waiting_for or self._is_due(picture.line):
            self._print(picture.line)
        self._waiting_for = picture.waiting_for
        self._work = None if picture.is_over else (picture, self._clock())

    def step(self, name: str, step: OngoingStep) -> None:
        """Print a line if the step has lasted for a while and a line is due."""
        self._steps[name] = step
        self._print_step()

    def end_step(self, name: str, seconds: float, *, failed: bool = False) -> None:
        """Print how long a step took that had a line, or after which time it stopped."""
        self._steps.pop(name, None)
        if name in self._printed_steps:
            self._printed_steps.discard(name)
            self._print(f"{name}: {'stopped after' if failed else 'done in'} {format_duration(seconds)}")

    def tick(self) -> None:
        """Print a line for a step that lasts, or for work that continues without news."""
        if self._steps:
            self._print_step()
        elif self._work is not None:
            picture, since = self._work
            if self._is_due(picture.line):
                unchanged = self._clock() - since
                without_news = f", unchanged for {format_duration(unchanged)}" if picture.line == self._printed else ""
                self._print(picture.line + without_news, text=picture.line)

    def stop(self) -> None:
        """Do nothing; lines stay where they are."""

    def _print_step(self) -> None:
        name, step = next(reversed(self._steps.items()))
        seconds = self._clock() - step.began
        picture = step.picture_at(seconds)
        if seconds >= self._seconds_between and self._is_due(picture.count + name):
            self._print(picture.line, text=picture.count + name)
            self._printed_steps.add(name)

    def _is_due(self, text: str) -> bool:
        if self._printed_at is None:
            return True
        return self._clock() - self._printed_at >= (
            SECONDS_UNCHANGED if text == self._printed else self._seconds_between
        )

    def _print(self, line: str, *, text: str | None = None) -> None:
        typer.echo(line, err=True)
        self._printed_at, self._printed = self._clock(), line if text is None else text
