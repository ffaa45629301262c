"""Runs a measurement in a process of its own: its peak of memory is its own, and so are its threads."""

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
from emofuse.interpreter import SAFE_PATH
from emofuse.profile.figures import Peak

T = TypeVar("T")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LAST_WORDS_S = 5.0


def in_fresh_process(function: Callable[..., T], *arguments: Any, threads: int, what: str) -> T:
    """What a function gives when a new interpreter calls it. Ctrl-C here ends it there.

    Args:
        function: of a module; it and its arguments are pickled.
        arguments: of the function.
        threads: of native libraries there.
        what: is measured, for messages.

    Raises:
        ProfileError: it raised, or its process died.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, threads, function, arguments), daemon=True)
    with tempfile.TemporaryDirectory(prefix="emofuse-", ignore_cleanup_errors=True) as folder, receiver:
        with sender, _environment(threads, folder), _deaf_to_ctrl_c():
            process.start()
        try:
            wait([receiver, process.sentinel])  # the pipe ends with the process, unless it left one that holds it open
            given, problem = receiver.recv() if receiver.poll() else _raise_end()
        except (EOFError, OSError):
            process.join(_LAST_WORDS_S)
            raise ProfileError(f"{what}: {_why_dead(process.exitcode)}") from None
        finally:
            process.kill()
            process.join()
    if problem:
        raise ProfileError(f"{what}: {problem}")
    result: T = given
    return result


def peak_memory(device: torch.device) -> Peak:
    """The most that this process has held until now."""
    cuda = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Peak(_peak_rss_bytes(), cuda)


def begin_phase(device: torch.device) -> None:
    """The GPU's peak is counted from here; that of main memory cannot be set back."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _raise_end() -> tuple[Any, str]:
    raise EOFError


def _call(sender: Connection, threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the new process: sends (what the function gave, "") or (None, what went wrong)."""
    torch.set_num_threads(threads)
    try:
        answer = function(*arguments), ""
    except EmofuseError as error:
        answer = None, str(error)
    except Exception as error:  # noqa: BLE001 - any fault of foreign code; told where the user looks
        traceback.print_exc()
        answer = None, f"{type(error).__name__}: {error}"
    sender.send(answer)


@contextmanager
def _environment(threads: int, folder: str) -> Iterator[None]:
    """What the new interpreter reads when it starts, and native libraries when they are loaded.

    Its temporary files go to a folder that goes when it does, and nothing is imported from the working folder.
    """
    before = dict(os.environ)
    given = {**dict.fromkeys(_THREAD_VARIABLES, str(threads)), **SAFE_PATH, "TMPDIR": folder}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """A process started inside never hears Ctrl-C, not even while it imports: its parent does, and kills it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _peak_rss_bytes() -> int:
    """The kernel's high-water mark of this program.

    Where there is one: `ru_maxrss` of a process begins at what its parent had when it was started, so that a large
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
            "the measuring process was killed, most likely because memory ran out. Free some, or take a smaller batch"
        )
    return f"the measuring process died with exit status {exitcode}; what it wrote is above"
