"""What a check of a cache finds: a changed byte anywhere, and rows that contradict themselves."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from emofuse.cache.layout import manifest_path
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_stream, add_views
from emofuse.cache.writer import discard_blocks, write_block
from emofuse.errors import CacheError
from emofuse.specs import digest
from emofuse.status import Status
from emofuse.upkeep.verify import Fault, FaultKind, verify_cache


def flip(file, position: int, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)


def described(path) -> list[str]:
    return [str(fault) for fault in verify_cache(path).faults]


def test_a_whole_cache_has_no_faults(cache_path):
    told = []
    found = verify_cache(cache_path, lambda done, total: told.append((done, total)))
    assert (found.faults, found.blocks, found.lacking) == ((), 3, {})
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("array", ["features", "flags", "reason", "status"])
def test_a_changed_byte_of_any_chunk_is_found_in_its_block(cache_path, array):
    chunks = sorted((cache_path / "streams/lbp" / array).glob("c.*"))
    assert len(chunks) == (1 if array == "reason" else 3)
    draws = random.Random(array)
    for chunk in chunks:
        block = int(chunk.name.split(".")[1])
        whole = chunk.read_bytes()
        for position in range(0, len(whole), 3 if array == "features" else 1):
            flip(chunk, position, draws.randrange(8))
            bad = verify_cache(cache_path).bad_blocks()
            assert bad == {"lbp": [(block, 0)]}, f"byte {position} of {chunk}"
            chunk.write_bytes(whole)
    assert described(cache_path) == []


@pytest.mark.parametrize("pipeline", ["zarrs.ZarrsCodecPipeline", "zarr.core.codec_pipeline.BatchedCodecPipeline"])
def test_a_changed_byte_is_found_by_every_codec_pipeline(cache_path, pipeline):
    if pipeline.startswith("zarrs"):
        pytest.importorskip("zarrs")
    flip(cache_path / "streams/lbp/features/c.1.0.0", 5, 0)
    flip(cache_path / "streams/lbp/reason/c.0.0", 30, 0)
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        assert verify_cache(cache_path).bad_blocks() == {"lbp": [(0, 0), (1, 0)]}


def test_a_changed_byte_of_metadata_or_manifest_is_found(cache_path):
    """Of the time of creation only what makes it no time: it is the one thing that says nothing of the bytes."""
    draws = random.Random(0)
    created = json.loads((cache_path / "zarr.json").read_text())["attributes"]["emofuse"]["created"].encode()
    for file in (*sorted(cache_path.rglob("zarr.json")), manifest_path(cache_path)):
        whole = file.read_bytes()
        hidden = (
            range(whole.find(created), whole.find(created) + len(created)) if file == cache_path / "zarr.json" else ()
        )
        for position in range(draws.randrange(11), len(whole), 11):
            if position in hidden:
                continue
            flip(file, position, draws.randrange(8))
            faults = verify_cache(cache_path).faults
            assert faults, f"byte {position} of {file}: {whole[position - 9 : position + 9]!r}"
            assert {fault.block for fault in faults} == {None}
            file.write_bytes(whole)
    assert described(cache_path) == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("features/c.1.0.0", "lbp block 1 rows 4-7: features/c.1.0.0: {}"),
        ("flags/c.2.0", "lbp block 2 rows 8-9: flags/c.2.0: {}"),
    ],
)
def test_missing_and_cut_chunks_are_named_with_their_rows(cache_path, name, what):
    chunk = cache_path / "streams/lbp" / name
    size = chunk.stat().st_size
    chunk.write_bytes(chunk.read_bytes()[:-3])
    assert described(cache_path) == [what.format(f"{size - 3} bytes, must be {size}")]
    chunk.unlink()
    assert described(cache_path) == [what.format("missing")]


def test_blocks_that_were_never_computed_are_no_faults(cache_path, make_layout):
    (cache_path / "streams/lbp/status/c.1.0").unlink()
    add_stream(cache_path, make_layout("other"))
    found = verify_cache(cache_path)
    assert (found.faults, found.blocks, found.lacking) == ((), 2, {"lbp": 1, "other": 3})


def test_killed_while_a_block_is_taken_back_leaves_a_block_to_compute_and_no_damage(cache_path, monkeypatch):
    unlink = Path.unlink

    def stop_soon(file, **options):
        unlink(file, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", stop_soon)
    with pytest.raises(KeyboardInterrupt):
        discard_blocks(cache_path, "lbp", [(1, 0)])
    monkeypatch.undo()
    found = verify_cache(cache_path)
    assert (found.faults, found.lacking) == ((), {"lbp": 1})


def test_views_are_checked_one_by_one(cache_path, block_values):
    add_views(cache_path, "lbp", 2, {"flip": 0.5})
    write_block(cache_path, "lbp", 1, **block_values(1), view=1)
    flip(cache_path / "streams/lbp/features/c.1.1.0", 0, 0)
    found = verify_cache(cache_path)
    assert found.bad_blocks() == {"lbp": [(1, 1)]}
    assert str(found.faults[0]).startswith("lbp block 1 view 1 rows 4-7: features/c.1.1.0: damaged (")
    assert found.lacking == {"lbp": 2}


def contradictory(path, array: str, row: int, value: object) -> list[str]:
    """Faults after one value was changed by a writer that keeps checksums right."""
    zarr.open_array(path / "streams/lbp" / array, mode="r+")[row, 0] = value
    return described(path)


@pytest.mark.parametrize(
    ("array", "row", "value", "what"),
    [
        ("features", 5, np.nan, "row 5: its features are not finite"),
        ("features", 3, 1.0, "row 3: it is not OK and its features are not zero"),
        ("status", 6, Status.PENDING, "row 6: a status that is none"),
        ("status", 6, 7, "row 6: a status that is none"),
        ("status", 3, Status.OK, "row 3: it is OK and has a reason not to be"),
        ("status", 1, Status.FAILED, "row 1: it is not OK and its features are not zero"),
        ("reason", 3, "", "row 3: it is not OK and has no reason"),
        ("flags", 9, 2, "row 9: it has flags without a name"),
    ],
)
def test_rows_that_contradict_themselves_are_named(cache_path, array, row, value, what):
    assert contradictory(cache_path, array, row, value) == [f"lbp block {row // 4} {what}"]


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda own: own.update(columns=["a"]), "lbp: zarr.json: damaged, its checksum does not fit"),
        (lambda own: own.pop("checksum"), "lbp: zarr.json: damaged, its checksum does not fit"),
        (lambda own: reseal(own, digest="0" * 64), "lbp: zarr.json: its digest is not that of its identity"),
        (lambda own: reseal(own, views=2), "lbp: features/zarr.json: shape must be [10, 2, 5], found [10, 1, 5]"),
    ],
)
def test_attributes_that_were_changed_are_named(cache_path, edit, what):
    file = cache_path / "streams/lbp/zarr.json"
    read = json.loads(file.read_text())
    edit(read["attributes"]["emofuse"])
    file.write_text(json.dumps(read))
    assert described(cache_path)[0] == what


def reseal(own: dict, **changes: object) -> None:
    own.update(changes)
    own["checksum"] = digest({name: value for name, value in own.items() if name != "checksum"})


def test_metadata_of_an_array_must_say_what_emofuse_writes_and_may_say_more(cache_path):
    file = cache_path / "streams/lbp/status/zarr.json"
    read = json.loads(file.read_text())
    file.write_text(json.dumps({**read, "of_a_later_zarr": {"must_understand": False}}))
    assert described(cache_path) == []
    file.write_text(json.dumps({**read, "codecs": read["codecs"][:1]}))
    found = verify_cache(cache_path)
    assert [str(fault) for fault in found.faults] == [
        'lbp: status/zarr.json: codecs must be [{"name": "bytes"}, {"name": "crc32c"}], found [{"name": "bytes"}]'
    ]
    assert found.faults == (Fault(FaultKind.ARRAY, found.faults[0].what, "lbp", "status"),)


def test_a_time_of_creation_that_is_none_is_found(cache_path):
    file = cache_path / "zarr.json"
    file.write_text(file.read_text().replace('"created": "20', '"created": "x0'))
    assert described(cache_path)[0].startswith("zarr.json: damaged, created is no time (")


def test_missing_metadata_is_named(cache_path):
    (cache_path / "streams/lbp/reason/zarr.json").unlink()
    assert described(cache_path)[0].startswith("lbp: reason/zarr.json: damaged ([Errno 2]")
    (cache_path / "zarr.json").unlink()
    assert described(cache_path) == ["zarr.json: features.zarr/zarr.json is missing"]


def test_a_manifest_of_other_samples_is_named(cache_path, make_manifest):
    make_manifest(9).write(manifest_path(cache_path))
    assert len(described(cache_path)) == 1
    assert "not the manifest of features.zarr" in described(cache_path)[0]
    manifest_path(cache_path).unlink()
    assert "its manifest features.manifest.parquet is missing" in described(cache_path)[0]


def test_a_damaged_manifest_is_not_parsed(cache_path):
    flip(manifest_path(cache_path), 40, 3)
    with pytest.raises(CacheError, match=r"manifest\.parquet: damaged \(.*its checksum does not fit\)\. Run the same"):
        open_cache(cache_path)


def test_a_cache_of_format_1_is_checked_as_far_as_it_says_enough(cache_path):
    for file, drop in ((cache_path / "zarr.json", ()), (cache_path / "streams/lbp/zarr.json", OF_FORMAT_2)):
        read = json.loads(file.read_text())
        own = read["attributes"]["emofuse"]
        del own["checksum"]
        for name in drop:
            del own[name]
        if "format" in own:
            own["format"] = 1
        file.write_text(json.dumps(read))
    shutil.rmtree(cache_path / "streams/lbp/reason")
    assert described(cache_path) == []
    flip(cache_path / "streams/lbp/features/c.1.0.0", 5, 0)
    assert verify_cache(cache_path).bad_blocks() == {"lbp": [(1, 0)]}


OF_FORMAT_2 = ("keeps_reasons", "dim", "dtype", "views")


def test_nothing_there_to_check(tmp_path):
    with pytest.raises(CacheError, match=r"none\.zarr: no such cache"):
        verify_cache(tmp_path / "none.zarr")
