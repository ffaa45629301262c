"""The isolation of blocks in extraction processes, so that no image can end a build.

When an extraction process crashes, hangs or takes too much memory, the rows of its block are tried one by one in new
processes. A row that ends its process alone too is FAILED in the streams that it does this to, and the reason says how.
The block is then computed without these rows. If a process ends although every row passes alone, the block is computed
again, because somebody may have killed the process.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import psutil

from emofuse.cache.layout import StreamLayout
from emofuse.errors import BuildError
from emofuse.extraction.ahead import ONE_THREAD, QUIET
from emofuse.extraction.child import ChildReply, Request, dumps
from emofuse.extraction.forks import ForkedProcess, ProcessTemplate, TemplateClosedError, standard_error
from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob, default_timeout_s
from emofuse.machine.interpreter import command

_OPEN_TIMEOUT_S = 900.0  # loading models from a slow network
_ROW_TIMEOUT_S = 60.0
_FRAME_TIMEOUT_S = 8.0
_TRIES = 2
_LOOK_S = 0.2
_BACKSTOP = 1.5  # the process ends itself after this multiple of its limit
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
    """An extraction process with its connection and a folder for its temporary files, which is removed with it.

    Args:
        one_thread: whether native libraries get one thread each.
        template: the template that forks the process, whose libraries have one thread; None starts an interpreter.
    """

    def __init__(self, *, one_thread: bool, template: ProcessTemplate | None = None) -> None:
        self._folder = _temporary_folder()
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = self._start(theirs, one_thread, template)
        except BaseException:
            self._socket.close()
            self._remove_folder()
            raise
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[ChildReply | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._exchange, args=(Connection(os.dup(self._socket.fileno())),))
        self._thread.daemon = True
        self._thread.start()
        self.opened: tuple[str, ...] | None = None
        """The names of the streams that are open in the process, None before any are."""

    def _start(
        self, theirs: socket.socket, one_thread: bool, template: ProcessTemplate | None
    ) -> subprocess.Popen[bytes] | ForkedProcess:
        temporary = {"TMPDIR": self._folder} if self._folder else {}
        environment = {**os.environ, **QUIET, **(ONE_THREAD if one_thread else {}), **temporary}
        forked = None if template is None else template.fork(theirs, self._folder, environment)
        return forked or subprocess.Popen(  # noqa: S603  this interpreter and a module of this package
            command("emofuse.extraction.child", str(theirs.fileno()), self._folder),
            stdin=subprocess.DEVNULL,
            stdout=standard_error(),  # prints of libraries are neither replies nor output of a command
            env=environment,
            pass_fds=[theirs.fileno()],
        )

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, by itself or by a signal."""
        return self._process.poll() is not None

    def ask(self, request: Request, *, memory_bytes: int | None) -> Any:
        """Send a request and return the value of its reply. An error that is raised there is raised here too.

        Raises:
            ProcessDied: the process ended, or exceeds the time of the request or the memory; kill it.
        """
        limited = replace(request, timeout_s=request.timeout_s * _BACKSTOP + _LOOK_S)
        self._requests.put(dumps(limited))
        end = time.monotonic() + request.timeout_s
        is_dead = False
        while True:
            try:
                reply = self._replies.get(timeout=_LOOK_S)
            except queue.Empty:
                if is_dead:  # another process holds its end of the connection open
                    raise ProcessDied(_describe_exit(self._process.wait())) from None
                is_dead = self._process.poll() is not None  # its last reply may still arrive
                self._check_limits(end, request.timeout_s, memory_bytes)
                continue
            if reply is None:
                raise ProcessDied(self._describe_end())
            if reply.error is not None:
                raise reply.error
            return reply.value

    def kill(self) -> None:
        """End the process at once and remove its temporary files. A second call is harmless."""
        self._process.kill()
        self._process.wait()
        if isinstance(self._process, ForkedProcess):
            self._process.close()
        self._requests.put(None)
        with suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread even if another process holds the other end
        self._thread.join(_LOOK_S)
        self._socket.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _describe_end(self) -> str:
        """Return how a process ended whose connection is closed."""
        try:
            return _describe_exit(self._process.wait(_LOOK_S * 10))
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
            return 0  # the process has ended, and its connection with it

    def _exchange(self, connection: Connection) -> None:
        """Send requests and receive replies in a thread, so that the caller of `ask` can watch the limits.

        A None among the replies marks the end of the thread.
        """
        try:
            with connection:
                while (request := self._requests.get()) is not None:
                    connection.send_bytes(request)
                    self._replies.put(_unpacked(connection.recv_bytes()))
        except (EOFError, OSError):
            pass  # the process has ended
        except Exception as error:  # noqa: BLE001 - such as no memory for a reply
            self._replies.put(
                ChildReply(error=BuildError(f"the reply of an extraction process cannot be received ({_text(error)})"))
            )
        finally:
            self._replies.put(None)


