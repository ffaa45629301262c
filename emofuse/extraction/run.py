"""The steps of a build: the plan, the workers, the blocks, and the summary."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from emofuse.cache.attempts import writing
from emofuse.cache.cached_stream import read_stream
from emofuse.cache.metadata import read_cache_layout, read_stream_layout
from emofuse.cache.runtimes import record_runtimes
from emofuse.cache.size import bytes_of_blocks, free_bytes
from emofuse.cache.stale import check_is_imported
from emofuse.cache.structure import (
    add_stream,
    add_views,
    check_writable,
    create_cache,
    lock_cache,
    update_origin,
)
from emofuse.cache.writer import discard_blocks
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError, StreamError, UnwritableCacheError
from emofuse.extraction.changes import adopt_changes
from emofuse.extraction.execution import Workers, open_workers
from emofuse.extraction.face_rows import with_face_rows
from emofuse.extraction.options import BuildOptions
from emofuse.extraction.plan import BuildPlan, plan_build
from emofuse.extraction.record import FileRecord
from emofuse.extraction.tally import BuildSummary, Tally
from emofuse.extraction.tasks import BlockDone, BlockTask, BuildJob, Problem
from emofuse.machine.signals import sigterm_as_interrupt
from emofuse.progress import BuildState, Progress
from emofuse.specs import CacheSpec, digest
from emofuse.specs.nouns import noun_of
from emofuse.specs.plugins import recorded
from emofuse.status import Status
from emofuse.stores import as_path
from emofuse.streams import stream_weights, with_located_weights


def build_cache(
    path: str | Path,
    manifest: Manifest,
    spec: CacheSpec,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
) -> BuildSummary:
    """Build a cache, or the missing part of one. After an interruption, a second call continues.

    Args:
        path: the path of the cache.
        manifest: the manifest of the dataset. With `face.which: all`, each face of a picture gets a row (see
            `emofuse.extraction.face_rows`).
        spec: the spec of the cache.
        options: where and how fast the build runs; None means `BuildOptions()`.
        progress: receives the state of the build after each block.

    Returns:
        A summary of what this call computed.

    Raises:
        CacheError: the path is not a cache, another build uses it, or its disk is full.
        StaleCacheError: the cache was made from other samples or specs.
        WeightsError: weights of a stream are missing.
        BuildError: no workers are available.
        StreamError: blocks failed; all others are kept.
    """
    path = as_path(path)
    options = options or BuildOptions()
    spec = with_located_weights(spec)  # so that the cache records them

    def build(beside: Path, pictures: Manifest, of_faces: CacheSpec) -> None:
        build_cache(beside, pictures, of_faces, options, progress)

    manifest = with_face_rows(path, manifest, spec, build)
    try:
        with sigterm_as_interrupt(), lock_cache(path):
            plan = plan_build(path, manifest, spec, keep_gone=options.keep_gone)
            with writing(str(path)):
                if plan.changes is not None:
                    adopt_changes(path, plan.changes)
                create_cache(path, plan.manifest, block_rows=plan.layout.block_rows)
            check_is_imported(path, plan.to_import)  # after the cache was created, because an import needs it
            with writing(str(path)):
                _update_origins(path, plan, spec)
            summary = carry_out(path, plan, spec, options, progress=progress)
    except UnwritableCacheError:
        plan = plan_build(path, manifest, spec, keep_gone=options.keep_gone)
        if plan.missing or plan.to_import or plan.changes is None or plan.changes.is_new_but_for_notes:
            raise
        return BuildSummary(0, 0.0, {})  # a finished cache is also used where it is read-only
    return summary if plan.changes is None else replace(summary, changes=plan.changes.lines)


def _update_origins(path: Path, plan: BuildPlan, spec: CacheSpec) -> None:
    for stream in spec.streams:
        if stream.name in plan.identities:
            update_origin(path, stream.name, spec=recorded(stream), weights=stream_weights(stream))
            record_runtimes(path, stream.name)  # what a build has noted that was killed


def carry_out(
    path: Path,
    plan: BuildPlan,
    spec: CacheSpec,
    options: BuildOptions,
    *,
    progress: Progress | None,
) -> BuildSummary:
    """Carry out a plan. Call it under `lock_cache`.

    Raises:
        EmofuseError: for the reasons given at `build_cache`.
    """
    if not plan.missing:
        return BuildSummary(0, 0.0, {})
    check_writable(path)
    job = BuildJob(
        cache=path.absolute(),
        spec=spec,
        digests={name: digest(identity) for name, identity in plan.identities.items()},
        device=options.device,
        one_thread=not options.in_this_process,
        block_timeout_s=options.block_timeout_s,
        memory_bytes=options.memory_bytes,
        runtime=options.runtime,
        build=uuid.uuid4().hex,
        tasks=len(plan.missing),
    )
    with open_workers(plan, spec, options) as workers:
        layouts = workers.open_streams(job, plan.new_streams) if plan.new_streams else []
        with writing(str(path)):
            for layout in layouts:
                add_stream(path, layout)
            if plan.augment is not None:
                for name in plan.pending:
                    add_views(path, name, spec.views, plan.augment)
        _check_free_space(path, plan)
        return _compute(workers, job, plan, progress)


def _compute(workers: Workers, job: BuildJob, plan: BuildPlan, progress: Progress | None) -> BuildSummary:
    total = plan.rows
    noun = noun_of(job.spec).many
    tally = Tally(planned=total, has_worked=lambda stream: _has_worked(job.cache, stream), noun=noun)
    files = FileRecord(job.cache, plan)
    recorded_runtimes: set[tuple[str, tuple[str, ...]]] = set()
    started = time.perf_counter()

    def tell() -> None:
        if progress is not None:
            progress.update(BuildState(tally.rows, total, time.perf_counter() - started, tally.named_counts(), noun))

    tell()
    try:
        for result in workers.compute(job, _while_hopeful(plan.tasks(), tally)):
            tally.add(result)
            if isinstance(result, BlockDone):
                for new in result.runtimes.items() - recorded_runtimes:
                    record_runtimes(job.cache, *new)
                    recorded_runtimes.add(new)
                if result.seen is not None:
                    files.add(result.seen)
            tell()
    finally:
        files.keep()  # also when the build is interrupted
    files.take_back_replaced()
    broken = tally.broken_streams()
    if broken and plan.retried is None:
        for name in broken:
            blocks = sorted({row // plan.layout.block_rows for row in tally.refused_rows(name)})
            discard_blocks(job.cache, name, product(blocks, range(job.spec.views)))
    if broken:
        error = _broken(broken)
        if tally.failures:
            error.add_note(str(tally.failure(len(plan.missing))))
        raise error
    if tally.failures:
        raise tally.failure(len(plan.missing))
    return tally.summary(time.perf_counter() - started)


def _has_worked(path: Path, stream: str) -> bool:
    cached = read_stream(path, read_cache_layout(path), stream)
    return cached is not None and bool(np.isin(cached.status, (Status.OK, Status.NO_DETECTION)).any())


def _broken(streams: Mapping[str, tuple[int, Problem]]) -> StreamError:
    described = "; ".join(
        f"stream {name!r} failed on all {rows} readable pictures that it was given; first: row {first.row}: "
        f"{first.reason}"
        for name, (rows, first) in streams.items()
    )
    return StreamError(
        f"{described}. Its rows count as not done, those of other streams are kept; run the same build again when the "
        "cause is removed."
    )


def _while_hopeful(tasks: Iterable[BlockTask], tally: Tally) -> Iterator[BlockTask]:
    """Yield the tasks until too many blocks have failed; blocks that are being computed are finished and kept."""
    for task in tasks:
        if tally.is_hopeless:
            return
        yield task


def _check_free_space(path: Path, plan: BuildPlan) -> None:
    """Raise before the work begins if the disk cannot hold its results; the size of a store is unknown."""
    free = free_bytes(path)
    if free is None:
        return
    layouts = [layout for name in plan.pending if (layout := read_stream_layout(path, name)) is not None]
    blocks = {name: int(lacking.sum()) for name, lacking in plan.pending.items()}
    needed = bytes_of_blocks(layouts, plan.layout.block_rows, blocks)
    if needed > free:
        raise CacheError(
            f"{path}: the missing blocks take {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free on this disk. "
            "Make room, or build into a path on another disk."
        )
