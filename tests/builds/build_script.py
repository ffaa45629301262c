"""Builds a cache in a process that tests can kill: build_script.py IMAGES CACHE WORKERS [HOW SECONDS].

HOW is what one picture does to its process, in blocks that may take so many seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cheap_streams import DeadlySpec, MeanColourSpec, SizeSpec
from shaped_streams import SHAPES

from emofuse.datasets import read_dataset
from emofuse.extraction import BuildOptions, build_cache
from emofuse.specs import CacheSpec, FolderSpec, StratifiedSplit

if __name__ == "__main__":
    images, cache, workers, *deadly = sys.argv[1:]
    how, seconds = deadly or (None, None)
    manifest = read_dataset(FolderSpec(root=Path(images), split=StratifiedSplit()))
    streams = (DeadlySpec(red=30, how=how),) if how else (MeanColourSpec(), SizeSpec(), *SHAPES)
    options = BuildOptions(workers=int(workers), device="cpu", block_timeout_s=float(seconds) if seconds else None)
    summary = build_cache(cache, manifest, CacheSpec(block_rows=4, streams=streams), options)
    sys.stdout.write(summary.describe())
