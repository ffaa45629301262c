"""Sizes that are told before anything is written."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from emofuse.cache.size import bytes_of_blocks, free_bytes, planned_layout
from emofuse.specs import LbpSpec
from emofuse.stores import as_path


@pytest.mark.parametrize(("flag_names", "arrays"), [((), ("features", "status")), (("whole_image",), None)])
def test_the_bytes_of_blocks_are_those_of_their_chunks(cache_path, flag_names, arrays):
    layout = planned_layout(LbpSpec(dtype="float16"), (5,), flag_names)
    folders = [cache_path / "streams" / "lbp" / array for array in arrays or ("features", "status", "flags")]
    chunks = [chunk for folder in folders for chunk in folder.glob("c.*")]
    assert bytes_of_blocks([layout], 4, {"lbp": 3}) == sum(chunk.stat().st_size for chunk in chunks)


def test_blocks_are_counted_by_stream():
    layouts = [planned_layout(LbpSpec(name=name), (7,), ()) for name in ("a", "b")]
    block = layouts[0].block_bytes(4)
    assert bytes_of_blocks(layouts, 4, {"a": 2, "b": 3}) == 5 * block
    assert bytes_of_blocks([], 4, {"a": 2}) == 0


def test_what_is_free_is_asked_of_the_folder_that_there_is(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: asked.append(folder) or SimpleNamespace(free=7))
    assert free_bytes(tmp_path / "new" / "features.zarr") == free_bytes(tmp_path) == 7
    assert asked == [tmp_path, tmp_path]


def test_a_store_does_not_tell_what_is_free():
    assert free_bytes(as_path("s3://bucket/features.zarr")) is None
