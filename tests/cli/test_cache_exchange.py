from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from emofuse.cli import cache as cache_cli
from emofuse.errors import CacheError
from emofuse.status import Status


def emofuse(*arguments: object) -> Result:
    result = CliRunner().invoke(cache_cli.app, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def cache(tmp_path, write_cache) -> Path:
    return write_cache(
        tmp_path / "f.zarr",
        ["joy", "fear"],
        np.array([0, 1, -1]),
        ["train", "test", ""],
        {
            "lbp": ("lbp", np.ones((3, 512), np.float32), np.full(3, Status.OK, np.uint8)),
            "places365": ("places365", np.ones((3, 2048), np.float16), np.full(3, Status.OK, np.uint8)),
        },
    )


@pytest.mark.parametrize(("to", "suffix"), [("hdf5", ".h5"), ("npz", ".npz"), ("parquet", ".parquet")])
def test_an_export_lies_beside_the_cache(cache, to, suffix):
    result = emofuse("export", cache, "--to", to)
    made = cache.with_name("f" + suffix)
    assert result.stdout == f"{made}: {made.stat().st_size / 1e6:.1f} MB\n"
    assert made.stat().st_size > (3 * 512 * 4 if to != "parquet" else 0)


def test_streams_and_file_of_an_export_can_be_chosen(cache, tmp_path):
    emofuse("export", cache, "--to", "npz", "--streams", "lbp,", "--out", tmp_path / "mine.npz")
    with np.load(tmp_path / "mine.npz") as file:
        assert "streams/lbp/features" in file.files
        assert "streams/places365/features" not in file.files


def test_a_misspelt_format_is_named(cache):
    with pytest.raises(CacheError, match=r"--to: 'parket' is no format, did you mean 'parquet'\?"):
        emofuse("export", cache, "--to", "parket")


def test_vectors_of_another_tool_become_a_stream(cache, tmp_path):
    vectors = np.array([[1, 2], [np.nan, 0], [5, 6]], np.float32)
    np.savez(tmp_path / "clip.npz", vit=vectors, names=np.array(["s0002", "s0000", "elsewhere"]))
    arguments = ("import", cache, "--file", tmp_path / "clip.npz", "--name", "clip_vit", "--dataset", "vit")
    with pytest.raises(CacheError, match="no array 'sample_ids'"):
        emofuse(*arguments)
    result = emofuse(*arguments, "--ids", "names", "--ignore-unknown", "--mark-non-finite")
    head = f"{cache}: clip_vit: 1 rows imported, 1 not in the file, 1 not finite, 1 ids ignored; content "
    assert result.stdout.startswith(head)
    (line,) = [line for line in emofuse("info", cache).stdout.splitlines() if line.startswith("clip_vit")]
    assert line.split()[:7] == ["clip_vit", "2", "float32", "1/1", "1", "1", "1"]


def test_caches_of_the_same_rows_are_merged(cache, tmp_path, write_cache):
    texture = {"texture": ("lbp", np.ones((3, 512), np.float32), np.full(3, Status.OK, np.uint8))}
    other = write_cache(tmp_path / "g.zarr", ["joy", "fear"], np.array([0, 1, -1]), ["train", "test", ""], texture)
    result = emofuse("merge", tmp_path / "all.zarr", cache, other, "--streams", "lbp,texture")
    assert result.stdout == f"{tmp_path}/all.zarr: 3 rows, the same in all; lbp, texture\n"
    assert '"texture"' in emofuse("info", tmp_path / "all.zarr", "--json").stdout
    (other / "streams/texture/status/c.0.0").unlink()
    result = emofuse("merge", tmp_path / "again.zarr", cache, other)
    assert "  texture: 1 blocks are in none of the caches; a build computes them" in result.stdout


def test_a_cache_is_copied(cache, tmp_path):
    files = 1 + len([path for path in cache.rglob("*") if path.is_file()])
    result = emofuse("copy", cache, tmp_path / "copy.zarr")
    assert result.stdout.startswith(f"{tmp_path}/copy.zarr: {files} files copied; 0.0 MB, all read back")
    result = emofuse("copy", cache, tmp_path / "copy.zarr")
    assert f": 0 files copied, {files} were there; " in result.stdout
    assert '"places365"' in emofuse("info", tmp_path / "copy.zarr", "--json").stdout
