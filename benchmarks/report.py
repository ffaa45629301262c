"""Measure the report of 2,000 configurations: processors' seconds, memory, size of the page, time to open it.

    python -m benchmarks.report                          # about 3 minutes on 2 quiet cores
    python -m benchmarks.report --configurations 200

The runs are made up, as the tests make them (`tests/report/made_up_runs.py`): eight classes, three streams, 800 rows of
which 80 are tested, one run for each configuration. `emofuse report` then writes tables, figures and page.
Opening is the time from the call of the address to the `load` event of a real Chromium without a window, the median of
five; it is left out where there is none. The memory is the largest sum of the resident memory of all processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.process_tree import ProcessTree
from benchmarks.results_file import RESULTS, write_result

TESTS = Path(__file__).parents[1] / "tests"
STREAMS = ("lbp", "landmarks", "resnet50")
OPENED = 5
MB = 1_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write `results/report.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=int, default=2000)
    parser.add_argument("--smoke", action="store_true", help="twelve configurations: numbers mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    chosen = parser.parse_args(arguments)
    count = 12 if chosen.smoke else chosen.configurations
    with tempfile.TemporaryDirectory() as folder:
        runs, report = Path(folder) / "runs", Path(folder) / "report"
        make_runs(runs, count)
        numbers = {"smoke": chosen.smoke, "configurations": count, **write(runs, report)}
        numbers["open_s"] = open_page(report / "index.html")
    name = "report_smoke" if chosen.smoke else "report"
    print(numbers, write_result(name, numbers, script="report", folder=chosen.out), sep="\n")


def make_runs(runs: Path, count: int) -> None:
    """Write one made-up run for each configuration; their skills are spread evenly over 0.3 to 0.8."""
    sys.path.append(str(TESTS / "report"))
    from made_up_runs import RunMaker

    make = RunMaker(runs)
    for number in range(count):
        make(f"configuration {number + 1}", STREAMS, skill=0.3 + 0.5 * number / count)


def write(runs: Path, report: Path) -> dict[str, Any]:
    """Write the report in a process of its own; return its seconds, its memory and the sizes of what it has written."""
    code = "from emofuse.cli import main; main()"
    command = [sys.executable, "-c", code, "report", str(runs), "--out", str(report)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    started = time.perf_counter()
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process,
        ProcessTree(process.pid) as tree,
    ):
        while process.poll() is None:
            time.sleep(0.05)
        wall_s = time.perf_counter() - started
        cpu_s = tree.cpu_s()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    files = [path for path in report.rglob("*") if path.is_file()]
    return {
        "wall_s": round(wall_s, 2),
        "cpu_s": round(cpu_s, 2),
        "peak_mb": round(tree.peak_bytes / MB),
        "page_mb": round((report / "index.html").stat().st_size / MB, 2),
        "all_files_mb": round(sum(path.stat().st_size for path in files) / MB, 2),
        "files": len(files),
    }


def open_page(page: Path) -> float | None:
    """Return the median of the seconds until the page is loaded in a real browser; None where there is none."""
    sys.path.append(str(TESTS / "builds"))
    from browser import Browser, find_browser

    path = find_browser()
    if path is None:
        print("no Chromium or Chrome is installed, so opening is not measured; EMOFUSE_CHROMIUM may name one")
        return None
    browser = Browser(path)
    try:
        browser.show(1280)
        seconds = []
        for _ in range(OPENED):
            browser.open("about:blank")
            started = time.perf_counter()
            browser.open(page)
            seconds.append(time.perf_counter() - started)
        return round(statistics.median(seconds), 2)
    finally:
        browser.close()


if __name__ == "__main__":
    main()
