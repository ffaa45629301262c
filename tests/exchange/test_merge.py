from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_stream, create_cache, lock_cache
from emofuse.cache.writer import write_block
from emofuse.errors import CacheError, StaleCacheError
from emofuse.exchange import merge_blocks
from emofuse.exchange.merge import merge_caches
from emofuse.specs import DecodeSpec, FaceSpec
from emofuse.status import Status
from emofuse.stores import as_path


@pytest.fixture
def make_cache(tmp_path, make_manifest, make_layout):
    """A cache of rows s<first>.. whose row r has features r + 0, .1, ...; every seventh row has no face."""

    def make(name, rows, *, first=0, block_rows=4, streams=("lbp",), skip=(), root="/data", manifest=None, **layout):
        path = tmp_path / f"{name}.zarr"
        numbers = np.arange(first, first + rows)
        manifest = manifest or make_manifest(
            rows,
            root=root,
            sample_id=[f"s{number}" for number in numbers],
            path=[f"{number}.png" for number in numbers],
        )
        create_cache(path, manifest, block_rows=block_rows)
        for stream in streams:
            made = make_layout(stream, **layout)
            add_stream(path, made)
            for block in range(-(-rows // block_rows)):
                if block in skip:
                    continue
                own = numbers[block * block_rows : (block + 1) * block_rows]
                status = np.where(own % 7 == 3, Status.NO_DETECTION, Status.OK).astype(np.uint8)
                has_face = (status == Status.OK)[:, None]
                features = ((own[:, None] + np.arange(made.dim) / 10) * has_face).astype(made.dtype)
                for view in range(made.views):
                    write_block(
                        path, stream, block, features=features + view * has_face.astype(made.dtype),
                        status=status, flags=(own % 5 == 0).astype(np.uint8), view=view,
                        reasons=["no face" if code == Status.NO_DETECTION else "" for code in status],
                    )  # fmt: skip
        return path

    return make


def test_groups_are_merged_with_the_rows(make_cache, make_manifest, tmp_path):
    parts = {}
    for first, group in ((0, "s1"), (3, "s2")):
        ids = [f"s{number}" for number in range(first, first + 3)]
        manifest = make_manifest(3, sample_id=ids, group=[group, None, group])
        parts[group] = make_cache(group, 3, first=first, manifest=manifest)
    merge_caches(tmp_path / "all.zarr", list(parts.values()))
    assert open_cache(tmp_path / "all.zarr").groups.tolist() == ["s1", "", "s1", "s2", "", "s2"]


def test_other_groups_of_the_same_samples_are_named(make_cache, make_manifest, tmp_path):
    one = make_cache("one", 3)
    two = make_cache("two", 3, manifest=make_manifest(3, group=["x", None, None]))
    with pytest.raises(CacheError, match=r"group differs in 1 rows of .*two\.zarr, row 0 \(s0\): x there, none in"):
        merge_caches(tmp_path / "all.zarr", [one, two])


def assert_same_numbers(found: Path, expected: Path) -> None:
    found, expected = open_cache(found), open_cache(expected)
    assert found.sample_ids.tolist() == expected.sample_ids.tolist()
    for name, stream in expected.streams.items():
        for view in range(stream.views):
            for a, b in zip(found.streams[name].read(view), stream.read(view), strict=True):
                np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(found.streams[name].flags, stream.flags)
        np.testing.assert_array_equal(found.streams[name].reasons(), stream.reasons())
        assert found.streams[name].digest == stream.digest


@pytest.mark.parametrize("block_rows", [(4, 4, 4), (4, 3, 5), (5, 100, 1)])
def test_rows_of_all_caches_follow_one_another(make_cache, tmp_path, block_rows):
    sources = [
        make_cache(f"part{index}", rows, first=first, block_rows=size)
        for index, (rows, first, size) in enumerate(zip((10, 7, 3), (0, 10, 17), block_rows, strict=True))
    ]
    told = []
    summary = merge_caches(tmp_path / "out.zarr", sources, on_blocks=lambda *state: told.append(state))
    assert_same_numbers(tmp_path / "out.zarr", make_cache("whole", 20))
    assert (summary.rows, summary.streams, summary.by_rows, summary.lacking) == (20, ("lbp",), True, {})
    blocks = -(-20 // block_rows[0])
    assert told[-1] == (blocks, blocks)
    out = open_cache(tmp_path / "out.zarr")
    assert out.manifest.info["rows"] == 20
    assert out.manifest.info["merged"] == [str(path) for path in sources]


def test_streams_of_all_caches_come_together(make_cache, tmp_path):
    one = make_cache("one", 10)
    two = make_cache("two", 10, streams=("texture", "lbp"), block_rows=3)
    summary = merge_caches(tmp_path / "out.zarr", [one, two])
    assert (summary.streams, summary.by_rows) == (("lbp", "texture"), False)
    assert_same_numbers(tmp_path / "out.zarr", make_cache("whole", 10, streams=("lbp", "texture")))
    assert open_cache(tmp_path / "out.zarr").layout.block_rows == 4


def test_blocks_come_from_the_cache_that_has_them(make_cache, tmp_path):
    one = make_cache("one", 20, skip=(1, 2))
    two = make_cache("two", 20, skip=(0, 4))
    assert merge_caches(tmp_path / "out.zarr", [one, two]).lacking == {}
    assert_same_numbers(tmp_path / "out.zarr", make_cache("whole", 20))


def test_blocks_that_no_cache_has_are_left_for_a_build(make_cache, tmp_path):
    one = make_cache("one", 20, skip=(1, 2))
    two = make_cache("two", 20, skip=(0, 2), block_rows=4)
    assert merge_caches(tmp_path / "out.zarr", [one, two]).lacking == {"lbp": 1}
    assert open_cache(tmp_path / "out.zarr").streams["lbp"].lacking_blocks().tolist() == [2]


def test_views_come_from_the_cache_that_has_them(make_cache, tmp_path):
    one = make_cache("one", 10)
    two = make_cache("two", 10, views=3, augment={"version": 1, "seed": 0}, skip=(0,))
    assert merge_caches(tmp_path / "out.zarr", [one, two]).lacking == {"lbp": 2}
    stream = open_cache(tmp_path / "out.zarr").streams["lbp"]
    assert stream.views == 3
    assert stream.lacking(3).tolist() == [[False, True, True], [False] * 3, [False] * 3]


def test_a_merge_goes_on_where_it_was_interrupted(make_cache, tmp_path, monkeypatch):
    sources = [make_cache("one", 10), make_cache("two", 10, first=10)]
    write = merge_blocks.write_block
    written = []

    def stop_at_the_third(path, stream, block, **values):
        if len(written) == 2:
            written.append("stop")
            raise KeyboardInterrupt
        written.append(block)
        write(path, stream, block, **values)

    monkeypatch.setattr(merge_blocks, "write_block", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        merge_caches(tmp_path / "out.zarr", sources)
    merge_caches(tmp_path / "out.zarr", sources)
    assert written == [0, 1, "stop", 2, 3, 4]
    assert_same_numbers(tmp_path / "out.zarr", make_cache("whole", 20))


def test_paths_become_relative_to_the_folder_that_holds_all_images(make_cache, tmp_path):
    one = make_cache("one", 3, root="/data/a/x")
    two = make_cache("two", 2, first=3, root="/data/b")
    merge_caches(tmp_path / "out.zarr", [one, two])
    manifest = open_cache(tmp_path / "out.zarr").manifest
    assert manifest.root == Path("/data")
    assert manifest.table["path"].to_list() == ["a/x/0.png", "a/x/1.png", "a/x/2.png", "b/3.png", "b/4.png"]


def test_one_root_stays_as_it_is(make_cache, tmp_path):
    merge_caches(tmp_path / "out.zarr", [make_cache("one", 2), make_cache("two", 2, first=2)])
    manifest = open_cache(tmp_path / "out.zarr").manifest
    assert (str(manifest.root), manifest.table["path"].to_list()) == ("/data", ["0.png", "1.png", "2.png", "3.png"])


def test_images_on_a_store_and_on_a_disk_have_no_folder_in_common(make_cache, tmp_path):
    for other, first in (("s3://bucket/b", 2), ("s3://other/b", 4)):
        one = make_cache(f"one{first}", 2, root="/data" if first == 2 else "s3://bucket")
        two = make_cache(f"two{first}", 2, first=first, root=other)
        for path in (one, two):
            cache = open_cache(path)
            manifest = replace(cache.manifest, root=as_path(cache.manifest.root))
            manifest.write(manifest_path(path))
        with pytest.raises(CacheError, match="no folder holds the files of all of them: "):
            merge_caches(tmp_path / "out.zarr", [one, two])


def test_attributes_that_some_caches_lack_are_null(make_cache, tmp_path):
    one, two = make_cache("one", 2), make_cache("two", 2, first=2)
    manifest = open_cache(one).manifest
    brighter = manifest.table.with_columns(brightness=pl.Series([0.1, 0.2]))
    type(manifest)(brighter, manifest.classes, manifest.root, manifest.info).write(manifest_path(one))
    merge_caches(tmp_path / "out.zarr", [one, two])
    assert open_cache(tmp_path / "out.zarr").manifest.table["brightness"].to_list() == [0.1, 0.2, None, None]


def with_attribute(path, **columns):
    """A cache whose manifest has further columns."""
    manifest = open_cache(path).manifest
    table = manifest.table.with_columns(pl.Series(name, values) for name, values in columns.items())
    type(manifest)(table, manifest.classes, manifest.root, manifest.info).write(manifest_path(path))
    return path


def test_the_same_samples_have_the_attributes_of_all_caches(make_cache, tmp_path):
    one = with_attribute(make_cache("one", 2), valence=[0.1, float("nan")])
    two = with_attribute(make_cache("two", 2), valence=[0.1, float("nan")], arousal=[0.3, None])
    merge_caches(tmp_path / "out.zarr", [one, two])
    table = open_cache(tmp_path / "out.zarr").manifest.table
    assert table["arousal"].to_list() == [0.3, None]
    assert table["valence"][0] == 0.1


def test_other_attributes_of_the_same_samples_are_named(make_cache, tmp_path):
    one = with_attribute(make_cache("one", 2), valence=[0.1, 0.2])
    two = with_attribute(make_cache("two", 2), valence=[0.1, None])
    expected = f"valence differs in 1 rows of {two}, row 1 (s1): none there, 0.2 in {one}"
    assert expected in contradiction(tmp_path, [one, two])


def contradiction(out: Path, sources, **options) -> str:
    with pytest.raises(CacheError) as raised:
        merge_caches(out / "out.zarr", sources, **options)
    assert not (out / "out.zarr").exists()
    return str(raised.value)


def test_streams_of_another_make_are_named_with_all_that_differs(make_cache, tmp_path):
    other = {"kind": "lbp", "version": 2, "parameters": {"region_px": 96}, "face": {"detector": "face_mesh"}}
    one, two = make_cache("one", 3), make_cache("two", 3, first=3, identity=other)
    three = make_cache("three", 3, first=6, dim=6)
    assert contradiction(tmp_path, [one, two, three]) == (
        "the caches cannot be merged: "
        f"lbp of {two} was cached with region_px 96, that of {one} says 128; "
        f"with version 2, that of {one} says 1 | lbp of {three} was cached with dim 6, that of {one} says 5"
    )


def test_other_pictures_and_faces_are_named(make_cache, tmp_path):
    one = make_cache("one", 3)
    two = make_cache(
        "two", 3, streams=("texture",),
        decode=DecodeSpec(max_pixels=9).model_dump(mode="json"),
        face=FaceSpec(min_confidence=0.7).model_dump(mode="json"),
    )  # fmt: skip
    message = contradiction(tmp_path, [one, two])
    assert "texture was cached with decode.max_pixels 9, lbp says 100000000" in message
    assert "texture was cached with face.min_confidence 0.7, lbp says 0.5" in message


def test_views_drawn_in_another_way_are_named(make_cache, tmp_path):
    one = make_cache("one", 3, views=2, augment={"version": 1, "seed": 0})
    two = make_cache("two", 3, views=2, augment={"version": 1, "seed": 1})
    assert f"lbp of {two} was cached with augment.seed 1, that of {one} says 0" in contradiction(tmp_path, [one, two])
    three = make_cache("three", 3, first=3)
    message = contradiction(tmp_path, [one, three])
    assert f"lbp of {three} was cached with augment null, that of {one} has none" in message
    assert f"with views 1, that of {one} says 2" in message


def test_a_stream_that_some_rows_would_lack_is_named(make_cache, tmp_path):
    one, two = make_cache("one", 3, streams=("lbp", "texture")), make_cache("two", 3, first=3)
    assert contradiction(tmp_path, [one, two]) == (
        f"the caches cannot be merged: texture is not in {two}, and these caches are of different rows (leave it out "
        "with --streams)"
    )
    assert merge_caches(tmp_path / "out.zarr", [one, two], streams=["lbp"]).streams == ("lbp",)


def test_samples_that_are_in_two_caches_of_different_rows_are_listed(make_cache, tmp_path):
    one, two = make_cache("one", 30), make_cache("two", 30, first=3)
    message = contradiction(tmp_path, [one, two])
    assert "of different rows, but 27 samples are in more than one of them: s3, s4, " in message
    assert message.endswith(", s22 and 7 more")


def test_other_classes_are_named(make_cache, make_manifest, tmp_path):
    other = make_manifest(3, sample_id=["a", "b", "c"], label=["fear", "joy", None])
    other = type(other)(other.table, ("fear", "joy"), other.root, other.info)
    one, two = make_cache("one", 3), make_cache("two", 3, manifest=other)
    assert f"the labels of {two} are fear, joy, not joy, fear" in contradiction(tmp_path, [one, two])


def test_other_labels_and_splits_of_the_same_samples_are_named(make_cache, make_manifest, tmp_path):
    one = make_cache("one", 3)
    two = make_cache("two", 3, manifest=make_manifest(3, label=["joy", "joy", "joy"], split=["train", None, "test"]))
    assert contradiction(tmp_path, [one, two]) == (
        f"the caches cannot be merged: label differs in 2 rows of {two}, row 1 (s1): joy there, fear in {one} | "
        f"split differs in 1 rows of {two}, row 1 (s1): none there, val in {one}. Give them the same labels, splits, "
        "groups and attributes first: a build with the same dataset does that and extracts nothing."
    )
    same = make_manifest(3)
    three = make_cache("three", 3, manifest=type(same)(same.table, ("joy", "fear", "x"), same.root, same.info))
    assert f"the labels of {three} are joy, fear, x, not joy, fear" in contradiction(tmp_path, [one, three])


def test_what_is_asked_for_must_make_sense(make_cache, tmp_path):
    one, two = make_cache("one", 3), make_cache("two", 3, first=3)
    assert contradiction(tmp_path, [one]) == f"{tmp_path}/out.zarr: a merge takes two caches or more, got 1"
    assert contradiction(tmp_path, [one, two, one]) == (
        f"{one}: named twice. A merge makes a new cache from different ones."
    )
    with pytest.raises(CacheError, match=re.escape(f"{two}: named twice")):
        merge_caches(two, [one, two])
    assert contradiction(tmp_path, [one, two], streams=["lpb"]) == (
        "no stream 'lpb' in these caches, did you mean 'lbp'? (there are: lbp)"
    )


def test_another_cache_at_the_new_path_is_left_alone(make_cache, tmp_path):
    one, two, there = make_cache("one", 3), make_cache("two", 3, first=3), make_cache("there", 4)
    with pytest.raises(StaleCacheError, match=r"there\.zarr holds 4 rows, the dataset now has 6"):
        merge_caches(there, [one, two])


def test_a_damaged_chunk_ends_the_merge(make_cache, tmp_path):
    one, two = make_cache("one", 3), make_cache("two", 3, first=3)
    chunk = two / "streams/lbp/features/c.0.0.0"
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(CacheError, match=r"two\.zarr/streams/lbp/features/c\.0\.0\.0: damaged"):
        merge_caches(tmp_path / "out.zarr", [one, two])


def test_a_target_in_use_is_left_alone(make_cache, tmp_path):
    sources = [make_cache("one", 8), make_cache("two", 8, first=8)]
    with (
        lock_cache(tmp_path / "out.zarr"),
        pytest.raises(CacheError, match="another build is writing this cache"),
    ):
        merge_caches(tmp_path / "out.zarr", sources)
    assert not (tmp_path / "out.zarr").exists()
