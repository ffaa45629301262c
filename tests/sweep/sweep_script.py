"""Runs the small sweep in a process that tests can kill: sweep_script.py CACHE FOLDER FROM TO [SCHEDULER].

The figures of its report are blank: to draw them takes longer than the search.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from small_question import finished_groups, small_sweep

from emofuse.cache.reader import open_cache
from emofuse.progress import State, TrainingState
from emofuse.report import rendering
from emofuse.sweep.options import SweepOptions
from emofuse.sweep.run import run_sweep


class Held:
    """A progress that holds training up while so many groups are finished, so that a test can end it in the middle."""

    def __init__(self, folder: Path, held_at: range) -> None:
        self._folder = folder
        self._held_at = held_at

    def update(self, state: State) -> None:
        if not isinstance(state, TrainingState) or state.what != "searching":
            return
        if state.waiting_for:
            sys.stdout.write(f"waiting for {', '.join(state.waiting_for)}\n")
            sys.stdout.flush()
        while state.rows and len(finished_groups(self._folder)) in self._held_at:
            time.sleep(0.01)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rendering.render_figure = lambda stem, caption, _: rendering.ReportFigure(stem, caption, b"<svg/>", b"\x89PNG", 3.0)
    cache, folder, first, last, *scheduler = sys.argv[1:]
    options = SweepOptions(device="cpu", scheduler=scheduler[0] if scheduler else None)
    held = Held(Path(folder), range(int(first), int(last)))
    summary = run_sweep(open_cache(Path(cache)), small_sweep(), Path(folder), options, progress=held)
    sys.stdout.write(f"trained {summary.trained}\n")
