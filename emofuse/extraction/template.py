"""A process that has imported what extraction processes need, and forks them, so that each starts in milliseconds.

An interpreter with PyTorch, torchvision and MediaPipe takes three seconds of a core to start. The template takes them
once for all workers of a machine, and for those that replace a process that an image has ended. It opens no stream.

A fork of a process with several threads can hang, and one of a process that has opened a GPU cannot use it. The
template therefore looks for both and refuses to fork if a library has started a thread or opened a GPU; extraction
processes are then started one by one. So they are where the system has no pidfd (macOS). Requests and replies are JSON
datagrams; a request carries the connection of the new process.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from emofuse.extraction import child

_LONGEST = 1 << 20
_THREADS = Path("/proc/self/task")
_FILES = Path("/proc/self/fd")
_GPUS = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/dxg")


def main(arguments: Sequence[str]) -> None:
    """Import modules, then fork an extraction process for each request, until the connection ends.

    Args:
        arguments: the descriptor of the connection, and the names of the modules.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that builds handles Ctrl-C
    connection = socket.socket(fileno=int(arguments[0]))
    connection.set_inheritable(False)
    for name in arguments[1:]:
        with suppress(Exception):  # the extraction process imports it again, and reports what is wrong
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the collector would copy shared pages
    processes: dict[int, int] = {}  # pidfd -> pid
    while True:
        for ready in select.select([connection.fileno(), *processes], [], [])[0]:
            if ready == connection.fileno():
                serving = _serve(connection, processes)
                if serving is not None:
                    child.main(serving)
                    return
            else:
                pid = processes.pop(ready)
                os.close(ready)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                _send(connection, {"ended": pid, "status": status})


def _serve(connection: socket.socket, processes: dict[int, int]) -> list[str] | None:
    """Answer one request. In the forked process, return the arguments of its `child.main`; in the template, None."""
    data, descriptors, _, _ = socket.recv_fds(connection, _LONGEST, 1)
    if not data:
        os._exit(0)  # the process that builds has ended, and so does each forked process
    request = json.loads(data)
    refusal = why_not_fork()
    if refusal is not None:
        os.close(descriptors[0])
        _send(connection, {"refused": refusal})
        return None
    pid = os.fork()
    if pid:
        os.close(descriptors[0])
        processes[os.pidfd_open(pid)] = pid
        _send(connection, {"started": pid})
        return None
    connection.close()
    for pidfd in processes:
        os.close(pidfd)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:] = request["paths"]
    tempfile.tempdir = None  # the new process has a folder of its own
    with suppress(OSError):
        os.chdir(request["folder"])
    return [str(descriptors[0]), request["temporary"]]


def why_not_fork() -> str | None:
    """Return why this process must not be forked, None if it may be.

    Libraries of CUDA and ROCm keep the state of the GPU in the process that first asks for one, even for the number of
    GPUs, and forget it in a fork: the fork then fails at its first use, or hangs. A library that has asked holds a
    device file open.
    """
    if len(list(_THREADS.iterdir())) > 1:
        return "a library has started threads"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "PyTorch has opened a GPU"
    for link in _FILES.iterdir():
        with suppress(OSError):  # the descriptor of the listing itself is closed by now
            if str(link.readlink()).startswith(_GPUS):
                return f"a library has opened a GPU ({link.readlink()})"
    return None


def _send(connection: socket.socket, reply: dict[str, Any]) -> None:
    with suppress(OSError):  # the process that builds has ended, which the next request tells
        connection.send(json.dumps(reply).encode())