class _GivenUp(Exception):  # noqa: N818 - it is no error of this program
    """Raised for a block that cannot be computed; the message says why."""


class IsolatedExtraction:
    """An extraction process that is started again whenever it has ended. It serves one thread at a time.

    Args:
        template: the template that forks it; None starts an interpreter each time.
    """

    def __init__(self, template: ProcessTemplate | None = None) -> None:
        self._template = template
        self._process: ExtractionProcess | None = None
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._is_closed = False

    def describe(self, job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
        """Open new streams and return their layouts.

        Raises:
            EmofuseError: a stream cannot be opened.
            BuildError: opening the streams ends the process.
        """
        with self._lock:
            layouts: list[StreamLayout] = self._open(job, names, "describe_streams")
            return layouts

    def compute(self, job: BuildJob, task: BlockTask) -> BlockDone | BlockFailed:
        """Compute a block. Errors are returned and not raised, so that the other blocks are computed."""
        with self._lock:
            try:
                return self._compute(job, task)
            except _GivenUp as error:
                return BlockFailed(str(task), str(error))
            except BuildError as error:
                return BlockFailed(str(task), f"BuildError: {error}")

    def close(self) -> None:
        """End the process at once. No process is started again."""
        with self._starting:
            self._is_closed = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _compute(self, job: BuildJob, task: BlockTask) -> BlockDone | BlockFailed:
        pictures = len(task.sources) * len(task.views) * job.pictures_of_row
        limit_s = job.block_timeout_s or default_timeout_s(pictures)
        try:
            return self._run(job, task, limit_s)
        except ProcessDied:
            row_limit_s = max(_ROW_TIMEOUT_S, _FRAME_TIMEOUT_S * job.pictures_of_row)
            deadly = self._find_deadly_rows(job, task, min(row_limit_s, limit_s))
        done = []
        for part in _parts(task, deadly):
            result = self._run_again(job, part, limit_s * 4)  # each row passes alone, so it is worth waiting for all
            if isinstance(result, BlockFailed):
                return result
            done.append(result)
        return BlockDone.joined(done)

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
        """Return stream -> row of the block -> how the row ends a process that extracts it for this stream alone."""
        rows = {row for tried in task.retried.values() for row in tried} if task.retried else range(len(task.sources))
        causes: dict[int, str] = {}
        for row in sorted(rows):
            if task.sources[row] is not None:
                cause = self._cause_of_death(job, task, row, timeout_s)
                if cause is not None:
                    causes[row] = cause
            if len(causes) > max(_MOST_DEADLY_ROWS, _MOST_DEADLY_SHARE * len(task.sources)):
                first, cause = next(iter(causes.items()))
                raise _GivenUp(f"{len(causes)} rows end their process, first row {task.start + first}: it {cause}")
        if len(task.streams) == 1:
            return {task.streams[0]: causes}
        deadly: dict[str, dict[int, str]] = {name: {} for name in task.streams}
        for row, cause in causes.items():
            for name in task.streams:
                alone = self._cause_of_death(job, replace(task, streams=(name,)), row, timeout_s)
                if alone is not None:
                    deadly[name][row] = alone
            if not any(row in rows for rows in deadly.values()):  # it ends the process only with all streams together
                for name in task.streams:
                    deadly[name][row] = cause
        return deadly

    def _cause_of_death(self, job: BuildJob, task: BlockTask, row: int, timeout_s: float) -> str | None:
        """Return how one row ends its process, or None if it passes.

        It is tried twice, because somebody may have killed the first process.
        """
        cause = None
        for _ in range(_TRIES):
            self._open(job, task.streams, "open_streams")
            try:
                self._ask(job, "try_row", (task, row), timeout_s)
            except ProcessDied as death:
                cause = str(death)
            except Exception:  # noqa: BLE001 - computing the block raises and reports it again
                return None
            else:
                return None
        return cause

    def _open(self, job: BuildJob, names: Sequence[str], what: Any) -> Any:
        """Open streams in the process, unless they are open, and return the reply. A new process is started if needed.

        Raises:
            EmofuseError: a stream cannot be opened.
            BuildError: opening the streams ends the process.
        """
        names, process = tuple(names), self._process
        if process is not None and process.has_ended:
            self._end()  # somebody killed it while it had nothing to do
        elif what == "open_streams" and process is not None and set(names) <= set(process.opened or ()):
            return None
        causes = []
        for _ in range(_TRIES):
            try:
                reply = self._ask(job, what, (names,), _OPEN_TIMEOUT_S)
            except ProcessDied as death:
                causes.append(str(death))
            else:
                if self._process is not None:
                    self._process.opened = names  # a process keeps the streams that it opened last
                return reply
        raise BuildError(
            f"an extraction process died {len(causes)} times while it opened {', '.join(names)} ({causes[-1]}). "
            "Try fewer with --workers, or --workers 0 to see it happen."
        )

    def _ask(self, job: BuildJob, what: Any, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        with self._starting:  # not while `close` ends the process
            if self._is_closed:
                raise BuildError("the build was stopped")
            if self._process is None:
                try:
                    self._process = ExtractionProcess(one_thread=job.one_thread, template=self._template)
                except TemplateClosedError as error:
                    raise BuildError(str(error)) from None
            process = self._process
        try:
            return process.ask(Request(what, dumps(job), arguments, timeout_s), memory_bytes=job.memory_bytes)
        except ProcessDied:
            self._end()
            raise


def _unpacked(data: bytes) -> ChildReply:
    try:
        reply = pickle.loads(data)  # noqa: S301  it comes from a process that this one started
    except Exception as error:  # noqa: BLE001 - unpickling an object may raise anything
        return ChildReply(error=BuildError(f"the answer of an extraction process cannot be read ({_text(error)})"))
    if not isinstance(reply, ChildReply):
        return ChildReply(error=BuildError(f"an extraction process of another emofuse answered {type(reply).__name__}"))
    return reply


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _temporary_folder() -> str:
    """Return a new folder for the temporary files of one process, or "" where none can be made."""
    try:
        return tempfile.mkdtemp(prefix="emofuse-")
    except OSError:
        return ""


def _describe_exit(status: int) -> str:
    """Return a description of an exit status."""
    if status >= 0:
        return f"ended its process with exit status {status}"
    name = signal.Signals(-status).name
    return f"ended its process with {name}" + (" (out of memory, or by hand)" if name == "SIGKILL" else "")


def _parts(task: BlockTask, deadly: Mapping[str, Mapping[int, str]]) -> list[BlockTask]:
    """Split a task by its sets of deadly rows; each part has the streams that share a set."""
    groups: dict[tuple[tuple[int, str], ...], list[str]] = {}
    for name in task.streams:
        groups.setdefault(tuple(sorted(deadly[name].items())), []).append(name)
    return [replace(task.for_streams(names), deadly_rows=dict(rows)) for rows, names in groups.items()]
