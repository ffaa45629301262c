"""What a build hands to its workers and gets back: plain data that every process can import in no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emofuse.extraction.seen import SeenFiles
from emofuse.specs import CacheSpec, StreamSpec

_TIMEOUT_S = 60.0
_TIMEOUT_PER_PICTURE_S = 4.0


@dataclass(frozen=True)
class BuildJob:
    """What is the same for all blocks of a build.

    Attributes:
        cache: absolute path of the cache.
        spec: what is cached.
        digests: stream -> digest of its identity on the machine that planned the build.
        device: cpu, cuda, cuda:N or auto.
        one_thread: native libraries get one thread each, because many workers share the machine.
        block_timeout_s: that a block may take before its rows are tried one by one; None is `default_timeout_s`.
        memory_bytes: that an extraction process may take before it is ended; None leaves that to the machine.
        build: of which build it is; two builds on one cluster share no process.
    """

    cache: Path
    spec: CacheSpec
    digests: Mapping[str, str]
    device: str
    one_thread: bool
    block_timeout_s: float | None = None
    memory_bytes: int | None = None
    build: str = ""

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
        deadly_rows: row of the block -> what it did to the process that extracted it: it is FAILED and not tried again.
        retried: (stream, view) -> row of the block -> status and reason as cached. These rows are tried first: if they
            fare as before, nothing is written. None computes the block at once.
        of_streams: streams of the whole task where this is a part of it that another kind of worker does not compute;
            () for a whole one.
    """

    block: int
    start: int
    streams: tuple[str, ...]
    paths: tuple[Path | None, ...]
    sample_ids: tuple[str, ...] = ()
    views: tuple[int, ...] = (0,)
    bad_rows: Mapping[int, str] = field(default_factory=dict)
    deadly_rows: Mapping[int, str] = field(default_factory=dict)
    retried: Mapping[tuple[str, int], Mapping[int, tuple[int, str]]] | None = None
    of_streams: tuple[str, ...] = ()

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
        written: whether it was; a block of which all retried rows fared as before was not.
        seen: the files that it was extracted from; None where nobody looked.
    """

    rows: int
    counts: Mapping[str, tuple[int, ...]]
    problems: tuple[Problem, ...]
    written: bool = True
    seen: SeenFiles | None = None


@dataclass(frozen=True)
class BlockFailed:
    """A block that could not be computed or written.

    Attributes:
        rows: which, in words.
        reason: one line.
        details: the worker's traceback, or "".
        in_cache: the cache was the cause, not a stream.
        is_hopeless: no other block would fare better: the disk is full.
    """

    rows: str
    reason: str
    details: str = ""
    in_cache: bool = False
    is_hopeless: bool = False


def default_timeout_s(pictures: int) -> float:
    """How long so many pictures, once for each view, may take: many times what a slow and busy core needs."""
    return _TIMEOUT_S + _TIMEOUT_PER_PICTURE_S * pictures
