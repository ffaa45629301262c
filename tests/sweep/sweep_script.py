"""Runs the small sweep in a process that tests can kill: sweep_script.py CACHE FOLDER DELAY_S [SCHEDULER]."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from small_question import small_sweep

from emofuse.cache.reader import open_cache
from emofuse.sweep.progress import SweepState
from emofuse.sweep.run import SweepOptions, run_sweep


class Slow:
    """A progress that makes training last, so that a test can end it in the middle."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def update(self, state: SweepState) -> None:
        if state.waiting_for:
            sys.stdout.write(f"waiting for {', '.join(state.waiting_for)}\n")
            sys.stdout.flush()
        if state.rows:
            time.sleep(self._delay_s)


if __name__ == "__main__":
    torch.set_num_threads(1)
    cache, folder, delay_s = sys.argv[1:4]
    options = SweepOptions(device="cpu", scheduler=sys.argv[4] if len(sys.argv) > 4 else None)
    summary = run_sweep(open_cache(Path(cache)), small_sweep(), Path(folder), options, progress=Slow(float(delay_s)))
    sys.stdout.write(f"trained {summary.trained}\n")
