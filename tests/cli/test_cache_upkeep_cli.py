"""`emofuse cache problems` and `verify` on a small cache of three rows."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from emofuse.cli import cache as cache_cli
from emofuse.cli import cache_upkeep
from emofuse.status import Status


def emofuse(*arguments: object) -> Result:
    result = CliRunner().invoke(cache_cli.app, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def path(tmp_path, write_cache):
    status = np.array([Status.OK, Status.NO_DETECTION, Status.UNREADABLE], np.uint8)
    sizes = np.array([Status.OK, Status.OK, Status.UNREADABLE], np.uint8)
    streams = {
        "lbp": ("lbp", np.ones((3, 512), np.float32), status),
        "size": ("size", np.ones((3, 2), np.float32), sizes),
    }
    return write_cache(tmp_path / "f.zarr", ["joy", "fear"], np.array([0, 1, 1]), ["train"] * 3, streams)


def test_problems_are_counted_and_listed(path):
    assert emofuse("problems", path).stdout.splitlines() == [
        "       1 lbp no_detection: nothing detected",
        "       1 lbp unreadable: unreadable",
        "       1 size unreadable: unreadable",
        "",
        "row 1, s0001 (lbp): no_detection, nothing detected",
        "row 2, s0002 (lbp, size): unreadable, unreadable",
    ]


def test_problems_of_a_stream_and_a_status(path):
    assert emofuse("problems", path, "--stream", "size", "--status", "no_detection, failed").stdout == "no such rows\n"
    assert "row 2, s0002 (size)" in emofuse("problems", path, "--stream", "size", "--status", "unreadable").stdout


def test_long_lists_are_cut_and_exported_whole(path, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_upkeep, "_LISTED", 1)
    assert emofuse("problems", path).stdout.splitlines()[-1] == "and 1 more; all of them: --export problems.csv"
    assert emofuse("problems", path, "--export", tmp_path / "out.csv").stdout == f"{tmp_path}/out.csv: 3 rows\n"
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "row": "1", "sample_id": "s0001", "path": "s0001.jpg", "stream": "lbp", "view": "0", "status": "no_detection",
        "reason": "nothing detected",
    }  # fmt: skip
    assert [(row["row"], row["stream"]) for row in rows] == [("1", "lbp"), ("2", "lbp"), ("2", "size")]


def test_blocks_that_lack_are_told(path):
    (path / "streams/size/status/c.0.0").unlink()
    assert emofuse("problems", path).stdout.splitlines()[-1] == "size lacks 1 of 1 blocks, whose rows are not listed"


def test_an_unknown_status_is_wrong_usage(path):
    result = emofuse("problems", path, "--status", "ok")
    assert result.exit_code == 2
    assert "expected some of no_detection, unreadable, failed" in " ".join(result.output.replace("│", " ").split())


def test_verify_of_a_whole_cache(path):
    result = emofuse("verify", path)
    assert (result.exit_code, result.stdout) == (0, f"{path}: 2 blocks read, nothing is damaged\n")


def test_verify_lists_what_is_damaged_and_fails(path):
    chunk = path / "streams/lbp/features/c.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-4] + b"0000")
    (path / "streams/size/status/c.0.0").unlink()
    result = emofuse("verify", path)
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()
    assert first.startswith("lbp block 0 rows 0-2: features/c.0.0.0: damaged (")
    assert second == "size: 1 blocks not computed yet"
    assert result.stderr == f"{path}: 1 faults. Mend them with: emofuse cache repair {path}\n"
