"""A stream may refuse pictures, many that lie together too; whether it is broken shows over the whole build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cheap_streams import FLAKY, FlakySpec, SizeSpec

from emofuse.cache.reader import open_cache
from emofuse.cache.writer import discard_blocks
from emofuse.errors import StreamError
from emofuse.extraction import build_cache, tally
from emofuse.extraction.tally import Tally
from emofuse.extraction.tasks import BlockDone, Problem
from emofuse.specs import CacheSpec
from emofuse.status import Status

ALL = ",".join(map(str, range(256)))


def spec_of(block_rows: int) -> CacheSpec:
    return CacheSpec(block_rows=block_rows, streams=(FlakySpec(), SizeSpec()))


def failed_rows(path: Path) -> list[int]:
    status = open_cache(path).streams["flaky"].status[:, 0]
    return np.flatnonzero(status == Status.FAILED).tolist()


@pytest.mark.parametrize("block_rows", [2, 4, 40])
def test_pictures_that_a_stream_refuses_are_failed_whatever_the_block(
    tmp_path, manifest, in_process, monkeypatch, block_rows
):
    """A picture is known by its row. The last two may make a block; the first four come before any that it takes."""
    refused = [0, 1, 2, 3, 38, 39]
    monkeypatch.setenv(FLAKY, ",".join(map(str, refused)))
    summary = build_cache(tmp_path / "c.zarr", manifest, spec_of(block_rows), in_process)
    assert summary.counts["flaky"] == {"ok": 33, "unreadable": 1, "failed": 6}
    assert failed_rows(tmp_path / "c.zarr") == refused


def test_a_stream_that_refuses_everything_ends_the_build_and_its_rows_are_not_done(
    tmp_path, manifest, in_process, monkeypatch
):
    path = tmp_path / "c.zarr"
    monkeypatch.setenv(FLAKY, ALL)
    for _ in range(2):  # and is judged again by the next one
        with pytest.raises(
            StreamError,
            match=r"^stream 'flaky' failed on all 39 readable pictures that it was given; first: row 0: "
            r"ZeroDivisionError: as the environment says\. Its rows count as not done, those of other streams are "
            r"kept; run the same build again when the cause is removed\.$",
        ):
            build_cache(path, manifest, spec_of(4), in_process)
    assert open_cache(path).streams["flaky"].lacking_blocks().tolist() == list(range(10))
    assert open_cache(path).streams["size"].lacking_blocks().tolist() == []
    monkeypatch.delenv(FLAKY)
    assert build_cache(path, manifest, spec_of(4), in_process).counts == {"flaky": {"ok": 39, "unreadable": 1}}


def test_a_stream_that_refuses_very_many_is_given_up_early(tmp_path, manifest, in_process, monkeypatch):
    monkeypatch.setattr(tally, "_REFUSED_ROWS", 10)
    monkeypatch.setenv(FLAKY, ALL)
    with pytest.raises(StreamError, match=r"^stream 'flaky' failed on all 11 readable pictures"):
        build_cache(tmp_path / "c.zarr", manifest, spec_of(4), in_process)


def test_what_is_left_of_a_build_is_judged_by_what_is_done(tmp_path, manifest, in_process, monkeypatch):
    """A build that was interrupted before its last block may go on, though the stream refuses that block."""
    path = tmp_path / "c.zarr"
    build_cache(path, manifest, spec_of(4), in_process)
    discard_blocks(path, "flaky", [(9, 0)])
    assert open_cache(path).streams["flaky"].lacking_blocks().tolist() == [9]
    monkeypatch.setenv(FLAKY, ALL)
    assert build_cache(path, manifest, spec_of(4), in_process).counts == {"flaky": {"failed": 4}}


def test_in_a_large_dataset_a_stream_is_given_up_after_a_quarter():
    """A label whose pictures it refuses may come first."""
    judged = Tally(planned=8000)
    for block in range(20):
        assert not judged.is_hopeless, block
        counts = [0] * len(Status)
        counts[Status.FAILED] = 100
        judged.add(BlockDone(100, {"s": tuple(counts)}, (Problem(100 * block, "s", "no"),)))
    assert judged.is_hopeless
