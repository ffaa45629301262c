"""Look at all places below a folder. Looks are bounded and shared: how many browsers ask makes no difference."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from emofuse.results.progress import CallState, read_calls
from emofuse.ui.cache_reader import CacheProgress, CacheReader
from emofuse.ui.places import Places, Work, find_places, is_inside
from emofuse.ui.readers import Budget, RowsReader, RunsReader
from emofuse.ui.states import (
    ACTIVITIES,
    PlaceState,
    ReportLink,
    WorkFiles,
    cache_state,
    report_state,
    work_state,
)

Reader = TypeVar("Reader")

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_WALKS = 5.0
SECONDS_OF_READING = 0.5
_SHARE_OF_TIME = 5


@dataclass(frozen=True)
class FolderState:
    """What is known of a folder.

    Attributes:
        root: the folder.
        places: what is below it, active places first, then the newest first.
        notes: sentences on what was not looked at.
        looked: the time of the look, seconds since 1970.
    """

    root: str
    places: tuple[PlaceState, ...]
    notes: tuple[str, ...]
    looked: float


class FolderWatch:
    """Watches the places below a folder.

    Args:
        root: the folder.
        clock: a clock in seconds that never goes back.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self._clock = clock
        self._lock = threading.Lock()
        self._places = Places()
        self._walked: float | None = None
        self._state: FolderState | None = None
        self._next_look = 0.0
        self._runs: dict[Path, RunsReader] = {}
        self._rows: dict[Path, RowsReader] = {}
        self._caches: dict[Path, CacheReader] = {}

    def state(self) -> FolderState:
        """Return what is known of the folder; what was known a moment ago is known still."""
        with self._lock:
            started = self._clock()
            if self._state is None or started >= self._next_look:
                self._state = self._look()
                # A slow disk is asked less often, so that watching takes a fifth of the time at most.
                took = self._clock() - started
                self._next_look = started + max(SECONDS_BETWEEN_LOOKS, _SHARE_OF_TIME * took)
            return self._state

    def report_folders(self) -> list[Path]:
        """Return the folders of reports, whose files may be read."""
        self.state()
        return list(self._places.reports)

    def _look(self) -> FolderState:
        if self._walked is None or self._clock() - self._walked >= SECONDS_BETWEEN_WALKS:
            self._places = find_places(self.root)
            self._walked = self._clock()
            self._forget()
        places, now, budget = self._places, time.time(), Budget(SECONDS_OF_READING)
        reports = {path: self._report(path) for path in places.reports}
        caches = {path: self._reader(self._caches, path, CacheReader).look(budget) for path in places.caches}
        states = []
        calls = {work: read_calls(work.path) for work in places.works}
        # What runs is read first, and what was known of the others stays.
        for work in sorted(places.works, key=lambda work: not any(call.is_alive(now) for call in calls[work])):
            own_reports = [path for path in reports if _owner(path, places.works) == work]
            cache = next((path for path in caches if path.parent == work.path), None)
            links = tuple(link for path in own_reports if (link := reports.pop(path)) is not None)
            files = self._files(work, calls[work], caches.pop(cache) if cache else None, links, budget)
            states.append(work_state(self._relative(work.path), self._name(work.path), files, now))
        states += [cache_state(self._relative(path), self._name(path), cache) for path, cache in caches.items()]
        states += [report_state(self._relative(path), self._name(path), link) for path, link in reports.items() if link]
        order = list(ACTIVITIES)
        states.sort(key=lambda state: (order.index(state.activity) > 1, -state.written, state.path))
        return FolderState(str(self.root), tuple(states), places.notes, now)

    def _files(
        self,
        work: Work,
        calls: Sequence[CallState],
        cache: CacheProgress | None,
        reports: tuple[ReportLink, ...],
        budget: Budget,
    ) -> WorkFiles:
        return WorkFiles(
            runs=self._reader(self._runs, work.runs, RunsReader).look(budget),
            rows=self._reader(self._rows, work.path, RowsReader).look(budget),
            calls=calls,
            claimed=count_claimed(work.path),
            cache=cache,
            reports=reports,
        )

    @staticmethod
    def _reader(readers: dict[Path, Reader], path: Path, make: Callable[[Path], Reader]) -> Reader:
        if path not in readers:
            readers[path] = make(path)
        return readers[path]

    def _forget(self) -> None:
        """Forget what was read of places that are gone."""
        runs, paths = {work.runs for work in self._places.works}, {work.path for work in self._places.works}
        self._runs = {path: reader for path, reader in self._runs.items() if path in runs}
        self._rows = {path: reader for path, reader in self._rows.items() if path in paths}
        self._caches = {path: reader for path, reader in self._caches.items() if path in self._places.caches}

    def _report(self, folder: Path) -> ReportLink | None:
        page = folder / "index.html"
        try:
            return ReportLink(self._relative(page), page.stat().st_mtime)
        except OSError:
            return None

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _name(self, path: Path) -> str:
        return path.name or str(path)


def _owner(path: Path, works: Iterable[Work]) -> Work | None:
    """Return the nearest folder of results that a report lies in."""
    around = [work for work in works if path.is_relative_to(work.path)]
    return max(around, key=lambda work: len(work.path.parts), default=None)


def count_claimed(folder: Path) -> int:
    """Return how many runs living processes of this machine have claimed (see `emofuse.sweep.rows`).

    Their locks say so exactly, but taking one, if only for a moment, could disturb those who look at it then.
    """
    count = 0
    for path in (folder / "claims").glob("*.json"):
        try:
            claim = json.loads(path.read_bytes())
            if claim["host"] == platform.node() and psutil.pid_exists(int(claim["pid"])):
                count += len(claim["digests"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return count


def file_of_report(watch: FolderWatch, path: str) -> Path | None:
    """Return the file of a report by its path below the watched folder; None for everything else.

    Args:
        watch: the watched folder.
        path: the path with slashes, relative to the folder, decoded.
    """
    parts = path.split("/")
    if any(part in {"", ".", ".."} or part.startswith(".") or "\0" in part or "\\" in part for part in parts):
        return None
    wanted = watch.root.joinpath(*parts)
    folders = [folder for folder in watch.report_folders() if wanted.is_relative_to(folder)]
    # Links are followed to their end before anything is opened: what they lead to must be a file of the folder too.
    real, root = Path(os.path.realpath(wanted)), os.path.realpath(watch.root)
    real_folders = [real_folder for folder in folders if is_inside(real_folder := os.path.realpath(folder), root)]
    return real if any(is_inside(str(real), folder) for folder in real_folders) and real.is_file() else None
