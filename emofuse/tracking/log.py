"""Log saved runs to trackers, none twice, and say at the end what was not taken and how to log it again."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emofuse.errors import ResultsError, TrackingError, did_you_mean
from emofuse.progress import step
from emofuse.results import ResultPaths, RunRecord, folder_of_runs, runs_of_folder
from emofuse.tracking.logged import Logged, logged_report, logged_run

TRACKERS = ("mlflow", "wandb", "tensorboard")
"""The names of the trackers, each of which has a module and an extra of its name."""
_FAILURES_IN_A_ROW = 2
_SHOWN_CHARACTERS = 300


class Tracker(Protocol):
    """A tracker that is open. Each is a class `OpenTracker` of a module of its own, made from a folder of results.

    Attributes:
        name: its name.
        where: where it logs to, for readers.
    """

    name: str
    where: str

    def has(self, key: str) -> bool:
        """Return whether the entry with this key was logged, whole, before."""
        ...

    def log(self, entry: Logged) -> None:
        """Log an entry. An entry that was logged in part is logged anew."""
        ...


@dataclass(frozen=True)
class ResultsPlace:
    """A folder of results.

    Attributes:
        out: the folder with the report, and with what trackers keep on the disk.
        runs: the folder of runs in it.
    """

    out: Path
    runs: Path


def find_results(path: Path) -> ResultsPlace:
    """Return the place of results by the folder of a pipeline or sweep, or by its folder of runs.

    Raises:
        ResultsError: there is no such folder.
    """
    if not path.is_dir():
        raise ResultsError(f"{path}: no such folder. Name the folder of a pipeline or sweep, or a folder of runs")
    runs = runs_of_folder(path)
    return place_of_runs(runs) if runs is path else ResultsPlace(path, runs)


def place_of_runs(runs: Path) -> ResultsPlace:
    """Return the place of results by its folder of runs, which need not exist."""
    return ResultsPlace(folder_of_runs(runs), runs)


def open_trackers(names: Sequence[str], out: Path) -> list[Tracker]:
    """Open trackers, each once, so that one that cannot be used is an error before any work.

    Args:
        names: the names of the trackers.
        out: the folder of results, where trackers of this disk keep what they log.

    Raises:
        TrackingError: there is no tracker of a name, its package is not installed, or its settings do not allow to log.
    """
    return [_open(name, out) for name in dict.fromkeys(names)]


def _open(name: str, out: Path) -> Tracker:
    if name not in TRACKERS:
        known = ", ".join(TRACKERS)
        raise TrackingError(f"there is no tracker {name!r}{did_you_mean(name, TRACKERS)}; known: {known}")
    try:
        module = importlib.import_module(f"emofuse.tracking.{name}")
    except ImportError as error:
        raise TrackingError(
            f"--log-to {name}: its package cannot be imported ({error}). Install it: pip install 'emofuse[{name}]'"
        ) from error
    tracker: Tracker = module.OpenTracker(out)
    return tracker


def log_results(
    trackers: Sequence[Tracker],
    records: Sequence[RunRecord],
    place: ResultsPlace,
    *,
    title: str = "",
    with_report: bool = True,
    further: Sequence[Logged] = (),
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Log saved runs and their report to trackers.

    Args:
        trackers: the open trackers.
        records: the records of the runs.
        place: where they are saved.
        title: the name of the report; the name of the folder unless given.
        with_report: whether the report beside the runs is logged too.
        further: entries that are logged too, such as searched runs.
        say: receives a line for each tracker.

    Raises:
        TrackingError: a tracker has not taken all of them. The message has the command that logs them again.
    """
    if not trackers:
        return
    entries = [logged_run(record) for record in {record.digest: record for record in records}.values()]
    entries += further
    report = None
    if with_report:
        report = logged_report(ResultPaths(place.out).report, title or place.out.absolute().name, records)
    entries += [report] if report else []
    problems = []
    for tracker in trackers:
        problem = _log_all(tracker, entries, say)
        if problem:
            again = f"emofuse results log {shlex.quote(str(place.out))} --to {tracker.name}"
            problems.append(f"{problem} All runs are saved in {place.runs}. Log them again: {again}")
    if problems:
        raise TrackingError(" | ".join(problems))


def _log_all(tracker: Tracker, entries: Sequence[Logged], say: Callable[[str], None]) -> str:
    """Log entries to one tracker, and return a sentence on those that it has not taken; empty if there are none.

    Whatever a tracker raises is its own affair: a server that is down and a full disk must not cost the results. After
    two failures in a row it is not asked again, because each may take the time of its retries.
    """
    logged = before = in_a_row = 0
    first = ""
    with step(f"logging to {tracker.name}", len(entries), "runs") as advance:
        for number, entry in enumerate(entries, start=1):
            try:
                if tracker.has(entry.key):
                    before += 1
                else:
                    tracker.log(entry)
                    logged += 1
                in_a_row = 0
            except Exception as error:  # noqa: BLE001 - see above
                in_a_row += 1
                first = first or f"{type(error).__name__}: {_shortened(str(error))}"
                if in_a_row == _FAILURES_IN_A_ROW:
                    break
            advance(number, len(entries))
    known = f", {before} logged before" if before else ""
    say(f"{tracker.name}: {logged} of {len(entries)} entries logged{known}, {tracker.where}")
    missing = len(entries) - logged - before
    if not missing:
        return ""
    return f"{missing} of {len(entries)} runs and reports are not logged to {tracker.name}, {tracker.where} ({first})."


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}..."
