from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emofuse.cache.layout import CacheLayout, StreamLayout, describe_difference, manifest_path
from emofuse.cache.metadata import read_cache_layout
from emofuse.specs import digest

GROUP = {"zarr_format": 3, "node_type": "group"}
CRC = {"name": "crc32c"}


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def expected_array(shape: list[int], chunks: list[int], dtype: str, codec: dict, names: list[str], fill=0) -> dict:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill,
        "codecs": [codec, CRC],
        "attributes": {},
        "dimension_names": names,
        "storage_transformers": [],
    }


def test_files_of_a_finished_cache(cache_path):
    files = {
        str(file.relative_to(cache_path.parent)): file.stat().st_size
        for file in cache_path.parent.rglob("*")
        if file.is_file()
    }
    features = 4 * 5 * 2 + 4  # rows x values x float16 + checksum
    assert {name: size for name, size in files.items() if not name.endswith(("zarr.json", ".parquet"))} == {
        **{f"features.zarr/streams/lbp/features/c.{block}.0.0": features for block in range(3)},
        **{f"features.zarr/streams/lbp/flags/c.{block}.0": 8 for block in range(3)},
        **{f"features.zarr/streams/lbp/status/c.{block}.0": 8 for block in range(3)},
        "features.zarr/streams/lbp/reason/c.0.0": 4 + 4 * 4 + len("nothing detected") + 4,  # only row 3 has one
    }
    assert {name for name in files if name.endswith(("zarr.json", ".parquet"))} == {
        "features.manifest.parquet",
        "features.zarr/zarr.json",
        "features.zarr/streams/zarr.json",
        "features.zarr/streams/lbp/zarr.json",
        "features.zarr/streams/lbp/features/zarr.json",
        "features.zarr/streams/lbp/flags/zarr.json",
        "features.zarr/streams/lbp/reason/zarr.json",
        "features.zarr/streams/lbp/status/zarr.json",
    }


def test_metadata_of_a_finished_cache(cache_path, make_manifest, make_layout):
    root = read_json(cache_path / "zarr.json")
    created = root["attributes"]["emofuse"].pop("created")
    assert created.endswith("+00:00")
    ids = make_manifest().ids_digest
    own = {"format": 2, "rows": 10, "block_rows": 4, "ids_digest": ids}
    assert root == {**GROUP, "attributes": {"emofuse": {**own, "checksum": digest(own)}}}
    assert read_json(cache_path / "streams/zarr.json") == {**GROUP, "attributes": {}}
    layout = make_layout()
    own = {
        "kind": "lbp",
        "dim": 5,
        "dtype": "float16",
        "views": 1,
        "digest": digest(layout.identity),
        "identity": layout.identity,
        "weights": None,
        "flag_names": ["whole_image"],
        "columns": [],
        "spec": layout.spec,
        "decode": layout.decode,
        "face": layout.face,
        "augment": None,
        "keeps_reasons": True,
    }
    attributes = {"emofuse": {**own, "checksum": digest(own)}}
    assert read_json(cache_path / "streams/lbp/zarr.json") == {**GROUP, "attributes": attributes}
    little_endian = {"name": "bytes", "configuration": {"endian": "little"}}
    assert read_json(cache_path / "streams/lbp/features/zarr.json") == expected_array(
        [10, 1, 5], [4, 1, 5], "float16", little_endian, ["sample", "view", "feature"]
    )
    for array in ("status", "flags"):
        assert read_json(cache_path / f"streams/lbp/{array}/zarr.json") == expected_array(
            [10, 1], [4, 1], "uint8", {"name": "bytes"}, ["sample", "view"]
        )
    text = {"name": "vlen-utf8", "configuration": {}}
    assert read_json(cache_path / "streams/lbp/reason/zarr.json") == expected_array(
        [10, 1], [4, 1], "string", text, ["sample", "view"], fill=""
    )


