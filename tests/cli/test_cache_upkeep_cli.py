"""`emofuse cache problems`, `verify`, `repair` and `retry` on small caches."""

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
    assert (
        emofuse("problems", path, "--stream", "size", "--status", "no_detection, failed").stdout
        == "There are no such rows.\n"
    )
    assert "row 2, s0002 (size)" in emofuse("problems", path, "--stream", "size", "--status", "unreadable").stdout


def test_long_lists_are_cut_and_exported_whole(path, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_upkeep, "_LISTED", 1)
    assert emofuse("problems", path).stdout.splitlines()[-1] == "and 1 more; write all with --export problems.csv"
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
    assert result.stderr == f"{path}: 1 fault. Repair with: emofuse cache repair {path}\n"


@pytest.fixture
def built(tmp_path, face, in_process_build):
    """Six pictures and a file that is none, with real textures."""
    return in_process_build(tmp_path)


@pytest.fixture
def in_process_build(face):
    from PIL import Image

    from emofuse.datasets import read_dataset
    from emofuse.extraction import BuildOptions, build_cache
    from emofuse.specs import CacheSpec, FolderSpec, LbpSpec, StratifiedSplit

    def build(folder):
        for row in range(6):
            image = folder / "images" / ("joy" if row % 2 else "fear") / f"{row}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(row).integers(0, 255, (24, 32, 3), np.uint8)
            Image.fromarray(pixels).save(image)
        (folder / "images" / "joy" / "9.png").write_bytes(b"no picture")
        manifest = read_dataset(FolderSpec(root=folder / "images", split=StratifiedSplit()))
        spec = CacheSpec(block_rows=4, face=face, streams=(LbpSpec(without_face="whole_image", region_px=16),))
        build_cache(folder / "f.zarr", manifest, spec, BuildOptions(workers=0, device="cpu"))
        return folder / "f.zarr"

    return build


def test_repair_computes_what_is_damaged_and_says_so(built):
    assert emofuse("repair", built, "--workers", 0).stdout == f"{built}: no damaged blocks\n"
    whole = (built / "streams/lbp/features/c.1.0.0").read_bytes()
    (built / "streams/lbp/features/c.1.0.0").write_bytes(b"?" * len(whole))
    (built / "streams/zarr.json").unlink()
    lines = emofuse("repair", built, "--workers", 0).stdout.splitlines()
    assert lines == ["streams/zarr.json written anew", f"{built}: 1 blocks computed again"]
    assert (built / "streams/lbp/features/c.1.0.0").read_bytes() == whole
    assert emofuse("verify", built).exit_code == 0


def test_retry_says_what_has_become_of_the_rows(built):
    lines = emofuse("retry", built, "--workers", 0).stdout.splitlines()
    assert lines == ["lbp: 1 unreadable", f"{built}: 1 rows tried again, 0 blocks written"]
    images = built.parent / "images"
    (images / "joy/9.png").write_bytes((images / "joy/1.png").read_bytes())
    assert emofuse("retry", built, "--status", "failed", "--workers", 0).stdout == (
        f"{built}: 0 rows tried again, 0 blocks written\n"
    )
    lines = emofuse("retry", built, "--status", "unreadable", "--workers", 0).stdout.splitlines()
    assert lines == ["lbp: 1 ok", f"{built}: 1 rows tried again, 1 blocks written"]


def test_verify_extracts_a_sample_again(built):
    lines = emofuse("verify", built, "--sample", 50, "--device", "cpu").stdout.splitlines()
    assert lines == [
        f"{built}: 2 blocks read, nothing is damaged",
        "lbp: extracted again, 0 of a row's length apart at most",
        f"{built}: 7 rows extracted again, all as cached",
    ]
    (built.parent / "images").rename(built.parent / "elsewhere")
    result = emofuse("verify", built, "--sample", 50, "--device", "cpu")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1] == "lbp row 0, fear/0: ok in the cache, unreadable now"
    assert result.stderr == f"{built}: 6 differences in 7 rows\n"
    result = emofuse("verify", built, "--sample", 50, "--device", "cpu", "--data", built.parent / "elsewhere")
    assert result.exit_code == 0
