"""What runs in a worker: one block of rows, all its missing streams in one pass, written by this process alone.

The extractor is opened once per process and serves block after block. A worker runs one block at a time.
"""

from __future__ import annotations

import atexit
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emofuse.cache.layout import StreamLayout
from emofuse.cache.writer import write_block
from emofuse.errors import BuildError, CacheError
from emofuse.specs import CacheSpec, CustomStreamSpec, StreamSpec, digest
from emofuse.status import Status
from emofuse.streams import augment_identity, stream_identity, stream_weights
from emofuse.streams.extractor import Extraction, Extractor

# Read by native libraries when they are loaded, so they must be set before a worker's interpreter starts. One worker a
# core, one thread a worker: more threads only fight for the same cores.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "GLOG_minloglevel": "2",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


@dataclass(frozen=True)
class BuildJob:
    """What is the same for all blocks of a build.

    Attributes:
        cache: absolute path of the cache.
        spec: what is cached.
        digests: stream -> digest of its identity on the machine that planned the build.
        device: cpu, cuda, cuda:N or auto.
        one_thread: native libraries get one thread each, because many workers share the machine.
    """

    cache: Path
    spec: CacheSpec
    digests: Mapping[str, str]
    device: str
    one_thread: bool

    def streams(self, names: Sequence[str]) -> tuple[StreamSpec, ...]:
        """Specs of some of the streams."""
        return tuple(stream for stream in self.spec.streams if stream.name in names)


