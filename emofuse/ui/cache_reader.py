"""Read how far a cache is from the files of its status chunks, each once, without opening or locking the cache."""

from __future__ import annotations

import json
import os
import platform
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from emofuse.cache.layout import CHECKSUM_BYTES, CacheLayout, StreamLayout, streams_dir
from emofuse.cache.lock import lock_path
from emofuse.cache.metadata import read_cache_layout, read_stream_layout, stream_names
from emofuse.errors import CacheError
from emofuse.status import Status
from emofuse.ui.readers import Budget

_Stamp = tuple[int, int]


@dataclass(frozen=True)
class StreamProgress:
    """How far a stream of a cache is.

    Attributes:
        name: the name of the stream.
        blocks_done: the blocks of all views that are done.
        blocks: the blocks of all views.
        rows: status name -> rows of all views; pending rows are left out.
        unread: the blocks that are looked at later.
    """

    name: str
    blocks_done: int
    blocks: int
    rows: dict[str, int]
    unread: int = 0


@dataclass(frozen=True)
class CacheProgress:
    """How far a cache is.

    Attributes:
        path: the path of the cache.
        rows: the number of rows; 0 if its metadata cannot be read.
        streams: its streams by name.
        builder: the process that builds it now; empty without one.
        problems: sentences on what cannot be read.
        written: the time of the newest status chunk, seconds since 1970; 0 without any.
    """

    path: Path
    rows: int = 0
    streams: tuple[StreamProgress, ...] = ()
    builder: str = ""
    problems: tuple[str, ...] = ()
    written: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether every block of every stream is done."""
        return bool(self.streams) and all(stream.blocks_done == stream.blocks for stream in self.streams)


class CacheReader:
    """Reads how far one cache is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._chunks: dict[str, dict[str, tuple[_Stamp, Counter[int]]]] = {}
        self._layouts: dict[str, tuple[_Stamp, StreamLayout]] = {}
        self._written = 0.0

    def look(self, budget: Budget) -> CacheProgress:
        """Return how far the cache is."""
        self._written = 0.0
        try:
            layout = read_cache_layout(self._path)
            names = stream_names(self._path)
        except (CacheError, OSError) as error:
            return CacheProgress(self._path, problems=(str(error),))
        streams, problems = [], []
        for name in names:
            try:
                stream = self._layout(name)
                if stream is not None:
                    streams.append(self._stream(stream, layout, budget))
            except (CacheError, OSError) as error:
                problems.append(str(error))
        return CacheProgress(
            self._path, layout.rows, tuple(streams), find_builder(self._path), tuple(problems), self._written
        )

    def _layout(self, name: str) -> StreamLayout | None:
        """Return the layout of a stream, which is read again when its metadata is written again."""
        status = (streams_dir(self._path) / name / "zarr.json").stat()
        stamp = status.st_mtime_ns, status.st_size
        known = self._layouts.get(name)
        if known is not None and known[0] == stamp:
            return known[1]
        layout = read_stream_layout(self._path, name, check_arrays=False)
        if layout is not None:
            self._layouts[name] = stamp, layout
        return layout

    def _stream(self, stream: StreamLayout, layout: CacheLayout, budget: Budget) -> StreamProgress:
        folder = streams_dir(self._path) / stream.name / "status"
        former, known = self._chunks.get(stream.name, {}), {}
        counts: Counter[int] = Counter()
        done = unread = 0
        for name, status in _files(folder):
            block = _block_of(name, layout.blocks, stream.views)
            if block is None:
                continue
            stamp = status.st_mtime_ns, status.st_size
            self._written = max(self._written, status.st_mtime)
            entry = former.get(name)
            if entry is None or entry[0] != stamp:
                if not budget.allows_another():
                    unread += 1
                    continue
                rows = layout.block_slice(block)
                read = _count(folder / name, rows.stop - rows.start, stream.chunk_bytes("status", layout.block_rows))
                if read is None:
                    continue
                entry = stamp, read
            known[name] = entry
            counts.update(entry[1])
            done += entry[1][Status.PENDING] == 0
        self._chunks[stream.name] = known
        rows_of = {status.name.lower(): counts[status] for status in Status if status != Status.PENDING}
        of_rows = {name: count for name, count in rows_of.items() if count}
        return StreamProgress(stream.name, done, layout.blocks * stream.views, of_rows, unread)


def find_builder(cache: Path) -> str:
    """Return the process that writes a cache now, by the file beside it; an empty text without one."""
    try:
        holder: Any = json.loads(lock_path(cache).read_bytes())
        host, pid = str(holder["host"]), int(holder["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if host == platform.node() and not psutil.pid_exists(pid):
        return ""
    return f"process {pid} on {host}"


def _block_of(name: str, blocks: int, views: int) -> int | None:
    """Return the block of a status chunk by the name of its file; None for any other file."""
    found = re.fullmatch(r"c\.(\d+)\.(\d+)", name)
    if found is None or int(found[1]) >= blocks or int(found[2]) >= views:
        return None
    return int(found[1])


def _count(path: Path, rows: int, size: int) -> Counter[int] | None:
    """Return how many rows of a block have each status; None for a chunk that is gone or not whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) != size or rows > size - CHECKSUM_BYTES:
        return None
    counted = np.bincount(np.frombuffer(data, np.uint8, rows)).tolist()
    return Counter({status: count for status, count in enumerate(counted) if count})


def _files(folder: Path) -> list[tuple[str, os.stat_result]]:
    """Return the files of a folder; none if it is gone."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    found.append((entry.name, entry.stat()))
                except OSError:
                    continue
    except OSError:
        return []
    return found
