"""The progress of a pipeline or sweep on disk, for those who look at it from another process (`emofuse ui`).

    OUT/progress/<random id>.json    what one call does now, what it has planned, and how it ended (class `CallState`)

A call writes its file at once, after news (at most once a second), every 15 seconds without news, and at its end. The
file of a call that has ended stays until the next call begins. Nothing depends on these files: a disk that refuses them
ends no work, and results are found without them.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import TypeAdapter

from emofuse.progress import BuildState, Progress, State, StepState, current_follower
from emofuse.stores import is_remote, replace_file

FORMAT = 1
FOLDER = "progress"
SECONDS_BETWEEN_WRITES = 1.0
SECONDS_WITHOUT_NEWS = 15.0
_SECONDS_OF_SILENCE = 4 * SECONDS_WITHOUT_NEWS
_STARTED_WITHIN_S = 2.0

Kind = Literal["pipeline", "sweep"]
End = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class CallState:
    """The state of one call of a pipeline or sweep.

    Attributes:
        kind: `pipeline` or `sweep`.
        name: the name of the pipeline or sweep.
        title: its title; empty without one.
        pid: the process id.
        host: the name of the machine.
        process_started: the start of the process, seconds since 1970, which tells it from a later one with its id.
        began: the beginning of the call, seconds since 1970.
        written: the time of this state, seconds since 1970.
        planned: the runs that are planned so far, of a sweep the final ones; None while that is unknown.
        parts: how often the whole is repeated: the outer folds of a nested sweep. States count within one of them.
        states: the last state of each kind of work, as plain data of `emofuse.progress`: `building`, `searching`,
            `training` and `step`.
        now: the kind of work of the newest state; empty before the first.
        ended: how the call ended; None while it runs.
        error: the message of the error that ended it; empty without one.
    """

    kind: Kind
    name: str
    title: str = ""
    pid: int = 0
    host: str = ""
    process_started: float = 0.0
    began: float = 0.0
    written: float = 0.0
    planned: int | None = None
    parts: int = 1
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    now: str = ""
    ended: End | None = None
    error: str = ""
    format: int = FORMAT

    def is_alive(self, now: float) -> bool:
        """Return whether the process of the call runs; on another machine, whether it has written of late."""
        if self.ended is not None:
            return False
        if self.host != platform.node():
            return now - self.written < _SECONDS_OF_SILENCE
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.process_started) < _STARTED_WITHIN_S
            return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            return True


_CALL = TypeAdapter(CallState)


@contextmanager
def keep_progress(
    out: Path,
    kind: Kind,
    name: str,
    *,
    title: str = "",
    planned: int | None = None,
    parts: int = 1,
    progress: Progress | None = None,
) -> Iterator[Progress]:
    """Write the progress of a call into the folder of its results, once that folder exists.

    Args:
        out: the folder of the results.
        kind: `pipeline` or `sweep`.
        name: the name of the pipeline or sweep.
        title: its title.
        planned: the runs that are planned; None if that is unknown.
        parts: how often the whole is repeated.
        progress: another follower of the work; that of the context unless given.

    Yields:
        The follower that takes the states of the work, and passes them on to the other one.
    """
    call = CallState(
        kind,
        name,
        title,
        pid=os.getpid(),
        host=platform.node(),
        process_started=_process_start(),
        began=time.time(),
        planned=planned,
        parts=parts,
    )
    keeper = _Keeper(out, call, progress or current_follower())
    keeper.start()
    try:
        yield keeper
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        keeper.end("interrupted")
        raise
    except BaseException as error:
        keeper.end("failed", f"{type(error).__name__}: {error}")
        raise
    keeper.end("done")


def plan_more_runs(count: int) -> None:
    """Add runs to those that the call of this context has planned, if its progress is kept."""
    follower = current_follower()
    if isinstance(follower, _Keeper):
        follower.plan(count)


class _Keeper:
    """Follows one call, and writes its state from a thread of its own, so that the work never waits for the disk."""

    def __init__(self, out: Path, call: CallState, follower: Progress | None) -> None:
        self._out = out
        self._path = out / FOLDER / f"{secrets.token_hex(8)}.json"
        self._call = call
        self._follower = follower
        self._lock = threading.Lock()
        self._has_news = True
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._write_now_and_then, name="progress file", daemon=True)

    def update(self, state: State) -> None:
        """Take a state and pass it on."""
        kind = _kind_of(state)
        with self._lock:
            states = {**self._call.states, kind: asdict(state)}
            if isinstance(state, StepState) and state.ended:
                del states[kind]
            self._call = replace(self._call, states=states, now=kind)
            self._has_news = True
        if self._follower is not None:
            self._follower.update(state)

    def plan(self, count: int) -> None:
        """Add planned runs."""
        with self._lock:
            self._call = replace(self._call, planned=(self._call.planned or 0) + count)
            self._has_news = True

    def start(self) -> None:
        """Remove the files of calls that have ended, and begin to write."""
        if is_remote(self._out):
            return
        with suppress(OSError):
            for path in (self._out / FOLDER).glob("*.json"):
                call = read_call(path)
                if call is None or not call.is_alive(time.time()):
                    path.unlink(missing_ok=True)
        self._thread.start()

    def end(self, how: End, error: str = "") -> None:
        """Write how the call ended."""
        if is_remote(self._out):
            return
        self._is_over.set()
        self._thread.join()
        self._call = replace(self._call, ended=how, error=error)
        self._write()

    def _write_now_and_then(self) -> None:
        written = -SECONDS_WITHOUT_NEWS
        while True:
            if self._has_news or time.monotonic() - written >= SECONDS_WITHOUT_NEWS:
                self._write()
                written = time.monotonic()
            if self._is_over.wait(SECONDS_BETWEEN_WRITES):
                return

    def _write(self) -> None:
        with self._lock:
            call = replace(self._call, written=time.time())
            # A folder that does not exist yet has no results: a call that fails before it has any leaves nothing.
            self._has_news = not self._out.is_dir()
        if self._has_news:
            return
        with suppress(OSError, ValueError):
            self._path.parent.mkdir(exist_ok=True)
            replace_file(self._path, json.dumps(asdict(call), ensure_ascii=False) + "\n")


def read_call(path: Path) -> CallState | None:
    """Read the file of a call; None if it is gone, damaged or of a format that this emofuse does not know."""
    try:
        call = _CALL.validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return call if call.format == FORMAT else None


def read_calls(out: Path) -> list[CallState]:
    """Read the files of all calls of a folder of results, the newest first."""
    try:
        paths = sorted((out / FOLDER).glob("*.json"))
    except OSError:
        return []
    calls = [call for path in paths if (call := read_call(path)) is not None]
    return sorted(calls, key=lambda call: call.began, reverse=True)


def _kind_of(state: State) -> str:
    if isinstance(state, StepState):
        return "step"
    return "building" if isinstance(state, BuildState) else state.what


def _process_start() -> float:
    try:
        return float(psutil.Process().create_time())
    except psutil.Error:
        return 0.0
