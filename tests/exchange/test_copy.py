from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import lock_cache
from emofuse.errors import CacheError
from emofuse.exchange import copy
from emofuse.exchange.copy import CopySummary, copy_cache
from emofuse.stores import as_path, file_sizes


@pytest.fixture(params=["a disk", "a store"])
def target(request, tmp_path) -> Path:
    if request.param == "a store":
        return as_path(request.getfixturevalue("s3_bucket")) / "copies" / "copy.zarr"
    return tmp_path / "copies" / "copy.zarr"


def contents(cache: Path) -> dict[str, bytes]:
    found = {name: (cache / name).read_bytes() for name in file_sizes(cache)}
    return {**found, "manifest": manifest_path(cache).read_bytes()}


def test_a_copy_is_the_cache_byte_for_byte(cache_path, target):
    told = []
    summary = copy_cache(cache_path, target, on_files=lambda *state: told.append(state))
    assert contents(target) == contents(cache_path)
    files = len(contents(cache_path))
    assert summary == CopySummary(files, files, sum(map(len, contents(cache_path).values())))
    assert told[-1] == (files, files)
    features, _ = open_cache(target).streams["lbp"].read()
    np.testing.assert_array_equal(features, open_cache(cache_path).streams["lbp"].read()[0])


def test_a_copy_comes_back_from_a_store(cache_path, s3_bucket, tmp_path):
    there = as_path(s3_bucket) / "there.zarr"
    copy_cache(cache_path, there)
    copy_cache(there, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(cache_path)


def test_a_second_copy_writes_nothing(cache_path, target):
    copy_cache(cache_path, target)
    assert copy_cache(cache_path, target).copied == 0


def test_an_interrupted_copy_is_no_cache_and_goes_on(cache_path, target, monkeypatch):
    written = []
    replace_file = copy.replace_file

    def stop_after_five(path, data):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        replace_file(path, data)

    monkeypatch.setattr(copy, "_THREADS", 1)
    monkeypatch.setattr(copy, "replace_file", stop_after_five)
    with pytest.raises(KeyboardInterrupt):
        copy_cache(cache_path, target)
    with pytest.raises(CacheError, match=r"not a feature cache|no such cache"):
        open_cache(target)
    monkeypatch.undo()
    summary = copy_cache(cache_path, target)
    assert summary.copied == summary.files - 5
    assert contents(target) == contents(cache_path)


def test_what_is_there_and_wrong_is_copied_again(cache_path, target):
    copy_cache(cache_path, target)
    chunk = target / "streams/lbp/features/c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(bytes(data))  # as long as it was
    (target / "streams/lbp/status/c.2.0").unlink()
    assert copy_cache(cache_path, target).copied == 2
    assert contents(target) == contents(cache_path)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" + data[1:]])
def test_damaged_chunks_are_named_when_all_others_are_copied(cache_path, target, damage):
    chunk = cache_path / "streams/lbp/features/c.0.0.0"
    whole = chunk.read_bytes()
    chunk.write_bytes(damage(whole))
    message = r"^1 chunks are damaged and were not copied: .*features\.zarr/streams/lbp/features/c\.0\.0\.0\. Repair"
    with pytest.raises(CacheError, match=message):
        copy_cache(cache_path, target)
    assert not (target / "zarr.json").exists()
    chunk.write_bytes(whole)
    assert copy_cache(cache_path, target).copied == 2  # the chunk and the root's metadata
    assert contents(target) == contents(cache_path)


def test_leftovers_of_killed_builds_stay_behind(cache_path, target):
    before = contents(cache_path)
    (cache_path / "streams/lbp/features/c.0.0.0.abc.partial").write_bytes(b"half")
    (cache_path / "streams/.new-objects").mkdir()
    (cache_path / "streams/.new-objects/zarr.json").write_bytes(b"{}")
    copy_cache(cache_path, target)
    assert contents(target) == before


def test_something_else_at_the_target_is_left_alone(cache_path, target, tmp_path):
    target.mkdir(parents=True, exist_ok=True)
    (target / "cat.jpg").write_bytes(b"meow")
    with pytest.raises(CacheError, match=r"copy\.zarr: holds 1 files that are not in .*, the first cat\.jpg\. Choose"):
        copy_cache(cache_path, target)
    assert list(file_sizes(target)) == ["cat.jpg"]


def test_another_cache_at_the_target_is_left_alone(cache_path, target):
    copy_cache(cache_path, target)
    root = cache_path / "zarr.json"
    root.write_text(root.read_text().replace('"created"', '"made"'))
    root.write_text(root.read_text().replace('"made"', '"created"') + " ")
    with pytest.raises(CacheError, match=r"copy\.zarr: another cache is there already\. Choose another path"):
        copy_cache(cache_path, target)


def test_a_file_in_the_place_of_the_copy_stays(cache_path, tmp_path):
    target = tmp_path / "notes.txt"
    target.write_text("mine")
    with pytest.raises(CacheError, match=r"notes\.txt: is a file\. Choose another path for the copy"):
        copy_cache(cache_path, target)
    assert target.read_text() == "mine"


def test_a_cache_cannot_be_copied_onto_itself(cache_path):
    with pytest.raises(CacheError, match=r"features\.zarr: a cache cannot be copied onto itself"):
        copy_cache(cache_path, cache_path.parent / "x" / ".." / "features.zarr")
    with pytest.raises(CacheError, match=r"features\.zarr: a cache cannot be copied onto itself"):
        copy_cache(cache_path, cache_path)


def test_only_a_cache_is_copied(tmp_path, cache_path):
    with pytest.raises(CacheError, match="no such cache"):
        copy_cache(tmp_path / "none.zarr", tmp_path / "copy.zarr")
    manifest_path(cache_path).unlink()
    with pytest.raises(CacheError, match=r"its manifest .* is missing"):
        copy_cache(cache_path, tmp_path / "copy.zarr")


def test_a_target_in_use_is_left_alone(cache_path, tmp_path):
    with lock_cache(tmp_path / "copy.zarr"), pytest.raises(CacheError, match="another build"):
        copy_cache(cache_path, tmp_path / "copy.zarr")


def test_a_disk_that_gives_back_other_bytes_is_noticed(cache_path, tmp_path, monkeypatch):
    monkeypatch.setattr(copy, "replace_file", lambda path, data: path.write_bytes(data[:-1] + b"?"))
    with pytest.raises(CacheError, match=r"was written, and other bytes are read back\. Check this disk or store"):
        copy_cache(cache_path, tmp_path / "copy.zarr")


def test_a_target_that_cannot_be_written_is_named(cache_path, tmp_path, monkeypatch):
    def refuse(path, data):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(copy, "replace_file", refuse)
    with pytest.raises(CacheError, match=r"cannot be written \(.*No space left on device\)\. Run the same copy again"):
        copy_cache(cache_path, tmp_path / "copy.zarr")
