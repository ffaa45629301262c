"""Speed of this checkout over that of another one: `benchmarks.heads` and `benchmarks.read_speed`, measured in turn.

    git worktree add ../base 99b6969
    python -m benchmarks.versus --base ../base --repeats 5

Each round starts one process of either checkout after the other, so that a machine that is busy for a while slows both;
a ratio is taken within each round, and its median is reported: above 1, this checkout is faster. Processes import the
package of their own checkout. What is timed is what `emofuse_group` of `benchmarks.contenders` times (training alone),
at the shapes of `benchmarks.heads`
(at most 16 heads), and whole reads of a stream as in `benchmarks.read_speed`; CPU seconds of the
process, which other processes disturb less than wall time does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.results_file import RESULTS, write_result

HERE = Path(__file__).parents[1]
WORKER = """
import json, sys, tempfile, time
from dataclasses import replace
from pathlib import Path
import numpy as np
import torch
from benchmarks.contenders import Work, emofuse_group
from benchmarks.heads import CPU_SHAPES
from benchmarks.synthetic import TRAIN_ROWS, VAL_ROWS, make_synthetic
torch.set_num_threads(1)
rows = int(sys.argv[1])
data = make_synthetic(rows, max(64, VAL_ROWS * rows // TRAIN_ROWS))
seconds = {}
for title, shape in CPU_SHAPES.items():
    small = replace(shape, train_rows=min(rows, shape.train_rows), heads=min(shape.heads, 16))
    work = Work(data, small, torch.device("cpu"), Path("unused"))
    emofuse_group(work, score=False, products=None)
    started = time.process_time()
    emofuse_group(work, score=False, products=None)
    seconds[title] = time.process_time() - started
from benchmarks.read_speed import write_both
with tempfile.TemporaryDirectory() as folder:
    stream = write_both(Path(folder), 12_800, 2048)
    for dtype in ("float16", "float32"):
        stream.read(dtype=np.dtype(dtype))
        started = time.process_time()
        for _ in range(5):
            stream.read(dtype=np.dtype(dtype))
        seconds[f"read as {dtype}"] = time.process_time() - started
print(json.dumps(seconds))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="the other checkout")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(arguments.repeats):
        sides = [("base", arguments.base.resolve()), ("this", HERE)]
        rounds.append({side: measure(tree, arguments.rows) for side, tree in (sides if number % 2 else sides[::-1])})
        print(json.dumps(rounds[-1]), flush=True)
        lines = {
            name: describe([each["base"][name] / each["this"][name] for each in rounds]) for name in rounds[0]["this"]
        }
        path = write_result(
            "versus",
            {
                "command": (
                    f"python -m benchmarks.versus --base ../{arguments.base.name} --rows {arguments.rows} "
                    f"--repeats {arguments.repeats}"
                ),
                "base": commit_of(arguments.base),
                "this": commit_of(HERE),
                "rounds": len(rounds),
                "base_over_this": lines,
            },
            folder=arguments.out,
        )
    print(path)


def measure(tree: Path, rows: int) -> dict[str, float]:
    """Return CPU seconds of each shape in a process of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(rows)],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def describe(ratios: list[float]) -> dict[str, Any]:
    """Return the median ratio and each round's."""
    return {"median": round(statistics.median(ratios), 3), "each": [round(ratio, 3) for ratio in ratios]}


def commit_of(tree: Path) -> str:
    """Return the commit of a checkout."""
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=tree, capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
