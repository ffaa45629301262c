from __future__ import annotations

import json
import pickle
import re
import shutil
import warnings
from contextlib import suppress
from pathlib import Path

import numcodecs.pickles
import numpy as np
import pytest
import xarray
import zarr

import emofuse
from emofuse.cache import reader
from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_stream
from emofuse.cache.writer import write_block
from emofuse.errors import CacheError, IncompleteCacheError
from emofuse.upkeep.verify import verify_cache


def expected_features() -> np.ndarray:
    features = (np.arange(10)[:, None] + np.arange(5) / 10).astype(np.float16)
    features[3] = 0
    return features


def test_labels_splits_and_ids_come_from_the_manifest(cache_path):
    cache = emofuse.open_cache(str(cache_path))
    assert len(cache) == 10
    assert cache.classes == ("joy", "fear")
    assert cache.labels.dtype == np.int64
    assert cache.labels.tolist() == [0, 1, -1, 0, 1, -1, 0, 1, -1, 0]
    assert cache.splits.tolist() == ["train", "val", "test", "", "train", "val", "test", "", "train", "val"]
    assert cache.sample_ids.tolist() == [f"s{row}" for row in range(10)]
    assert repr(cache) == f"<Cache {cache_path} with 10 rows: lbp>"


def test_text_is_the_same_whatever_part_is_made_at_once(cache_path, monkeypatch):
    monkeypatch.setattr(reader, "_TEXTS_AT_ONCE", 3)
    cache = open_cache(cache_path)
    assert cache.sample_ids.tolist() == [f"s{row}" for row in range(10)]
    assert cache.splits.tolist() == ["train", "val", "test", "", "train", "val", "test", "", "train", "val"]


def test_nothing_of_millions_of_rows_is_made_before_it_is_asked_for(cache_path):
    cache = open_cache(cache_path)
    assert not {"labels", "splits", "sample_ids"} & vars(cache).keys()


def test_a_label_that_is_no_class_is_an_error(cache_path, make_manifest):
    make_manifest(label=["envy"] * 10).write(manifest_path(cache_path))
    with pytest.raises(CacheError, match=r"features\.zarr: its manifest has labels that are none of joy, fear"):
        _ = open_cache(cache_path).labels


def test_a_stream_gives_features_status_and_flags(cache_path):
    stream = open_cache(cache_path).streams["lbp"]
    features, status = stream.read()
    np.testing.assert_array_equal(features, expected_features())
    assert features.dtype == np.float16
    assert features.flags.c_contiguous
    assert status.tolist() == [1, 1, 1, 2, 1, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(stream.features[2:6, 0], expected_features()[2:6])
    assert stream.flags[:, 0].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert stream.counts() == {"pending": 0, "ok": 9, "no_detection": 1, "unreadable": 0, "failed": 0}
    assert (stream.name, stream.kind, stream.dim, stream.dtype) == ("lbp", "lbp", 5, np.dtype("float16"))
    assert stream.flag_names == ("whole_image",)
    assert repr(stream) == "<CachedStream 'lbp' (10, 1, 5) float16>"
    stream.check_complete()


def test_a_stream_can_be_read_block_by_block(cache_path):
    stream = open_cache(cache_path).streams["lbp"]
    blocks = [stream.read_block(block) for block in range(3)]
    assert [len(rows) for rows in blocks] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), expected_features())


