"""Measure `make demo` once it is set up, by phase: seconds on the clock and of all processors.

    python -m benchmarks.demo               # three runs, about 5 minutes on 2 quiet cores
    python -m benchmarks.demo --times 1

Each run is `emofuse run demo` in a process of its own and an empty folder. The environment and the files that it reads
are warm, since one short run comes first. A phase ends with the line that the command prints at its end, so the start
of the process counts to the drawing, and that of the networks to the extraction:

    drawing -> `dataset:` | extraction -> `cache:` | training -> the last `run` | references -> the last `reference:` |
    report -> the end of the process

What the command does in several phases at once counts to the one in which it is done. The processors' seconds are
those of the command and all processes below it (`benchmarks.process_tree`). `first_block_s` is the time from `dataset:`
to the first 64 rows, most of which is the start of the networks. Medians are of each phase on its own.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process_tree import ProcessTree
from benchmarks.results_file import RESULTS, write_result

PHASES = {
    "drawing": re.compile(r"dataset: "),
    "extraction": re.compile(r"cache: "),
    "training": re.compile(r"run \d+/\d+: "),
    "references": re.compile(r"reference: "),
}
"""Phase -> the lines of which the last one ends it. The report takes what is left."""
_FIRST_BLOCK = re.compile(r"extracted \d+ of ")
SMOKE = """
dataset: {kind: demo, images: 96}
cache: {streams: [{kind: lbp}, {kind: action_units}]}
defaults: {head: {kind: concat, embed_dim: 16, depth: 1, width: 16}, train: {epochs: 2}}
runs: [{name: LBP, features: {streams: [lbp]}}, {name: Both, features: {streams: [lbp, action_units]}}]
repeat: {seeds: [0]}
baseline: LBP
report: {images: false}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write `results/demo.json` after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="number of measured runs")
    parser.add_argument("--smoke", action="store_true", help="a tiny pipeline, once: numbers mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny.yaml"
        tiny.write_text(SMOKE, encoding="utf-8")
        if not chosen.smoke:
            measure(command_of(str(tiny), Path(folder) / "warm"))
        runs: list[dict[str, Any]] = []
        for number in range(1 if chosen.smoke else chosen.times):
            pipeline = str(tiny) if chosen.smoke else "demo"
            runs.append(measure(command_of(pipeline, Path(folder) / f"run-{number}")))
            print(runs[-1], flush=True)
            name = "demo_smoke" if chosen.smoke else "demo"
            path = write_result(name, {"smoke": chosen.smoke, **summary(runs)}, script="demo", folder=chosen.out)
    print(path)


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the medians over the runs of the whole and of each phase, and every run."""
    phases = {
        phase: {key: _median([run["phases"][phase][key] for run in runs]) for key in ("wall_s", "cpu_s")}
        for phase in runs[0]["phases"]
    }
    whole = {key: _median([run[key] for run in runs]) for key in ("wall_s", "cpu_s")}
    blocks = [run["first_block_s"] for run in runs if run["first_block_s"] is not None]
    return {"runs": len(runs), **whole, "phases": phases, "first_block_s": _median(blocks), "each": list(runs)}


def command_of(pipeline: str, out: Path) -> list[str]:
    """Return the command that runs a pipeline, as `make demo` does."""
    return [sys.executable, "-c", "from emofuse.cli import main; main()", "run", pipeline, "--out", str(out)]


def measure(command: Sequence[str]) -> dict[str, Any]:
    """Run a command that prints as a pipeline does; return the seconds of each phase."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment.pop("OMP_NUM_THREADS", None)
    ends: dict[str, tuple[float, float]] = {}
    first_block, lines = None, []
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", env=environment
    ) as process:
        if process.stdout is None:
            raise RuntimeError("the command has no output")
        with ProcessTree(process.pid) as tree:
            for line in process.stdout:
                lines.append(line)
                now = time.perf_counter() - started
                if first_block is None and _FIRST_BLOCK.match(line):
                    first_block = now
                phase = next((name for name, mark in PHASES.items() if mark.match(line)), None)
                if phase:
                    ends[phase] = now, tree.cpu_s()
            ends["report"] = time.perf_counter() - started, tree.cpu_s()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{''.join(lines[-20:])}")
    return {
        **dict(zip(("wall_s", "cpu_s"), (round(value, 2) for value in ends["report"]), strict=True)),
        "phases": phases_of(ends),
        "first_block_s": None if first_block is None else round(first_block - ends["drawing"][0], 2),
    }


def phases_of(ends: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Return the seconds of each phase, on the clock and of processors, from those at which each ended."""
    phases, before = {}, (0.0, 0.0)
    for name, end in ends.items():
        phases[name] = {"wall_s": round(end[0] - before[0], 2), "cpu_s": round(end[1] - before[1], 2)}
        before = end
    return phases


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 2) if values else None


if __name__ == "__main__":
    main()
