"""The choice of the workers that compute blocks: this process, local processes, or those of a scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from emofuse.cache.layout import StreamLayout
from emofuse.extraction import pool
from emofuse.extraction.ahead import take_template
from emofuse.extraction.options import BuildOptions
from emofuse.extraction.plan import BuildPlan
from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob
from emofuse.extraction.worker import close_extractor, compute_block, describe_streams, device_for_streams
from emofuse.specs import CacheSpec


class Workers(Protocol):
    """The workers of a build."""

    def open_streams(self, job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
        """Open new streams and return their layouts."""
        ...

    def compute(self, job: BuildJob, tasks: Iterator[BlockTask]) -> Iterator[BlockDone | BlockFailed]:
        """Yield the results of all tasks as they end."""
        ...


class ThisProcess:
    """The worker of a build that runs in its own process."""

    def open_streams(self, job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
        """Open new streams and return their layouts."""
        return describe_streams(job, names)

    def compute(self, job: BuildJob, tasks: Iterator[BlockTask]) -> Iterator[BlockDone | BlockFailed]:
        """Yield the results of all tasks in their order."""
        return (compute_block(job, task) for task in tasks)


def open_workers(plan: BuildPlan, spec: CacheSpec, options: BuildOptions) -> AbstractContextManager[Workers]:
    """Start or connect to the workers that the options name. They end with the context.

    Raises:
        BuildError: no workers are available.
    """
    if options.in_this_process:
        return _this_process()
    if options.scheduler is not None:
        from emofuse.extraction import cluster  # only here: Dask reads its settings when it is imported

        return cluster.remote_workers(options.scheduler)
    count = count_workers(plan, spec, options)
    return pool.local_workers(count, take_template(spec, options))


def build_device(plan: BuildPlan, spec: CacheSpec, options: BuildOptions) -> str:
    """Return the device of the streams that lack blocks: cpu, cuda or cuda:N.

    Raises:
        DeviceError: there is no such device.
    """
    return device_for_streams(options.device, [stream for stream in spec.streams if plan.lacks(stream.name)])


def count_workers(plan: BuildPlan, spec: CacheSpec, options: BuildOptions) -> int:
    """Return the number of workers that share a build, at most the number of blocks to compute.

    Raises:
        BuildError: the scheduler cannot be reached.
        DeviceError: there is no such device.
    """
    if options.in_this_process:
        return 1
    count = options.workers
    if options.scheduler is not None:
        from emofuse.extraction import cluster

        with cluster.remote_client(options.scheduler) as client:
            count = max(1, len(client.nthreads()))
    elif count is None:
        count = pool.default_workers(cuda=build_device(plan, spec, options).startswith("cuda"))
    return min(count, len(plan.missing))


@contextmanager
def _this_process() -> Iterator[Workers]:
    try:
        yield ThisProcess()
    finally:
        close_extractor()
