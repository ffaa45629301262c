"""What a build has to do: read from the status arrays, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emofuse.build.worker import BlockTask
from emofuse.cache.layout import CacheLayout
from emofuse.cache.metadata import read_cache_layout
from emofuse.cache.reader import read_streams
from emofuse.cache.stale import check_block_rows, check_manifest, check_streams
from emofuse.datasets.manifest import Manifest
from emofuse.specs import CacheSpec
from emofuse.streams import stream_identity


@dataclass(frozen=True)
class BuildPlan:
    """Which blocks of which streams are missing.

    Attributes:
        layout: of the cache as it is or will be.
        identities: stream -> plain JSON of what changes its bytes, every stream of the spec.
        pending: stream -> its missing blocks (int64, ascending), every stream of the spec.
        new_streams: streams that the cache does not have yet.
    """

    layout: CacheLayout
    identities: Mapping[str, Mapping[str, Any]]
    pending: Mapping[str, npt.NDArray[np.int64]]
    new_streams: tuple[str, ...]

    @property
    def blocks(self) -> dict[int, tuple[str, ...]]:
        """Block -> the streams that it misses. Blocks that miss the same streams follow each other."""
        missing: dict[int, list[str]] = {}
        for stream, blocks in self.pending.items():
            for block in blocks.tolist():
                missing.setdefault(block, []).append(stream)
        ordered = sorted(missing.items(), key=lambda item: (item[1], item[0]))
        return {block: tuple(streams) for block, streams in ordered}

    @property
    def rows(self) -> int:
        """Rows of all blocks that miss something."""
        slices = [self.layout.block_slice(block) for block in self.blocks]
        return sum(rows.stop - rows.start for rows in slices)

    def tasks(self, manifest: Manifest) -> Iterator[BlockTask]:
        """One task a block, made one by one: paths of the whole dataset are never listed. Bad rows have no path."""
        root = manifest.root.absolute()
        for block, streams in self.blocks.items():
            rows = self.layout.block_slice(block)
            part = manifest.table[rows]
            pairs = zip(part["path"].to_list(), part["problem"].to_list(), strict=True)
            paths = tuple(root / path if problem is None else None for path, problem in pairs)
            yield BlockTask(block, rows.start, streams, paths)


def plan_build(path: Path, manifest: Manifest, spec: CacheSpec) -> BuildPlan:
    """Finds out what is missing from a cache, without writing.

    Raises:
        CacheError: what is at the path is not a cache, or damaged.
        StaleCacheError: the cache is of other samples, blocks, streams or pictures; with all that differs.
        WeightsError: weights that a stream needs are missing or damaged.
    """
    identities = {stream.name: stream_identity(stream, spec) for stream in spec.streams}
    if not (path / "zarr.json").is_file():
        layout = CacheLayout(len(manifest), spec.block_rows, manifest.ids_digest, created="")
        pending = {name: np.arange(layout.blocks) for name in identities}
        return BuildPlan(layout, identities, pending, tuple(identities))

    layout = read_cache_layout(path)
    check_manifest(path, layout, manifest)
    check_block_rows(path, layout, spec.block_rows)
    cached = {stream.name: stream for stream in read_streams(path, layout)}
    looks_at_faces = any(stream.needs_face for stream in spec.streams)
    face = spec.face.model_dump(mode="json") if looks_at_faces else None
    check_streams(path, cached.values(), identities, spec.decode.model_dump(mode="json"), face)
    every = np.arange(layout.blocks)
    pending = {name: cached[name].lacking_blocks() if name in cached else every for name in identities}
    return BuildPlan(layout, identities, pending, tuple(name for name in identities if name not in cached))
