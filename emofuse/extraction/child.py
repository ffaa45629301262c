"""The extraction process: does what the process that started it asks for, one request after another.

Native code that crashes, hangs or takes all memory ends this process and no other. Requests come through standard input
and answers leave through standard output, as frames of pickled data: both ends are the same program. It ends when
standard input does, and so with the process that started it, however that ended.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

from distributed.protocol.pickle import dumps, loads

_HEADER = struct.Struct("<Q")
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
class Answer:
    """What came of it: a value, or the error that was raised."""

    value: Any = None
    error: Exception | None = None


def write_frame(file: IO[bytes], message: object) -> None:
    """Pickles a message into a pipe."""
    data = dumps(message)
    file.write(_HEADER.pack(len(data)) + data)
    file.flush()


def read_frame(file: IO[bytes]) -> Any:
    """The next message of a pipe.

    Raises:
        EOFError: there is none; the other end is closed.
    """
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    (size,) = _HEADER.unpack(header)
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return loads(data)


def main() -> None:
    """Serves requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of the process that builds
    with suppress(OSError):  # if the machine runs out of memory, this process goes and not the one that builds
        _OOM_SCORE.write_text(_FIRST_TO_GO)
    # Whatever native code prints must not fall between the answers.
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(incoming, requests), daemon=True).start()
    while True:
        try:
            request = requests.get(timeout=_IDLE_S)
        except queue.Empty:
            return  # a build that ended without a word, on a cluster that did not
        faulthandler.dump_traceback_later(request.timeout_s, exit=True, file=nothing)
        answer = _answer(request)
        faulthandler.cancel_dump_traceback_later()
        write_frame(outgoing, answer)


def _listen(incoming: IO[bytes], requests: queue.SimpleQueue[Request]) -> None:
    """Notices that the other end is gone even while a request is being served."""
    try:
        while True:
            requests.put(read_frame(incoming))
    except EOFError:
        os._exit(0)


def _answer(request: Request) -> Answer:
    from emofuse.extraction import worker

    try:
        return Answer(getattr(worker, request.what)(_job(request.job), *request.arguments))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is for the process that asked
        return Answer(error=error if _can_be_sent(error) else RuntimeError(f"{type(error).__name__}: {error}"))


@lru_cache(maxsize=1)
def _job(pickled: bytes) -> Any:
    return loads(pickled)


def _can_be_sent(error: Exception) -> bool:
    try:
        return type(loads(dumps(error))) is type(error)
    except Exception:  # noqa: BLE001 - whatever pickling raises is the finding
        return False


if __name__ == "__main__":
    main()
