"""Builds on two machines, merged: what the next build knows of the images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cheap_streams import MeanColourSpec, SizeSpec
from PIL import Image

from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError
from emofuse.exchange.merge import merge_caches
from emofuse.extraction import build_cache
from emofuse.specs import CacheSpec, FolderSpec, StratifiedSplit

SPEC = CacheSpec(block_rows=8, streams=(MeanColourSpec(), SizeSpec()))


def read(root: Path) -> Manifest:
    return read_dataset(FolderSpec(root=root, split=StratifiedSplit()))


@pytest.fixture
def roots(tmp_path, images) -> list[Path]:
    """The dataset on two machines: the same bytes, written on different days."""
    found = [tmp_path / machine / "images" for machine in ("one", "two")]
    for day, root in enumerate(found):
        shutil.copytree(images, root)
        for file in root.glob("*/*"):
            os.utime(file, (day * 86_400, day * 86_400))
    return found


@pytest.fixture
def merge(tmp_path, roots, in_process):
    """One stream is extracted on each machine; the merged cache lies on the first one."""

    def run() -> Path:
        for root, stream in zip(roots, SPEC.streams, strict=True):
            build_cache(root.with_name("part.zarr"), read(root), CacheSpec(block_rows=8, streams=(stream,)), in_process)
        merge_caches(tmp_path / "features.zarr", [root.with_name("part.zarr") for root in roots])
        return tmp_path / "features.zarr"

    return run


def test_a_merged_cache_is_complete_for_the_next_build(merge, roots, in_process):
    path = merge()
    files = open_cache(path).manifest.files
    assert files.equals(open_cache(roots[0].with_name("part.zarr")).manifest.files)
    assert files["crc32c"].null_count() == 0
    summary = build_cache(path, read(roots[0]), SPEC, in_process)
    assert (summary.rows, summary.changes) == (0, ())


def test_an_image_that_is_replaced_after_a_merge_is_noticed(tmp_path, merge, roots, in_process, contents):
    path = merge()
    Image.new("RGB", (12, 3), (1, 2, 3)).save(roots[0] / "fear" / "02.png")
    summary = build_cache(path, read(roots[0]), SPEC, in_process)
    assert summary.rows == 8
    assert summary.changes[0].startswith("replaced: 1 sample (")
    build_cache(tmp_path / "anew.zarr", read(roots[0]), SPEC, in_process)
    found, anew = contents(path), contents(tmp_path / "anew.zarr")
    assert {name: found[name] for name in found if "/c." in name} == {
        name: anew[name] for name in anew if "/c." in name
    }


def test_machines_with_different_images_are_named_and_one_more_build_settles_it(merge, roots, in_process):
    shutil.copy(roots[1] / "fear" / "02.png", roots[1].with_name("kept.png"))
    Image.new("RGB", (12, 3), (1, 2, 3)).save(roots[1] / "fear" / "02.png")
    with pytest.raises(CacheError, match=r"other bytes in 1 samples of .*part\.zarr, row 2 \(fear/02\)"):
        merge()
    roots[1].with_name("kept.png").replace(roots[1] / "fear" / "02.png")
    path = merge()
    assert build_cache(path, read(roots[0]), SPEC, in_process).rows == 0
