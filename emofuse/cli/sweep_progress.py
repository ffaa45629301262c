"""How a sweep is followed: a bar with the best configuration under it on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from emofuse.cli.progress import format_seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from emofuse.sweep.progress import SweepProgress, SweepState

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def sweep_progress() -> Iterator[SweepProgress]:
    """Shows a search on the error stream, so that output stays clean: a live bar on a terminal, lines elsewhere."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield SweepLines()
        return
    bar = SweepBar(console)
    try:
        yield bar
    finally:
        bar.stop()


class SweepLines:
    """A line every few seconds, one when another process is waited for, and one at the end."""

    def __init__(self, seconds_between: float = _SECONDS_BETWEEN_LINES) -> None:
        self._seconds_between = seconds_between
        self._next = 0.0
        self._waiting_for: tuple[str, ...] = ()

    def update(self, state: SweepState) -> None:
        """Prints a line if it is time for one."""
        is_news = state.runs == state.total or state.waiting_for != self._waiting_for
        if not is_news and time.monotonic() < self._next:
            return
        typer.echo(describe_search(state), err=True)
        self._waiting_for = state.waiting_for
        self._next = time.monotonic() + self._seconds_between


class SweepBar:
    """A bar, and under it the best configuration so far, or who is waited for."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def update(self, state: SweepState) -> None:
        """Draws the state; the bar appears with the first one and stays when all is done."""
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        if self._live is None or self._bar is None or self._task is None:
            self._bar = _make_bar(self._console)
            self._task = self._bar.add_task("searching", total=state.total, speed="", left="")
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()
        left = "" if state.seconds_left is None else f"{format_seconds(state.seconds_left)} left"
        self._bar.update(self._task, total=state.total, completed=state.runs, speed=describe_speed(state), left=left)
        notes = [text for text in (describe_best(state), describe_waiting(state)) if text]
        self._live.update(Group(self._bar, *map(Text, notes)), refresh=True)
        if state.runs == state.total:
            self.stop()

    def stop(self) -> None:
        """Leaves the last picture on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def describe_search(state: SweepState) -> str:
    """One plain line."""
    of_all = f"{state.runs} runs" if state.total is None else f"{state.runs} of {state.total} runs"
    left = "" if not state.seconds_left else f"{format_seconds(state.seconds_left)} left"
    parts = [describe_speed(state), left, describe_best(state), describe_waiting(state)]
    return ", ".join([of_all, *(part for part in parts if part)])


def describe_speed(state: SweepState) -> str:
    """Heads and rows a second, or nothing before there are any."""
    heads = f"{state.heads_per_s:.{1 if state.heads_per_s < 10 else 0}f} heads/s" if state.heads else ""
    rows = f"{state.rows_per_s:,.0f} rows/s" if state.rows else ""
    return ", ".join(part for part in (heads, rows) if part)


def describe_best(state: SweepState) -> str:
    """The best configuration so far, or nothing before there is one."""
    if state.best is None:
        return ""
    name, score = state.best
    return f"best so far: {name} (val {state.select.replace('_', ' ')} {score:.3f})"


def describe_waiting(state: SweepState) -> str:
    """Who trains what is missing, or nothing while this process trains."""
    return f"waiting for {' and '.join(state.waiting_for)}" if state.waiting_for else ""


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
