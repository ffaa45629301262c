from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from emofuse.cache.reader import open_cache
from emofuse.cli import cache as cache_cli
from emofuse.cli import main
from emofuse.errors import CacheError, SpecError, StaleCacheError
from emofuse.specs import CacheSpec, bundled_specs
from emofuse.status import Status


def emofuse(*arguments: object) -> Result:
    result = CliRunner().invoke(cache_cli.app, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def images(tmp_path) -> Path:
    for row in range(6):
        path = tmp_path / "images" / ("joy" if row % 2 else "fear") / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24), (row, 0, 0)).save(path)
    (tmp_path / "images" / "joy" / "9.png").write_bytes(b"no picture")
    return tmp_path / "images"


@pytest.fixture
def spec(tmp_path, face) -> Path:
    path = tmp_path / "mine.yaml"
    streams = "[{kind: lbp, without_face: whole_image, region_px: 16}]"
    path.write_text(f"{{block_rows: 4, face: {{detector: {face['detector']}}}, streams: {streams}}}")
    return path


@pytest.fixture
def build(images, spec, tmp_path):
    """Builds in this process; more options and other values as given."""

    def run(*more: object, **changed: object) -> Result:
        options = {"data": images, "spec": spec, "cache": tmp_path / "out" / "f.zarr", "split": "stratified", **changed}
        named = [part for name, value in options.items() if value for part in (f"--{name}", value)]
        return emofuse("build", "folder", *named, "--workers", 0, "--device", "cpu", *more)

    return run


def test_build_tells_what_it_did_and_what_went_wrong(build, tmp_path):
    result = build()
    assert "out/f.zarr: 7 rows computed in " in result.stdout
    assert "  row 6, joy/9: no picture of a known format" in result.stdout
    assert "extracting 7 images" in result.stderr
    assert "; lbp: 6 ok, 1 unreadable" in result.stderr
    assert open_cache(tmp_path / "out" / "f.zarr").streams["lbp"].counts()["ok"] == 6


def test_a_problem_is_named_by_the_sample_in_the_cache_s_order_not_in_that_of_the_listing(build, images):
    build()
    (images / "fear" / "00.png").write_bytes(
        b"no picture either"
    )  # the first one of the listing, the last of the cache
    assert "  row 7, fear/00: no picture of a known format" in build().stdout
    (images / "joy" / "1.png").unlink()  # the listing is shorter than the cache now
    (images / "joy" / "99.png").write_bytes(b"nor this")
    assert "  row 8, joy/99: no picture of a known format" in build("--on-bad-rows", "keep").stdout


def test_a_second_build_says_that_nothing_is_to_do(build):
    build()
    result = build()
    *_, nothing, share = result.stdout.splitlines()
    assert nothing.endswith("f.zarr: complete, nothing to do")
    assert "f.zarr: a face in 0.0 % of 6 rows" in share
    assert result.stderr == ""


