"""Extraction processes that a template forks, as the process that builds sees them."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from emofuse.machine.interpreter import command, import_paths
from emofuse.specs import BackboneSpec, CacheSpec, ObjectsSpec, Places365Spec
from emofuse.specs.streams import looks_at_faces

_LONGEST = 1 << 16
_END_S = 5.0
_LOOK_S = 0.2


class TemplateClosedError(Exception):
    """The template was closed, because the build ends."""


class ProcessTemplate:
    """The template process of a build.

    Args:
        modules: the names of the modules that it imports.
        environment: the environment variables that native libraries read when they are loaded.
    """

    def __init__(self, modules: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  this interpreter and a module of this package
                command("emofuse.extraction.template", str(theirs.fileno()), *modules),
                stdin=subprocess.DEVNULL,
                stdout=standard_error(),
                env={**os.environ, **environment},
                pass_fds=[theirs.fileno()],
            )
        self._started: SimpleQueue[int | None] = SimpleQueue()
        self._ended: dict[int, int] = {}
        self._changed = threading.Condition()
        self._one_at_a_time = threading.Lock()
        self._is_closed = False
        self._is_usable = True
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def fork(self, connection: socket.socket, temporary: str, environment: Mapping[str, str]) -> ForkedProcess | None:
        """Start an extraction process; None if the template cannot fork.

        Args:
            connection: the end of the connection that the new process serves.
            temporary: its folder for temporary files, or "".
            environment: all its environment variables.

        Raises:
            TemplateClosedError: the build ends.
        """
        request = {
            "environment": dict(environment),
            "paths": import_paths(),
            "folder": _working_folder(),
            "temporary": temporary,
        }
        with self._one_at_a_time:
            pid = None
            if self._is_usable:
                with suppress(OSError):  # it has ended, or the request is too long
                    socket.send_fds(self._socket, [json.dumps(request).encode()], [connection.fileno()])
                    pid = self._started.get()
            if self._is_closed:
                raise TemplateClosedError("the build was stopped")
            self._is_usable = pid is not None
        return None if pid is None else ForkedProcess(self, pid)

    def status_of(self, pid: int, timeout_s: float) -> int | None:
        """Return the exit status of a process that has ended; None if the template has ended too and cannot tell."""
        with self._changed:
            self._changed.wait_for(lambda: pid in self._ended or not self._thread.is_alive(), timeout_s)
            return self._ended.get(pid)

    def refuse(self) -> None:
        """Let every call of `fork` raise from now on, also one that waits for the template."""
        self._is_closed = True
        self._started.put(None)

    def close(self) -> None:
        """End the template, after its processes have ended. A second call does nothing."""
        self.refuse()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # it ends by itself, unless it still imports
        try:
            self._process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(_END_S)
        self._socket.close()

    def _listen(self) -> None:
        """Receive the replies of the template until it ends."""
        try:
            while data := self._socket.recv(_LONGEST):
                reply: dict[str, Any] = json.loads(data)
                if "ended" in reply:
                    with self._changed:
                        self._ended[reply["ended"]] = reply["status"]
                        self._changed.notify_all()
                else:
                    self._started.put(reply.get("started"))
        except OSError:
            pass  # the template has ended
        finally:
            self._started.put(None)
            with self._changed:
                self._changed.notify_all()


class ForkedProcess:
    """A process that the template has forked, with the methods of `subprocess.Popen` that extraction needs."""

    def __init__(self, template: ProcessTemplate, pid: int) -> None:
        self.pid = pid
        self._template = template
        self._status: int | None = None
        self._has_ended = False
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except OSError:  # it has ended already
            self._pidfd = None

    def poll(self) -> int | None:
        """Return the exit status, or None if the process still runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process, and return its exit status: the negative number of a signal.

        A process whose status is unknown, because the template has ended too, counts as killed.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if not self._has_ended:
            if self._pidfd is not None and not select.select([self._pidfd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("an extraction process", timeout or 0)
            self._has_ended = True
            self._status = self._template.status_of(self.pid, _END_S)
        return -signal.SIGKILL if self._status is None else self._status

    def kill(self) -> None:
        """End the process at once."""
        if self._pidfd is not None and not self._has_ended:
            with suppress(OSError):  # it has ended already
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Release the descriptor, after the process has ended."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def can_fork() -> bool:
    """Return whether this system has what a template needs."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open") and Path("/proc/self/task").is_dir()


def modules_of(spec: CacheSpec, *, kept: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of the modules that extraction processes of a cache spec import, as far as they are known here.

    They open no device and start no threads. What is left out is imported by each process.

    Args:
        spec: the spec of the cache.
        kept: the names of the streams whose networks need no PyTorch.
    """
    modules = ["emofuse.extraction.worker"]
    if any(looks_at_faces(stream.needs) for stream in spec.streams) and spec.face.detector in _OF_MEDIAPIPE:
        modules.append("mediapipe.python.solution_base")
    if kept:
        modules.append("emofuse.extraction.with_openvino")
    in_torch = [stream for stream in spec.streams if stream.uses_gpu and stream.name not in kept]
    if any(type(stream).__module__.startswith("emofuse.") for stream in in_torch):
        modules.append("torch")  # a stream of a plugin may use anything
    for stream in in_torch:
        if isinstance(stream, BackboneSpec):
            modules.append(_LIBRARIES[stream.library])
        elif isinstance(stream, Places365Spec | ObjectsSpec):
            modules.append(_LIBRARIES["torchvision"])
    return tuple(dict.fromkeys(modules))


_OF_MEDIAPIPE = ("face_mesh", "landmarker")
_LIBRARIES = {
    "torchvision": "emofuse.streams.networks.classification",
    "timm": "timm",
    "open_clip": "open_clip",
}


def standard_error() -> int:
    """Return what a new process gets as its standard output: the standard error stream, or nothing if it is closed."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


def _working_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was deleted
        return "/"
