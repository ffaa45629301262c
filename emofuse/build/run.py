"""Builds a cache: plan, workers, one block after another, a summary."""

from __future__ import annotations

import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Protocol

from emofuse.build.plan import BuildPlan, plan_build
from emofuse.build.progress import BuildState, Progress
from emofuse.build.seen import FileRecord
from emofuse.build.tasks import BlockDone, BlockFailed, BlockTask, BuildJob, Problem
from emofuse.build.worker import close_extractor, compute_block, describe_streams, resolve_device
from emofuse.cache.attempts import writing
from emofuse.cache.changes import adopt_changes
from emofuse.cache.layout import StreamLayout, manifest_path
from emofuse.cache.mend import discard_blocks
from emofuse.cache.metadata import extracted_streams, read_stream_layout
from emofuse.cache.reader import read_stream
from emofuse.cache.stale import check_is_imported
from emofuse.cache.writer import (
    add_stream,
    add_views,
    check_writable,
    create_cache,
    lock_cache,
    update_origin,
)
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError, StaleCacheError, StoreError, StreamError, UnwritableCacheError
from emofuse.specs import CacheSpec, digest
from emofuse.status import Status
from emofuse.stores import as_path, is_remote
from emofuse.streams import stream_weights

# A block that fails does not cost the others, but when several fail the cause is the machine or the spec.
_MAX_FAILED_BLOCKS = 3
_KEPT_PROBLEMS = 1000
_NAMED = 3


