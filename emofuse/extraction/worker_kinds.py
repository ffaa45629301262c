"""Which worker of a mixed cluster computes what: networks on those with a GPU, all else on those without.

A worker announces its GPU by a Dask resource: `dask worker ... --resources GPU=1`. On a cluster with both kinds a block
becomes two tasks, each of which decodes its images once; where all workers are of one kind, a worker does both. The two
kinds work at their own speeds. The faster one waits for the slower one only when it is `_MOST_WAITING` blocks ahead, so
that few tasks wait in between, however large the dataset is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob
from emofuse.streams import may_use_gpu

RESOURCE = "GPU"
_MOST_WAITING = 64


class WorkerKind(StrEnum):
    """The kinds of workers: with a GPU, without one, or all workers where these are of one kind."""

    GPU = "gpu"
    CPU = "cpu"
    ANY = "any"


def gpu_streams(job: BuildJob, names: Sequence[str]) -> frozenset[str]:
    """Return those of the named streams that belong on a worker with a GPU."""
    if job.device == "cpu":
        return frozenset()
    return frozenset(spec.name for spec in job.streams(names) if may_use_gpu(spec))


def workers_by_kind(workers: Mapping[str, Mapping[str, Any]], wants_gpu: bool) -> dict[WorkerKind, list[str]]:
    """Return the addresses of the workers of each kind: one entry for all workers, or one for each of two kinds.

    Args:
        workers: address -> the scheduler's description of the worker.
        wants_gpu: whether any stream of the build belongs on a GPU.
    """
    with_gpu = [address for address, worker in workers.items() if worker.get("resources", {}).get(RESOURCE, 0) >= 1]
    without = [address for address in workers if address not in with_gpu]
    if wants_gpu and with_gpu and without:
        return {WorkerKind.GPU: with_gpu, WorkerKind.CPU: without}
    return {WorkerKind.ANY: list(workers)}


class TaskQueues:
    """The tasks of a build, handed out by kind of worker."""

    def __init__(self, job: BuildJob, tasks: Iterator[BlockTask]) -> None:
        self._job = job
        self._tasks = tasks
        self._waiting: dict[WorkerKind, deque[BlockTask]] = {WorkerKind.GPU: deque(), WorkerKind.CPU: deque()}

    def take(self, kind: WorkerKind) -> BlockTask | None:
        """Return the next task for a worker of this kind.

        None means that there is none left, or that the other kind must catch up first.
        """
        if kind is WorkerKind.ANY:
            waiting = next((tasks for tasks in self._waiting.values() if tasks), None)
            return waiting.popleft() if waiting else next(self._tasks, None)
        other = WorkerKind.CPU if kind is WorkerKind.GPU else WorkerKind.GPU
        while not self._waiting[kind] and len(self._waiting[other]) < _MOST_WAITING:
            task = next(self._tasks, None)
            if task is None:
                return None
            for kind_of_part, part in split(task, gpu_streams(self._job, task.streams)).items():
                self._waiting[kind_of_part].append(part)
        return self._waiting[kind].popleft() if self._waiting[kind] else None


def split(task: BlockTask, on_gpu: frozenset[str]) -> dict[WorkerKind, BlockTask]:
    """Split a task into one part for each kind of worker; a kind without streams is left out."""
    parts = {
        WorkerKind.GPU: tuple(name for name in task.streams if name in on_gpu),
        WorkerKind.CPU: tuple(name for name in task.streams if name not in on_gpu),
    }
    if not all(parts.values()):
        return {kind: task for kind, names in parts.items() if names}
    return {kind: replace(task.for_streams(names), of_streams=task.streams) for kind, names in parts.items()}


class PartialResults:
    """Joins the two parts of a block that two kinds of workers computed, so that its rows count once."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, tuple[int, ...], tuple[str, ...]], BlockDone | None] = {}

    def add(self, task: BlockTask, result: BlockDone | BlockFailed) -> BlockDone | BlockFailed | None:
        """Return a result to pass on, or None if the other part is still being computed.

        A part that failed is passed on at once, and the other part then counts for itself.
        """
        if not task.of_streams:
            return result
        key = (task.block, task.views, task.of_streams)
        if key not in self._waiting:
            self._waiting[key] = result if isinstance(result, BlockDone) else None
            return None if isinstance(result, BlockDone) else result
        first = self._waiting.pop(key)
        if first is None or isinstance(result, BlockFailed):
            return result
        return BlockDone.joined([first, result])

    def left(self) -> Iterator[BlockDone]:
        """Yield the parts whose other part was never computed."""
        yield from (done for done in self._waiting.values() if done is not None)
        self._waiting.clear()
