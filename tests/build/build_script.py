"""Builds a cache in a process that tests can kill: build_script.py IMAGES CACHE WORKERS."""

from __future__ import annotations

import sys
from pathlib import Path

from cheap_streams import MeanColourSpec, SizeSpec

from emofuse.build import BuildOptions, build_cache
from emofuse.datasets import read_dataset
from emofuse.specs import CacheSpec, FolderSpec, StratifiedSplit

if __name__ == "__main__":
    images, cache, workers = sys.argv[1:]
    manifest = read_dataset(FolderSpec(root=Path(images), split=StratifiedSplit()))
    spec = CacheSpec(block_rows=4, streams=(MeanColourSpec(), SizeSpec()))
    summary = build_cache(cache, manifest, spec, BuildOptions(workers=int(workers), device="cpu"))
    sys.stdout.write(summary.describe())