def test_a_stream_can_be_read_as_float32_without_a_copy_as_stored(cache_path):
    stream = open_cache(cache_path).streams["lbp"]
    wide, status = stream.read(dtype=np.float32)
    assert wide.dtype == stream.read_block(1, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(wide, expected_features().astype(np.float32))
    np.testing.assert_array_equal(stream.read_block(1, dtype=np.float32), wide[4:8])
    assert status.tolist() == [1, 1, 1, 2, 1, 1, 1, 1, 1, 1]


def test_the_spec_that_extracts_a_stream_again_is_kept(cache_path, make_layout):
    cache = open_cache(cache_path)
    assert cache.streams["lbp"].spec == {"kind": "lbp", "name": "lbp"}
    assert cache.decode == make_layout().decode
    assert cache.face == make_layout().face


def test_a_stream_without_flags_reads_as_zeros(cache_path, make_layout):
    add_stream(cache_path, make_layout("plain", flag_names=()))
    stream = open_cache(cache_path).streams["plain"]
    assert stream.flags.tolist() == [[0]] * 10
    assert not (cache_path / "streams/plain/flags").exists()


def test_a_row_that_is_not_ok_has_a_reason(cache_path):
    reasons = open_cache(cache_path).streams["lbp"].reasons()
    assert reasons.shape == (10, 1)
    assert reasons[:, 0].tolist() == ["", "", "", "nothing detected", *[""] * 6]


def test_a_block_without_its_reasons_lacks_if_a_row_is_not_ok(cache_path):
    (cache_path / "streams/lbp/reason/c.0.0").unlink()
    assert open_cache(cache_path).streams["lbp"].lacking_blocks().tolist() == [0]


def test_damaged_reasons_are_named_with_the_remedy(cache_path):
    chunk = cache_path / "streams/lbp/reason/c.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    with pytest.raises(
        CacheError, match=r"reason/c\.0\.0: damaged \(rows 0-3 of 'lbp': .*Have its block computed again"
    ):
        open_cache(cache_path).streams["lbp"].reasons()


def test_a_cache_of_format_1_is_read_and_written_without_reasons(cache_path, block_values):
    edit(cache_path / "zarr.json", '"format": 2', '"format": 1')
    edit(cache_path / "streams/lbp/zarr.json", ',\n      "keeps_reasons": true', "")
    shutil.rmtree(cache_path / "streams/lbp/reason")
    (cache_path / "streams/lbp/status/c.0.0").unlink()
    assert open_cache(cache_path).streams["lbp"].lacking_blocks().tolist() == [0]
    write_block(cache_path, "lbp", 0, **block_values(0), reasons=["", "", "", "no face found"])
    stream = open_cache(cache_path).streams["lbp"]
    np.testing.assert_array_equal(stream.read()[0], expected_features())
    assert stream.reasons().tolist() == [[""]] * 10
    assert not (cache_path / "streams/lbp/reason").exists()


def test_an_unfinished_stream_is_not_read(cache_path):
    (cache_path / "streams/lbp/status/c.1.0").unlink()
    stream = open_cache(cache_path).streams["lbp"]
    message = "'lbp' lacks 1 of 3 blocks. Run the same build again: finished blocks are kept."
    with pytest.raises(IncompleteCacheError, match=f"^{re.escape(message)}$"):
        stream.check_complete()
    with pytest.raises(IncompleteCacheError, match="lacks 1 of 3 blocks"):
        stream.read()


def test_a_damaged_features_chunk_is_named_with_the_remedy(cache_path):
    chunk = cache_path / "streams/lbp/features/c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[7] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(
        CacheError,
        match=r"features/c\.1\.0\.0: damaged \(rows 4-7 of 'lbp': .*Have its block computed again: emofuse cache",
    ):
        open_cache(cache_path).streams["lbp"].read()
    stream = open_cache(cache_path).streams["lbp"]
    np.testing.assert_array_equal(stream.read_block(0), expected_features()[:4])
    with pytest.raises(CacheError, match=r"features/c\.1\.0\.0: damaged \(rows 4-7"):
        stream.read_block(1)
    chunk.unlink()
    assert open_cache(cache_path).streams["lbp"].lacking_blocks().tolist() == [1]


def test_the_fast_codec_pipeline_reads_the_same(cache_path):
    pytest.importorskip("zarrs")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        stream = open_cache(cache_path).streams["lbp"]
        np.testing.assert_array_equal(stream.read()[0], expected_features())
        (cache_path / "streams/lbp/status/c.1.0").write_bytes(b"12345678")
        assert open_cache(cache_path).streams["lbp"].lacking_blocks().tolist() == [1]


def test_reading_leaves_the_settings_of_zarr_alone(cache_path):
    before = json.dumps(zarr.config.config, default=str)
    open_cache(cache_path).streams["lbp"].read()
    assert json.dumps(zarr.config.config, default=str) == before


