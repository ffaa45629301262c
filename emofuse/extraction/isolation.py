"""Keeps a build alive whatever pictures do to the libraries that read them.

Blocks are computed in an extraction process. When it crashes, hangs or takes too much memory, the rows of its block
are tried one by one in new ones. Rows that do it alone as well are FAILED, in the streams that they do it to, with what
they did as their reason; the block is then computed without them. A block that dies though each of its rows passes is
computed once more: somebody killed the process.
"""

from __future__ import annotations

import os
import pickle
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import psutil

from emofuse.cache.layout import StreamLayout
from emofuse.errors import BuildError
from emofuse.extraction.child import ChildReply, Request, dumps
from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob, default_timeout_s
from emofuse.interpreter import command

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
    """The extraction process ended, or exceeded a limit, while it served a request; the message says what happened.

    Attributes:
        exceeded_limit: whether it exceeded a limit of the request; otherwise it ended by itself or by a signal.
    """

    def __init__(self, cause: str, *, exceeded_limit: bool = False) -> None:
        super().__init__(cause)
        self.exceeded_limit = exceeded_limit


class ExtractionProcess:
    """One extraction process, the connection to it, and a folder for its temporary files that goes when it does."""

    def __init__(self, *, one_thread: bool) -> None:
        self._folder = _temporary_folder()
        self._socket, theirs = socket.socketpair()
        given = {"TMPDIR": self._folder} if self._folder else {}
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603  this interpreter and a module of this package
                    command("emofuse.extraction.child", str(theirs.fileno()), self._folder),
                    stdin=subprocess.DEVNULL,
                    stdout=_standard_error(),  # what libraries print is no answer, nor output of a command
                    env={**os.environ, **_QUIET, **(ONE_THREAD if one_thread else {}), **given},
                    pass_fds=[theirs.fileno()],
                )
        except BaseException:
            self._socket.close()
            self._remove_folder()
            raise
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[ChildReply | None] = queue.SimpleQueue()
        self._talk = threading.Thread(target=self._exchange, args=(Connection(os.dup(self._socket.fileno())),))
        self._talk.daemon = True
        self._talk.start()
        self.opened: tuple[str, ...] | None = None
        """The names of the streams that are open in the process, None before any are."""

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, by itself or by a signal."""
        return self._process.poll() is not None

    def ask(self, request: Request, *, memory_bytes: int | None) -> Any:
        """Sends a request and waits for the answer; an error raised there is raised here.

        Raises:
            ProcessDied: it crashed, takes longer than the request allows, or more memory than that; kill it.
        """
        own_limit = replace(request, timeout_s=request.timeout_s * _BACKSTOP + _LOOK_S)
        self._requests.put(dumps(own_limit))
        end = time.monotonic() + request.timeout_s
        is_dead = False
        while True:
            try:
                answer = self._answers.get(timeout=_LOOK_S)
            except queue.Empty:
                if is_dead:  # somebody else holds its end of the connection open
                    raise ProcessDied(_last_words(self._process.wait())) from None
                is_dead = self._process.poll() is not None  # its last answer may be on its way
                self._check_limits(end, request.timeout_s, memory_bytes)
                continue
            if answer is None:
                raise ProcessDied(self._how_it_ended())
            if answer.error is not None:
                raise answer.error
            return answer.value

    def kill(self) -> None:
        """Ends the process at once and removes what it left. A second call is harmless."""
        self._process.kill()
        self._process.wait()
        self._requests.put(None)
        with suppress(OSError):  # closed before
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, whoever else holds the other end
        self._talk.join(_LOOK_S)
        self._socket.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _how_it_ended(self) -> str:
        """Of a process whose connection has ended."""
        try:
            return _last_words(self._process.wait(_LOOK_S * 10))
        except subprocess.TimeoutExpired:
            return "closed its connection"

    def _check_limits(self, end: float, timeout_s: float, memory_bytes: int | None) -> None:
        cause = None
        if time.monotonic() > end:
            cause = f"took longer than {timeout_s:g} s"
        elif memory_bytes is not None and self._memory_bytes() > memory_bytes:
            cause = f"took more than {memory_bytes / 1e9:g} GB of memory"
        if cause is not None:
            raise ProcessDied(cause, exceeded_limit=True)

    def _memory_bytes(self) -> int:
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0  # gone; its answers say so

    def _exchange(self, connection: Connection) -> None:
        """Sends what is asked and receives what is answered, in a thread, so that whoever asks can look at a clock.

        Whatever ends the thread is told to the one that waits.
        """
        try:
            with connection:
                while (request := self._requests.get()) is not None:
                    connection.send_bytes(request)
                    self._answers.put(_unpacked(connection.recv_bytes()))
        except (EOFError, OSError):
            pass  # the process is gone
        except Exception as error:  # noqa: BLE001 - such as no memory for an answer
            self._answers.put(ChildReply(error=BuildError(f"an extraction process cannot be heard ({_told(error)})")))
        finally:
            self._answers.put(None)


class _GivenUp(Exception):  # noqa: N818 - it is no error of this program
    """A block that cannot be computed; the message says why."""


class IsolatedExtraction:
    """Computes blocks in an extraction process that is started again whenever it died. For one thread at a time."""

    def __init__(self) -> None:
        self._process: ExtractionProcess | None = None
        self._lock = threading.Lock()
        self._starting = threading.Lock()
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
        with self._starting:
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
            result = self._run_again(job, part, limit_s * 4)  # each row passes alone, so it is worth waiting for all
            if isinstance(result, BlockFailed):
                return result
            done.append(result)
        return _joined(done)

    def _run_again(self, job: BuildJob, task: BlockTask, timeout_s: float) -> BlockDone | BlockFailed:
        """Compute a block whose rows all pass alone; twice if its process ends, for somebody may kill processes."""
        deaths: list[ProcessDied] = []
        while len(deaths) < _TRIES and not any(death.exceeded_limit for death in deaths):
            try:
                return self._run(job, task, timeout_s)
            except ProcessDied as death:
                deaths.append(death)
        raise _GivenUp(f"{deaths[-1]}, again and though each of its rows passes alone")

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
        names, process = tuple(names), self._process
        if process is not None and process.has_ended:
            self._end()  # somebody killed it while it had nothing to do
        elif what == "open_streams" and process is not None and process.opened == names:
            return None
        causes = []
        for _ in range(_TRIES):
            try:
                answer = self._ask(job, what, (names,), _OPEN_TIMEOUT_S)
            except ProcessDied as death:
                causes.append(str(death))
            else:
                if self._process is not None:
                    self._process.opened = names
                return answer
        raise BuildError(
            f"an extraction process died {len(causes)} times while it opened {', '.join(names)} ({causes[-1]}). "
            "Try fewer with --workers, or --workers 0 to see it happen."
        )

    def _ask(self, job: BuildJob, what: Any, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        with self._starting:  # not while `close` looks for one to end
            if self._is_closed:
                raise BuildError("the build was stopped")
            process = self._process = self._process or ExtractionProcess(one_thread=job.one_thread)
        try:
            return process.ask(Request(what, dumps(job), arguments, timeout_s), memory_bytes=job.memory_bytes)
        except ProcessDied:
            self._end()
            raise


def _unpacked(data: bytes) -> ChildReply:
    try:
        reply = pickle.loads(data)  # noqa: S301  of a process that this one started
    except Exception as error:  # noqa: BLE001 - of whatever an unpickled object does
        return ChildReply(error=BuildError(f"the answer of an extraction process cannot be read ({_told(error)})"))
    if not isinstance(reply, ChildReply):
        return ChildReply(error=BuildError(f"an extraction process of another emofuse answered {type(reply).__name__}"))
    return reply


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _temporary_folder() -> str:
    """A folder for the temporary files of one process; "" where there is no place for one."""
    try:
        return tempfile.mkdtemp(prefix="emofuse-")
    except OSError:
        return ""


def _standard_error() -> int:
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


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
