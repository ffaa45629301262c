"""Shows the progress of every command: a bar with details on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from emofuse.cli.bar import Bar, error_console
from emofuse.cli.lines import Lines
from emofuse.cli.live import Clock, Display, LivePicture, OngoingStep, ticking
from emofuse.progress import BuildState, Progress, State, StepState, TrainingState, followed, format_duration

if TYPE_CHECKING:
    from rich.console import RenderableType


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Show all progress that is reported inside on the error stream, as a bar on a terminal, otherwise as lines."""
    console = error_console()
    display: Display = Bar(console) if console.is_terminal else Lines()
    lock = threading.RLock()
    with ticking(display, lock), followed(shown := ShownProgress(display, lock)):
        yield shown


class ShownProgress:
    """Turns reported states into pictures.

    Args:
        display: the display that shows the pictures.
        lock: the lock of the display.
        clock: the clock of the display, in seconds.
    """

    def __init__(self, display: Display, lock: threading.RLock | None = None, clock: Clock = time.monotonic) -> None:
        self._display = display
        self._lock = lock or threading.RLock()
        self._clock = clock

    def update(self, state: State) -> None:
        """Show a state."""
        with self._lock:
            match state:
                case BuildState():
                    self._display.work(build_picture(state))
                case TrainingState():
                    self._display.work(training_picture(state))
                case StepState(ended=True):
                    self._display.end_step(state.what, state.seconds, failed=state.failed)
                case StepState():
                    began = self._clock() - state.seconds
                    step = OngoingStep(began, lambda seconds: step_picture(replace(state, seconds=seconds), now=state))
                    self._display.step(state.what, step)


def build_picture(state: BuildState) -> LivePicture:
    """Return the picture of a build, with the counts of each status of each stream below the bar."""
    return LivePicture(
        what="extracting",
        line=describe_build(state),
        count=f"{state.rows}/{state.total}",
        done=state.rows,
        total=state.total,
        speed=f"{state.rows_per_s:.1f} {state.noun}/s" if state.rows else "",
        seconds_left=state.seconds_left,
        below=lambda: [_counts_table(state.counts)],
        is_news=state.rows == 0 or state.rows >= state.total,
        is_over=state.rows >= state.total,
    )


def training_picture(state: TrainingState) -> LivePicture:
    """Return the picture of training, with the best configuration so far below the bar."""
    is_over = state.total is not None and state.runs >= state.total
    speed = ", ".join(part for part in (describe_epoch(state), describe_speed(state)) if part)

    def below() -> list[RenderableType]:
        from rich.text import Text

        notes = (describe_losses(state), describe_best(state), describe_waiting(state))
        return [Text(text) for text in notes if text]

    return LivePicture(
        what=state.what,
        line=describe_training(state),
        count=f"{state.runs}/{'?' if state.total is None else state.total}",
        # Only the bar shows parts of a run, so that it grows during a single run too.
        done=max(state.runs, state.work * (state.total or 0)),
        total=state.total,
        speed=speed,
        seconds_left=state.seconds_left,
        below=below,
        is_news=is_over,
        is_over=is_over,
        waiting_for=state.waiting_for,
    )


def step_picture(state: StepState, *, now: StepState | None = None) -> LivePicture:
    """Return the picture of a step.

    Args:
        state: the current state.
        now: the last reported state, which the time left is estimated from; `state` unless given.
    """
    count = _step_count(state)
    left = (now or state).seconds_left
    if now is not None and left is not None:
        left = max(0.0, left - (state.seconds - now.seconds))
    parts = [state.what, *([f"{count} {'' if state.unit == 'bytes' else state.unit}".strip()] if count else [])]
    parts += [f"{format_duration(left)} left"] if left else []
    return LivePicture(
        what=state.what,
        line=", ".join([*parts, f"{format_duration(state.seconds)} so far"]),
        count=count.replace(" of ", "/"),
        done=state.done,
        total=state.total,
        speed=f"{format_duration(state.seconds)} so far",
        seconds_left=left,
    )


def describe_build(state: BuildState) -> str:
    """Return a build as one plain line, with streams of the same counts together."""
    if state.rows == 0:
        return f"extracting {state.total} {state.noun}"
    left = f", {format_duration(state.seconds_left)} left" if state.seconds_left else ""
    groups: dict[str, list[str]] = {}
    for stream, counts in state.counts.items():
        groups.setdefault(format_counts(counts), []).append(stream)
    streams = "".join(f"; {', '.join(names)}: {counts}" for counts, names in groups.items())
    speed = f"{state.rows_per_s:.1f} {state.noun}/s"
    return f"extracted {state.rows} of {state.total} {state.noun}, {speed}{left}{streams}"


def describe_training(state: TrainingState) -> str:
    """One plain line."""
    of_all = f"{state.runs} runs" if state.total is None else f"{state.runs} of {state.total} runs"
    left = "" if not state.seconds_left else f"{format_duration(state.seconds_left)} left"
    parts = [describe_epoch(state), describe_losses(state), describe_speed(state), left]
    parts += [describe_best(state), describe_waiting(state)]
    return ", ".join([of_all, *(part for part in parts if part)])


def describe_epoch(state: TrainingState) -> str:
    """Return how far the runs in training are; an empty text without any."""
    return f"epoch {state.epoch} of {state.epochs}" if state.epochs else ""


def describe_losses(state: TrainingState) -> str:
    """Return the losses of the runs in training; an empty text before the first ones."""
    return "" if state.losses is None else "train loss {:.3f}, val loss {:.3f}".format(*state.losses)


def describe_speed(state: TrainingState) -> str:
    """Return heads and rows a second; an empty text before the first ones."""
    heads = f"{state.heads_per_s:.{1 if state.heads_per_s < 10 else 0}f} heads/s" if state.heads else ""
    rows = f"{state.rows_per_s:,.0f} rows/s" if state.rows else ""
    return ", ".join(part for part in (heads, rows) if part)


def describe_best(state: TrainingState) -> str:
    """Return the best configuration so far; an empty text before the first one."""
    if state.best is None:
        return ""
    name, score = state.best
    return f"best so far: {name} (val {state.select.replace('_', ' ')} {score:.3f})"


def describe_waiting(state: TrainingState) -> str:
    """Return which other processes train what is missing; an empty text while this process trains."""
    return f"waiting for {' and '.join(state.waiting_for)}" if state.waiting_for else ""


def format_counts(counts: Mapping[str, int]) -> str:
    """Return counts such as `820 ok, 20 no_detection`, without statuses of no row."""
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "0 rows"


def _step_count(state: StepState) -> str:
    """Return a count such as `3 of 8`, `3` or `1.2 of 3.4 MiB`; an empty text for a step without parts."""
    if not state.unit:
        return ""
    if state.unit == "bytes":
        of = "" if state.total is None else f" of {state.total / 2**20:,.1f}"
        return f"{state.done / 2**20:,.1f}{of} MiB"
    return f"{state.done}" if state.total is None else f"{state.done} of {state.total}"


def _counts_table(counts: Mapping[str, Mapping[str, int]]) -> RenderableType:
    from rich.table import Table

    statuses = list(dict.fromkeys(status for of_stream in counts.values() for status in of_stream))
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for status in statuses:
        table.add_column(status, justify="right")
    for stream, of_stream in counts.items():
        table.add_row(stream, *(str(of_stream.get(status, 0)) for status in statuses))
    return table
