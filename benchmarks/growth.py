"""Measure time and peak memory of training K heads as K grows, the engine beside heads with summed losses.

On the CPU each measurement has its own process: memory that an earlier one freed is not returned to the system, and the
peak of a process never falls.
"""

from __future__ import annotations

import gc
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import Shape, Work, emofuse_group, member_of, summed_losses
from benchmarks.limits import memory_bytes
from benchmarks.synthetic import CLASSES, make_synthetic
from emofuse.training.machine import Machine

_PAGE = 4096
_EVERY_S = 0.002


def growth(
    shape: Shape, heads: int, contender: str, *, device: torch.device, products: torch.dtype | None = None
) -> dict[str, Any]:
    """Measure one point of the curve: K heads on a table with the rows of one epoch of the shape.

    Returns:
        heads, contender, seconds_per_epoch (after the first), peak_bytes beside the table, and for the engine the bytes
        that were counted before.
    """
    arguments = (replace(shape, heads=heads, epochs=2), contender, device, products)
    if device.type == "cuda":
        return _measure(*arguments)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measure, *arguments).result()


def _measure(shape: Shape, contender: str, device: torch.device, products: torch.dtype | None) -> dict[str, Any]:
    data = make_synthetic(shape.train_rows, max(CLASSES, shape.train_rows // 16))
    work = Work(data, shape, device, Path())
    table_bytes = sum(tensor.nbytes for tensor in data.table.features.values())
    train: Callable[[], Any]
    if contender == "emofuse":
        train = lambda: emofuse_group(work, products=products, score=False)  # noqa: E731
    else:
        _ = work.features
        train = lambda: summed_losses(work, fused=True, score=False)  # noqa: E731
    _load_libraries(device)
    gc.collect()
    trained, peak = _with_peak(train, device)
    if device.type == "cuda" and contender == "emofuse":
        peak -= table_bytes  # which the engine puts on the device itself
    result = {
        "heads": shape.heads,
        "contender": contender,
        "seconds_per_epoch": round(trained.seconds / (shape.epochs - 1), 4),
        "rows_per_s": round(trained.rows_per_s),
        "peak_bytes": peak,
    }
    if contender == "emofuse":
        members = [member_of(shape, tuple(work.dims), seed) for seed in range(shape.heads)]
        machine = Machine(device, products=products)
        result["planned_bytes"] = memory_bytes(members, work.dims, CLASSES, machine)
    return result


def _load_libraries(device: torch.device) -> None:
    """Train a tiny head: what torch imports and allocates at its first step is not memory of the heads."""
    tiny = Work(make_synthetic(64, 16), Shape(4, 4, 16, train_rows=64, heads=1, epochs=2), device, Path())
    emofuse_group(tiny, products=None, score=False)
    summed_losses(tiny, fused=True, score=False)


def _with_peak(function: Callable[[], Any], device: torch.device) -> tuple[Any, int]:
    """Return the result of a function, and by how much memory grew at most while it ran."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = function()
        return result, torch.cuda.max_memory_allocated(device) - before
    before, highest, stop = _resident_bytes(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(_EVERY_S):
            highest[0] = max(highest[0], _resident_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    result = function()
    stop.set()
    watcher.join()
    return result, max(highest[0], _resident_bytes()) - before


def _resident_bytes() -> int:
    """Return the memory of this process that lies in RAM (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
