"""Verify and repair of caches on a store that refuses requests: damage is repaired, and silence is no damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from cheap_streams import SizeSpec
from shaped_streams import StripsSpec

import emofuse.extraction.worker
from emofuse import stores
from emofuse.cache import lease
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError, StoreError, StreamError
from emofuse.extraction import build_cache
from emofuse.specs import CacheSpec
from emofuse.stores import as_path, file_sizes
from emofuse.upkeep import repair_cache
from emofuse.upkeep.verify import verify_cache

STREAMS = (SizeSpec(), StripsSpec())
SPEC = CacheSpec(block_rows=8, streams=STREAMS)
ERRORS = [("503 Slow Down", "SlowDown"), ("500 Oops", "InternalError")]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch) -> None:
    """A lost store keeps the lease of its last holder, this process: alive, and silent, for requests are counted."""
    monkeypatch.setattr(lease, "BEAT_S", 60.0)
    monkeypatch.setattr(lease, "PATIENCE_S", 0.3)
    monkeypatch.setattr(lease, "_LOOK_S", 0.05)


@pytest.fixture
def some(manifest) -> Manifest:
    """The first sixteen rows: two blocks, and row 9 is no picture."""
    return Manifest(manifest.table[:16], manifest.classes, manifest.root, manifest.info)


@pytest.fixture
def built(s3_bucket, some, in_process) -> Path:
    path = as_path(s3_bucket) / "features.zarr"
    build_cache(path, some, SPEC, in_process)
    return path


def files_of(cache: Path) -> dict[str, bytes]:
    return {name: (cache / name).read_bytes() for name in file_sizes(cache) if name != "zarr.json"}


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


def damage(cache: Path) -> None:
    """Of every kind: chunks of each array changed, cut and gone, metadata gone and changed."""
    streams = cache / "streams"
    flip(streams / "size/features/c.0.0.0")
    (streams / "size/flags/c.1.0").unlink()
    flip(streams / "strips/mask/c.1.0.0")
    (streams / "strips/mask/zarr.json").unlink()
    (streams / "size/features/zarr.json").write_bytes(b"{}")
    (streams / "zarr.json").unlink()


@pytest.fixture
def computed(monkeypatch, built) -> set[tuple[int, tuple[str, ...]]]:
    """(block, streams) of what is computed from now on."""
    calls = set()
    compute = emofuse.extraction.worker._compute_block
    monkeypatch.setattr(
        emofuse.extraction.worker,
        "_compute_block",
        lambda job, task: calls.add((task.block, task.streams)) or compute(job, task),
    )
    return calls


@pytest.mark.parametrize(("status", "code"), ERRORS)
def test_verify_finds_the_same_on_a_store_that_fails_one_request_in_ten(built, refusing_store, status, code):
    flip(built / "streams/size/features/c.0.0.0")
    (built / "streams/strips/mask/c.1.0.0").write_bytes(b"short")
    (built / "streams/size/flags/c.1.0").unlink()
    expected = verify_cache(built)
    assert expected.bad_blocks() == {"size": [(0, 0), (1, 0)], "strips": [(1, 0)]}
    with refusing_store(lambda number: number % 10 == 0, status, code) as store:
        assert verify_cache(built) == expected
    assert store.refused >= 3


def test_a_store_that_refuses_three_times_in_a_row_is_asked_a_fourth_time(built, refusing_store):
    with refusing_store(lambda number: number % 30 in {1, 2, 3}) as store:
        assert verify_cache(built).faults == ()
    assert store.refused >= 6


@pytest.mark.parametrize(("status", "code"), ERRORS)
def test_repair_computes_exactly_the_bad_blocks_on_a_store_that_fails_one_request_in_ten(
    built, in_process, computed, refusing_store, status, code
):
    before = files_of(built)
    damage(built)
    with refusing_store(lambda number: number % 10 == 0, status, code) as store:
        summary = repair_cache(built, in_process, streams=STREAMS)
    assert store.refused >= 10
    assert sorted(computed) == [(0, ("size",)), (1, ("size", "strips"))]
    assert (summary.blocks, len(summary.metadata)) == (3, 3)
    assert files_of(built) == before
    assert verify_cache(built).faults == ()


def moments(requests: int) -> range:
    """Four of them: after so many requests the store is gone."""
    return range(0, requests, -(-requests // 4))


def test_a_store_that_goes_away_during_a_check_is_not_taken_for_damage(built, refusing_store, monkeypatch):
    """Whichever request is the first that gets no answer."""
    monkeypatch.setattr(stores.connection, "_ATTEMPTS", 1)
    flip(built / "streams/size/features/c.0.0.0")
    expected = verify_cache(built)
    with refusing_store(lambda number: False) as store:
        verify_cache(built)
    for last in moments(store.requests):
        with (
            refusing_store(lambda number, last=last: number > last),
            pytest.raises(StoreError, match="the store cannot be used"),
        ):
            verify_cache(built)
    assert verify_cache(built) == expected


def test_a_repair_that_loses_its_store_goes_on_when_it_is_back(built, in_process, some, refusing_store, monkeypatch):
    """Whichever request is the first that gets no answer: nothing is lost but time."""
    monkeypatch.setattr(stores.connection, "_ATTEMPTS", 1)
    before = files_of(built)
    damage(built)
    with refusing_store(lambda number: False) as store:
        repair_cache(built, in_process, streams=STREAMS)
    for last in moments(store.requests):
        damage(built)
        with (
            refusing_store(lambda number, last=last: number > last),
            pytest.raises((StoreError, StreamError, CacheError), match="the store cannot be used"),
        ):
            repair_cache(built, in_process, streams=STREAMS)
        repair_cache(built, in_process, streams=STREAMS)
        build_cache(built, some, SPEC, in_process)
        assert files_of(built) == before, f"lost after {last} requests"
