"""Runs blocks on this machine: threads of this process, each with an extraction process of its own.

Nothing here listens, and no setting of a cluster has a say: a build on this machine is this machine's business.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import psutil

from emofuse.cache.layout import StreamLayout
from emofuse.errors import BuildError
from emofuse.extraction.isolation import IsolatedExtraction
from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob

# All streams of the paper together, measured: about 2 GB in a worker.
WORKER_BYTES = 2_500_000_000
WORKER_GPU_BYTES = 4_000_000_000
_CONTROL_GROUP = Path("/sys/fs/cgroup")

T = TypeVar("T")


class LocalPool:
    """Extraction processes of this machine, each given one block at a time."""

    def __init__(self, count: int) -> None:
        self._extractions = [IsolatedExtraction() for _ in range(count)]
        self._idle: SimpleQueue[IsolatedExtraction] = SimpleQueue()
        for extraction in self._extractions:
            self._idle.put(extraction)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="emofuse-build")

    def open_streams(self, job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
        """Layouts of new streams, asked of all processes at once so that all of them load their models meanwhile.

        Raises:
            EmofuseError: a stream cannot be opened.
            BuildError: opening the streams kills the processes.
        """
        opening = [self._submit(lambda each: each.describe(job, names)) for _ in self._extractions]
        done, _ = wait(opening, return_when=FIRST_COMPLETED)
        return next(iter(done)).result()

    def compute(self, job: BuildJob, tasks: Iterator[BlockTask]) -> Iterator[BlockDone | BlockFailed]:
        """Results of all tasks as they come. There are never more tasks in flight than processes."""
        running: dict[Future[BlockDone | BlockFailed], BlockTask] = {}
        while True:
            while len(running) < len(self._extractions):
                task = next(tasks, None)
                if task is None:
                    break
                running[self._compute(job, task)] = task
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield _result(future, running.pop(future))

    def close(self) -> None:
        """Ends the extraction processes, whatever they do: blocks in work are lost if this is an interruption."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for extraction in self._extractions:
            extraction.close()
        self._threads.shutdown(wait=True)

    def _compute(self, job: BuildJob, task: BlockTask) -> Future[BlockDone | BlockFailed]:
        return self._submit(lambda each: each.compute(job, task))

    def _submit(self, work: Callable[[IsolatedExtraction], T]) -> Future[T]:
        """Does the work with a process that has none."""
        return self._threads.submit(self._with_idle, work)

    def _with_idle(self, work: Callable[[IsolatedExtraction], T]) -> T:
        extraction = self._idle.get()  # as many as threads: there is always one
        try:
            return work(extraction)
        finally:
            self._idle.put(extraction)


@contextmanager
def local_workers(count: int) -> Iterator[LocalPool]:
    """Workers of this machine. They end with the context."""
    pool = LocalPool(count)
    try:
        yield pool
    finally:
        pool.close()


def default_workers(*, cuda: bool) -> int:
    """One worker a core, as far as memory allows; on a GPU as far as the GPU's memory allows too."""
    limits = [usable_cores(), usable_memory() // WORKER_BYTES]
    if cuda:
        import torch

        limits.append(torch.cuda.mem_get_info()[0] // WORKER_GPU_BYTES)
    return max(1, int(min(limits)))


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the share of its control group (a container, a job)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = 0.0, 0.0
    with suppress(OSError, ValueError, IndexError):  # there is none, or it says "max"
        quota, period = map(float, (_CONTROL_GROUP / "cpu.max").read_text().split()[:2])
    with suppress(OSError, ValueError):  # the first version of control groups
        quota = float((_CONTROL_GROUP / "cpu/cpu.cfs_quota_us").read_text())
        period = float((_CONTROL_GROUP / "cpu/cpu.cfs_period_us").read_text())
    if quota > 0 and period > 0:
        cores = min(cores, max(1, round(quota / period)))
    return cores


def usable_memory() -> int:
    """Bytes that are free now, no more than the control group allows in all."""
    limits = [int(psutil.virtual_memory().available)]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            limits.append(int((_CONTROL_GROUP / name).read_text()))
    return min(limits)


def _result(future: Future[BlockDone | BlockFailed], task: BlockTask) -> BlockDone | BlockFailed:
    try:
        return future.result()
    except BuildError:
        raise
    except Exception as error:  # noqa: BLE001 - such as a stream that cannot be opened here; other blocks may fare well
        return BlockFailed(str(task), f"{type(error).__name__}: {error}")
