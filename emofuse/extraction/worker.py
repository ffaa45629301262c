"""The work of an extraction process: it extracts a block for all missing streams in one pass and writes it.

The extractor is opened once in a process and serves one block after another.
"""

from __future__ import annotations

import atexit
import platform
import sys
import threading
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emofuse.cache.layout import StreamLayout
from emofuse.cache.runtimes import note_runtimes
from emofuse.cache.writer import read_layouts_once, write_block
from emofuse.errors import BuildError, CacheError, UnwritableCacheError
from emofuse.extraction.seen import SeenFiles
from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob, Problem
from emofuse.machine.devices import resolve_device
from emofuse.specs import StreamSpec, digest
from emofuse.specs.plugins import recorded
from emofuse.specs.streams import looks_at_faces
from emofuse.status import Status
from emofuse.streams import augment_identity, may_use_gpu, stream_identity, stream_weights
from emofuse.streams.block_extraction import Extraction
from emofuse.streams.extractor import Extractor
from emofuse.streams.over_time import StoredStream


def compute_block(job: BuildJob, task: BlockTask) -> BlockDone | BlockFailed:
    """Extract what a block lacks and write it. Errors are returned and not raised: other blocks are still computed."""
    try:
        return _with_runtimes(job, task, _compute_block(job, task))
    except Exception as error:  # noqa: BLE001 - foreign code raises anything; it is reported with rows and traceback
        reason = f"{type(error).__name__}: {error}"
        return BlockFailed(
            str(task),
            reason,
            traceback.format_exc(),
            in_cache=isinstance(error, CacheError),
            is_hopeless=isinstance(error, UnwritableCacheError),
        )


