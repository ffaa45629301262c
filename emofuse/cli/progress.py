"""How a build is followed: a bar with a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress as Bar
    from rich.progress import TaskID
    from rich.table import Table

    from emofuse.build import BuildState, Progress

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def build_progress() -> Iterator[Progress]:
    """Shows a build on the error stream, so that output stays clean: a live bar on a terminal, lines elsewhere."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield ProgressLines()
        return
    bar = ProgressBar(console)
    try:
        yield bar
    finally:
        bar.stop()


class ProgressLines:
    """A line every few seconds and one at the end."""

    def __init__(self, seconds_between: float = _SECONDS_BETWEEN_LINES) -> None:
        self._seconds_between = seconds_between
        self._next = 0.0

    def update(self, state: BuildState) -> None:
        """Prints a line if it is time for one."""
        if state.rows == 0:
            typer.echo(f"extracting {state.total} images", err=True)
        elif state.rows < state.total and time.monotonic() < self._next:
            return
        else:
            typer.echo(describe_state(state), err=True)
        self._next = time.monotonic() + self._seconds_between


class ProgressBar:
    """A bar, and under it the counts of each status of each stream."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def update(self, state: BuildState) -> None:
        """Draws the state; the bar appears with the first one and stays when all is done."""
        from rich.console import Group
        from rich.live import Live

        if self._live is None or self._bar is None or self._task is None:
            self._bar = _make_bar(self._console)
            self._task = self._bar.add_task("extracting", total=state.total, speed="", left="")
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()
        speed = f"{state.images_per_s:.1f} images/s" if state.rows else ""
        left = f"{format_seconds(state.seconds_left)} left" if state.seconds_left is not None else ""
        self._bar.update(self._task, completed=state.rows, speed=speed, left=left)
        self._live.update(Group(self._bar, _counts_table(state.counts)), refresh=True)
        if state.rows >= state.total:
            self.stop()

    def stop(self) -> None:
        """Leaves the last picture on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def describe_state(state: BuildState) -> str:
    """One plain line; streams with the same counts share their mention."""
    left = f", {format_seconds(state.seconds_left)} left" if state.seconds_left else ""
    groups: dict[str, list[str]] = {}
    for stream, counts in state.counts.items():
        groups.setdefault(format_counts(counts), []).append(stream)
    streams = "".join(f"; {', '.join(names)}: {counts}" for counts, names in groups.items())
    return f"extracted {state.rows} of {state.total} images, {state.images_per_s:.1f} images/s{left}{streams}"


def format_counts(counts: Mapping[str, int]) -> str:
    """`820 ok, 20 no_detection`; statuses of no row are left out."""
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "0 rows"


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


def _counts_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    from rich.table import Table

    statuses = list(dict.fromkeys(status for of_stream in counts.values() for status in of_stream))
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for status in statuses:
        table.add_column(status, justify="right")
    for stream, of_stream in counts.items():
        table.add_row(stream, *(str(of_stream.get(status, 0)) for status in statuses))
    return table
