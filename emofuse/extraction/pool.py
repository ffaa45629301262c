"""Local workers: threads of this process, each of which has its own extraction process.

They open no ports and read no settings of a cluster.
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
from emofuse.extraction.forks import ProcessTemplate
from emofuse.extraction.isolation import IsolatedExtraction
from emofuse.extraction.sharing import SharedTask, shared_out
from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob

# A worker with all streams of the paper takes about 2 GB (measured).
WORKER_BYTES = 2_500_000_000
WORKER_GPU_BYTES = 4_000_000_000
_CONTROL_GROUP = Path("/sys/fs/cgroup")

T = TypeVar("T")


class LocalPool:
    """A pool of extraction processes on this machine, each of which computes one block at a time.

    Args:
        count: the number of processes.
        template: the template that forks them; None starts an interpreter for each. The pool closes it.
    """

    def __init__(self, count: int, template: ProcessTemplate | None = None) -> None:
        self._template = template
        self._extractions = [IsolatedExtraction(template) for _ in range(count)]
        self._idle: SimpleQueue[IsolatedExtraction] = SimpleQueue()
        for extraction in self._extractions:
            self._idle.put(extraction)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="emofuse-build")

    def open_streams(self, job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
        """Open new streams in all processes at once, so that all load their models, and return the layouts.

        Raises:
            EmofuseError: a stream cannot be opened.
            BuildError: opening the streams kills the processes.
        """
        opening = [self._submit(lambda each: each.describe(job, names)) for _ in self._extractions]
        done, _ = wait(opening, return_when=FIRST_COMPLETED)
        return next(iter(done)).result()

    def compute(self, job: BuildJob, tasks: Iterator[BlockTask]) -> Iterator[BlockDone | BlockFailed]:
        """Yield the results of all tasks as they end. No more tasks than processes run at a time.

        The last tasks are shared by processes that would have nothing to do (see `sharing`).
        """
        parts = ((part, whole) for whole in shared_out(job, tasks, len(self._extractions)) for part in whole.parts)
        running: dict[Future[BlockDone | BlockFailed], tuple[BlockTask, SharedTask]] = {}
        while True:
            while len(running) < len(self._extractions):
                following = next(parts, None)
                if following is None:
                    break
                running[self._compute(job, following[0])] = following
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                part, whole = running.pop(future)
                yield from whole.add(_result(future, part))

    def close(self) -> None:
        """End the extraction processes at once; blocks that they are computing are lost."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._template is not None:
            self._template.refuse()  # nobody waits for a process that it has not started yet
        for extraction in self._extractions:
            extraction.close()
        self._threads.shutdown(wait=True)
        if self._template is not None:
            self._template.close()

    def _compute(self, job: BuildJob, task: BlockTask) -> Future[BlockDone | BlockFailed]:
        return self._submit(lambda each: each.compute(job, task))

    def _submit(self, work: Callable[[IsolatedExtraction], T]) -> Future[T]:
        """Run the work with an idle extraction process."""
        return self._threads.submit(self._with_idle, work)

    def _with_idle(self, work: Callable[[IsolatedExtraction], T]) -> T:
        extraction = self._idle.get()  # as many as threads, so one is always idle
        try:
            return work(extraction)
        finally:
            self._idle.put(extraction)


@contextmanager
def local_workers(count: int, template: ProcessTemplate | None = None) -> Iterator[LocalPool]:
    """Start workers on this machine. They end with the context, and so does their template."""
    pool = LocalPool(count, template)
    try:
        yield pool
    finally:
        pool.close()


def default_workers(*, cuda: bool) -> int:
    """Return one worker for each core, as far as the memory allows, and that of the GPU if there is one."""
    limits = [usable_cores(), usable_memory() // WORKER_BYTES]
    if cuda:
        import torch

        limits.append(torch.cuda.mem_get_info()[0] // WORKER_GPU_BYTES)
    return max(1, int(min(limits)))


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, limited by its control group (a container, a job)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = 0.0, 0.0
    with suppress(OSError, ValueError, IndexError):  # no such file, or no limit ("max")
        quota, period = map(float, (_CONTROL_GROUP / "cpu.max").read_text().split()[:2])
    with suppress(OSError, ValueError):  # the first version of control groups
        quota = float((_CONTROL_GROUP / "cpu/cpu.cfs_quota_us").read_text())
        period = float((_CONTROL_GROUP / "cpu/cpu.cfs_period_us").read_text())
    if quota > 0 and period > 0:
        cores = min(cores, max(1, round(quota / period)))
    return cores


def usable_memory() -> int:
    """Return the bytes of memory that are free now, limited by the control group."""
    limits = [int(psutil.virtual_memory().available)]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or no limit ("max")
            limits.append(int((_CONTROL_GROUP / name).read_text()))
    return min(limits)


def _result(future: Future[BlockDone | BlockFailed], task: BlockTask) -> BlockDone | BlockFailed:
    try:
        return future.result()
    except BuildError:
        raise
    except Exception as error:  # noqa: BLE001 - such as a stream that cannot be opened; other blocks may still succeed
        return BlockFailed(str(task), f"{type(error).__name__}: {error}")