@dataclass(frozen=True)
class BlockTask:
    """One block to compute.

    Attributes:
        block: its index.
        start: index of its first row.
        streams: names of the streams that it misses.
        paths: of its pictures, None for a bad row of the manifest.
        sample_ids: of its rows.
        views: that these streams miss.
        bad_rows: row of the block -> what the manifest holds against it, for every row without a path.
    """

    block: int
    start: int
    streams: tuple[str, ...]
    paths: tuple[Path | None, ...]
    sample_ids: tuple[str, ...] = ()
    views: tuple[int, ...] = (0,)
    bad_rows: Mapping[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"rows {self.start}-{self.start + len(self.paths) - 1} (block {self.block})"


@dataclass(frozen=True)
class Problem:
    """Why one row has no features of one stream (or of any: `stream` is "" then)."""

    row: int
    stream: str
    reason: str


@dataclass(frozen=True)
class BlockDone:
    """A block that was computed and written.

    Attributes:
        rows: how many, once for each view.
        counts: stream -> rows of each status of this block, (len(Status),) int.
        problems: in row order.
    """

    rows: int
    counts: Mapping[str, tuple[int, ...]]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class BlockFailed:
    """A block that could not be computed or written.

    Attributes:
        rows: which, in words.
        reason: one line.
        details: the worker's traceback, or "".
        in_cache: the cache was the cause, not a stream.
    """

    rows: str
    reason: str
    details: str = ""
    in_cache: bool = False


def compute_block(job: BuildJob, task: BlockTask) -> BlockDone | BlockFailed:
    """Extracts what a block misses and writes it. What goes wrong is returned: it must not cost the other blocks."""
    try:
        return _compute_block(job, task)
    except Exception as error:  # noqa: BLE001 - any fault of foreign code; it is reported with its rows and traceback
        reason = f"{type(error).__name__}: {error}"
        return BlockFailed(str(task), reason, traceback.format_exc(), in_cache=isinstance(error, CacheError))


def describe_streams(job: BuildJob, names: Sequence[str]) -> list[StreamLayout]:
    """Layouts of new streams. Asked of a worker, since only the opened stream knows its width.

    Raises:
        EmofuseError: a stream cannot be opened.
    """
    with _lock:
        opened = _open_extractor(job, tuple(names)).streams
        return [_describe(job, spec, opened[spec.name]) for spec in job.streams(names)]


def close_extractor() -> None:
    """Releases this process's extractor, if it has one."""
    with _lock:
        for extractor in _opened.values():
            extractor.close()
        _opened.clear()


def resolve_device(device: str, streams: Sequence[StreamSpec]) -> str:
    """`auto` becomes cuda if there is one and a stream could use it. Streams without weights do not load torch.

    Raises:
        BuildError: cuda was asked for and there is none.
    """
    if device == "cpu" or not any(_may_use_torch(spec) for spec in streams):
        return "cpu"
    import torch

    found = torch.cuda.is_available()
    if device.startswith("cuda") and not found:
        raise BuildError(f"{platform.node()}: device {device} was asked for, and torch finds no GPU. Use --device cpu.")
    if device == "auto":
        return "cuda" if found else "cpu"
    return device


def _may_use_torch(spec: StreamSpec) -> bool:
    return isinstance(spec, CustomStreamSpec) or stream_weights(spec) is not None


def dask_setup(worker: Any) -> None:  # noqa: ARG001 - the signature is Dask's
    """Dask calls this when a worker of a local cluster starts: Ctrl-C is the business of the process that builds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# One extractor at most, by what it was opened for: blocks that miss other streams need another one, and the plan
# puts blocks that miss the same streams side by side.
_opened: dict[str, Extractor] = {}
_lock = threading.RLock()
atexit.register(close_extractor)


def _compute_block(job: BuildJob, task: BlockTask) -> BlockDone:
    with _lock:
        extractor = _open_extractor(job, task.streams)
        found = extractor.extract_views(task.paths, task.sample_ids, task.views)
        needs_face = {name: stream.needs_face for name, stream in extractor.streams.items()}
    for view, extraction in found.items():
        for name, rows in extraction.rows.items():
            write_block(
                job.cache,
                name,
                task.block,
                features=rows.features,
                status=rows.status,
                flags=rows.flags,
                reasons=_reasons(task, name, extraction, needs_face=needs_face[name]),
                view=view,
            )
    together = {name: np.concatenate([found[view].rows[name].status for view in task.views]) for name in task.streams}
    counts = {name: _count(status) for name, status in together.items()}
    return BlockDone(len(task.paths) * len(task.views), counts, tuple(_problems(task, found)))


def _reasons(task: BlockTask, stream: str, extraction: Extraction, *, needs_face: bool) -> list[str]:
    """Why each row of a block has no features of a stream; "" for those that have."""
    nothing = "no face found" if needs_face else "nothing detected"
    reasons = [nothing if code == Status.NO_DETECTION else "" for code in extraction.rows[stream].status.tolist()]
    for row, about, reason in extraction.problems:
        if about in {"", stream}:
            reasons[row] = reason
    for row, problem in task.bad_rows.items():
        reasons[row] = problem
    return reasons


def _problems(task: BlockTask, found: Mapping[int, Extraction]) -> Iterator[Problem]:
    """Of all views; a picture that cannot be read is said once."""
    for view, extraction in found.items():
        for row, stream, reason in extraction.problems:
            if stream or view == task.views[0]:
                yield Problem(task.start + row, stream, f"{reason} (view {view})" if view else reason)


def _open_extractor(job: BuildJob, names: tuple[str, ...]) -> Extractor:
    # By digest, not by spec alone: a worker may outlive a build, and a file of weights may change behind its path.
    key = digest({"streams": {name: job.digests[name] for name in names}, "device": job.device})
    if key not in _opened:
        close_extractor()
        streams = job.streams(names)
        _check_same_machine(job, streams)
        _opened[key] = Extractor(streams, job.spec, device=resolve_device(job.device, streams))
        if job.one_thread:
            _cap_native_threads()
    return _opened[key]


def _cap_native_threads() -> None:
    """One thread for the libraries that the opened streams have loaded; `WORKER_ENVIRONMENT` caps the others."""
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _check_same_machine(job: BuildJob, streams: Sequence[StreamSpec]) -> None:
    """A worker elsewhere may have other weights or libraries; its features would not be those of the plan."""
    for spec in streams:
        if digest(stream_identity(spec, job.spec)) != job.digests[spec.name]:
            raise BuildError(
                f"worker on {platform.node()}: {spec.name} would differ from what the planning machine makes. "
                "Give all workers the same emofuse, libraries and weights."
            )


def _describe(job: BuildJob, spec: StreamSpec, stream: Any) -> StreamLayout:
    return StreamLayout(
        name=spec.name,
        kind=spec.kind,
        dim=stream.dim,
        dtype=np.dtype(spec.dtype),
        identity=stream_identity(spec, job.spec),
        weights=stream_weights(spec),
        flag_names=tuple(stream.flag_names),
        columns=tuple(stream.columns),
        spec=spec.model_dump(mode="json"),
        decode=job.spec.decode.model_dump(mode="json"),
        face=job.spec.face.model_dump(mode="json") if spec.needs_face else None,
        views=job.spec.views,
        augment=augment_identity(job.spec),
    )


def _count(status: Any) -> tuple[int, ...]:
    return tuple(np.bincount(status, minlength=len(Status)).tolist())
