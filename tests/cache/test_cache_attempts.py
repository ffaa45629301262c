"""Writes that fail in passing are tried again; those that cannot succeed are refused at once."""

from __future__ import annotations

import errno

import pytest

from emofuse.cache import attempts
from emofuse.cache.attempts import write_persistently, writing
from emofuse.errors import CacheError, UnwritableCacheError


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    found = []
    monkeypatch.setattr(attempts.time, "sleep", found.append)
    return found


def failing(times: int, code: int):
    """A write that fails so many times, then succeeds; and the list of its calls."""
    calls = []

    def write() -> None:
        calls.append(1)
        if len(calls) <= times:
            raise OSError(code, "no luck")

    return write, calls


def test_a_write_that_fails_in_passing_is_tried_again_with_growing_pauses(pauses):
    write, calls = failing(5, errno.EIO)
    write_persistently(write, "x")
    assert len(calls) == 6
    for number, pause in enumerate(pauses):
        assert 0.05 * 2**number <= pause <= 0.15 * 2**number


def test_a_write_that_fails_every_time_is_given_up(pauses):
    write, calls = failing(99, errno.EIO)
    with pytest.raises(CacheError, match=r"^f\.zarr: block 3 cannot be written \(\[Errno 5\] no luck\)$"):
        write_persistently(write, "f.zarr: block 3")
    assert (len(calls), len(pauses)) == (6, 5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, r"^x cannot be written: the disk is full \(no luck\)\. Free some space\.$"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EFBIG, "the disk is full"),
        (errno.EROFS, r"^x cannot be written: it is read-only \(no luck\)\.$"),
        (errno.EACCES, "it is read-only"),
    ],
)
def test_a_disk_that_is_full_or_read_only_is_not_asked_again(pauses, code, message):
    write, calls = failing(99, code)
    with pytest.raises(UnwritableCacheError, match=message):
        write_persistently(write, "x")
    assert (len(calls), pauses) == (1, [])
    with pytest.raises(UnwritableCacheError, match=message), writing("x"):
        write()


def test_what_is_in_the_way_is_said_at_once(pauses):
    write, calls = failing(99, errno.EISDIR)
    with pytest.raises(CacheError, match=r"^x cannot be written \(\[Errno 21\] no luck\)$"):
        write_persistently(write, "x")
    assert (len(calls), pauses) == (1, [])
