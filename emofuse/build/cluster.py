"""Runs blocks on Dask: a local cluster of this machine's cores, or a scheduler that is there already."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from distributed.system import MEMORY_LIMIT

from emofuse.build.worker import (
    WORKER_ENVIRONMENT,
    BlockDone,
    BlockFailed,
    BlockTask,
    BuildJob,
    compute_block,
    describe_streams,
)
from emofuse.cache.layout import StreamLayout
from emofuse.errors import BuildError

# All streams of the paper together, measured: about 2 GB in a worker.
WORKER_BYTES = 2_500_000_000
WORKER_GPU_BYTES = 4_000_000_000
_ALLOWED_DEATHS = 2
_CONNECT_TIMEOUT_S = 15
_KILL_TIMEOUT_S = 0.2
_CLOSE_TIMEOUT_S = 5


class DaskWorkers:
    """Workers behind a Dask scheduler, each given one block at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._opening: list[Future[Any]] = []

    def open_streams(self, job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
        """Layouts of new streams, asked of all workers at once so that all of them load their models meanwhile.

        Raises:
            EmofuseError: a stream cannot be opened.
            BuildError: opening the streams kills the workers.
        """
        # Not tied to their workers, though meant for one each: a tied task waits for ever when its worker dies.
        self._opening = [
            self._client.submit(describe_streams, job, names, pure=False) for _ in range(self._count_workers())
        ]
        first = next(as_completed(self._opening, loop=self._client.loop))
        try:
            layouts: list[StreamLayout] = first.result()
        except KilledWorker as error:
            raise BuildError(
                f"workers died {error.allowed_failures + 1} times while they opened {', '.join(names)} (out of memory, "
                "or a native crash). Try fewer with --workers, or --workers 0 to see the crash."
            ) from None
        return layouts

    def compute(self, job: BuildJob, tasks: Iterator[BlockTask]) -> Iterator[BlockDone | BlockFailed]:
        """Results of all tasks as they come. There are never more tasks in flight than workers.

        So the scheduler's graph and its memory do not grow with the dataset, and when a worker dies, the one block that
        it was given is to blame and no other.
        """
        running: dict[Future[Any], BlockTask] = {}
        finished = as_completed(loop=self._client.loop)
        while True:
            for task in islice(tasks, max(0, self._count_workers() - len(running))):
                future = self._client.submit(compute_block, job, task, pure=False)
                running[future] = task
                finished.add(future)
            if not running:
                return
            future = next(finished)
            yield _result(future, running.pop(future))

    def _count_workers(self) -> int:
        """Workers now, at least 1: a local one that died is started again, another cluster may grow or shrink."""
        return max(1, len(self._client.nthreads()))


@contextmanager
def local_workers(count: int) -> Iterator[DaskWorkers]:
    """Worker processes on this machine that nothing but this process can reach: all ports are on loopback."""
    settings = {
        "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
        "distributed.scheduler.allowed-failures": _ALLOWED_DEATHS,
    }
    with dask.config.set(settings):
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0", "dashboard": False},
            memory_limit=0,  # streams need what they need; a worker killed at a limit would only be started again
            silence_logs=logging.CRITICAL,
            preload="emofuse.build.worker",
        )
    try:
        with _connect(cluster) as client:
            yield DaskWorkers(client)
    except BaseException:
        # Blocks in work are lost anyway: do not wait for them, least of all after Ctrl-C.
        with suppress(TimeoutError):
            cluster.sync(_kill_workers, cluster, callback_timeout=_CLOSE_TIMEOUT_S)
        raise
    finally:
        with suppress(TimeoutError):  # what does not close in time ends with this process: workers watch it
            cluster.close(timeout=_CLOSE_TIMEOUT_S)


@contextmanager
def remote_workers(scheduler: str) -> Iterator[DaskWorkers]:
    """Workers of a scheduler that is there already; they must see the same files as this process.

    Raises:
        BuildError: no answer, or no worker.
    """
    with remote_client(scheduler) as client:
        yield DaskWorkers(client)


@contextmanager
def remote_client(scheduler: str) -> Iterator[Client]:
    """A client of a scheduler that is there already and has a worker at least.

    Raises:
        BuildError: no answer, or no worker.
    """
    with _connect(scheduler) as client:
        try:
            client.wait_for_workers(1, timeout=_CONNECT_TIMEOUT_S)
        except TimeoutError:
            raise BuildError(
                f"{scheduler}: the scheduler has no workers. Start one a core with: "
                f"dask worker {scheduler} --nthreads 1 --nworkers N"
            ) from None
        yield client


def default_workers(*, cuda: bool) -> int:
    """One worker a core, as far as memory allows; on a GPU as far as the GPU's memory allows too."""
    limits = [CPU_COUNT, min(MEMORY_LIMIT, psutil.virtual_memory().available) // WORKER_BYTES]
    if cuda:
        import torch

        limits.append(torch.cuda.mem_get_info()[0] // WORKER_GPU_BYTES)
    return max(1, int(min(limits)))


@contextmanager
def _connect(address: str | LocalCluster) -> Iterator[Client]:
    """A client that leaves the user's own default client alone and does not wait long when it is closed."""
    try:
        client = Client(address, set_as_default=False, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise BuildError(f"{address}: no Dask scheduler answers ({error}). Start one with: dask scheduler") from None
    try:
        yield client
    finally:
        with suppress(TimeoutError):
            client.close(timeout=_CLOSE_TIMEOUT_S)


def _result(future: Future[Any], task: BlockTask) -> BlockDone | BlockFailed:
    try:
        result = future.result()
    except KilledWorker as error:
        deaths = error.allowed_failures + 1
        return BlockFailed(str(task), f"killed its worker {deaths} times (out of memory, or a native crash)")
    except Exception as error:  # noqa: BLE001 - what Dask raises: the task cannot be sent, unpacked or was lost
        return BlockFailed(str(task), f"{type(error).__name__}: {error}")
    if not isinstance(result, BlockDone | BlockFailed):
        raise BuildError(f"{task}: a worker of another emofuse answered with {type(result).__name__}")
    return result


async def _kill_workers(cluster: LocalCluster) -> None:
    closing = [nanny.close(timeout=_KILL_TIMEOUT_S) for nanny in cluster.workers.values()]
    await asyncio.gather(*closing, return_exceptions=True)  # a process slow to die is no reason to spare the others
