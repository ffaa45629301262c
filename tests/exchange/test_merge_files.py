"""What a merged cache says of the files that its features were extracted from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from emofuse.cache.layout import IMPORTED
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import add_stream, create_cache
from emofuse.cache.writer import write_block
from emofuse.datasets.sources import FILE_COLUMNS
from emofuse.errors import CacheError
from emofuse.exchange.merge import merge_caches
from emofuse.status import Status

UNKNOWN = (None, None, None)
ROWS, BLOCK_ROWS = 4, 2


@pytest.fixture
def make_cache(tmp_path, make_manifest, make_layout):
    """Four rows in two blocks of two, with a record of their files."""

    def make(name, files, *, blocks=(0, 1), first=0, stream="lbp", block_rows=BLOCK_ROWS, **layout):
        manifest = make_manifest(ROWS, sample_id=[f"s{first + row}" for row in range(ROWS)])
        known = None if files is None else pl.DataFrame(files, schema=FILE_COLUMNS, orient="row")
        path = tmp_path / f"{name}.zarr"
        create_cache(path, replace(manifest, files=known), block_rows=block_rows)
        made = make_layout(stream, **layout)
        add_stream(path, made)
        for block in blocks:
            write_block(
                path, stream, block, features=np.ones((block_rows, made.dim), made.dtype),
                status=np.full(block_rows, Status.OK, np.uint8), flags=np.zeros(block_rows, np.uint8),
            )  # fmt: skip
        return path

    return make


def stamps(machine):
    """Each row's file on a machine: of the same bytes everywhere, written at another time."""
    return [(100 + row, 1000 * machine + row, 7 + row) for row in range(ROWS)]


def merged_files(tmp_path, *sources, **options):
    merge_caches(tmp_path / "out.zarr", sources, **options)
    files = open_cache(tmp_path / "out.zarr").manifest.files
    return None if files is None else files.rows()


def test_rows_of_other_samples_keep_the_record_of_their_cache(make_cache, tmp_path):
    one, two = make_cache("one", stamps(1)), make_cache("two", stamps(2), first=ROWS)
    assert merged_files(tmp_path, one, two) == stamps(1) + stamps(2)


@pytest.mark.parametrize("known", [0, 1])
def test_a_record_of_one_cache_is_kept_beside_rows_of_which_nothing_is_known(make_cache, tmp_path, known):
    files = [None, None]
    files[known] = stamps(1)
    sources = [make_cache(f"part{part}", files[part], first=part * ROWS) for part in (0, 1)]
    unknown = [UNKNOWN] * ROWS
    assert merged_files(tmp_path, *sources) == (stamps(1) + unknown if known == 0 else unknown + stamps(1))


@pytest.mark.parametrize("first", [0, ROWS])
def test_caches_that_know_nothing_make_one_that_knows_nothing(make_cache, tmp_path, first):
    assert merged_files(tmp_path, make_cache("one", None), make_cache("two", None, first=first)) is None


def test_a_row_has_the_record_of_the_cache_that_extracted_it(make_cache, tmp_path):
    one = make_cache("one", [*stamps(1)[:2], (1, 1, 1), UNKNOWN], blocks=[0])
    two = make_cache("two", [(2, 2, 2), UNKNOWN, *stamps(2)[2:]], blocks=[1])
    assert merged_files(tmp_path, one, two) == stamps(1)[:2] + stamps(2)[2:]


def test_blocks_of_another_size_are_told_by_their_rows(make_cache, tmp_path):
    one = make_cache("one", stamps(1), blocks=[0])
    two = make_cache("two", stamps(2), block_rows=1, blocks=[2, 3])
    assert merged_files(tmp_path, one, two) == stamps(1)[:2] + stamps(2)[2:]


def test_what_was_not_taken_from_a_cache_says_nothing(make_cache, tmp_path):
    one, two = make_cache("one", stamps(1)), make_cache("two", [(9, 9, 9)] * ROWS)
    assert merged_files(tmp_path, one, two) == stamps(1)


def test_rows_that_nobody_extracted_are_unknown(make_cache, tmp_path):
    one, two = (make_cache(f"part{part}", stamps(part), blocks=[0]) for part in (1, 2))
    assert merged_files(tmp_path, one, two) == [*stamps(1)[:2], UNKNOWN, UNKNOWN]


def test_the_same_bytes_written_at_other_times_keep_the_first_record(make_cache, tmp_path):
    one, two = make_cache("one", stamps(1)), make_cache("two", stamps(2), stream="texture")
    assert merged_files(tmp_path, one, two) == stamps(1)


@pytest.mark.parametrize(
    ("one", "two", "merged"),
    [
        ((10, 1, 7), (10, 2, 7), (10, 1, 7)),
        ((10, 1, None), (10, 1, None), (10, 1, None)),
        ((10, 1, None), (10, 2, None), UNKNOWN),
        ((10, 1, None), (10, 2, 7), UNKNOWN),
        ((10, 1, None), (10, 1, 7), (10, 1, 7)),
        ((10, None, None), (10, 2, 7), (10, 2, 7)),
        ((10, 1, 7), (10, None, None), (10, 1, 7)),
        (UNKNOWN, (10, 1, 7), (10, 1, 7)),
        ((10, 1, 7), UNKNOWN, (10, 1, 7)),
        (UNKNOWN, UNKNOWN, UNKNOWN),
    ],
)
def test_records_of_one_file_agree_or_it_is_unknown(make_cache, tmp_path, one, two, merged):
    sources = [make_cache("one", [one] * ROWS), make_cache("two", [two] * ROWS, stream="texture")]
    assert merged_files(tmp_path, *sources) == [merged] * ROWS


@pytest.mark.parametrize(
    ("one", "two"),
    [((10, 1, 7), (10, 1, 8)), ((10, 1, 7), (11, 1, 7)), ((10, 1, None), (11, 1, 7)), ((10, 1, None), (11, 1, None))],
)
def test_features_of_two_different_images_do_not_become_one_row(make_cache, tmp_path, one, two):
    sources = [
        make_cache("one", [*stamps(1)[:2], one, one]),
        make_cache("two", [*stamps(2)[:2], two, two], stream="texture"),
    ]
    with pytest.raises(CacheError, match=r"other bytes in 2 samples of .*two\.zarr, row 2 \(s2\)\. .*--streams"):
        merged_files(tmp_path, *sources)
    assert not (tmp_path / "out.zarr").exists()


def test_a_third_record_does_not_settle_a_doubt(make_cache, tmp_path):
    files = ([(10, 1, None)] * ROWS, [(10, 2, None)] * ROWS, [(10, 1, None)] * ROWS)
    sources = [make_cache(f"part{part}", known, stream=f"lbp{part}") for part, known in enumerate(files)]
    assert merged_files(tmp_path, *sources) == [UNKNOWN] * ROWS


def test_streams_that_are_left_out_dispute_nothing(make_cache, tmp_path):
    one, two = make_cache("one", stamps(1)), make_cache("two", [(9, 9, 9)] * ROWS, stream="texture")
    assert merged_files(tmp_path, one, two, streams=["lbp"]) == stamps(1)


def test_imported_streams_tell_nothing_of_files(make_cache, tmp_path):
    one = make_cache("one", stamps(1))
    two = make_cache("two", [(9, 9, 9)] * ROWS, stream="clip", kind=IMPORTED, decode={}, face=None)
    assert merged_files(tmp_path, two, one) == stamps(1)
