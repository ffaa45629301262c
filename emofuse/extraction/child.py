"""The extraction process: does what the process that started it asks for, one request after another.

Native code that crashes, hangs or takes all memory ends this process and no other. Requests and answers are pickled
data on a connection of their own, for anything may print to standard output, even before this file is read. It ends
when the connection does, and so with the process that started it, however that ended.
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
    """What is asked for.

    Attributes:
        what: which function of `emofuse.extraction.worker`.
        job: the pickled `BuildJob`.
        arguments: of the function, behind the job.
        timeout_s: after which this process ends itself. The one that asks does not wait that long; this is for the case
            that it is gone and nothing else can end a call that hangs.
    """

    what: Literal["describe_streams", "open_streams", "compute_block", "try_row"]
    job: bytes
    arguments: tuple[Any, ...]
    timeout_s: float


@dataclass(frozen=True)
class ChildReply:
    """What came of it: a value, or the error that was raised."""

    value: Any = None
    error: Exception | None = None


def dumps(message: object) -> bytes:
    """Pickled; streams that a script or notebook defines go along whole."""
    data: bytes = cloudpickle.dumps(message)
    return data


def main(arguments: Sequence[str]) -> None:
    """Serves requests until the connection ends.

    Args:
        arguments: the descriptor of the connection, and a folder for temporary files or "".
    """
    descriptor, folder = int(arguments[0]), arguments[1]
    os.set_inheritable(descriptor, False)  # what a library starts here must not hold it open
    connection = Connection(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of the process that builds
    with suppress(OSError):  # if the machine runs out of memory, this process goes and not the one that builds
        _OOM_SCORE.write_text(_FIRST_TO_GO)
    nothing = os.open(os.devnull, os.O_RDWR)
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, requests, folder), daemon=True).start()
    while True:
        try:
            request = requests.get(timeout=_IDLE_S)
        except queue.Empty:
            _remove(folder)
            return  # a build that ended without a word, on a cluster that did not
        faulthandler.dump_traceback_later(request.timeout_s, exit=True, file=nothing)
        answer = dumps(_answer(request))
        faulthandler.cancel_dump_traceback_later()
        connection.send_bytes(answer)


def _listen(connection: Connection, requests: queue.SimpleQueue[Request], folder: str) -> None:
    """Notices that the other end is gone even while a request is being served; nothing but it ends this thread."""
    try:
        while True:
            requests.put(pickle.loads(connection.recv_bytes()))  # noqa: S301  both ends are the same program
    except (EOFError, OSError):
        _remove(folder)  # the process that would have done it may have been killed
        os._exit(0)
    except BaseException:  # noqa: BLE001 - it must not leave the other end waiting
        traceback.print_exc()
        os._exit(1)


def _remove(folder: str) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def _answer(request: Request) -> ChildReply:
    from emofuse.extraction import worker

    try:
        return ChildReply(getattr(worker, request.what)(_job(request.job), *request.arguments))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is for the process that asked
        return ChildReply(error=error if _can_be_sent(error) else RuntimeError(f"{type(error).__name__}: {error}"))


@lru_cache(maxsize=1)
def _job(pickled: bytes) -> Any:
    return pickle.loads(pickled)  # noqa: S301  of the process that started this one


def _can_be_sent(error: Exception) -> bool:
    try:
        return type(pickle.loads(dumps(error))) is type(error)  # noqa: S301
    except Exception:  # noqa: BLE001 - whatever pickling raises is the finding
        return False
