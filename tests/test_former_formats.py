"""Caches, runs and sweeps that former releases wrote (`fixtures/make_former.py` says how) open and go on today."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from emofuse.cache.metadata import read_cache_layout
from emofuse.cache.reader import open_cache
from emofuse.cache.structure import create_cache, lock_cache
from emofuse.cli import app
from emofuse.errors import ResultsError
from emofuse.exchange.imports import ImportRequest, import_stream
from emofuse.results import list_runs, read_record
from emofuse.upkeep.verify import verify_cache

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

ARCHIVES = Path(__file__).parent / "fixtures"
CACHE = Path("out/features.zarr")
RUNS = Path("out/runs")
UNREADABLE = 21  # the row of train/sad/5.png, which is truncated


def unpack(number: int, folder: Path) -> Path:
    with tarfile.open(ARCHIVES / f"former_{number}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(params=[1, 2], ids=["format_1", "format_2"])
def project(request, tmp_path, monkeypatch) -> Path:
    """The working directory: a project of a former release."""
    monkeypatch.chdir(unpack(request.param, tmp_path))
    return tmp_path


@pytest.fixture
def project_2(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(unpack(2, tmp_path))
    return tmp_path


@pytest.fixture
def mesh(has_face_mesh) -> None:
    """The archives were made with Face Mesh, whose models are part of the identity of LBP."""
    if not has_face_mesh:
        pytest.skip("the archives were made with MediaPipe's Face Mesh, which is not installed")


def emofuse(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def golden() -> dict:
    return json.loads(Path("golden.json").read_text(encoding="utf-8"))


def test_former_caches_read_the_same_numbers(project):
    cache, wanted = open_cache(CACHE), golden()["streams"]
    assert sorted(cache.streams) == sorted(wanted)
    for name, expected in wanted.items():
        stream = cache.streams[name]
        assert stream.digest == expected["digest"]
        assert stream.dimensions == ("feature",)
        assert stream.flags.tolist() == expected["flags"]
        for view in range(stream.views):
            features, status = stream.read(view)
            assert hashlib.sha256(features.tobytes()).hexdigest() == expected["sha256"][view]
            assert features[3][features[3] != 0].tolist() == expected["row_3"][view]
            assert status.tolist() == expected["status"][view]
    reason = cache.streams["lbp"].reasons()[UNREADABLE, 0]
    assert reason == ("cannot be decoded: image file is truncated" if cache.layout.format == 2 else "")


def test_former_caches_have_the_format_that_their_test_says(project, request):
    assert f"format_{read_cache_layout(CACHE).format}" in request.node.name


def test_former_caches_are_verified_and_damage_is_found(project):
    assert not verify_cache(CACHE).faults
    chunk = CACHE / "streams/lbp/features/c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(data)
    assert verify_cache(CACHE).bad_blocks() == {"lbp": [(1, 0)]}


@pytest.mark.usefixtures("mesh")
def test_a_build_goes_on_with_a_former_cache_and_computes_only_what_it_lacks(project):
    before = contents(CACHE)
    times = {path: path.stat().st_mtime_ns for path in CACHE.rglob("c.*")}
    assert "complete, nothing to do" in emofuse("cache", "build", "pipeline.yaml", "--cache", CACHE, "--workers", 0)
    assert contents(CACHE) == before
    (CACHE / "streams/lbp/status/c.1.0").unlink()
    (CACHE / "streams/lbp/features/c.1.0.0").unlink()
    printed = emofuse("cache", "build", "pipeline.yaml", "--cache", CACHE, "--workers", 0)
    assert "16 rows computed" in printed
    assert contents(CACHE) == before
    changed = {path.parent.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"features", "status", "flags", "reason"}
    assert all(path.name.startswith("c.1.0") for path, time in times.items() if path.stat().st_mtime_ns != time)


@pytest.mark.usefixtures("mesh")
def test_a_cache_built_today_has_the_bytes_of_a_former_one(project_2):
    """All files are compared: shares of counted patterns, status, flags, reasons and metadata round nowhere."""
    former = contents(CACHE)
    shutil.move("out", "former")
    text = Path("pipeline.yaml").read_text(encoding="utf-8")
    text = text.replace("- {kind: imported, name: clip}", "").replace("[lbp, clip]", "[lbp]")
    Path("pipeline.yaml").write_text(text, encoding="utf-8")
    emofuse("cache", "build", "pipeline.yaml", "--cache", CACHE, "--workers", 0)
    emofuse("cache", "import", CACHE, "--file", "clip.npz", "--name", "clip")
    assert without_creation(contents(CACHE)) == without_creation(former)


def test_vectors_imported_today_have_the_bytes_of_a_former_import(project_2):
    manifest, layout = open_cache(CACHE).manifest, read_cache_layout(CACHE)
    new = Path("new.zarr")
    with lock_cache(new):
        create_cache(new, manifest, block_rows=layout.block_rows)
    import_stream(new, ImportRequest(Path("clip.npz"), "clip"))
    assert contents(new / "streams/clip") == contents(CACHE / "streams/clip")


def without_creation(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same files, the root's metadata as JSON without the time of creation."""
    root = json.loads(files["zarr.json"])
    del root["attributes"]["emofuse"]["created"]
    return {**files, "zarr.json": json.dumps(root).encode()}


