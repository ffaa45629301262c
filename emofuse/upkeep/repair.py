"""Computes again what is damaged or failed, and nothing else: the cache is then what an undisturbed build makes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.cache.attempts import writing
from emofuse.cache.cached_stream import read_stream
from emofuse.cache.metadata import read_cache_layout, read_manifest, stream_names
from emofuse.cache.reader import Cache, open_cache
from emofuse.cache.stale import check_streams
from emofuse.cache.structure import check_writable, lock_cache
from emofuse.cache.writer import discard_blocks
from emofuse.errors import CacheError, SpecError
from emofuse.extraction.options import BuildOptions
from emofuse.extraction.plan import BuildPlan
from emofuse.extraction.run import carry_out, sigterm_as_interrupt
from emofuse.extraction.tally import BuildSummary
from emofuse.progress import Progress, step
from emofuse.specs import CacheSpec, StreamSpec, parse_spec
from emofuse.status import Status
from emofuse.stores import as_path, is_remote
from emofuse.streams import stream_identity, with_located_weights
from emofuse.upkeep.metadata import restore_metadata
from emofuse.upkeep.verify import Fault, Verification, verify_cache

_LISTED = 20
_LEVELS = 3  # the root's metadata, then that of the group of streams and of arrays


@dataclass(frozen=True)
class RepairSummary:
    """What a repair did.

    Attributes:
        metadata: files of metadata that were written anew.
        blocks: that were computed again, once for each stream and view.
        computed: the computing of them.
    """

    metadata: tuple[str, ...]
    blocks: int
    computed: BuildSummary


def repair_cache(
    path: str | Path,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
    *,
    data: Path | None = None,
    streams: Sequence[StreamSpec] = (),
) -> RepairSummary:
    """Checks a cache and computes again exactly the blocks that are damaged. Blocks not computed yet are left so.

    Args:
        path: of the cache.
        options: where and how fast; None is as a build without options.
        progress: follows the computing.
        data: root of the dataset, if it is no longer where the manifest says.
        streams: specs of streams of one's own; those of emofuse's kinds are in the cache.

    Raises:
        CacheError: there is no cache, it is in use, or something is damaged that cannot be computed again; the rest is
            mended then.
        StaleCacheError: this emofuse would compute other features than those cached.
        StreamError: blocks failed.
    """
    path = as_path(path)
    with sigterm_as_interrupt(), lock_cache(path):
        check_writable(path)
        with step("checking the cache"):
            found, restored = _restore_metadata(path)
        lost = [fault for fault in found.faults if fault.block is None]
        if any(not fault.stream for fault in lost):
            raise _lost(path, lost)
        cache = _open_rest(path, {fault.stream for fault in lost})
        bad = found.bad_blocks()
        lost += [
            fault
            for fault in found.faults
            if fault.block is not None and cache.streams[fault.stream].layout.is_imported
        ]
        bad = {name: blocks for name, blocks in bad.items() if not cache.streams[name].layout.is_imported}
        computed = BuildSummary(0, 0.0, {})
        if bad:
            spec, plan = _plan(cache, _masks(cache, bad), streams, data)
            with writing(str(path)):
                for name, blocks in bad.items():
                    discard_blocks(path, name, blocks)
            computed = carry_out(path, plan, spec, options or BuildOptions(), progress=progress)
        if lost:
            raise _lost(path, lost)
        return RepairSummary(restored, sum(map(len, bad.values())), computed)


def retry_rows(
    path: str | Path,
    statuses: Collection[Status] = (Status.FAILED, Status.UNREADABLE),
    options: BuildOptions | None = None,
    progress: Progress | None = None,
    *,
    data: Path | None = None,
    streams: Sequence[StreamSpec] = (),
) -> BuildSummary:
    """Tries rows of some statuses again. A block of which a row fares otherwise now is computed anew, whole.

    So that a cache is what an undisturbed build makes: networks may round a row differently in other company. Rows that
    the manifest itself holds something against are left alone; a build with the dataset looks at them.

    Args:
        path: of the cache.
        statuses: which rows.
        options: where and how fast; None is as a build without options.
        progress: follows the work.
        data: root of the dataset, if it is no longer where the manifest says.
        streams: specs of streams of one's own; those of emofuse's kinds are in the cache.

    Returns:
        Rows that were tried, once for each stream and view, and what has become of them; blocks that were written.

    Raises:
        CacheError: there is no cache, or it is in use.
        StaleCacheError: this emofuse would compute other features than those cached.
        StreamError: blocks failed.
    """
    path = as_path(path)
    with sigterm_as_interrupt(), lock_cache(path):
        cache = open_cache(path)
        is_good = cache.manifest.table["problem"].is_null().to_numpy()
        retried: dict[str, dict[tuple[int, int], tuple[int, str]]] = {}
        for name, stream in cache.streams.items():
            if not stream.layout.is_imported:
                found = np.argwhere(np.isin(stream.status, list(statuses)) & is_good[:, None]).tolist()
                reasons = stream.reasons()
                retried[name] = {
                    (row, view): (int(stream.status[row, view]), reasons[row, view]) for row, view in found
                }
        retried = {name: rows for name, rows in retried.items() if rows}
        if not retried:
            return BuildSummary(0, 0.0, {})
        block_rows = cache.layout.block_rows
        blocks = {name: {(row // block_rows, view) for row, view in rows} for name, rows in retried.items()}
        spec, plan = _plan(cache, _masks(cache, blocks), streams, data)
        plan = replace(plan, retried=retried)
        return carry_out(path, plan, spec, options or BuildOptions(), progress=progress)


def cache_spec(cache: Cache, names: Collection[str], own: Sequence[StreamSpec] = ()) -> CacheSpec:
    """The spec that some streams of a cache were made from.

    Args:
        cache: the open cache.
        names: of the streams.
        own: specs of those that are of no kind of emofuse's.

    Raises:
        CacheError: a stream is of a kind that this emofuse does not know, and its spec is not given.
        WeightsError: a file of weights is neither where the cache says nor beside the cache or in the weights folder.
    """
    given = {spec.name: spec for spec in own}
    chosen = [cache.streams[name] for name in names]
    augment = next((stream.layout.augment for stream in chosen if stream.layout.augment is not None), {})
    parts: dict[str, Any] = {
        "block_rows": cache.layout.block_rows,
        "views": max(stream.views for stream in chosen),
        "augment": {name: value for name, value in augment.items() if name != "version"},
        "decode": cache.decode,
        "face": cache.face,
        "streams": [given.get(stream.name, stream.spec) for stream in chosen],
    }
    try:
        spec = parse_spec(CacheSpec, parts, str(cache.path))
    except SpecError as error:
        raise CacheError(
            f"{cache.path}: {', '.join(names)} cannot be computed from what the cache says of them ({error}). "
            "A kind of your own comes with its file, --plugin FILE, or in Python: repair_cache(path, streams=[spec])"
        ) from None
    beside = () if is_remote(cache.path) else (cache.path.parent,)
    return with_located_weights(spec, {stream.name: stream.weights for stream in chosen}, beside=beside)


def _restore_metadata(path: Path) -> tuple[Verification, tuple[str, ...]]:
    """What is wrong once all metadata that can be restored is, and its files."""
    found = verify_cache(path)
    restored: list[str] = []
    for _ in range(_LEVELS):
        with writing(str(path)):
            written = [name for name in restore_metadata(path, found.faults) if name not in restored]
        if not written:
            break
        restored += written
        found = verify_cache(path)
    return found, tuple(restored)


def _open_rest(path: Path, lost: Collection[str]) -> Cache:
    """The cache without the streams that are beyond repair."""
    layout = read_cache_layout(path)
    names = [name for name in stream_names(path) if name not in lost]
    found = [read_stream(path, layout, name) for name in names]
    return Cache(path, layout, read_manifest(path, layout), {each.name: each for each in found if each is not None})


def _plan(
    cache: Cache, pending: Mapping[str, npt.NDArray[np.bool_]], own: Sequence[StreamSpec], data: Path | None
) -> tuple[CacheSpec, BuildPlan]:
    """What it takes to compute these blocks and no others."""
    spec = cache_spec(cache, list(pending), own)
    identities = {stream.name: stream_identity(stream, spec) for stream in spec.streams}
    check_streams(cache.path, [cache.streams[name] for name in pending], identities, cache.decode, cache.face)
    return spec, BuildPlan(cache.layout, cache.manifest, identities, None, pending, new_streams=(), data=data)


def _masks(cache: Cache, blocks: Mapping[str, Collection[tuple[int, int]]]) -> dict[str, npt.NDArray[np.bool_]]:
    """Stream -> (blocks, views) bool, true at the blocks and views that are given."""
    views = max(cache.streams[name].views for name in blocks)
    masks = {}
    for name, chosen in blocks.items():
        mask = np.zeros((cache.layout.blocks, views), dtype=np.bool_)
        for block, view in chosen:
            mask[block, view] = True
        masks[name] = mask
    return masks


def _lost(path: Path, faults: Sequence[Fault]) -> CacheError:
    streams = sorted({fault.stream for fault in faults if fault.stream})
    remedy = "Run the same build again, which writes the manifest anew"
    if streams:
        drops = "; ".join(f"emofuse cache drop {path} {name}" for name in streams)
        remedy = f"Drop what cannot be mended, then build or import it again: {drops}"
    listed = " | ".join(str(fault) for fault in faults[:_LISTED])
    return CacheError(f"{path}: {len(faults)} faults cannot be mended: {listed}. {remedy}")