def test_an_interrupted_build_says_that_it_can_go_on(images, spec, tmp_path, monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("emofuse.extraction.build_cache", interrupt)
    command = f"emofuse cache build folder --data {images} --split stratified --spec {spec} --cache {tmp_path}/f.zarr"
    monkeypatch.setattr("sys.argv", command.split())
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert capsys.readouterr().err == "Interrupted. Finished work is kept; the same command continues from there.\n"


def test_another_spec_is_refused(build, spec):
    build()
    spec.write_text(spec.read_text().replace("16", "24"))
    with pytest.raises(StaleCacheError, match="lbp was cached with region_px 16, the spec now says 24"):
        build()


def test_a_kind_of_dataset_needs_a_cache_spec(build):
    result = build(spec=None)
    assert result.exit_code == 2
    words = [word for word in result.output.split() if word != "│"]
    names = ", ".join(bundled_specs("cache_specs"))
    assert f"say what to cache: one of {names}, or a YAML file" in " ".join(words)


def test_a_misspelt_target_is_named(images):
    with pytest.raises(SpecError, match="did you mean 'folder'"):
        emofuse("build", "foldr", "--data", images)


def test_a_pipeline_names_dataset_spec_and_cache(tmp_path):
    dataset, spec, path = cache_cli._resolve("faces", tmp_path, None, None, None)
    assert dataset.root == tmp_path
    assert "squeezenet1_1" in {stream.name for stream in spec.streams}
    assert path == Path("emofuse-runs/faces/features.zarr")


def test_options_go_before_the_pipeline(tmp_path, spec):
    _, cache_spec, path = cache_cli._resolve("faces", tmp_path, None, str(spec), tmp_path / "x.zarr")
    assert [stream.name for stream in cache_spec.streams] == ["lbp"]
    assert path == tmp_path / "x.zarr"


def test_a_generated_dataset_lies_where_its_pipeline_has_it(tmp_path):
    (tmp_path / "tiny.yaml").write_text(
        "{dataset: {kind: demo}, cache: demo, runs: [{name: texture, features: {streams: [lbp]}}]}"
    )
    dataset, _, path = cache_cli._resolve(str(tmp_path / "tiny.yaml"), None, None, None, None)
    assert (dataset.root, path) == (Path("emofuse-runs/tiny/dataset"), Path("emofuse-runs/tiny/features.zarr"))


def test_random_weights_are_announced(capsys):
    streams = [
        {"kind": "lbp"},
        {"kind": "backbone", "model": "resnet18", "weights": {"kind": "random", "seed": 3}},
    ]
    cache_cli._warn_of_random_weights(CacheSpec(streams=streams).streams)
    assert capsys.readouterr().err == "resnet18: RANDOM WEIGHTS, for demonstrations and tests only\n"


@pytest.fixture
def two_streams(tmp_path, write_cache) -> Path:
    status = np.array([Status.OK, Status.NO_DETECTION, Status.OK], np.uint8)
    random = {"kind": "random", "name": None, "sha256": None, "seed": 7}
    return write_cache(
        tmp_path / "f.zarr",
        ["joy", "fear"],
        np.array([0, 1, -1]),
        ["train", "test", ""],
        {
            "lbp": ("lbp", np.ones((3, 512), np.float32), status),
            "places365": ("places365", np.ones((3, 2048), np.float16), np.full(3, Status.OK, np.uint8)),
        },
        weights={"places365": random},
    )


def test_info_as_a_table(two_streams):
    (two_streams / "streams/lbp/status/c.0.0").unlink()
    lines = emofuse("info", two_streams).stdout.splitlines()
    assert lines[0] == f"{two_streams}: 3 rows (1 train, 1 test, 1 none) in 1 block of 3"
    assert lines[1] == "2 labels: joy, fear"
    assert lines[3].split() == ["stream", "values", "blocks", "pending", "ok", "weights", "MB", "digest"]
    assert lines[4].split()[:7] == ["lbp", "512", "float32", "0/1", "3", "0", "0.01"]
    assert "2048 float16     1/1        0   3  RANDOM, seed 7" in lines[5]


def test_info_as_json(two_streams):
    told = json.loads(emofuse("info", two_streams, "--json").stdout)
    assert told["rows"] == 3
    assert list(told["splits"].items()) == [("train", 1), ("test", 1), ("none", 1)]
    lbp = told["streams"]["lbp"]
    assert lbp["rows"] == {"pending": 0, "ok": 2, "no_detection": 1, "unreadable": 0, "failed": 0}
    assert (lbp["dim"], lbp["views"], lbp["dtype"]) == (512, 1, "float32")
    assert (lbp["blocks_done"], lbp["weights"]) == (1, None)
    assert lbp["bytes"] > 3 * 512 * 4
    assert len(lbp["digest"]) == 64
    assert told["streams"]["places365"]["weights"]["kind"] == "random"


def test_info_of_nothing(tmp_path):
    with pytest.raises(CacheError, match=r"none\.zarr: no such cache"):
        emofuse("info", tmp_path / "none.zarr")


def test_drop_asks_first(two_streams):
    result = CliRunner().invoke(cache_cli.app, ["drop", str(two_streams), "lbp"], input="n\n")
    assert result.exit_code == 1
    assert "Delete lbp of" in result.output
    assert set(open_cache(two_streams).streams) == {"lbp", "places365"}


def test_drop_deletes_one_stream(two_streams):
    result = emofuse("drop", two_streams, "lbp", "--yes")
    assert result.stdout == f"{two_streams}: lbp dropped\n"
    assert set(open_cache(two_streams).streams) == {"places365"}


def test_drop_of_an_unknown_stream_suggests_one(two_streams):
    with pytest.raises(CacheError, match=r"no stream 'places', did you mean 'places365'\? \(there are: lbp, "):
        emofuse("drop", two_streams, "places", "--yes")
