"""Caches that were built on different machines become one.

Either they are of the same samples in the same order: the new cache has the streams of all of them, and of a stream
that several have, each block comes from the first that has it. Or no sample is in two of them: the new cache has the
rows of all, one cache after another, and the streams that all of them have. Whatever contradicts is named, all at once,
and nothing is written then. A merge that was interrupted goes on when it is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.cache.cached_stream import CachedStream, read_streams
from emofuse.cache.layout import CacheLayout, StreamLayout, describe_difference
from emofuse.cache.merge_manifests import all_rows, check_same_labels
from emofuse.cache.reader import Cache, open_cache
from emofuse.cache.structure import add_stream, create_cache, lock_cache
from emofuse.cache.writer import write_block
from emofuse.errors import CacheError, did_you_mean

OnBlocks = Callable[[int, int], None]
"""Called after every block: blocks done so far, counted once for each stream and view, and blocks in all."""


@dataclass(frozen=True)
class MergeSummary:
    """What a merge gave.

    Attributes:
        rows: of the new cache.
        streams: of the new cache.
        by_rows: the caches were of different rows, not of the same.
        lacking: stream -> blocks that no cache had, counted once for each view; streams without any are left out.
    """

    rows: int
    streams: tuple[str, ...]
    by_rows: bool
    lacking: Mapping[str, int]


def merge_caches(
    out: Path, sources: Sequence[Path], *, streams: Sequence[str] | None = None, on_blocks: OnBlocks | None = None
) -> MergeSummary:
    """Merges caches into a new one.

    Args:
        out: path of the new cache.
        sources: two or more, which are only read; the new cache has blocks of the size of the first one's.
        streams: their names; None for all.
        on_blocks: follows the merge.

    Raises:
        CacheError: the caches contradict each other, with everything that does; or one of them is damaged.
        StaleCacheError: what is at `out` already is another cache.
    """
    _check_paths(out, sources)
    caches = [open_cache(path) for path in sources]
    by_rows = any(cache.layout.ids_digest != caches[0].layout.ids_digest for cache in caches)
    layouts = _agreed_layouts(caches, streams, by_rows=by_rows)
    if by_rows:
        manifest = all_rows(caches)
    else:
        check_same_labels(caches)
        manifest = caches[0].manifest
    starts = np.cumsum([0, *map(len, caches)]).tolist()
    parts = [_Part(cache, start if by_rows else 0) for cache, start in zip(caches, starts, strict=False)]
    with lock_cache(out):
        layout = create_cache(out, manifest, block_rows=caches[0].layout.block_rows)
        for stream in layouts:
            add_stream(out, stream)
        lacking = _Target(out, layout, parts).write(layouts, on_blocks)
    return MergeSummary(layout.rows, tuple(stream.name for stream in layouts), by_rows, lacking)


def _check_paths(out: Path, sources: Sequence[Path]) -> None:
    if len(sources) < 2:
        raise CacheError(f"{out}: a merge takes two caches or more, got {len(sources)}")
    paths = [str(path.absolute()) for path in (out, *sources)]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise CacheError(f"{', '.join(twice)}: named twice. A merge makes a new cache from different ones.")


def _agreed_layouts(caches: Sequence[Cache], names: Sequence[str] | None, *, by_rows: bool) -> list[StreamLayout]:
    """Layouts of the new cache's streams.

    Raises:
        CacheError: an unknown stream, or whatever the caches contradict each other in.
    """
    first: dict[str, CachedStream] = {}
    for cache in caches:
        first = {**cache.streams, **first}
    unknown = [name for name in names or () if name not in first]
    if unknown:
        there = ", ".join(sorted(first)) or "none"
        hint = did_you_mean(unknown[0], first)
        raise CacheError(f"no stream {', '.join(map(repr, unknown))} in these caches{hint} (there are: {there})")
    wanted = sorted(first if names is None else set(names))
    faults = []
    for name in wanted:
        faults += _contradictions(name, caches, by_rows=by_rows)
    faults += _picture_contradictions([first[name] for name in wanted])
    if faults:
        raise CacheError(f"the caches cannot be merged: {' | '.join(faults)}")
    widest = []
    for name in wanted:
        of_name = [cache.streams[name] for cache in caches if name in cache.streams]
        widest.append(max(of_name, key=lambda stream: stream.views).layout)
    return [replace(layout, keeps_reasons=True) for layout in widest]


def _contradictions(name: str, caches: Sequence[Cache], *, by_rows: bool) -> list[str]:
    """What keeps the streams of one name from being one stream, in words."""
    have = [cache for cache in caches if name in cache.streams]
    if by_rows and len(have) < len(caches):
        without = ", ".join(str(cache.path) for cache in caches if name not in cache.streams)
        return [f"{name} is not in {without}, and these caches are of different rows (leave it out with --streams)"]
    model = max(have, key=lambda cache: cache.streams[name].views)
    faults = []
    for cache in have:
        stream, other = cache.streams[name], model.streams[name]
        with_views = by_rows or stream.views > 1
        difference = describe_difference(
            _bytes_of(stream, with_views=with_views, by_rows=by_rows),
            _bytes_of(other, with_views=with_views, by_rows=by_rows),
            f"that of {model.path}",
        )
        if difference:
            faults.append(f"{name} of {cache.path} was cached with {difference}")
    return faults


def _bytes_of(stream: CachedStream, *, with_views: bool, by_rows: bool) -> dict[str, Any]:
    """All that two streams must have in common to be one."""
    told: dict[str, Any] = {
        **stream.identity,
        "dim": stream.dim,
        "dtype": str(stream.dtype),
        "columns": list(stream.columns),
        "flag_names": list(stream.flag_names),
    }
    if by_rows:
        told["views"] = stream.views
    if with_views:
        told["augment"] = stream.layout.augment
    return told


def _picture_contradictions(streams: Sequence[CachedStream]) -> list[str]:
    """Streams that did not see the same pictures or faces as the first one, in words."""
    faults = []
    extracted = [stream for stream in streams if stream.layout.decode]
    with_face = [stream for stream in extracted if stream.layout.face is not None]
    for stream in extracted[1:]:
        model = extracted[0]
        difference = describe_difference(
            {"decode": stream.layout.decode}, {"decode": model.layout.decode}, f"{model.name}"
        )
        faults += [f"{stream.name} was cached with {difference}"] if difference else []
    for stream in with_face[1:]:
        model = with_face[0]
        difference = describe_difference({"face": stream.layout.face}, {"face": model.layout.face}, f"{model.name}")
        faults += [f"{stream.name} was cached with {difference}"] if difference else []
    return faults


@dataclass(frozen=True)
class _Values:
    """Some rows of one view of one stream: what `write_block` takes."""

    features: npt.NDArray[Any]
    status: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]
    reasons: npt.NDArray[np.object_]


class _Part:
    """One cache of a merge.

    Attributes:
        start: row of the new cache that its first row becomes.
        stop: the row behind its last.
    """

    def __init__(self, cache: Cache, start: int) -> None:
        self.start, self.stop = start, start + len(cache)
        self._cache = cache
        self._done: dict[str, npt.NDArray[np.bool_]] = {}
        self._reasons: dict[str, npt.NDArray[np.object_]] = {}

    def has(self, stream: str, view: int, rows: slice) -> bool:
        """Whether all of these of its rows were computed."""
        found = self._cache.streams.get(stream)
        if found is None or view >= found.views:
            return False
        if stream not in self._done:
            done = ~found.lacking(found.views)
            self._done = {stream: np.repeat(done, self._cache.layout.block_rows, axis=0)[: len(self._cache)]}
        return bool(self._done[stream][rows, view].all())

    def read(self, stream: str, view: int, rows: slice) -> _Values:
        """These of its rows.

        Raises:
            CacheError: a chunk is damaged.
        """
        found = self._cache.streams[stream]
        if stream not in self._reasons:
            self._reasons = {stream: found.reasons()}
        size = self._cache.layout.block_rows
        blocks = range(rows.start // size, -(-rows.stop // size))
        features = np.concatenate([found.read_block(block, view) for block in blocks])
        first = rows.start - blocks.start * size
        return _Values(
            features[first : first + rows.stop - rows.start],
            found.status[rows, view],
            found.flags[rows, view],
            self._reasons[stream][rows, view],
        )


@dataclass(frozen=True)
class _Target:
    """The new cache and the parts that it is made of."""

    path: Path
    cache: CacheLayout
    parts: Sequence[_Part]

    def write(self, layouts: Sequence[StreamLayout], on_blocks: OnBlocks | None) -> dict[str, int]:
        """Writes all that the parts have and the new cache does not; stream -> blocks that none has."""
        streams = {stream.name: stream for stream in read_streams(self.path, self.cache)}
        total = sum(self.cache.blocks * layout.views for layout in layouts)
        done = 0
        lacking: dict[str, int] = {}
        for layout in layouts:
            missing = streams[layout.name].lacking(layout.views)
            for block, view in np.ndindex(missing.shape):
                if missing[block, view] and not self._write_block(layout.name, block, view):
                    lacking[layout.name] = lacking.get(layout.name, 0) + 1
                done += 1
                if on_blocks is not None:
                    on_blocks(done, total)
        return lacking

    def _write_block(self, stream: str, block: int, view: int) -> bool:
        """Writes one block; False, and nothing, if a row of it is in no part."""
        rows = self.cache.block_slice(block)
        found: list[_Values] = []
        row = rows.start
        while row < rows.stop:
            for part in self.parts:
                own = slice(row - part.start, min(rows.stop, part.stop) - part.start)
                if part.start <= row < part.stop and part.has(stream, view, own):
                    found.append(part.read(stream, view, own))
                    row += own.stop - own.start
                    break
            else:
                return False
        write_block(
            self.path,
            stream,
            block,
            view=view,
            features=np.concatenate([values.features for values in found]),
            status=np.concatenate([values.status for values in found]),
            flags=np.concatenate([values.flags for values in found]),
            reasons=np.concatenate([values.reasons for values in found]).tolist(),
        )
        return True