def test_the_metadata_of_arrays_is_known_from_the_stream(cache_path, make_layout):
    cache = read_cache_layout(cache_path)
    for array in ("features", "flags", "reason", "status"):
        assert read_json(cache_path / f"streams/lbp/{array}/zarr.json") == make_layout().array_metadata(array, cache)


def test_bytes_of_a_chunk_are_rows_in_little_endian_and_their_checksum(cache_path, block_values):
    data = (cache_path / "streams/lbp/features/c.2.0.0").read_bytes()
    padded = np.zeros((4, 5), dtype="<f2")
    padded[:2] = block_values(2)["features"]
    assert data[:-4] == padded.tobytes()
    assert data[-4:] == crc32c(data[:-4]).to_bytes(4, "little")


def crc32c(data: bytes) -> int:
    """Bit by bit, Castagnoli's polynomial reversed."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_a_chunk_of_reasons_is_their_count_then_length_and_text_of_each_and_a_checksum(cache_path):
    data = (cache_path / "streams/lbp/reason/c.0.0").read_bytes()
    lengths = [(length).to_bytes(4, "little") for length in (4, 0, 0, 0, 16)]  # the count, then four texts
    assert data[:-4] == b"".join(lengths) + b"nothing detected"
    assert data[-4:] == crc32c(data[:-4]).to_bytes(4, "little")


def test_chunk_lengths_are_known_beforehand(cache_path, make_layout):
    layout = make_layout()
    assert layout.block_bytes(4) == sum(
        (cache_path / f"streams/lbp/{name}").stat().st_size
        for name in ("features/c.0.0.0", "flags/c.0.0", "status/c.0.0")
    )


def test_the_last_block_holds_the_rest_of_the_rows():
    layout = CacheLayout(rows=10, block_rows=4, ids_digest="", created="")
    assert layout.blocks == 3
    assert [layout.block_slice(block) for block in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert CacheLayout(rows=8, block_rows=4, ids_digest="", created="").blocks == 2


@pytest.mark.parametrize(
    ("cache", "manifest"),
    [
        ("features.zarr", "features.manifest.parquet"),
        ("a/b.v2.zarr", "a/b.v2.manifest.parquet"),
        ("plain", "plain.manifest.parquet"),
    ],
)
def test_the_manifest_lies_beside_the_cache(cache, manifest):
    assert manifest_path(Path(cache)) == Path(manifest)


def test_streams_without_flags_have_no_array_for_them(make_layout):
    assert make_layout().arrays == ("features", "flags", "reason", "status")
    assert make_layout(flag_names=()).arrays == ("features", "reason", "status")
    assert make_layout(flag_names=(), keeps_reasons=False).arrays == ("features", "status")


def test_weights_and_columns_are_no_part_of_the_digest(make_layout):
    plain: StreamLayout = make_layout()
    assert make_layout(weights={"kind": "file"}, columns=("a",) * 5, name="other").digest == plain.digest
    assert make_layout(identity={"kind": "lbp"}).digest != plain.digest


@pytest.mark.parametrize(
    ("cached", "wanted", "text"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"parameters": {"region_px": 128}}, {"parameters": {"region_px": 96}}, "region_px 128, the spec now says 96"),
        (
            {"face": {"detector": "face_mesh", "min": 0.5}, "version": 1},
            {"face": {"detector": "landmarker", "min": 0.5}, "version": 2},
            "face.detector face_mesh, the spec now says landmarker; with version 1, the spec now says 2",
        ),
        (
            {"weights": {"sha256": "ab" * 32}},
            {"weights": {"random_seed": 0}},
            "no weights.random_seed, the spec now says 0; with weights.sha256 abababababab..., the spec now has none",
        ),
        ({"face": {}}, {}, "face {}, the spec now has none"),
        ({"x": None}, {}, "x null, the spec now has none"),
    ],
)
def test_differences_are_spelt_out_key_by_key(cached, wanted, text):
    assert describe_difference(cached, wanted) == text
