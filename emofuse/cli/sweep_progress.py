"""How a sweep is followed: a bar with the best configuration under it on a terminal, plain lines elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import typer

from emofuse.cli.live import SECONDS_BETWEEN_LINES, LiveBar, Pace, format_seconds, lines_or_bar

if TYPE_CHECKING:
    from rich.console import Console

    from emofuse.sweep.progress import SweepProgress, SweepState


def sweep_progress() -> AbstractContextManager[SweepProgress]:
    """Shows a search on the error stream: a live bar on a terminal, lines elsewhere."""
    return lines_or_bar(SweepLines, SweepBar)


class SweepLines:
    """A line every few seconds, one when another process is waited for, and one at the end."""

    def __init__(self, seconds_between: float = SECONDS_BETWEEN_LINES) -> None:
        self._pace = Pace(seconds_between)
        self._waiting_for: tuple[str, ...] = ()

    def update(self, state: SweepState) -> None:
        """Prints a line if it is time for one."""
        is_news = state.runs == state.total or state.waiting_for != self._waiting_for
        if not is_news and not self._pace.is_due():
            return
        typer.echo(describe_search(state), err=True)
        self._waiting_for = state.waiting_for
        self._pace.said()


class SweepBar:
    """A bar, and under it the best configuration so far, or who is waited for."""

    def __init__(self, console: Console) -> None:
        self._bar = LiveBar(console, "searching")

    def update(self, state: SweepState) -> None:
        """Draws the state; the bar appears with the first one and stays when all is done."""
        from rich.text import Text

        notes = [Text(text) for text in (describe_best(state), describe_waiting(state)) if text]
        speed = describe_speed(state)
        self._bar.draw(state.runs, state.total, speed=speed, seconds_left=state.seconds_left, below=[*notes])

    def stop(self) -> None:
        """Leaves the last picture on the terminal."""
        self._bar.stop()


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
