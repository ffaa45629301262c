"""Keeps a build alive whatever pictures do to the libraries that read them.

Blocks are computed in an extraction process. When it crashes, hangs or takes too much memory, the rows of its block
are tried one by one in new ones. Rows that do it alone as well are FAILED, in the streams that they do it to, with what
they did as their reason; the block is then computed without them. A block that dies though each of its rows passes is
computed once more: somebody killed the process.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import IO, Any, cast

import psutil
from distributed.protocol.pickle import dumps

from emofuse.cache.layout import StreamLayout
from emofuse.errors import BuildError
from emofuse.extraction.child import Answer, Request, read_frame, write_frame
from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob, default_timeout_s

# Read by native libraries when they are loaded, so they must be set before an interpreter starts. One worker a core,
# one thread a worker: more threads only fight for the same cores.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
_QUIET = {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}

_OPEN_TIMEOUT_S = 900.0  # loading models from a slow network
_ROW_TIMEOUT_S = 60.0
_TRIES = 2
_LOOK_S = 0.2
_BACKSTOP = 1.5  # the process ends itself after so many times its limit
_MOST_DEADLY_ROWS = 8
_MOST_DEADLY_SHARE = 0.125


class ProcessDied(Exception):  # noqa: N818 - it is no error of this program
    """The extraction process ended, or was ended, while it served a request; the message says what happened."""


class ExtractionProcess:
    """One extraction process and the pipes to it."""

    def __init__(self, *, one_thread: bool) -> None:
        inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "emofuse.extraction.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**inherited, **_QUIET, **(ONE_THREAD if one_thread else {})},
        )
        self._requests, self._replies = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, request: Request, *, memory_bytes: int | None) -> Any:
        """Sends a request and waits for the answer; an error raised there is raised here.

        Raises:
            ProcessDied: it crashed, takes longer than the request allows, or more memory than that; kill it.
        """
        own_limit = replace(request, timeout_s=request.timeout_s * _BACKSTOP + _LOOK_S)
        with suppress(OSError):  # if it is dead already, its answers say so
            write_frame(self._requests, own_limit)
        end = time.monotonic() + request.timeout_s
        while True:
            try:
                answer = self._answers.get(timeout=_LOOK_S)
            except queue.Empty:
                self._check_limits(end, request.timeout_s, memory_bytes)
                continue
            if answer is None:
                raise ProcessDied(_last_words(self._process.wait()))
            if answer.error is not None:
                raise answer.error
            return answer.value

    def kill(self) -> None:
        """Ends the process at once. A second call is harmless."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):  # what was not sent yet is lost with it
            self._requests.close()

    def _check_limits(self, end: float, timeout_s: float, memory_bytes: int | None) -> None:
        cause = None
        if time.monotonic() > end:
            cause = f"took longer than {timeout_s:g} s"
        elif memory_bytes is not None and self._memory_bytes() > memory_bytes:
            cause = f"took more than {memory_bytes / 1e9:g} GB of memory"
        if cause is not None:
            raise ProcessDied(cause)

    def _memory_bytes(self) -> int:
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0  # gone; its answers say so

    def _listen(self) -> None:
        with suppress(EOFError, OSError, ValueError):
            while True:
                self._answers.put(read_frame(self._replies))
        self._answers.put(None)


class _GivenUp(Exception):  # noqa: N818 - it is no error of this program
    """A block that cannot be computed; the message says why."""


