"""The comparison of cached rows with the same rows extracted again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.cache.cached_stream import CachedStream
from emofuse.cache.reader import Cache, open_cache
from emofuse.cache.stale import check_streams
from emofuse.datasets.archive_files import root_folder
from emofuse.datasets.roots import follows_links, open_files
from emofuse.datasets.sources import sources_of
from emofuse.extraction.worker import device_for_streams
from emofuse.specs import StreamSpec
from emofuse.status import Status
from emofuse.stores import as_path
from emofuse.streams import stream_identity
from emofuse.streams.base import Rows
from emofuse.streams.extractor import Extractor
from emofuse.streams.runtimes import Runtime
from emofuse.upkeep.repair import cache_spec

TOLERANCE = 0.02
"""The largest distance of two rows that count as equal, as a share of their length. Networks round differently beside
other rows, on other devices and in bfloat16."""


@dataclass(frozen=True)
class Difference:
    """A row that differs from the cache.

    Attributes:
        row: the number of the row.
        sample_id: the id of its sample.
        stream: the name of the stream.
        view: the number of the view.
        what: a description of the difference.
    """

    row: int
    sample_id: str
    stream: str
    view: int
    what: str

    def __str__(self) -> str:
        view = f" view {self.view}" if self.view else ""
        return f"{self.stream} row {self.row}{view}, {self.sample_id}: {self.what}"


@dataclass(frozen=True)
class SampleComparison:
    """The result of a comparison.

    Attributes:
        rows: the number of rows that were extracted again.
        differences: all differences.
        largest: stream -> largest distance among equal rows, as a share of the length of the row.
    """

    rows: int
    differences: tuple[Difference, ...]
    largest: Mapping[str, float]


def compare_sample(
    path: str | Path,
    count: int,
    *,
    data: Path | None = None,
    device: str = "auto",
    runtime: Runtime = "auto",
    streams: Sequence[StreamSpec] = (),
    seed: int = 0,
) -> SampleComparison:
    """Draw rows at random, extract them again in this process, and compare them with the cache.

    Rows that failed, rows with a problem in the manifest, and rows of incomplete blocks are not drawn. Imported streams
    are left out.

    Args:
        path: the path of the cache.
        count: the largest number of rows.
        data: the root of the dataset, if it differs from that of the manifest.
        device: the device of the networks.
        runtime: the runtime of the networks.
        streams: the specs of streams whose kinds are not registered; specs of registered kinds are in the cache.
        seed: the seed of the draw.

    Raises:
        CacheError: there is no cache, or a stream of it cannot be extracted by this emofuse.
        StaleCacheError: this emofuse would extract other features than those cached.
    """
    cache = open_cache(as_path(path))
    extracted = {name: stream for name, stream in cache.streams.items() if not stream.layout.is_imported}
    if not extracted:
        return SampleComparison(0, (), {})
    spec = cache_spec(cache, list(extracted), streams)
    identities = {stream.name: stream_identity(stream, spec) for stream in spec.streams}
    check_streams(cache.path, extracted.values(), identities, cache.decode, cache.face)
    rows = _draw(cache, extracted, count, seed)
    root = cache.manifest.root if data is None else root_folder(data)
    files = open_files(root, follow_links=follows_links(cache.manifest))
    sources = sources_of(cache.manifest.table[rows], root, files)
    ids = [cache.manifest.table["sample_id"][row] for row in rows]
    differences: list[Difference] = []
    largest = dict.fromkeys(extracted, 0.0)
    with Extractor(spec.streams, spec, device=device_for_streams(device, spec.streams), runtime=runtime) as extractor:
        extractions = extractor.extract_views(sources, ids, range(spec.views))
    for view, extraction in extractions.items():
        for name, stream in extracted.items():
            if view >= stream.views:
                continue
            compared = _compare(stream, rows, extraction.rows[name], view, cache.layout.block_rows)
            differences += [Difference(row, ids[rows.index(row)], name, view, what) for row, what in compared[0]]
            largest[name] = max(largest[name], compared[1])
    ordered = sorted(differences, key=lambda each: (each.row, each.stream, each.view))
    return SampleComparison(len(rows), tuple(ordered), largest)


def _draw(cache: Cache, streams: Mapping[str, CachedStream], count: int, seed: int) -> list[int]:
    """Return a random draw of the rows that can be compared, in their order."""
    is_usable = cache.manifest.table["problem"].is_null().to_numpy().copy()
    for stream in streams.values():
        is_usable &= ~np.isin(stream.status, [Status.PENDING, Status.FAILED]).any(axis=1)
    usable = np.flatnonzero(is_usable)
    drawn = np.random.default_rng(seed).choice(usable, size=min(count, len(usable)), replace=False)
    return sorted(drawn.tolist())


def _compare(
    stream: CachedStream, rows: list[int], again: Rows, view: int, block_rows: int
) -> tuple[list[tuple[int, str]], float]:
    """Return the rows that differ with a description, and the largest distance of the others."""
    differences = []
    largest = 0.0
    for index, row in enumerate(rows):
        was, now = Status(stream.status[row, view]), Status(again.status[index])
        if was != now:
            differences.append((row, f"{was.name.lower()} in the cache, {now.name.lower()} now"))
            continue
        if was != Status.OK:
            continue
        mask = stream.read_mask_block(row // block_rows, view)
        if mask is not None and again.mask is not None and (mask[row % block_rows] != again.mask[index]).any():
            differences.append((row, "other steps of it are OK now"))
            continue
        apart = _distance(np.asarray(stream.features[row, view]), again.features[index])
        if apart > TOLERANCE:
            differences.append((row, f"its features are {apart:.2g} of their length apart"))
        else:
            largest = max(largest, apart)
    return differences, largest


def _distance(cached: npt.NDArray[np.floating[Any]], again: npt.NDArray[np.floating[Any]]) -> float:
    """Return the Euclidean distance as a share of the cached row's length."""
    a, b = cached.astype(np.float64).ravel(), again.astype(np.float64).ravel()
    length = float(np.linalg.norm(a))
    apart = float(np.linalg.norm(a - b))
    return apart / length if length > 0 else apart
