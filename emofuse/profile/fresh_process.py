"""Runs a measurement in a fresh process, so that its peak of memory and its threads are those of nothing else."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import torch

from emofuse.errors import EmofuseError, ProfileError
from emofuse.machine.interpreter import SAFE_PATH
from emofuse.profile.figures import Peak

T = TypeVar("T")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_JOIN_TIMEOUT_S = 5.0


def in_fresh_process(function: Callable[..., T], *arguments: Any, threads: int, what: str) -> T:
    """Call a function in a new interpreter and return its result. Ctrl-C in this process ends the other one.

    Args:
        function: a function of a module; it and its arguments are pickled.
        arguments: the arguments of the function.
        threads: the number of threads of native libraries in the new process.
        what: the name of what is measured, for messages.

    Raises:
        ProfileError: the function raised an error, or its process died.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, threads, function, arguments), daemon=True)
    with tempfile.TemporaryDirectory(prefix="emofuse-", ignore_cleanup_errors=True) as folder, receiver:
        with sender, _environment(threads, folder), _without_ctrl_c():
            process.start()
        try:
            # A process that the dead one left behind may hold the pipe open, so that the pipe alone is not enough.
            wait([receiver, process.sentinel])
            value, problem = receiver.recv() if receiver.poll() else _raise_end()
        except (EOFError, OSError):
            process.join(_JOIN_TIMEOUT_S)
            raise ProfileError(f"{what}: {_why_dead(process.exitcode)}") from None
        finally:
            process.kill()
            process.join()
    if problem:
        raise ProfileError(f"{what}: {problem}")
    result: T = value
    return result


def peak_memory(device: torch.device) -> Peak:
    """Return the most memory that this process has held until now."""
    cuda = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Peak(_peak_rss_bytes(), cuda)


def begin_phase(device: torch.device) -> None:
    """Count the peak of the GPU from here; that of main memory cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _raise_end() -> tuple[Any, str]:
    raise EOFError


def _call(sender: Connection, threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Call the function in the new process; send (its result, "") or (None, the problem)."""
    torch.set_num_threads(threads)
    try:
        reply = function(*arguments), ""
    except EmofuseError as error:
        reply = None, str(error)
    except Exception as error:  # noqa: BLE001 - code of others may raise anything
        traceback.print_exc()
        reply = None, f"{type(error).__name__}: {error}"
    sender.send(reply)


@contextmanager
def _environment(threads: int, folder: str) -> Iterator[None]:
    """Set the variables that the new interpreter and its native libraries read when they start.

    Temporary files go to a folder that is removed with the process, and nothing is imported from the working folder.
    """
    before = dict(os.environ)
    variables = {**dict.fromkeys(_THREAD_VARIABLES, str(threads)), **SAFE_PATH, "TMPDIR": folder}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Let a process that is started inside ignore Ctrl-C, even while it imports; its parent gets it and kills it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change what signals do
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _peak_rss_bytes() -> int:
    """Return the kernel's high-water mark of this program, where there is one.

    `ru_maxrss` is the second choice: it begins at what the parent held when it started the process, so that a large
    parent would be measured in each of its children.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii", errors="replace").splitlines() if status.is_file() else []
    marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    if marks:
        return 1024 * marks[0]
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _why_dead(exitcode: int | None) -> str:
    if exitcode == -signal.SIGKILL:
        return (
            "the measuring process was killed, most likely because memory ran out. Free some memory, or take a smaller "
            "batch"
        )
    return f"the measuring process died with exit status {exitcode}; what it wrote is above"
