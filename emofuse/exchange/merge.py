"""Merge caches that were built on different machines into one.

Either the caches have the same samples in the same order. Then the new cache has the streams of all of them, and each
block comes from the first cache that has it. Or no sample is in two caches. Then the new cache has the rows of all, one
cache after another, and the streams that all of them have. Contradictions are reported all at once, and nothing is
written then. An interrupted merge continues when it is called again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emofuse.cache.cached_stream import CachedStream
from emofuse.cache.layout import StreamLayout, describe_difference
from emofuse.cache.reader import Cache, open_cache
from emofuse.cache.stale import comparable_face
from emofuse.cache.structure import add_stream, create_cache, lock_cache
from emofuse.errors import CacheError, did_you_mean
from emofuse.exchange.merge_blocks import MergedBlocks, OnBlocks, Part
from emofuse.exchange.merge_manifests import all_rows, same_rows


@dataclass(frozen=True)
class MergeSummary:
    """The result of a merge.

    Attributes:
        rows: the number of rows of the new cache.
        streams: the names of the streams of the new cache.
        by_rows: whether the caches had different rows, not the same.
        lacking: stream -> number of blocks that no cache had, counted once for each view, for streams with such blocks.
    """

    rows: int
    streams: tuple[str, ...]
    by_rows: bool
    lacking: Mapping[str, int]


def merge_caches(
    out: Path, sources: Sequence[Path], *, streams: Sequence[str] | None = None, on_blocks: OnBlocks | None = None
) -> MergeSummary:
    """Merge caches into a new one.

    Args:
        out: the path of the new cache.
        sources: the paths of two or more caches, which are only read; the block size is that of the first one.
        streams: the names of the streams to merge; None for all.
        on_blocks: called after every block.

    Raises:
        CacheError: the caches contradict each other, all contradictions listed; or one of them is damaged.
        StaleCacheError: there is another cache at `out`.
    """
    _check_paths(out, sources)
    caches = [open_cache(path) for path in sources]
    by_rows = any(cache.layout.ids_digest != caches[0].layout.ids_digest for cache in caches)
    layouts = _agreed_layouts(caches, streams, by_rows=by_rows)
    starts = np.cumsum([0, *map(len, caches)]).tolist()
    parts = [Part(cache, start if by_rows else 0) for cache, start in zip(caches, starts, strict=False)]
    if by_rows:
        manifest = all_rows(caches)
    else:
        extracted = [stream for stream in layouts if not stream.is_imported]
        manifest = same_rows(caches, MergedBlocks(caches[0].layout, parts).givers(extracted))
    with lock_cache(out):
        layout = create_cache(out, manifest, block_rows=caches[0].layout.block_rows)
        for stream in layouts:
            add_stream(out, stream)
        lacking = MergedBlocks(layout, parts).write(out, layouts, on_blocks)
    return MergeSummary(layout.rows, tuple(stream.name for stream in layouts), by_rows, lacking)


def _check_paths(out: Path, sources: Sequence[Path]) -> None:
    if len(sources) < 2:
        raise CacheError(f"{out}: a merge takes two caches or more, got {len(sources)}")
    paths = [str(path.absolute()) for path in (out, *sources)]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise CacheError(f"{', '.join(twice)}: named twice. A merge makes a new cache from different ones.")


def _agreed_layouts(caches: Sequence[Cache], names: Sequence[str] | None, *, by_rows: bool) -> list[StreamLayout]:
    """Return the layouts of the new cache's streams.

    Raises:
        CacheError: a stream is unknown, or the caches contradict each other.
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
        runtimes = tuple(sorted({runtime for stream in of_name for runtime in stream.layout.runtimes}))
        widest.append(replace(max(of_name, key=lambda stream: stream.views).layout, runtimes=runtimes))
    return [replace(layout, keeps_reasons=True) for layout in widest]


def _contradictions(name: str, caches: Sequence[Cache], *, by_rows: bool) -> list[str]:
    """Return in words what contradicts between the streams of one name."""
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


def _shape_of(stream: CachedStream) -> dict[str, Any]:
    return {"shape": list(stream.shape), "dimensions": list(stream.dimensions)}


def _bytes_of(stream: CachedStream, *, with_views: bool, by_rows: bool) -> dict[str, Any]:
    """Return everything that two streams must have in common to be one."""
    common: dict[str, Any] = {
        **stream.identity,
        **({"dim": stream.dim} if stream.layout.is_vector else _shape_of(stream)),
        "dtype": str(stream.dtype),
        "columns": list(stream.columns),
        "flag_names": list(stream.flag_names),
    }
    if by_rows:
        common["views"] = stream.views
    if with_views:
        common["augment"] = stream.layout.augment
    return common


def _picture_contradictions(streams: Sequence[CachedStream]) -> list[str]:
    """Return in words which streams did not see the same pictures or faces as the first one."""
    faults = []
    extracted = [stream for stream in streams if stream.layout.decode]
    for fact in ("decode", "face", "clip"):
        facts = [(stream.name, value) for stream in extracted if (value := getattr(stream.layout, fact)) is not None]
        if fact == "face":
            facts = [(name, comparable_face(value)) for name, value in facts]
        for name, value in facts[1:]:
            difference = describe_difference({fact: value}, {fact: facts[0][1]}, facts[0][0])
            faults += [f"{name} was cached with {difference}"] if difference else []
    return faults
