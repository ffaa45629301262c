"""The repair of damaged blocks and the retry of failed rows. The result is that of an undisturbed build."""

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
from emofuse.extraction.run import carry_out
from emofuse.extraction.tally import BuildSummary
from emofuse.machine.signals import sigterm_as_interrupt
from emofuse.progress import Progress, step
from emofuse.specs import CacheSpec, StreamSpec, parse_spec
from emofuse.status import Status
from emofuse.stores import as_path, is_remote
from emofuse.streams import stream_identity, with_located_weights
from emofuse.upkeep.metadata import restore_metadata
from emofuse.upkeep.verify import Fault, Verification, verify_cache

_LISTED = 20
_LEVELS = 3  # metadata of the root, of the group of streams, and of arrays


@dataclass(frozen=True)
class RepairSummary:
    """The result of a repair.

    Attributes:
        metadata: the files of metadata that were written again.
        blocks: the number of blocks that were computed again, once for each stream and view.
        computed: the summary of their computation.
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
    """Verify a cache and compute exactly its damaged blocks again. Blocks that were never computed are left out.

    Args:
        path: the path of the cache.
        options: where and how fast the blocks are computed; None means `BuildOptions()`.
        progress: receives the state of the computation after each block.
        data: the root of the dataset, if it differs from that of the manifest.
        streams: the specs of streams whose kinds are not registered; specs of registered kinds are in the cache.

    Raises:
        CacheError: there is no cache, it is in use, or a part is damaged that cannot be computed again; all other
            parts are repaired nevertheless.
        StaleCacheError: this emofuse would compute other features than those cached.
        StreamError: blocks failed.
    """
    path = as_path(path)
    with sigterm_as_interrupt(), lock_cache(path):
        check_writable(path)
        with step("checking the cache"):
            verification, restored = _restore_metadata(path)
        lost = [fault for fault in verification.faults if fault.block is None]
        if any(not fault.stream for fault in lost):
            raise _lost(path, lost)
        cache = _open_rest(path, {fault.stream for fault in lost})
        bad = verification.bad_blocks()
        lost += [
            fault
            for fault in verification.faults
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
    """Try rows with these statuses again. If the result of a row differs, its whole block is computed again.

    The cache is then that of an undisturbed build: networks may round a row differently beside other rows. Rows with a
    problem in the manifest are skipped; a build with the dataset checks them.

    Args:
        path: the path of the cache.
        statuses: the statuses of the rows to try.
        options: where and how fast the rows are computed; None means `BuildOptions()`.
        progress: receives the state of the work after each block.
        data: the root of the dataset, if it differs from that of the manifest.
        streams: the specs of streams whose kinds are not registered; specs of registered kinds are in the cache.

    Returns:
        A summary of the tried rows, counted once for each stream and view, and of the blocks that were written.

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
                places = np.argwhere(np.isin(stream.status, list(statuses)) & is_good[:, None]).tolist()
                reasons = stream.reasons()
                retried[name] = {
                    (row, view): (int(stream.status[row, view]), reasons[row, view]) for row, view in places
                }
        retried = {name: rows for name, rows in retried.items() if rows}
        if not retried:
            return BuildSummary(0, 0.0, {})
        block_rows = cache.layout.block_rows
        blocks = {name: {(row // block_rows, view) for row, view in rows} for name, rows in retried.items()}
        spec, plan = _plan(cache, _masks(cache, blocks), streams, data)
        plan = replace(plan, retried=retried)
        return carry_out(path, plan, spec, options or BuildOptions(), progress=progress)


def cache_spec(cache: Cache, names: Collection[str], unregistered: Sequence[StreamSpec] = ()) -> CacheSpec:
    """Return the spec that some streams of a cache were made from.

    Args:
        cache: the open cache.
        names: the names of the streams.
        unregistered: the specs of streams whose kinds are not registered.

    Raises:
        CacheError: a stream has an unknown kind, and its spec is not among `unregistered`.
        WeightsError: a file of weights is neither at its recorded path nor beside the cache or in the weights folder.
    """
    specs = {spec.name: spec for spec in unregistered}
    chosen = [cache.streams[name] for name in names]
    augment = next((stream.layout.augment for stream in chosen if stream.layout.augment is not None), {})
    parts: dict[str, Any] = {
        "block_rows": cache.layout.block_rows,
        "views": max(stream.views for stream in chosen),
        "augment": {name: value for name, value in augment.items() if name != "version"},
        "decode": cache.decode,
        "face": cache.face,
        "clip": cache.clip,
        "streams": [specs.get(stream.name, stream.spec) for stream in chosen],
    }
    try:
        spec = parse_spec(CacheSpec, parts, str(cache.path))
    except SpecError as error:
        raise CacheError(
            f"{cache.path}: {', '.join(names)} cannot be computed from the specs in the cache ({error}). "
            "A kind of your own comes with its file, --plugin FILE, or in Python: repair_cache(path, streams=[spec])"
        ) from None
    beside = () if is_remote(cache.path) else (cache.path.parent,)
    return with_located_weights(spec, {stream.name: stream.weights for stream in chosen}, beside=beside)


def _restore_metadata(path: Path) -> tuple[Verification, tuple[str, ...]]:
    """Restore metadata, and return the faults that are left and the names of the restored files."""
    verification = verify_cache(path)
    restored: list[str] = []
    for _ in range(_LEVELS):
        with writing(str(path)):
            written = [name for name in restore_metadata(path, verification.faults) if name not in restored]
        if not written:
            break
        restored += written
        verification = verify_cache(path)
    return verification, tuple(restored)


def _open_rest(path: Path, lost: Collection[str]) -> Cache:
    """Open the cache without the streams that cannot be repaired."""
    layout = read_cache_layout(path)
    names = [name for name in stream_names(path) if name not in lost]
    streams = [read_stream(path, layout, name) for name in names]
    return Cache(path, layout, read_manifest(path, layout), {each.name: each for each in streams if each is not None})


def _plan(
    cache: Cache, pending: Mapping[str, npt.NDArray[np.bool_]], unregistered: Sequence[StreamSpec], data: Path | None
) -> tuple[CacheSpec, BuildPlan]:
    """Return the spec and the plan that compute these blocks and no others."""
    spec = cache_spec(cache, list(pending), unregistered)
    identities = {stream.name: stream_identity(stream, spec) for stream in spec.streams}
    check_streams(cache.path, [cache.streams[name] for name in pending], identities, cache.decode, cache.face)
    return spec, BuildPlan(cache.layout, cache.manifest, identities, None, pending, new_streams=(), data=data)


def _masks(cache: Cache, blocks: Mapping[str, Collection[tuple[int, int]]]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return stream -> bool (blocks, views), true at the given blocks and views."""
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
        remedy = f"Drop what cannot be repaired, then build or import it again: {drops}"
    listed = " | ".join(str(fault) for fault in faults[:_LISTED])
    count = f"{len(faults)} fault{'s' * (len(faults) > 1)}"
    return CacheError(f"{path}: {count} cannot be repaired: {listed}. {remedy}")
