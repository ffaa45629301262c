"""Which worker of a mixed cluster computes what: networks on those with a GPU, all else on those without.

A worker says that it has a GPU by a Dask resource: `dask worker ... --resources GPU=1`. On a cluster with both kinds a
block becomes two tasks, which decode its pictures once each; where all workers are of one kind, a worker does both. The
two lanes go at their own speeds: the faster one waits for the slower one only when it is `_LAG` blocks ahead, so that
the tasks in between are few whatever the size of the dataset.
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
_LAG = 64


class Lane(StrEnum):
    """Kinds of workers."""

    GPU = "gpu"
    CPU = "cpu"
    ANY = "any"


def gpu_streams(job: BuildJob, names: Sequence[str]) -> frozenset[str]:
    """Those of the named streams that belong on a worker with a GPU."""
    if job.device == "cpu":
        return frozenset()
    return frozenset(spec.name for spec in job.streams(names) if may_use_gpu(spec))


def open_lanes(workers: Mapping[str, Mapping[str, Any]], wants_gpu: bool) -> dict[Lane, list[str]]:
    """Addresses of the workers of each lane there is: one for all, or one for each of two kinds.

    Args:
        workers: address -> what Dask's scheduler says of a worker.
        wants_gpu: whether any stream of the build belongs on a GPU.
    """
    with_gpu = [address for address, told in workers.items() if told.get("resources", {}).get(RESOURCE, 0) >= 1]
    without = [address for address in workers if address not in with_gpu]
    if wants_gpu and with_gpu and without:
        return {Lane.GPU: with_gpu, Lane.CPU: without}
    return {Lane.ANY: list(workers)}


class LaneQueues:
    """Tasks of a build, handed out by lane."""

    def __init__(self, job: BuildJob, tasks: Iterator[BlockTask]) -> None:
        self._job = job
        self._tasks = tasks
        self._waiting: dict[Lane, deque[BlockTask]] = {Lane.GPU: deque(), Lane.CPU: deque()}

    def take(self, lane: Lane) -> BlockTask | None:
        """The next task for a worker of this lane; None if there is none, or not before the other lane has gone on."""
        if lane is Lane.ANY:
            waiting = next((tasks for tasks in self._waiting.values() if tasks), None)
            return waiting.popleft() if waiting else next(self._tasks, None)
        other = Lane.CPU if lane is Lane.GPU else Lane.GPU
        while not self._waiting[lane] and len(self._waiting[other]) < _LAG:
            task = next(self._tasks, None)
            if task is None:
                return None
            for own, part in split(task, gpu_streams(self._job, task.streams)).items():
                self._waiting[own].append(part)
        return self._waiting[lane].popleft() if self._waiting[lane] else None


def split(task: BlockTask, on_gpu: frozenset[str]) -> dict[Lane, BlockTask]:
    """A task as one part a lane; lanes that have nothing to do are left out."""
    parts = {
        Lane.GPU: tuple(name for name in task.streams if name in on_gpu),
        Lane.CPU: tuple(name for name in task.streams if name not in on_gpu),
    }
    if not all(parts.values()):
        return {lane: task for lane, names in parts.items() if names}
    return {lane: _part(task, names) for lane, names in parts.items()}


def _part(task: BlockTask, names: tuple[str, ...]) -> BlockTask:
    retried = task.retried
    if retried is not None:
        retried = {key: rows for key, rows in retried.items() if key[0] in names}
    return replace(task, streams=names, retried=retried, of_streams=task.streams)


class Halves:
    """Puts what two lanes made of one block together, so that its rows count once."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, tuple[int, ...], tuple[str, ...]], BlockDone | None] = {}

    def add(self, task: BlockTask, result: BlockDone | BlockFailed) -> BlockDone | BlockFailed | None:
        """A result to pass on; None if the other half is still being computed.

        A half that failed is passed on at once, and the other one then counts for itself.
        """
        if not task.of_streams:
            return result
        key = (task.block, task.views, task.of_streams)
        if key not in self._held:
            self._held[key] = result if isinstance(result, BlockDone) else None
            return None if isinstance(result, BlockDone) else result
        first = self._held.pop(key)
        if first is None or isinstance(result, BlockFailed):
            return result
        return _together(first, result)

    def left(self) -> Iterator[BlockDone]:
        """Halves whose other half did not come to its end."""
        yield from (done for done in self._held.values() if done is not None)
        self._held.clear()


def _together(one: BlockDone, two: BlockDone) -> BlockDone:
    # A picture that cannot be read is told of by both.
    of_pictures = {(problem.row, problem.reason) for problem in one.problems if not problem.stream}
    others = [problem for problem in two.problems if problem.stream or (problem.row, problem.reason) not in of_pictures]
    problems = tuple(sorted((*one.problems, *others), key=lambda problem: (problem.row, problem.stream)))
    seen = one.seen or two.seen
    if one.seen is not None and two.seen is not None:
        seen = replace(one.seen, streams=(*one.seen.streams, *two.seen.streams))
    return replace(
        one, counts={**one.counts, **two.counts}, problems=problems, written=one.written or two.written, seen=seen
    )
