"""The estimate of a build's duration and size, before it starts.

Nothing is written. The speed is measured: this process opens the missing streams and extracts a few images, spread over
the remaining work, as one worker would. Workers are assumed not to slow each other down. This is right for cores, and
too optimistic if all workers share one GPU or a slow disk.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emofuse.cache.layout import StreamLayout
from emofuse.cache.metadata import read_stream_layout
from emofuse.cache.size import bytes_of_blocks, free_bytes, planned_layout
from emofuse.cache.stale import check_is_imported
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.roots import follows_links, open_files
from emofuse.datasets.sources import Source, sources_of
from emofuse.extraction.execution import build_device, count_workers
from emofuse.extraction.face_rows import with_known_face_rows
from emofuse.extraction.options import BuildOptions
from emofuse.extraction.plan import BuildPlan, Missing, plan_build
from emofuse.extraction.worker import cap_native_threads
from emofuse.progress import format_duration, step
from emofuse.specs import CacheSpec
from emofuse.specs.nouns import noun_of
from emofuse.stores import as_path
from emofuse.streams.extractor import Extractor
from emofuse.streams.runtimes import Runtime

_SAMPLED = 32


@dataclass(frozen=True)
class BuildEstimate:
    """The estimated work of a build.

    Attributes:
        rows: the number of rows to compute, counted once for each view.
        blocks: the number of blocks with these rows, counted once for each set of missing streams.
        streams: the streams that lack blocks.
        workers: the number of workers that share the work.
        sampled: the number of images on which the speed was measured.
        seconds: the duration without the start of the workers; 0 if nothing is missing.
        bytes: the number of bytes to write.
        free_bytes: the number of free bytes on the disk; None for a store, whose size is unknown.
        files: the number of files in the fullest folder.
    """

    rows: int
    blocks: int
    streams: tuple[str, ...]
    workers: int
    sampled: int
    seconds: float
    bytes: int
    free_bytes: int | None
    files: int
    noun: str = "images"

    def describe(self) -> list[str]:
        """Return the estimate as lines of text."""
        if self.rows == 0:
            return ["complete, nothing to do"]
        speed, noun = self.rows / self.seconds, self.noun
        amount = f"{self.bytes / 1e9:.2f} GB" if self.bytes >= 1e9 else f"{self.bytes / 1e6:.2f} MB"
        room = "" if self.free_bytes is None else f", {self.free_bytes / 1e9:.2f} GB are free"
        how = f"{self.workers} workers, {speed:.1f} {noun}/s (measured on {self.sampled} {noun})"
        return [
            f"{self.rows} {noun} to extract in {self.blocks} blocks: {', '.join(self.streams)}",
            f"about {format_duration(self.seconds)} with {how}",
            f"{amount} to write{room}; at most {self.files} files in a folder",
        ]


def estimate_build(path: str | Path, manifest: Manifest, spec: CacheSpec, options: BuildOptions) -> BuildEstimate:
    """Estimate the build that `build_cache` would run with the same arguments. Nothing is written.

    Raises:
        EmofuseError: for the reasons for which `build_cache` raises before it extracts.
    """
    path = as_path(path)
    manifest = with_known_face_rows(path, manifest, spec)
    plan = plan_build(path, manifest, spec, keep_gone=options.keep_gone)
    check_is_imported(path, plan.to_import)
    if not plan.missing:
        return BuildEstimate(0, 0, (), 0, 0, 0.0, 0, free_bytes(path), 0)
    lacking = tuple(name for name in plan.pending if plan.lacks(name))
    workers = count_workers(plan, spec, options)
    layouts = {name: layout for name in lacking if (layout := read_stream_layout(path, name)) is not None}
    one_thread = not options.in_this_process  # as in one of many workers
    device = build_device(plan, spec, options)
    trial = _Trial(plan, plan.manifest, spec, device, one_thread, options.runtime)
    seconds, sampled, noun = 0.0, 0, noun_of(spec).many
    for names, missing in _by_streams(plan).items():
        with step(f"measuring on a few {noun}"):
            measured = trial.measure(names, missing)
        layouts = {**measured.layouts, **layouts}
        sampled += measured.images
        rows = sum(len(part.views) * _rows(plan, part) for part in missing)
        seconds += rows * measured.seconds_per_image / workers
    blocks = {name: int(plan.pending[name].sum()) for name in lacking}
    return BuildEstimate(
        rows=plan.rows,
        blocks=len(plan.missing),
        streams=lacking,
        workers=workers,
        sampled=sampled,
        seconds=seconds,
        bytes=bytes_of_blocks([layouts[name] for name in lacking], plan.layout.block_rows, blocks),
        free_bytes=free_bytes(path),
        noun=noun,
        files=1 + spec.views * max(layouts[name].chunks(plan.layout) for name in lacking),
    )


@dataclass(frozen=True)
class _Measured:
    """The measured speed of several streams together: seconds for each image and view, images, and layouts."""

    seconds_per_image: float
    images: int
    layouts: Mapping[str, StreamLayout]


@dataclass(frozen=True)
class _Trial:
    """The extraction of a few images in this process, as a worker would run it."""

    plan: BuildPlan
    manifest: Manifest
    spec: CacheSpec
    device: str
    one_thread: bool
    runtime: Runtime

    def measure(self, names: Sequence[str], missing: Sequence[Missing]) -> _Measured:
        """Measure these streams on images of these blocks."""
        streams = tuple(stream for stream in self.spec.streams if stream.name in names)
        sources, ids = _sample(missing, self.plan, self.manifest)
        views = missing[0].views
        threads = 1 if self.one_thread else None
        extractor = Extractor(streams, self.spec, device=self.device, runtime=self.runtime, threads=threads)
        try:
            if self.one_thread:
                cap_native_threads()
            opened = [(stream, extractor.stored[stream.name]) for stream in streams]
            layouts = {
                spec.name: planned_layout(spec, stream.shape, stream.flag_names, stream.dimensions)
                for spec, stream in opened
            }
            extractor.extract_views(
                sources[:1], ids[:1], views
            )  # the first image also loads what is loaded at first use
            started = time.perf_counter()
            extractor.extract_views(sources, ids, views)
            seconds = time.perf_counter() - started
        finally:
            extractor.close()
        return _Measured(seconds / (len(sources) * len(views)), len(sources), layouts)


def _sample(missing: Sequence[Missing], plan: BuildPlan, manifest: Manifest) -> tuple[list[Source | None], list[str]]:
    """Return sources and ids of rows spread evenly over the missing blocks; bad rows are among them at their share."""
    total = sum(_rows(plan, part) for part in missing)
    wanted = np.unique(np.linspace(0, total - 1, min(total, _SAMPLED)).astype(np.int64))
    sizes = np.array([_rows(plan, part) for part in missing])
    ends = np.cumsum(sizes)
    parts = np.searchsorted(ends, wanted, side="right")
    starts = np.array([plan.layout.block_slice(part.block).start for part in missing])
    rows = starts[parts] + wanted - (ends - sizes)[parts]
    table = manifest.table[rows.tolist()]
    root = manifest.root.absolute()
    files = open_files(root, follow_links=follows_links(manifest))
    return sources_of(table, root, files), table["sample_id"].to_list()


def _by_streams(plan: BuildPlan) -> dict[tuple[str, ...], list[Missing]]:
    """Return the missing parts by the streams that they lack."""
    parts: dict[tuple[str, ...], list[Missing]] = {}
    for missing in plan.missing:
        parts.setdefault(missing.streams, []).append(missing)
    return parts


def _rows(plan: BuildPlan, missing: Missing) -> int:
    rows = plan.layout.block_slice(missing.block)
    return int(rows.stop - rows.start)
