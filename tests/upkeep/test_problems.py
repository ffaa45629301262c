"""Rows without features: which, and why."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_stream, add_views
from emofuse.cache.writer import write_block
from emofuse.errors import CacheError
from emofuse.status import Status
from emofuse.upkeep.problems import list_problems


@pytest.fixture
def path(cache_path, make_layout, block_values):
    """Beside `lbp`, a second stream of one block of three; row 2 failed in it, and in its view 1 row 0 too."""
    add_stream(cache_path, make_layout("size", kind="size", flag_names=()))
    add_views(cache_path, "size", 2, {"flip": 0.5})
    for view, failed in ((0, [2]), (1, [0, 2])):
        status = np.ones(4, np.uint8)
        status[failed] = Status.FAILED
        reasons = ["division by zero" if row in failed else "" for row in range(4)]
        write_block(cache_path, "size", 0, **{**block_values(0), "status": status}, reasons=reasons, view=view)
    return cache_path


def test_problems_are_listed_by_row_with_their_reasons(path):
    assert list_problems(open_cache(path)).rows() == [
        (0, "s0", "0.png", "size", 1, "failed", "division by zero"),
        (2, "s2", "2.png", "size", 0, "failed", "division by zero"),
        (2, "s2", "2.png", "size", 1, "failed", "division by zero"),
        (3, "s3", "3.png", "lbp", 0, "no_detection", "nothing detected"),
    ]


def test_problems_of_one_stream_or_status(path):
    cache = open_cache(path)
    assert list_problems(cache, ["lbp"])["row"].to_list() == [3]
    assert list_problems(cache, statuses=[Status.FAILED])["row"].to_list() == [0, 2, 2]
    nothing = list_problems(cache, ["lbp"], [Status.UNREADABLE])
    assert (nothing.height, nothing.columns) == (0, list_problems(cache).columns)


def test_an_unknown_stream_is_named(path):
    with pytest.raises(CacheError, match=r"no stream 'lpb', did you mean 'lbp'\? \(there are: lbp, size\)"):
        list_problems(open_cache(path), ["lpb"])
