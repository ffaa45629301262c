"""The data that a build sends to its workers and receives from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from emofuse.datasets.sources import Source
from emofuse.extraction.seen import SeenFiles
from emofuse.specs import CacheSpec, StreamSpec
from emofuse.streams.runtimes import Runtime

_TIMEOUT_S = 60.0
_TIMEOUT_PER_PICTURE_S = 4.0
_PICTURES_PER_SOUND = 4


@dataclass(frozen=True)
class BuildJob:
    """The settings that all blocks of a build share.

    Attributes:
        cache: the absolute path of the cache.
        spec: the spec of the cache.
        digests: stream -> digest of its identity on the machine that planned the build.
        device: cpu, cuda, cuda:N or auto.
        one_thread: whether native libraries get one thread each, because many workers share the machine.
        block_timeout_s: the time that a block may take before its rows are tried one by one; None means
            `default_timeout_s`.
        memory_bytes: the memory that an extraction process may take; None leaves the limit to the machine.
        runtime: the runtime of the networks.
        build: the id of the build; two builds on one cluster share no process.
        tasks: the number of tasks of the build; 0 if it is unknown.
    """

    cache: Path
    spec: CacheSpec
    digests: Mapping[str, str]
    device: str
    one_thread: bool
    block_timeout_s: float | None = None
    memory_bytes: int | None = None
    build: str = ""
    runtime: Runtime = "auto"
    tasks: int = 0

    @property
    def pictures_of_row(self) -> int:
        """The number of pictures that a row counts for in limits of time: the frames of a clip, and more for its sound.

        A network that hears it may take seconds on a slow core (30 s of sound, of a large encoder).
        """
        frames = 1 if self.spec.clip is None else self.spec.clip.frames
        is_heard = any(stream.uses_gpu and "audio" in stream.needs for stream in self.spec.streams)
        return frames + (_PICTURES_PER_SOUND if is_heard else 0)

    def streams(self, names: Sequence[str]) -> tuple[StreamSpec, ...]:
        """Return the specs of some streams."""
        return tuple(stream for stream in self.spec.streams if stream.name in names)


@dataclass(frozen=True)
class BlockTask:
    """One block to compute.

    Attributes:
        block: the index of the block.
        start: the index of its first row.
        streams: the names of the streams that lack it.
        sources: the sources of its rows, None for a bad row of the manifest.
        sample_ids: the ids of its rows.
        views: the views that these streams lack.
        bad_rows: row of the block -> its problem in the manifest, for every row without a source.
        deadly_rows: row of the block -> how it ended the process that extracted it; the row is FAILED without a try.
        retried: (stream, view) -> row of the block -> cached status and reason. These rows are tried first, and nothing
            is written if their results are the same. None computes the whole block.
        of_streams: the streams of the whole task, if another kind of worker computes a part of it; otherwise ().
    """

    block: int
    start: int
    streams: tuple[str, ...]
    sources: tuple[Source | None, ...]
    sample_ids: tuple[str, ...] = ()
    views: tuple[int, ...] = (0,)
    bad_rows: Mapping[int, str] = field(default_factory=dict)
    deadly_rows: Mapping[int, str] = field(default_factory=dict)
    retried: Mapping[tuple[str, int], Mapping[int, tuple[int, str]]] | None = None
    of_streams: tuple[str, ...] = ()

    def for_streams(self, names: Sequence[str]) -> BlockTask:
        """Return the same task for some of its streams."""
        retried = self.retried
        if retried is not None:
            retried = {(stream, view): rows for (stream, view), rows in retried.items() if stream in names}
        return replace(self, streams=tuple(names), retried=retried)

    def __str__(self) -> str:
        return f"rows {self.start}-{self.start + len(self.sources) - 1} (block {self.block})"


@dataclass(frozen=True)
class Problem:
    """The reason why one row has no features of a stream; `stream` is "" if it has none of any stream."""

    row: int
    stream: str
    reason: str


@dataclass(frozen=True)
class BlockDone:
    """The result of a block that was computed.

    Attributes:
        rows: the number of its rows, counted once for each view.
        counts: stream -> number of its rows of each status, (len(Status),).
        problems: the problems of its rows, in row order.
        written: whether the block was written; it is not if all retried rows have the same results as before.
        seen: the files that were read; None if they are not recorded.
        runtimes: stream -> what computed its networks; streams without any are left out.
        notes: why networks ran in PyTorch although `auto` would compile them, one line each.
    """

    rows: int
    counts: Mapping[str, tuple[int, ...]]
    problems: tuple[Problem, ...]
    written: bool = True
    seen: SeenFiles | None = None
    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence[BlockDone]) -> BlockDone:
        """Join the results of a block that was computed in parts, each for other streams.

        Every part reports an image that cannot be read; the joined result reports it once.
        """
        problems = {problem for part in parts for problem in part.problems}
        seen = [part.seen for part in parts if part.seen is not None]
        return cls(
            rows=parts[0].rows,
            counts={stream: counts for part in parts for stream, counts in part.counts.items()},
            problems=tuple(sorted(problems, key=lambda problem: (problem.row, problem.stream))),
            written=any(part.written for part in parts),
            seen=SeenFiles.joined(seen) if seen else None,
            runtimes={stream: runtimes for part in parts for stream, runtimes in part.runtimes.items()},
            notes=tuple(note for part in parts for note in part.notes),
        )


@dataclass(frozen=True)
class BlockFailed:
    """The result of a block that could not be computed or written.

    Attributes:
        rows: a description of its rows.
        reason: the reason, one line.
        details: the worker's traceback, or "".
        in_cache: whether the cache is the cause, not a stream.
        is_hopeless: whether all other blocks would fail too, because the disk is full.
    """

    rows: str
    reason: str
    details: str = ""
    in_cache: bool = False
    is_hopeless: bool = False


def default_timeout_s(pictures: int) -> float:
    """Return the time that this number of images and views may take: many times the need of a slow and busy core."""
    return _TIMEOUT_S + _TIMEOUT_PER_PICTURE_S * pictures
