"""The plan of a build: the blocks that are missing, found in the status arrays. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.cache.cached_stream import CachedStream, read_streams
from emofuse.cache.layout import CacheLayout
from emofuse.cache.metadata import read_cache_layout
from emofuse.cache.stale import check_augment, check_block_rows, check_imported, check_streams
from emofuse.datasets.archive_files import root_folder
from emofuse.datasets.files import FileFault
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.roots import follows_links, open_files
from emofuse.datasets.sources import sources_of
from emofuse.extraction.changes import DatasetChanges, notice_changes
from emofuse.extraction.tasks import BlockTask
from emofuse.specs import CacheSpec, ImportedSpec
from emofuse.specs.streams import looks_at_faces
from emofuse.streams import augment_identity, stream_identity


@dataclass(frozen=True)
class Missing:
    """The streams and views that one block lacks: every view of every stream."""

    block: int
    streams: tuple[str, ...]
    views: tuple[int, ...]


@dataclass(frozen=True)
class BuildPlan:
    """The blocks that are missing from a cache.

    Attributes:
        layout: the layout of the cache as it will be.
        manifest: the rows of the cache, in its order.
        identities: stream -> all that changes its bytes, plain JSON, for every stream of the spec.
        augment: all that decides the augmented views, plain JSON; None without augmented views.
        pending: stream -> whether a block lacks a view, bool (blocks, views), for every stream of the spec.
        new_streams: the streams that the cache does not have yet.
        to_import: the imported streams of the spec that the cache does not have yet.
        retried: stream -> (row, view) -> cached status and reason of the rows to try again; None for a plan of whole
            blocks.
        changes: the changes of the dataset since the cache was built; None for a new cache.
        data: the root of the dataset, if it differs from that of the manifest.
    """

    layout: CacheLayout
    manifest: Manifest
    identities: Mapping[str, Mapping[str, Any]]
    augment: Mapping[str, Any] | None
    pending: Mapping[str, npt.NDArray[np.bool_]]
    new_streams: tuple[str, ...]
    to_import: tuple[str, ...] = ()
    retried: Mapping[str, Mapping[tuple[int, int], tuple[int, str]]] | None = None
    changes: DatasetChanges | None = None
    data: Path | None = None

    @cached_property
    def missing(self) -> list[Missing]:
        """The missing parts: one for each block, or more if its views lack different streams.

        Parts that lack the same streams follow each other.
        """
        views_of: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        names = tuple(self.pending)
        if not names:
            return []
        lacking = np.stack([self.pending[name] for name in names])  # (streams, blocks, views)
        for block, view in np.argwhere(lacking.any(axis=0)).tolist():
            streams = tuple(name for name, lacks in zip(names, lacking[:, block, view].tolist(), strict=True) if lacks)
            views_of.setdefault((block, streams), []).append(view)
        ordered = sorted(views_of.items(), key=lambda item: (item[0][1], item[0][0]))
        return [Missing(block, streams, tuple(views)) for (block, streams), views in ordered]

    @property
    def rows(self) -> int:
        """The number of rows to compute, counted once for each missing view; or of the rows to try again."""
        if self.retried is not None:
            return sum(map(len, self.retried.values()))
        slices = [(self.layout.block_slice(missing.block), len(missing.views)) for missing in self.missing]
        return sum((rows.stop - rows.start) * views for rows, views in slices)

    def lacks(self, stream: str) -> bool:
        """Return whether a stream has blocks to compute; an imported stream never has."""
        return stream in self.pending and bool(self.pending[stream].any())

    def tasks(self) -> Iterator[BlockTask]:
        """Yield the tasks one by one, so that not all paths of a dataset are held. Bad rows have no source."""
        root = (self.manifest.root if self.data is None else root_folder(self.data)).absolute()
        files = open_files(root, follow_links=follows_links(self.manifest))
        for missing in self.missing:
            rows = self.layout.block_slice(missing.block)
            part = self.manifest.table[rows]
            sources = sources_of(part, root, files)
            problems = part["problem"].to_list()
            bad_rows = {
                row: problems[row] or FileFault.OUTSIDE.value for row, source in enumerate(sources) if source is None
            }
            yield BlockTask(
                block=missing.block,
                start=rows.start,
                streams=missing.streams,
                sources=tuple(sources),
                sample_ids=tuple(part["sample_id"].to_list()),
                views=missing.views,
                bad_rows=bad_rows,
                retried=self._retried(missing, rows),
            )

    def _retried(self, missing: Missing, rows: slice) -> Mapping[tuple[str, int], Mapping[int, tuple[int, str]]] | None:
        """Return the rows of one block to try again by stream and view, counted from its first row."""
        if self.retried is None:
            return None
        retried: dict[tuple[str, int], dict[int, tuple[int, str]]] = {}
        for stream, view in product(missing.streams, missing.views):
            of_stream = self.retried[stream]
            keys = [(row, view) for row in range(rows.start, rows.stop) if (row, view) in of_stream]
            if keys:
                retried[stream, view] = {row - rows.start: of_stream[row, view] for row, view in keys}
        return retried


def plan_build(path: Path, manifest: Manifest, spec: CacheSpec, *, keep_gone: bool = False) -> BuildPlan:
    """Find the blocks that are missing from a cache, without writing. `keep_gone` is explained at `BuildOptions`.

    Raises:
        CacheError: the path holds something else than a cache, or a damaged one.
        StaleCacheError: the cache has other samples, blocks, streams, images or views; all differences are named.
        IncompleteCacheError: the import of a stream was interrupted.
        WeightsError: weights that a stream needs are missing or damaged.
    """
    imported = [stream for stream in spec.streams if isinstance(stream, ImportedSpec)]
    extracted = [stream for stream in spec.streams if not isinstance(stream, ImportedSpec)]
    identities = {stream.name: stream_identity(stream, spec) for stream in extracted}
    augment = augment_identity(spec)
    if not (path / "zarr.json").is_file():
        layout = CacheLayout(len(manifest), spec.rows_of_a_block(len(manifest)), manifest.ids_digest, created="")
        pending = {name: np.ones((layout.blocks, spec.views), dtype=np.bool_) for name in identities}
        to_import = tuple(stream.name for stream in imported)
        return BuildPlan(layout, manifest, identities, augment, pending, tuple(identities), to_import)

    layout = read_cache_layout(path)
    changes = notice_changes(path, layout, manifest, keep_gone=keep_gone)
    if spec.block_rows is not None:
        check_block_rows(path, layout, spec.block_rows)
    cached = {stream.name: stream for stream in read_streams(path, layout)}
    sees_faces = any(looks_at_faces(stream.needs) for stream in spec.streams)
    face = spec.face.model_dump(mode="json") if sees_faces else None
    check_streams(path, cached.values(), identities, spec.decode.model_dump(mode="json"), face)
    to_import = check_imported(path, cached, imported)
    if augment is not None:
        check_augment(path, cached.values(), augment)
    pending = {
        name: _pending(cached[name], spec.views, changes)
        if name in cached
        else np.ones((changes.layout.blocks, spec.views), dtype=np.bool_)
        for name in identities
    }
    return BuildPlan(
        layout=changes.layout,
        manifest=changes.manifest,
        identities=identities,
        augment=augment,
        pending=pending,
        new_streams=tuple(name for name in identities if name not in cached),
        to_import=to_import,
        changes=changes,
    )


def _pending(cached: CachedStream, views: int, changes: DatasetChanges) -> npt.NDArray[np.bool_]:
    """Return what a stream lacks once its cache is adapted to the dataset, bool (blocks, views)."""
    pending = np.ones((changes.layout.blocks, views), dtype=np.bool_)
    pending[: changes.old.blocks] = cached.lacking(views)
    pending[changes.replaced_blocks] = True
    if changes.layout.rows > changes.old.rows and changes.old.rows % changes.old.block_rows:
        pending[changes.old.blocks - 1] = True  # the last block was short and has more rows now
    return pending
