"""The last blocks of a build, shared by workers that would else have nothing to do.

A build of three blocks on two workers would leave one of them without work for a third of its time. The blocks that are
left when all workers have had as many as each other are therefore divided by streams: each part decodes the images of
its block and extracts some of the streams. A stream's rows do not depend on the streams beside it, so the bytes are the
same. A block still has one writer for each stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob
from emofuse.specs import StreamSpec
from emofuse.specs.streams import looks_at_faces

_NETWORK = 10
"""The weight of a network beside that of other streams, which take a tenth of its time or less."""


@dataclass
class SharedTask:
    """A task, whole or in parts, and the results of its parts so far."""

    parts: Sequence[BlockTask]
    results: list[BlockDone | BlockFailed] = field(default_factory=list)

    def add(self, result: BlockDone | BlockFailed) -> Iterator[BlockDone | BlockFailed]:
        """Add the result of a part. When all are there, yield the result of the parts that are done, and a failure."""
        self.results.append(result)
        if len(self.results) < len(self.parts):
            return
        done = [each for each in self.results if isinstance(each, BlockDone)]
        failed = [each for each in self.results if isinstance(each, BlockFailed)]
        if done:
            yield BlockDone.joined(done) if len(done) > 1 else done[0]
        yield from failed[:1]


def shared_out(job: BuildJob, tasks: Iterable[BlockTask], workers: int) -> Iterator[SharedTask]:
    """Yield tasks in their order, the last ones in parts.

    Args:
        job: the job, which knows how many tasks there are.
        tasks: the tasks.
        workers: the number of workers.
    """
    left_over = job.tasks % workers
    for number, task in enumerate(tasks):
        is_shared = left_over and number >= job.tasks - left_over
        yield SharedTask(in_parts(job, task, workers // left_over) if is_shared else [task])


def in_parts(job: BuildJob, task: BlockTask, count: int) -> list[BlockTask]:
    """Return a task in at most `count` parts of about the same work, each for other streams."""
    units: dict[object, list[StreamSpec]] = {}
    for spec in job.streams(task.streams):
        units.setdefault(_unit(spec), []).append(spec)
    count = min(count, len(units))
    if count < 2 or task.of_streams:
        return [task]
    parts: list[list[str]] = [[] for _ in range(count)]
    weights = [0] * count
    for specs in sorted(units.values(), key=_weight, reverse=True):
        lightest = weights.index(min(weights))
        parts[lightest] += [spec.name for spec in specs]
        weights[lightest] += _weight(specs)
    ordered = [[name for name in task.streams if name in names] for names in parts]
    return [replace(task.for_streams(names), of_streams=task.streams) for names in ordered]


def _unit(spec: StreamSpec) -> object:
    """Return what streams share that are extracted together: a network, or the faces of the images."""
    if spec.uses_gpu:
        return (spec.kind, getattr(spec, "model", spec.name))
    return "faces" if looks_at_faces(spec.needs) else spec.name


def _weight(specs: Sequence[StreamSpec]) -> int:
    return _NETWORK if specs[0].uses_gpu else 1