class IsolatedExtraction:
    """Computes blocks in an extraction process that is started again whenever it died. For one thread at a time."""

    def __init__(self) -> None:
        self._process: ExtractionProcess | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def describe(self, job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
        """Layouts of new streams.

        Raises:
            EmofuseError: a stream cannot be opened.
            BuildError: opening the streams kills the process.
        """
        with self._lock:
            layouts: list[StreamLayout] = self._open(job, names, "describe_streams")
            return layouts

    def compute(self, job: BuildJob, task: BlockTask) -> BlockDone | BlockFailed:
        """Computes a block. What goes wrong is returned: it must not cost the other blocks."""
        with self._lock:
            try:
                return self._compute(job, task)
            except _GivenUp as error:
                return BlockFailed(str(task), str(error))
            except BuildError as error:
                return BlockFailed(str(task), f"BuildError: {error}")

    def close(self) -> None:
        """Ends the process, whatever it does; a later call starts none."""
        self._is_closed = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _compute(self, job: BuildJob, task: BlockTask) -> BlockDone | BlockFailed:
        limit_s = job.block_timeout_s or default_timeout_s(len(task.paths) * len(task.views))
        try:
            return self._run(job, task, limit_s)
        except ProcessDied:
            deadly = self._find_deadly_rows(job, task, min(_ROW_TIMEOUT_S, limit_s))
        done = []
        for part in _parts(task, deadly):
            try:
                # Each row passes alone, so it is worth waiting for them together.
                result = self._run(job, part, limit_s * 4)
            except ProcessDied as death:
                raise _GivenUp(f"{death}, again and though each of its rows passes alone") from None
            if isinstance(result, BlockFailed):
                return result
            done.append(result)
        return _joined(done)

    def _run(self, job: BuildJob, task: BlockTask, timeout_s: float) -> BlockDone | BlockFailed:
        self._open(job, task.streams, "open_streams")
        result = self._ask(job, "compute_block", (task,), timeout_s)
        if not isinstance(result, BlockDone | BlockFailed):
            raise BuildError(f"{task}: an extraction process of another emofuse answered {type(result).__name__}")
        return result

    def _find_deadly_rows(self, job: BuildJob, task: BlockTask, timeout_s: float) -> dict[str, dict[int, str]]:
        """Stream -> row of the block -> what it does to a process that extracts it for this stream alone."""
        rows = {row for tried in task.retried.values() for row in tried} if task.retried else range(len(task.paths))
        found: dict[int, str] = {}
        for row in sorted(rows):
            if task.paths[row] is not None:
                cause = self._cause_of_death(job, task, row, timeout_s)
                if cause is not None:
                    found[row] = cause
            if len(found) > max(_MOST_DEADLY_ROWS, _MOST_DEADLY_SHARE * len(task.paths)):
                first, cause = next(iter(found.items()))
                raise _GivenUp(f"{len(found)} rows end their process, first row {task.start + first}: it {cause}")
        if len(task.streams) == 1:
            return {task.streams[0]: found}
        deadly: dict[str, dict[int, str]] = {name: {} for name in task.streams}
        for row, cause in found.items():
            for name in task.streams:
                alone = self._cause_of_death(job, replace(task, streams=(name,)), row, timeout_s)
                if alone is not None:
                    deadly[name][row] = alone
            if not any(row in rows for rows in deadly.values()):  # only together, so it cannot be had from any
                for name in task.streams:
                    deadly[name][row] = cause
        return deadly

    def _cause_of_death(self, job: BuildJob, task: BlockTask, row: int, timeout_s: float) -> str | None:
        """What one row does to its process; None if it passes. Twice, for somebody may have killed the first."""
        cause = None
        for _ in range(_TRIES):
            self._open(job, task.streams, "open_streams")
            try:
                self._ask(job, "try_row", (task, row), timeout_s)
            except ProcessDied as death:
                cause = str(death)
            except Exception:  # noqa: BLE001 - computing the block will meet and report it
                return None
            else:
                return None
        return cause

    def _open(self, job: BuildJob, names: Sequence[str], what: Any) -> Any:
        """Opens streams in the process, a new one if need be.

        Raises:
            EmofuseError: a stream cannot be opened.
            BuildError: it ends the process.
        """
        causes = []
        for _ in range(_TRIES):
            try:
                return self._ask(job, what, (tuple(names),), _OPEN_TIMEOUT_S)
            except ProcessDied as death:
                causes.append(str(death))
        raise BuildError(
            f"an extraction process died {len(causes)} times while it opened {', '.join(names)} ({causes[-1]}). "
            "Try fewer with --workers, or --workers 0 to see it happen."
        )

    def _ask(self, job: BuildJob, what: Any, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        if self._is_closed:
            raise BuildError("the build was stopped")
        if self._process is None:
            self._process = ExtractionProcess(one_thread=job.one_thread)
        try:
            return self._process.ask(Request(what, dumps(job), arguments, timeout_s), memory_bytes=job.memory_bytes)
        except ProcessDied:
            self._end()
            raise


def _last_words(status: int) -> str:
    """What an exit status says of the end of a process."""
    if status >= 0:
        return f"ended its process with exit status {status}"
    name = signal.Signals(-status).name
    return f"ended its process with {name}" + (" (out of memory, or by hand)" if name == "SIGKILL" else "")


def _parts(task: BlockTask, deadly: Mapping[str, Mapping[int, str]]) -> list[BlockTask]:
    """The task once for each set of deadly rows, with the streams that share it."""
    groups: dict[tuple[tuple[int, str], ...], list[str]] = {}
    for name in task.streams:
        groups.setdefault(tuple(sorted(deadly[name].items())), []).append(name)
    return [
        replace(task, streams=tuple(names), deadly_rows=dict(rows), retried=_retried_of(task, names))
        for rows, names in groups.items()
    ]


def _retried_of(
    task: BlockTask, names: Collection[str]
) -> Mapping[tuple[str, int], Mapping[int, tuple[int, str]]] | None:
    if task.retried is None:
        return None
    return {(stream, view): rows for (stream, view), rows in task.retried.items() if stream in names}


def _joined(parts: Sequence[BlockDone]) -> BlockDone:
    """One result of the parts of a block; a picture that cannot be read is said once."""
    problems = sorted(
        {problem for part in parts for problem in part.problems}, key=lambda each: (each.row, each.stream)
    )
    counts = {name: of_stream for part in parts for name, of_stream in part.counts.items()}
    seen = parts[0].seen
    if seen is not None:
        seen = replace(seen, streams=tuple(counts))
    return BlockDone(parts[0].rows, counts, tuple(problems), any(part.written for part in parts), seen)
