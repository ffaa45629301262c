"""Run all that needs a GPU, part by part, within 12 minutes on one GPU of a data centre and 16 cores.

    python -m benchmarks.gpu                          the whole, `make bench-gpu`
    python -m benchmarks.gpu --parts grid extraction  some parts
    python -m benchmarks.gpu --device cpu --smoke     the same code in a minute or two; its numbers mean nothing

- `tests`: the tests marked `gpu`.
- `grid`: the paper's five configurations for 100 epochs, goal 30 s, and its search of 2,700 heads, goal 600 s, each in
  the fastest of four modes: with and without CUDA graphs, in float32 and with bfloat16 products (`benchmarks/grid.py`).
- `extraction`: pictures of common sizes through six streams, and what limits it (`benchmarks/gpu_extraction.py`).
- `heads`: heads a second beside common ways to train them (`benchmarks/heads.py`).

Each part is a process of its own with a time limit of its own, and the whole has one too: what is left of it shortens
the last parts. A part that fails, is ended, or lacks a package says so and does not end the others. Each part writes
its numbers as it goes, and `benchmarks/results/gpu.json` says after each part how it ended.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results_file import RESULTS, write_result

TOTAL_S = 700.0
LEAST_S = 20.0
"""A part with less time than this is not begun."""
_TAIL = 25
_GRACE_S = 5.0


@dataclass(frozen=True)
class Part:
    """A part of the measurement.

    Attributes:
        name: its name.
        command: the module and its arguments.
        limit_s: the time that it may take.
    """

    name: str
    command: tuple[str, ...]
    limit_s: float


def parts_of(device: str, out: Path, *, smoke: bool) -> list[Part]:
    """Return the parts in the order of their worth: if time runs out, the last ones are cut."""
    common = ("--device", device, "--out", str(out), *(("--smoke",) if smoke else ()))
    marked = ("pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", "tests")
    collected = (*marked, "--collect-only") if smoke else marked
    return [
        Part("tests", collected, 100.0),
        Part("grid", ("benchmarks.grid", *common, "--five-budget-s", "60", "--budget-s", "200"), 400.0),
        Part("extraction", ("benchmarks.gpu_extraction", *common), 120.0),
        Part("heads", ("benchmarks.heads", *common, "--parts", "compare", "--repeats", "1"), 120.0),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["tests", "grid", "extraction", "heads"]
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--limit-s", type=float, default=TOTAL_S, help="the time of the whole")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; the tests are only collected")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args(argv)
    ends = time.perf_counter() + arguments.limit_s
    name = "gpu_smoke" if arguments.smoke else "gpu"
    numbers: dict[str, Any] = {"smoke": arguments.smoke, "limit_s": arguments.limit_s, "parts": {}}
    for part in parts_of(arguments.device, arguments.out, smoke=arguments.smoke):
        if part.name in arguments.parts:
            print(f"\n{part.name}", flush=True)
            numbers["parts"][part.name] = run_part(part, ends - time.perf_counter())
            written = write_result(name, numbers, script="gpu", folder=arguments.out)
    print(written)
    for part_name, found in numbers["parts"].items():
        print(f"{part_name:12} {found['ended']:40} {found.get('seconds', 0):8.1f} s")


def run_part(part: Part, left_s: float) -> dict[str, Any]:
    """Run a part within its limit and what is left of the whole, and return how it ended."""
    limit_s = min(part.limit_s, left_s)
    if limit_s < LEAST_S:
        return {"ended": f"not begun: {max(0.0, left_s):.0f} s were left"}
    start, lines = time.perf_counter(), []
    # A group of its own, so that its workers end with it. Its output goes on as it comes.
    process = subprocess.Popen(
        [sys.executable, "-m", *part.command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    signal.signal(signal.SIGALRM, lambda *_: _end(process))
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    for line in process.stdout or ():
        print(line, end="", flush=True)
        lines = [*lines, line.rstrip()][-_TAIL:]
    code = process.wait()
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.perf_counter() - start
    ended = "done" if code == 0 else f"failed with code {code}"
    if seconds >= limit_s:
        ended = f"ended after {limit_s:.0f} s"
    return {
        "ended": ended,
        "seconds": round(seconds, 1),
        "limit_s": round(limit_s, 1),
        **({} if ended == "done" and part.name != "tests" else {"last_lines": lines}),
    }


def _end(process: subprocess.Popen[str]) -> None:
    """End a part and its workers: by a request first, then by force."""
    for sent, wait_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, 0.0)):
        try:
            os.killpg(process.pid, sent)
            process.wait(wait_s)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


if __name__ == "__main__":
    main()
