"""The extraction process, which serves the requests of the process that started it, one after another.

Native code that crashes, hangs or exhausts the memory ends this process and no other. Requests and replies are pickled
data on a connection of their own, because any library may print to standard output, even before this file is read.
The process ends when the connection ends, and therefore with the process that started it.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import queue
import shutil
import signal
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import cloudpickle

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_FIRST_TO_GO = "900"
_IDLE_S = 900


@dataclass(frozen=True)
class Request:
    """A request for one call of a function.

    Attributes:
        what: the name of a function of `emofuse.extraction.worker`.
        job: the pickled `BuildJob`, its first argument.
        arguments: its other arguments.
        timeout_s: the time after which this process ends itself. The requesting process waits less; this limit is for
            the case that it has ended and a call hangs.
    """

    what: Literal["describe_streams", "open_streams", "compute_block", "try_row"]
    job: bytes
    arguments: tuple[Any, ...]
    timeout_s: float


@dataclass(frozen=True)
class ChildReply:
    """The reply to a request: the value of the call, or the error that it raised."""

    value: Any = None
    error: Exception | None = None


def dumps(message: object) -> bytes:
    """Pickle a message; classes of streams that a script or notebook defines are included."""
    data: bytes = cloudpickle.dumps(message)
    return data


def main(arguments: Sequence[str]) -> None:
    """Serve requests until the connection ends.

    Args:
        arguments: the descriptor of the connection, and a folder for temporary files or "".
    """
    descriptor, folder = int(arguments[0]), arguments[1]
    os.set_inheritable(descriptor, False)  # what a library starts here must not hold it open
    connection = Connection(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that builds handles Ctrl-C
    with suppress(OSError):  # if the machine runs out of memory, the kernel ends this process first
        _OOM_SCORE.write_text(_FIRST_TO_GO)
    nothing = os.open(os.devnull, os.O_RDWR)
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, requests, folder), daemon=True).start()
    while True:
        try:
            request = requests.get(timeout=_IDLE_S)
        except queue.Empty:
            _remove(folder)
            return  # the build has ended on a cluster that still runs
        faulthandler.dump_traceback_later(request.timeout_s, exit=True, file=nothing)
        reply = dumps(_reply(request))
        faulthandler.cancel_dump_traceback_later()
        connection.send_bytes(reply)


def _listen(connection: Connection, requests: queue.SimpleQueue[Request], folder: str) -> None:
    """Receive requests, and end this process when the other end of the connection is closed, even during a call."""
    try:
        while True:
            requests.put(pickle.loads(connection.recv_bytes()))  # noqa: S301  both ends run this program
    except (EOFError, OSError):
        _remove(folder)  # the parent may have been killed before it could remove it
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the other end must not wait for ever
        traceback.print_exc()
        os._exit(1)


def _remove(folder: str) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def _reply(request: Request) -> ChildReply:
    from emofuse.extraction import worker

    try:
        return ChildReply(getattr(worker, request.what)(_job(request.job), *request.arguments))
    except Exception as error:  # noqa: BLE001 - any error belongs to the process that asked
        return ChildReply(error=error if _can_be_sent(error) else RuntimeError(f"{type(error).__name__}: {error}"))


@lru_cache(maxsize=1)
def _job(pickled: bytes) -> Any:
    return pickle.loads(pickled)  # noqa: S301  it comes from the parent process


def _can_be_sent(error: Exception) -> bool:
    try:
        return type(pickle.loads(dumps(error))) is type(error)  # noqa: S301
    except Exception:  # noqa: BLE001 - any error of pickling means no
        return False
