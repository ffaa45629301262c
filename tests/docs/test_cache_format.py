"""The reader of the page on the cache format, on caches of emofuse, beside emofuse's own reader."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import google_crc32c
import numpy as np
import polars as pl
import pytest
from page_reader import READER, check_same, read_cache
from typer.testing import CliRunner
from workshop import DOCS

import emofuse
from emofuse.cache.layout import StreamLayout
from emofuse.cache.structure import add_stream, add_views, create_cache
from emofuse.cache.writer import write_block
from emofuse.cli import app


def test_the_reader_has_thirty_lines_and_needs_no_emofuse():
    assert len([line for line in READER.text.splitlines() if line.strip()]) <= 31
    assert "emofuse import" not in READER.text
    assert "import emofuse" not in READER.text


@pytest.fixture
def shapes(tmp_path, make_manifest):
    """A cache of 10 rows in blocks of 4: vectors with views, sequences, maps; some rows are missing."""
    path = tmp_path / "features.zarr"
    create_cache(path, make_manifest(10), block_rows=4)
    rows = np.random.default_rng(0)
    layouts = [
        StreamLayout("vectors", "a", (3,), np.dtype(np.float32), {"a": 1}, flag_names=("blurred",)),
        StreamLayout("steps", "b", (5, 2), np.dtype(np.float16), {"b": 1}, dimensions=("time", "feature")),
        StreamLayout("maps", "c", (2, 3, 3), np.dtype(np.float32), {"c": 1}, dimensions=("channel", "y", "x")),
    ]
    for layout in layouts:
        add_stream(path, layout)
    add_views(path, "vectors", 2, {"flip": 0.5})
    for layout in layouts:
        for block, count in enumerate((4, 4, 2)):
            for view in range(2 if layout.name == "vectors" else 1):
                status = np.array([1, 2, 1, 4], np.uint8)[:count]
                there = status == 1
                features = rows.normal(size=(count, *layout.shape)).astype(layout.dtype)
                mask = np.tile(np.array([1, 1, 2, 0, 0], np.uint8), (count, 1)) * there[:, None]
                if layout.is_sequence:
                    features[mask != 1] = 0
                features[~there] = 0
                write_block(
                    path,
                    layout.name,
                    block,
                    features=features,
                    status=status,
                    flags=np.ones(count, np.uint8),
                    mask=mask.astype(np.uint8) if layout.is_sequence else None,
                    view=view,
                )
    return path


def test_the_reader_reads_sequences_maps_and_views(shapes):
    check_same(shapes)


def test_a_block_that_is_not_computed_is_noticed(shapes):
    (shapes / "streams/maps/status/c.1.0").unlink()
    with pytest.raises(ValueError, match="maps: not all blocks are computed"):
        read_cache(shapes)


def canonical(value) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def test_digests_and_checksums_are_as_the_page_says(shapes):
    about = json.loads((shapes / "zarr.json").read_text())["attributes"]["emofuse"]
    ids = pl.read_parquet(shapes.with_name("features.manifest.parquet"))["sample_id"].to_list()
    assert about["ids_digest"] == hashlib.sha256("\n".join(ids).encode()).hexdigest()
    rest = {key: value for key, value in about.items() if key not in {"checksum", "created"}}
    assert about["checksum"] == hashlib.sha256(canonical(rest)).hexdigest()
    assert about["format"] == 3
    for name in ("vectors", "steps", "maps"):
        stream = json.loads((shapes / "streams" / name / "zarr.json").read_text())["attributes"]["emofuse"]
        assert stream["digest"] == hashlib.sha256(canonical(stream["identity"])).hexdigest()
        rest = {key: value for key, value in stream.items() if key != "checksum"}
        assert stream["checksum"] == hashlib.sha256(canonical(rest)).hexdigest()
        assert set(stream) <= set(keys_of_the_page("Attributes of a stream"))
    assert set(about) == set(keys_of_the_page("Attributes of the cache"))


def keys_of_the_page(heading: str) -> list[str]:
    section = (
        (DOCS / "cache-format.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    )
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_chunks_have_the_length_and_the_checksum_that_the_page_says(shapes):
    data = (shapes / "streams/vectors/features/c.2.1.0").read_bytes()
    assert len(data) == 4 * 3 * 4 + 4  # a whole block, although the last one has two rows
    assert int.from_bytes(data[-4:], "little") == google_crc32c.value(data[:-4])
    assert data[2 * 3 * 4 : -4] == bytes(2 * 3 * 4)
    assert not (shapes / "streams/vectors/reason/c.0.5").exists()


def test_the_manifest_is_sealed_as_the_page_says(shapes):
    data = shapes.with_name("features.manifest.parquet").read_bytes()
    text = b"sha256 of this file with zeros in place of these digits: "
    start = data.index(text) + len(text)
    assert (
        hashlib.sha256(data[:start] + 64 * b"0" + data[start + 64 :]).hexdigest().encode() == data[start : start + 64]
    )
    columns = pl.read_parquet_schema(shapes.with_name("features.manifest.parquet"))
    assert {"sample_id", "path", "split", "label", "group", "problem"} <= set(columns)


def write_array(folder: Path, values: np.ndarray, chunk: tuple[int, ...], names: list[str]) -> None:
    """Write an array of numbers file by file, as the page says, without Zarr."""
    folder.mkdir(parents=True)
    codecs = [{"name": "bytes"}, {"name": "crc32c"}]
    if values.dtype.itemsize > 1:
        codecs[0]["configuration"] = {"endian": "little"}
    about = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": values.shape,
        "data_type": values.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0,
        "codecs": codecs,
        "attributes": {},
        "dimension_names": names,
        "storage_transformers": [],
    }
    (folder / "zarr.json").write_text(json.dumps(about))
    for number, start in enumerate(range(0, len(values), chunk[0])):
        part = np.zeros(chunk, values.dtype)
        rows = values[start : start + chunk[0]]
        part[: len(rows)] = rows
        data = part.tobytes()
        (folder / f"c.{number}{'.0' * (values.ndim - 1)}").write_bytes(
            data + google_crc32c.value(data).to_bytes(4, "little")
        )


def write_group(folder: Path, attributes: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"zarr_format": 3, "node_type": "group", "attributes": {"emofuse": attributes} if attributes else {}}
    (folder / "zarr.json").write_text(json.dumps(about))


def test_a_cache_written_from_the_page_alone_opens_in_emofuse(tmp_path):
    def sealed(keys: dict) -> dict:
        return {**keys, "checksum": hashlib.sha256(canonical(keys)).hexdigest()}

    ids = [f"s{row}" for row in range(6)]
    table = pl.DataFrame(
        {
            "sample_id": ids,
            "path": [f"{name}.png" for name in ids],
            "split": ["train", "train", "train", "val", "test", None],
            "label": ["joy", "fear", "joy", "joy", "fear", None],
            "group": [None] * 6,
            "problem": [None] * 6,
        },
        schema_overrides={"group": pl.String, "problem": pl.String},
    )
    about = {"classes": ["joy", "fear"], "root": "/data", "info": {"name": "mine", "kind": "mine"}, "columns": []}
    about["columns"] = ["sample_id", "path", "split", "label", "group", "problem"]
    table.write_parquet(tmp_path / "mine.manifest.parquet", metadata={"emofuse": json.dumps(about)})
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    cache, stream = tmp_path / "mine.zarr", tmp_path / "mine.zarr/streams/colour"
    keys = sealed({"format": 2, "rows": 6, "block_rows": 4, "ids_digest": digest})
    write_group(cache, {**keys, "created": "2026-11-29T19:16:02+00:00"})
    write_group(cache / "streams", {})
    features = np.arange(18, dtype=np.float32).reshape(6, 1, 3)
    features[5] = 0
    write_array(stream / "features", features, (4, 1, 3), ["sample", "view", "feature"])
    status = np.array([[1], [1], [1], [1], [1], [2]], np.uint8)
    write_array(stream / "status", status, (4, 1), ["sample", "view"])
    identity = {"kind": "imported", "by": "another program"}
    keys = {"kind": "imported", "dim": 3, "dtype": "float32", "views": 1, "identity": identity, "weights": None}
    keys |= {"digest": hashlib.sha256(canonical(identity)).hexdigest(), "flag_names": [], "columns": []}
    write_group(stream, sealed({**keys, "spec": {}, "decode": {}, "face": None, "augment": None}))
    opened = emofuse.open_cache(cache)
    read, found = opened.streams["colour"].read()
    np.testing.assert_array_equal(read, features[:, 0])
    np.testing.assert_array_equal(found, status[:, 0])
    assert opened.labels.tolist() == [0, 1, 0, 0, 1, -1]
    done = CliRunner().invoke(app, ["cache", "verify", str(cache)])
    assert done.exit_code == 0, done.output
