"""How a build is followed: a bar with a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import typer

from emofuse.cli.live import SECONDS_BETWEEN_LINES, LiveBar, Pace, format_seconds, lines_or_bar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from emofuse.extraction import BuildState, Progress


def build_progress() -> AbstractContextManager[Progress]:
    """Shows a build on the error stream: a live bar on a terminal, lines elsewhere."""
    return lines_or_bar(ProgressLines, ProgressBar)


class ProgressLines:
    """A line every few seconds and one at the end."""

    def __init__(self, seconds_between: float = SECONDS_BETWEEN_LINES) -> None:
        self._pace = Pace(seconds_between)

    def update(self, state: BuildState) -> None:
        """Prints a line if it is time for one."""
        if state.rows == 0:
            typer.echo(f"extracting {state.total} images", err=True)
        elif state.rows < state.total and not self._pace.is_due():
            return
        else:
            typer.echo(describe_state(state), err=True)
        self._pace.said()


class ProgressBar:
    """A bar, and under it the counts of each status of each stream."""

    def __init__(self, console: Console) -> None:
        self._bar = LiveBar(console, "extracting")

    def update(self, state: BuildState) -> None:
        """Draws the state; the bar appears with the first one and stays when all is done."""
        speed = f"{state.images_per_s:.1f} images/s" if state.rows else ""
        counts = _counts_table(state.counts)
        self._bar.draw(state.rows, state.total, speed=speed, seconds_left=state.seconds_left, below=[counts])

    def stop(self) -> None:
        """Leaves the last picture on the terminal."""
        self._bar.stop()


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