@dataclass(frozen=True)
class BuildOptions:
    """Where and how fast a build runs: no part of any digest.

    Attributes:
        scheduler: address of a running Dask scheduler, `tcp://...`; None starts local workers.
        workers: local worker processes; None is one a core as far as memory allows, 0 works in this process (for
            debugging).
        device: where backbones run: `cpu`, `cuda`, `cuda:N`, or `auto`.
        block_timeout_s: that a block may take before its pictures are tried one by one, and those that hang are
            FAILED; None is one minute and four seconds a picture.
        memory_bytes: that an extraction process may take before it is ended and its pictures are tried one by one;
            None leaves it to the machine, which ends such a process before any other.
    """

    scheduler: str | None = None
    workers: int | None = None
    device: str = "auto"
    block_timeout_s: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class BuildSummary:
    """What a build did.

    Attributes:
        rows: computed by this build.
        seconds: from the start of extraction to its end.
        counts: stream -> status name in lower case -> rows computed by this build.
        problems: rows without features and why, the first thousand.
        problem_count: all of them.
        written: blocks that were written, once for each group of streams that were computed together.
        changes: what became of the dataset since the cache was built, in words.
    """

    rows: int
    seconds: float
    counts: Mapping[str, Mapping[str, int]]
    problems: tuple[Problem, ...] = ()
    problem_count: int = 0
    written: int = 0
    changes: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line."""
        if self.rows == 0:
            return "complete, nothing to do"
        return f"{self.rows} rows computed in {self.seconds:.1f} s ({self.rows / self.seconds:.1f} images/s)"


def build_cache(
    path: str | Path,
    manifest: Manifest,
    spec: CacheSpec,
    options: BuildOptions = BuildOptions(),
    progress: Progress | None = None,
) -> BuildSummary:
    """Builds a cache, or what is missing from it. Interrupted at any moment, a second call goes on where it was.

    Local workers are new processes that import the calling script: call this below `if __name__ == "__main__":`.

    Args:
        path: of the cache.
        manifest: of the dataset.
        spec: what to cache.
        options: where and how fast.
        progress: follows the build.

    Raises:
        CacheError: the path is not a cache, is in use by another build, or its disk is full.
        StaleCacheError: the cache was made from other samples or specs.
        WeightsError: weights of a stream are missing.
        BuildError: no workers.
        StreamError: blocks failed; all others are kept.
    """
    path = as_path(path)
    try:
        with sigterm_as_interrupt(), lock_cache(path):
            plan = plan_build(path, manifest, spec)
            with writing(str(path)):
                if plan.changes is not None:
                    adopt_changes(path, plan.changes)
                create_cache(path, plan.manifest, block_rows=plan.layout.block_rows)
            check_is_imported(path, plan.to_import)  # an import needs the cache to be there
            with writing(str(path)):
                _update_origins(path, plan, spec)
            summary = carry_out(path, plan, spec, options, progress=progress)
    except UnwritableCacheError:
        plan = plan_build(path, manifest, spec)
        if plan.missing or plan.to_import or plan.changes is None or plan.changes.is_new_manifest:
            raise
        return BuildSummary(0, 0.0, {})  # a finished cache is of use where it may only be read, too
    return summary if plan.changes is None else replace(summary, changes=plan.changes.lines)


def _update_origins(path: Path, plan: BuildPlan, spec: CacheSpec) -> None:
    for stream in spec.streams:
        if stream.name in plan.identities:
            update_origin(path, stream.name, spec=stream.model_dump(mode="json"), weights=stream_weights(stream))


def carry_out(
    path: Path,
    plan: BuildPlan,
    spec: CacheSpec,
    options: BuildOptions,
    *,
    progress: Progress | None,
) -> BuildSummary:
    """Does what a plan says. Call it under `lock_cache`.

    Raises:
        As `build_cache`.
    """
    if not plan.missing:
        return BuildSummary(0, 0.0, {})
    check_writable(path)
    job = BuildJob(
        cache=path.absolute(),
        spec=spec,
        digests={name: digest(identity) for name, identity in plan.identities.items()},
        device=options.device,
        one_thread=options.scheduler is not None or options.workers != 0,
        block_timeout_s=options.block_timeout_s,
        memory_bytes=options.memory_bytes,
        build=uuid.uuid4().hex,
    )
    with _workers(plan, spec, options) as workers:
        layouts = workers.open_streams(job, plan.new_streams) if plan.new_streams else []
        with writing(str(path)):
            for layout in layouts:
                add_stream(path, layout)
            if plan.augment is not None:
                for name in plan.pending:
                    add_views(path, name, spec.views, plan.augment)
        _check_free_space(path, plan)
        return _compute(workers, job, plan, progress)


class Workers(Protocol):
    """Processes, or this process, that compute blocks."""

    def open_streams(self, job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
        """Opens new streams and gives their layouts."""
        ...

    def compute(self, job: BuildJob, tasks: Iterator[BlockTask]) -> Iterator[BlockDone | BlockFailed]:
        """Results of all tasks, as they come."""
        ...


class ThisProcess:
    """Works without Dask in the process that builds."""

    def open_streams(self, job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
        """Layouts of new streams."""
        return describe_streams(job, names)

    def compute(self, job: BuildJob, tasks: Iterator[BlockTask]) -> Iterator[BlockDone | BlockFailed]:
        """Results of all tasks, in their order."""
        return (compute_block(job, task) for task in tasks)


@contextmanager
def _this_process() -> Iterator[Workers]:
    try:
        yield ThisProcess()
    finally:
        close_extractor()


def _workers(plan: BuildPlan, spec: CacheSpec, options: BuildOptions) -> AbstractContextManager[Workers]:
    if options.scheduler is None and options.workers == 0:
        return _this_process()
    from emofuse.build import cluster

    if options.scheduler is not None:
        return cluster.remote_workers(options.scheduler)
    count = options.workers
    if count is None:
        device = resolve_device(options.device, [stream for stream in spec.streams if plan.lacks(stream.name)])
        count = cluster.default_workers(cuda=device.startswith("cuda"))
    return cluster.local_workers(min(count, len(plan.missing)))


@dataclass
class _Tally:
    """What has been done so far, kept small whatever the size of the dataset."""

    rows: int = 0
    counts: dict[str, list[int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    failures: list[BlockFailed] = field(default_factory=list)
    written: int = 0

    def add(self, result: BlockDone | BlockFailed) -> None:
        if isinstance(result, BlockFailed):
            self.failures.append(result)
            return
        self.rows += result.rows
        self.written += result.written
        for stream, counts in result.counts.items():
            total = self.counts.setdefault(stream, [0] * len(Status))
            self.counts[stream] = [a + b for a, b in zip(total, counts, strict=True)]
        self.problem_count += len(result.problems)
        self.problems.extend(result.problems[: _KEPT_PROBLEMS - len(self.problems)])

    def named_counts(self) -> dict[str, dict[str, int]]:
        return {
            stream: {status.name.lower(): counts[status] for status in Status if counts[status]}
            for stream, counts in self.counts.items()
        }


def _compute(workers: Workers, job: BuildJob, plan: BuildPlan, progress: Progress | None) -> BuildSummary:
    tally = _Tally()
    files = FileRecord(plan.manifest, extracted_streams(job.cache))
    total = plan.rows
    started = time.perf_counter()

    def tell() -> None:
        if progress is not None:
            progress.update(BuildState(tally.rows, total, time.perf_counter() - started, tally.named_counts()))

    tell()
    try:
        for result in workers.compute(job, _while_hopeful(plan.tasks(), tally.failures)):
            tally.add(result)
            if isinstance(result, BlockDone) and result.seen is not None:
                files.add(result.seen)
            tell()
    finally:
        _keep_record(job.cache, files)
    if files.replaced:
        raise _take_back_replaced(job.cache, plan, files.replaced)
    if tally.failures:
        raise _failure(tally.failures, len(plan.missing))
    seconds = time.perf_counter() - started
    problems = tuple(sorted(tally.problems, key=lambda problem: (problem.row, problem.stream)))
    return BuildSummary(tally.rows, seconds, tally.named_counts(), problems, tally.problem_count, tally.written)


def _keep_record(path: Path, files: FileRecord) -> None:
    """Writes what the files were, also when a build ends before its time. If that fails it is known a little less."""
    known = files.manifest()
    if known is not None:
        with suppress(OSError, StoreError):
            known.write(manifest_path(path))


def _take_back_replaced(path: Path, plan: BuildPlan, rows: list[int]) -> StaleCacheError:
    """Takes back what was extracted from images that were replaced while others of their features were extracted."""
    blocks = sorted({row // plan.layout.block_rows for row in rows})
    for name in extracted_streams(path):
        layout = read_stream_layout(path, name)
        discard_blocks(path, name, product(blocks, range(layout.views if layout else 1)))
    ids = plan.manifest.table["sample_id"]
    named = ", ".join(ids[row] for row in rows[:_NAMED]) + (", ..." if len(rows) > _NAMED else "")
    return StaleCacheError(
        f"{path}: images replaced after some of their features had been extracted: {len(rows)} ({named}). "
        f"Their blocks were taken back ({len(blocks)}): run the same build again."
    )


def _while_hopeful(tasks: Iterable[BlockTask], failures: list[BlockFailed]) -> Iterator[BlockTask]:
    """The tasks, until too many blocks have failed; those in work are still finished and kept."""
    for task in tasks:
        if len(failures) >= _MAX_FAILED_BLOCKS or any(failed.is_hopeless for failed in failures):
            return
        yield task


def _failure(failures: list[BlockFailed], blocks: int) -> StreamError | CacheError:
    kind: type[StreamError | CacheError] = StreamError
    if all(failed.in_cache for failed in failures):
        kind = UnwritableCacheError if any(failed.is_hopeless for failed in failures) else CacheError
    listed = " | ".join(f"{failed.rows}: {failed.reason}" for failed in failures)
    is_given_up = len(failures) >= _MAX_FAILED_BLOCKS or kind is UnwritableCacheError
    stopped = ", then it was given up" if is_given_up else ""
    error = kind(
        f"{len(failures)} of {blocks} blocks failed{stopped}: {listed}. "
        "Finished blocks are kept; run the same build again when the cause is removed."
    )
    for failed in failures:
        if failed.details:
            error.add_note(f"{failed.rows}, in the worker:\n{failed.details}")
    return error


def _check_free_space(path: Path, plan: BuildPlan) -> None:
    """Raises before hours of work if the disk cannot hold what they will give; a store does not tell its size."""
    if is_remote(path):
        return
    needed = 0
    for name, lacking in plan.pending.items():
        stream = read_stream(path, plan.layout, name)
        if stream is not None:
            needed += int(lacking.sum()) * stream.layout.block_bytes(plan.layout.block_rows)
    free = shutil.disk_usage(path).free
    if needed > free:
        raise CacheError(
            f"{path}: the missing blocks take {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free on this disk. "
            "Make room, or build into a path on another disk."
        )


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """While a build runs, SIGTERM ends it as Ctrl-C does: workers first, then this process."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one does not wait for anything
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
