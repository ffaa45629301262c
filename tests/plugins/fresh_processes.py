"""Commands of emofuse in processes that have seen no plugin: forks of one that has imported the package and no more.

An import takes seconds, and a test of plugins runs a handful of commands.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

MODULES = ("pipeline", "predict", "report", "sweep.run", "training.runs", "upkeep")


class FreshProcesses:
    """Runs commands one after another, each in a process of its own; the first one starts what they are forked from."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def __call__(self, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder, with the environment that this process has now."""
        if self._server is None:
            command = [sys.executable, __file__]
            self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        words = [str(each) for each in arguments]
        with tempfile.TemporaryDirectory() as written:
            outputs = [str(Path(written, name)) for name in ("stdout", "stderr")]
            request = {"folder": str(folder), "arguments": words, "environment": dict(os.environ), "outputs": outputs}
            print(json.dumps(request), file=self._server.stdin, flush=True)
            status = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(words, status, *(Path(each).read_text("utf-8") for each in outputs))

    def close(self) -> None:
        if self._server is not None:
            self._server.stdin.close()
            self._server.wait()


def serve() -> None:
    """Run the commands that come on standard input, and write the exit status of each to standard output."""
    for name in MODULES:
        importlib.import_module(f"emofuse.{name}")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201


def run(folder: str, arguments: list[str], environment: dict[str, str], outputs: list[str]) -> None:
    """Run one command in this process, which ends with it."""
    from emofuse.cli import main

    status = 1
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["emofuse", *arguments]
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter shows it
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    serve()