def test_former_runs_are_reported_and_compared(project):
    printed = emofuse("report", RUNS, "--baseline", "LBP", "--metrics", "kappa,roc_auc")
    for record in map(read_record, [RUNS / run.digest[:16] for run in list_runs(RUNS)]):
        assert f"| {record.name}" in printed
    comparisons = (RUNS / "report/comparisons.csv").read_text(encoding="utf-8").splitlines()
    assert len(comparisons) == 5
    assert all(any(name in line for line in comparisons) for name in ("gated", "linear", "late", "attention"))
    assert (RUNS / "report/index.html").is_file()


@pytest.mark.usefixtures("mesh")
def test_former_runs_predict_the_same_probabilities(project):
    wanted = golden()["predictions"]
    assert {read_record(RUNS / folder).name for folder in wanted} >= {"LBP", "attention", "linear"}
    for folder, per_picture in wanted.items():
        pictures = ["pictures/test/glad/0.png", "pictures/test/sad/1.png"]
        printed = emofuse("predict", *pictures, "--run", RUNS / folder, "--json")
        for line, probs in zip(printed.splitlines(), per_picture, strict=True):
            predicted = json.loads(line)["probs"]
            assert list(predicted) == list(probs)
            np.testing.assert_allclose(list(predicted.values()), list(probs.values()), atol=1e-5)


@pytest.mark.usefixtures("mesh")
def test_a_late_head_of_one_stream_predicts_though_the_release_that_made_it_could_not(project):
    late = next(run for run in list_runs(RUNS) if run.name == "late")
    printed = emofuse("predict", "pictures/test/glad/0.png", "--run", RUNS / late.digest[:16], "--json")
    assert sum(json.loads(printed)["probs"].values()) == pytest.approx(1)


@pytest.mark.usefixtures("mesh")
def test_a_former_pipeline_runs_again_in_its_folder(project):
    printed = emofuse("run", "pipeline.yaml", "--out", "out", "--workers", 0)
    assert "cache: complete, nothing to do" in printed
    assert "| gated" in Path("out/report/summary.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("mesh")
def test_runs_that_a_former_release_trained_otherwise_are_named_together(project_2):
    text = Path("pipeline.yaml").read_text(encoding="utf-8")
    Path("pipeline.yaml").write_text(text.replace("epochs: 6,", "epochs: 6, select: macro_f1,"), encoding="utf-8")
    emofuse("run", "pipeline.yaml", "--out", "out", "--workers", 0)
    with pytest.raises(ResultsError, match=r"or by another release of emofuse: 'LBP': [0-9a-f]{16} .*; '"):
        emofuse("report", RUNS)


def test_a_former_sweep_is_listed_reported_and_goes_on(project_2):
    assert "runs: 12" in emofuse("results", "sweep")
    assert "configurations: 6" in emofuse("results", "sweep", "--by", "configuration")
    printed = emofuse("report", "sweep/runs")
    assert "clip+lbp" in printed
    assert "report: written" in emofuse("sweep", "sweep.yaml", "--cache", CACHE, "--out", "sweep")
