"""Trains an ensemble of groups of one head in a process that tests can end: ensemble_script.py CACHE RUNS HELD SPEC.

It waits in the middle of the group with the number HELD.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from emofuse.cache.reader import open_cache
from emofuse.specs import RunSpec, parse_spec
from emofuse.training import planning
from emofuse.training.kept_heads import FOLDER
from emofuse.training.runs import train_run

if __name__ == "__main__":
    torch.set_num_threads(1)
    planning.LONGEST_S = planning.LONGEST_ALONE = 0.0
    cache, runs, held, spec = sys.argv[1:]

    def wait(_: object) -> None:
        while len(list(Path(runs).glob(f"{FOLDER}/*/*.safetensors"))) == int(held):
            time.sleep(0.01)

    train_run(
        open_cache(Path(cache)), parse_spec(RunSpec, json.loads(spec), "test"), Path(runs), device="cpu", on_epoch=wait
    )