def describe_streams(job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
    """Return the layouts of new streams. A worker does it, because only the open stream knows its shape.

    Raises:
        EmofuseError: a stream cannot be opened.
    """
    with _lock:
        opened = _open_extractor(job, tuple(names)).stored
        return [_describe(job, spec, opened[spec.name]) for spec in job.streams(names)]


def open_streams(job: BuildJob, names: Sequence[str]) -> None:
    """Open the extractor of some streams, so that the time limit of a block does not include this.

    Raises:
        EmofuseError: a stream cannot be opened.
    """
    with _lock:
        _open_extractor(job, tuple(names))


def try_row(job: BuildJob, task: BlockTask, row: int) -> None:
    """Extract one row of a block as `compute_block` would, and discard the result."""
    with _lock:
        _open_extractor(job, task.streams).extract_views([task.sources[row]], [task.sample_ids[row]], task.views)


def close_extractor() -> None:
    """Release the extractor of this process, if it has one."""
    with _lock:
        for opened in _opened:
            opened.extractor.close()
        _opened.clear()


def device_for_streams(device: str, streams: Sequence[StreamSpec]) -> str:
    """Return the device that streams run on: the CPU if none of them can use a GPU, without importing torch.

    Raises:
        DeviceError: a stream can use the device that was asked for, and this machine does not have it.
    """
    return resolve_device(device) if any(may_use_gpu(spec) for spec in streams) else "cpu"


@dataclass(frozen=True)
class _Opened:
    """An open extractor, the settings that it was opened with, and the digests of its streams."""

    where: tuple[object, ...]
    digests: Mapping[str, str]
    extractor: Extractor


# At most one extractor: blocks that lack other streams need another one, and in a plan the blocks that lack the same
# streams follow each other.
_opened: list[_Opened] = []
_lock = threading.RLock()
atexit.register(close_extractor)


def _compute_block(job: BuildJob, task: BlockTask) -> BlockDone:
    if task.retried is not None:
        tried = {row for rows in task.retried.values() for row in rows}
        extractions = _extract(job, task, tried)
        results = {key: _row_results(job, task, extractions, key, rows) for key, rows in task.retried.items()}
        if all(results[key] == dict(rows) for key, rows in task.retried.items()):
            return _retried(task, results, written=False)
    seen = SeenFiles.of_block(task.start, task.sources, task.streams)
    extractions = _extract(job, task, range(len(task.sources)), seen)
    runtimes = _open_extractor(job, task.streams).runtimes
    for view, extraction in extractions.items():
        for name, rows in extraction.rows.items():
            layouts = read_layouts_once(job.cache, name, job.build)
            note_runtimes(job.cache, layouts[1], runtimes.get(name, ()), job.build)
            write_block(
                job.cache,
                name,
                task.block,
                features=rows.features,
                status=rows.status,
                flags=rows.flags,
                mask=rows.mask,
                layouts=layouts,
                reasons=_reasons(job, task, name, extraction),
                view=view,
            )
    if task.retried is not None:
        return replace(_retried(task, results, written=True), seen=seen)
    together = {
        name: np.concatenate([extractions[view].rows[name].status for view in task.views]) for name in task.streams
    }
    counts = {name: _count(status) for name, status in together.items()}
    return BlockDone(len(task.sources) * len(task.views), counts, tuple(_problems(task, extractions)), seen=seen)


def _with_runtimes(job: BuildJob, task: BlockTask, done: BlockDone) -> BlockDone:
    """Return the result of a block that was written with what computed its networks."""
    if not done.written:
        return done
    with _lock:
        extractor = _open_extractor(job, task.streams)
        return replace(done, runtimes=extractor.runtimes, notes=extractor.runtime_notes)


def _extract(
    job: BuildJob, task: BlockTask, rows: Collection[int], seen: SeenFiles | None = None
) -> dict[int, Extraction]:
    """Return view -> extraction of some rows of a block. Deadly rows are not extracted but marked as FAILED."""
    opened = (each if row in rows and row not in task.deadly_rows else None for row, each in enumerate(task.sources))
    with _lock:
        extractor = _open_extractor(job, task.streams)
        on_read = None if seen is None else seen.add
        extractions = extractor.extract_views(tuple(opened), task.sample_ids, task.views, on_read)
    for extraction in extractions.values():
        for name, of_stream in extraction.rows.items():
            of_stream.status[list(task.deadly_rows)] = Status.FAILED
            extraction.problems.extend((row, name, reason) for row, reason in task.deadly_rows.items())
        extraction.problems.sort()
    return extractions


def _retried(
    task: BlockTask, results: Mapping[tuple[str, int], Mapping[int, tuple[int, str]]], *, written: bool
) -> BlockDone:
    """Return the result of a block of which rows were tried again. It counts these rows alone."""
    tried = [(stream, row, *result) for (stream, _), rows in results.items() for row, result in rows.items()]
    counts = {name: _count([code for stream, _, code, _ in tried if stream == name]) for name in task.streams}
    problems = {
        Problem(task.start + row, "" if code == Status.UNREADABLE else stream, reason)
        for stream, row, code, reason in tried
        if code in {Status.UNREADABLE, Status.FAILED}
    }
    ordered = sorted(problems, key=lambda problem: (problem.row, problem.stream))
    return BlockDone(sum(map(len, results.values())), counts, tuple(ordered), written)


def _row_results(
    job: BuildJob, task: BlockTask, extractions: Mapping[int, Extraction], key: tuple[str, int], rows: Iterable[int]
) -> dict[int, tuple[int, str]]:
    """Return row -> status and reason of some rows of one stream and view."""
    stream, view = key
    reasons = _reasons(job, task, stream, extractions[view])
    return {row: (int(extractions[view].rows[stream].status[row]), reasons[row]) for row in rows}


def _reasons(job: BuildJob, task: BlockTask, stream: str, extraction: Extraction) -> list[str]:
    """Return why each row of a block has no features of a stream; "" for rows that have."""
    nothing = "no face found" if looks_at_faces(job.streams([stream])[0].needs) else "nothing detected"
    reasons = [nothing if code == Status.NO_DETECTION else "" for code in extraction.rows[stream].status.tolist()]
    for row, about, reason in extraction.problems:
        if about in {"", stream}:
            reasons[row] = reason
    for row, problem in task.bad_rows.items():
        reasons[row] = problem
    return reasons


def _problems(task: BlockTask, extractions: Mapping[int, Extraction]) -> Iterator[Problem]:
    """Yield the problems of all views. An image that cannot be read is reported once."""
    for view, extraction in extractions.items():
        for row, stream, reason in extraction.problems:
            if stream or view == task.views[0]:
                yield Problem(task.start + row, stream, f"{reason} (view {view})" if view else reason)


def _open_extractor(job: BuildJob, names: tuple[str, ...]) -> Extractor:
    """Return an extractor of some streams: of the open ones if these are among them, otherwise they are opened."""
    # By digest and not by spec: a worker may serve several builds, and the file of weights at a path may change.
    digests = {name: job.digests[name] for name in names}
    where = (job.device, job.runtime, job.one_thread, digest(job.spec.model_dump(mode="json", exclude={"streams"})))
    for opened in _opened:
        if opened.where == where and digests.items() <= opened.digests.items():
            return opened.extractor if digests == opened.digests else opened.extractor.of_streams(names)
    close_extractor()
    streams = job.streams(names)
    _check_same_machine(job, streams)
    extractor = Extractor(
        streams,
        job.spec,
        device=device_for_streams(job.device, streams),
        runtime=job.runtime,
        threads=1 if job.one_thread else None,
    )
    _opened.append(_Opened(where, digests, extractor))
    if job.one_thread:
        cap_native_threads()
    return extractor


def cap_native_threads() -> None:
    """Limit the libraries that the open streams have loaded to one thread; `ahead.ONE_THREAD` limits the others."""
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _check_same_machine(job: BuildJob, streams: Sequence[StreamSpec]) -> None:
    """Raise if this machine has other weights or libraries than the planning one: its features would differ."""
    for spec in streams:
        if digest(stream_identity(spec, job.spec)) != job.digests[spec.name]:
            raise BuildError(
                f"worker on {platform.node()}: {spec.name} would differ from what the planning machine makes. "
                "Give all workers the same emofuse, libraries and weights."
            )


def _describe(job: BuildJob, spec: StreamSpec, stream: StoredStream) -> StreamLayout:
    return StreamLayout(
        name=spec.name,
        kind=spec.kind,
        shape=stream.shape,
        dimensions=stream.dimensions,
        dtype=np.dtype(spec.dtype),
        identity=stream_identity(spec, job.spec),
        weights=stream_weights(spec),
        flag_names=stream.flag_names,
        columns=stream.columns,
        spec=recorded(spec),
        decode=job.spec.decode.model_dump(mode="json"),
        face=job.spec.face.model_dump(mode="json") if looks_at_faces(spec.needs) else None,
        views=job.spec.views,
        augment=augment_identity(job.spec),
    )


def _count(status: Any) -> tuple[int, ...]:
    return tuple(np.bincount(status, minlength=len(Status)).tolist())