def test_xarray_reads_a_stream(cache_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(cache_path, group="streams/lbp", consolidated=False)
    assert dict(dataset.sizes) == {"sample": 10, "view": 1, "feature": 5}
    assert {name: array.dims for name, array in dataset.data_vars.items()} == {
        "features": ("sample", "view", "feature"),
        "status": ("sample", "view"),
        "flags": ("sample", "view"),
        "reason": ("sample", "view"),
    }
    assert dataset["reason"].values[3, 0] == "nothing detected"
    np.testing.assert_array_equal(dataset["features"].values[:, 0], expected_features())
    assert dataset["status"].dtype == np.uint8
    assert dataset.attrs["emofuse"]["kind"] == "lbp"


@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated:RuntimeWarning")
def test_xarray_reads_a_stream_without_being_told_how(cache_path):
    assert xarray.open_zarr(cache_path, group="streams/lbp")["features"].shape == (10, 1, 5)


def test_no_such_cache(tmp_path):
    with pytest.raises(CacheError, match=r"none\.zarr: no such cache\. Make one with: emofuse cache build"):
        open_cache(tmp_path / "none.zarr")


def test_a_folder_of_something_else_is_not_a_cache(tmp_path):
    with pytest.raises(CacheError, match="not a feature cache of emofuse"):
        open_cache(tmp_path)
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3, attributes={"made": "elsewhere"})
    with pytest.raises(CacheError, match=r"other\.zarr: not a feature cache of emofuse"):
        open_cache(tmp_path / "other.zarr")


def test_another_format_version_is_refused(cache_path):
    edit(cache_path / "zarr.json", '"format": 2', '"format": 9')
    with pytest.raises(
        CacheError, match=r"features\.zarr: cache format 9, this emofuse reads formats 1, 2 and 3\. Build it again"
    ):
        open_cache(cache_path)


class Payload:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_an_array_of_another_format_is_not_opened_for_it_could_be_unpickled(cache_path, tmp_path, monkeypatch):
    """Zarr v2 knows a filter that unpickles, in older releases of numcodecs without being asked to."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    folder = cache_path / "streams/lbp/reason"
    (folder / "zarr.json").unlink()
    says = {"zarr_format": 2, "shape": [10, 1], "chunks": [4, 1], "dtype": "|O", "fill_value": "", "order": "C"}
    says |= {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "compressor": None, "dimension_separator": "."}
    (folder / ".zarray").write_text(json.dumps(says))
    (folder / "0.0").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with suppress(Exception):
        zarr.open_array(folder)[:]
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    with pytest.raises(CacheError, match=r"streams/lbp: damaged \("):
        open_cache(cache_path).streams["lbp"].reasons()
    assert verify_cache(cache_path).faults
    assert not (tmp_path / "ran").exists()


def test_damaged_metadata_is_named(cache_path):
    edit(cache_path / "zarr.json", '"rows"', '"lines"')
    with pytest.raises(CacheError, match=r"zarr\.json: damaged, 'rows' is missing\. Build the cache again"):
        open_cache(cache_path)
    (cache_path / "zarr.json").write_text("{")
    with pytest.raises(CacheError, match=r"zarr\.json: damaged \("):
        open_cache(cache_path)


@pytest.mark.parametrize("file", ["features/zarr.json", "status/zarr.json"])
def test_a_stream_with_damaged_arrays_is_named_with_the_remedy(cache_path, file):
    (cache_path / "streams/lbp" / file).unlink()
    with pytest.raises(
        CacheError, match=r"streams/lbp: damaged \(.*\)\. Repair it with: emofuse cache repair .*features\.zarr"
    ):
        open_cache(cache_path)


def test_a_missing_manifest_is_named(cache_path):
    manifest_path(cache_path).unlink()
    with pytest.raises(CacheError, match=r"its manifest features\.manifest\.parquet is missing\. Put it back"):
        open_cache(cache_path)


def test_a_damaged_manifest_is_named(cache_path):
    manifest_path(cache_path).write_bytes(b"PAR1 and nothing else")
    with pytest.raises(CacheError, match=r"features\.manifest\.parquet: damaged \("):
        open_cache(cache_path)


def test_the_manifest_of_another_cache_is_refused(cache_path, make_manifest):
    make_manifest(9).write(manifest_path(cache_path))
    with pytest.raises(
        CacheError, match=r"not the manifest of features\.zarr, its 9 sample ids are not those of the cache's 10 rows"
    ):
        open_cache(cache_path)


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
