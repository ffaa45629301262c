"""A build on this machine runs nothing of the working folder, hears nothing but its processes, and leaves nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from cheap_streams import MeanColourSpec
from PIL import Image

from emofuse.errors import BuildError
from emofuse.extraction import BuildOptions, build_cache, isolation
from emofuse.extraction.child import Request
from emofuse.extraction.isolation import ExtractionProcess, ProcessDied
from emofuse.machine import interpreter
from emofuse.specs import CacheSpec

REPOSITORY = Path(__file__).parents[2]
WORKERS = BuildOptions(workers=1, device="cpu")
BUILD = "import sys; from emofuse.cli import main; sys.exit(main())"

PIPELINE = """\
dataset: {kind: folder, split: {kind: stratified, train: 0.6, val: 0.2, test: 0.2}}
cache: {streams: [{kind: lbp, without_face: whole_image}]}
defaults: {head: {kind: concat, embed_dim: 8, depth: 1, width: 8}, train: {epochs: 3, batch_size: 8}}
runs: [{name: LBP, features: {streams: [lbp]}}]
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder of pictures with a pipeline beside it."""
    for label in ("calm", "glad"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for seed in range(4):
            noise = np.random.default_rng([seed, len(label)]).integers(0, 256, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "data" / label / f"{seed}.png")
    (tmp_path / "script.py").write_text(BUILD)
    (tmp_path / "cache.yaml").write_text(PIPELINE)
    return tmp_path


def build(project: Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`emofuse cache build` as a console script runs it."""
    command = ["cache", "build", "cache.yaml", "--data", "data", "--cache", "c.zarr", "--workers", "1"]
    given = [str(project / word) if word in {"cache.yaml", "data", "c.zarr"} else word for word in command]
    paths = os.pathsep.join([str(REPOSITORY), *environment.pop("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
    return subprocess.run(
        [sys.executable, str(project / "script.py"), *given],
        cwd=cwd,
        env={**os.environ, **environment, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_python_files_and_settings_of_the_working_folder_are_not_run(project):
    """It is the dataset's folder, and may come from anywhere."""
    ran = project / "ran"
    code = f"open({str(ran)!r}, 'a').write(__file__ + '\\n')\n"
    names = ("queue", "copy", "socket", "cloudpickle", "zarr", "dask", "sitecustomize", "usercustomize", "drawing")
    for name in names:
        (project / "data" / f"{name}.py").write_text(code)
    (project / "data" / "matplotlibrc").write_text("backend: module://drawing\n")
    (project / "data" / "dask.yaml").write_text("distributed: {preload: [drawing]}\n")
    done = build(project, cwd=project / "data")
    assert done.returncode == 0, done.stderr
    assert not ran.exists(), ran.read_text()


def test_words_printed_when_an_interpreter_starts_disturb_no_answer(project):
    (project / "site").mkdir()
    (project / "site" / "sitecustomize.py").write_text("print('Welcome to the cluster', flush=True)\n")
    done = build(project, cwd=project, PYTHONPATH=str(project / "site"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Welcome") == 1  # of the command itself
    assert done.stderr.count("Welcome") == 1  # of its extraction process


def test_settings_of_dask_do_not_touch_a_build_on_this_machine(project):
    broken = {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
        "DASK_TEMPORARY_DIRECTORY": "/proc/none",
        "DASK_DISTRIBUTED__WORKER__RESOURCES__GPU": "nonsense",
    }
    (project / "settings").mkdir()
    (project / "settings" / "distributed.yaml").write_text("distributed: [no, mapping\n")
    done = build(project, cwd=project, DASK_CONFIG=str(project / "settings"), **broken)
    assert done.returncode == 0, done.stderr


def test_a_build_on_this_machine_imports_no_dask(project):
    code = (
        "import sys; from emofuse.cli import main; status = main(); "
        "sys.exit(status or ('dask' in sys.modules or 'distributed' in sys.modules) * 99)"
    )
    (project / "script.py").write_text(code)
    done = build(project, cwd=project)
    assert done.returncode == 0, done.stderr


def test_a_build_leaves_no_temporary_files(tmp_path, manifest, monkeypatch):
    """Not even those of a process that is killed, as each of them is."""
    monkeypatch.setattr(isolation.tempfile, "tempdir", str(tmp_path))
    process = ExtractionProcess(one_thread=True)
    [folder] = tmp_path.glob("emofuse-*")
    assert psutil.Process(process.pid).environ()["TMPDIR"] == str(folder)
    (folder / "left").mkdir()
    (folder / "left" / "file").write_text("by a library")
    process.kill()
    process.kill()
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_go_too_when_the_process_that_builds_is_killed(tmp_path):
    code = (
        "import sys, time; from emofuse.extraction.isolation import ExtractionProcess; "
        "print(ExtractionProcess(one_thread=True).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert len(list(tmp_path.glob("emofuse-*"))) == 1
        time.sleep(2)  # the child imports
        parent.kill()
    psutil.wait_procs([child], timeout=600)
    assert list(tmp_path.iterdir()) == []


def test_a_build_without_a_place_for_temporary_files_goes_without(tmp_path, manifest, monkeypatch):
    def refuse(**_: object) -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(isolation.tempfile, "mkdtemp", refuse)
    spec = CacheSpec(block_rows=20, streams=(MeanColourSpec(),))
    assert build_cache(tmp_path / "c.zarr", manifest, spec, WORKERS).rows == 40


def test_an_extraction_process_that_is_killed_is_noticed_at_once_whoever_else_holds_its_connection(monkeypatch):
    """A library may have started a process of its own that lives on."""
    held, make_pair = [], socket.socketpair

    def pair() -> tuple[socket.socket, socket.socket]:
        ours, theirs = make_pair()
        held.append(theirs.dup())
        return ours, theirs

    monkeypatch.setattr(isolation.socket, "socketpair", pair)
    process = ExtractionProcess(one_thread=True)
    try:
        started = time.monotonic()
        psutil.Process(process.pid).suspend()
        threading.Timer(0.5, psutil.Process(process.pid).kill).start()
        with pytest.raises(ProcessDied, match=r"^ended its process with SIGKILL"):
            process.ask(Request("open_streams", b"", ((),), 600), memory_bytes=None)
        process.kill()
        assert time.monotonic() - started < 300  # long before its time is over
    finally:
        process.kill()
        held.pop().close()


def test_an_answer_that_cannot_be_unpacked_is_an_error_at_once(monkeypatch):
    def fail(_: bytes) -> object:
        raise MemoryError("8 exabytes")

    monkeypatch.setattr(isolation.pickle, "loads", fail)
    process = ExtractionProcess(one_thread=True)
    try:
        with pytest.raises(
            BuildError, match=r"^the answer of an extraction process cannot be read \(MemoryError: 8 exabytes\)$"
        ):
            process.ask(Request("open_streams", b"", ((),), 600), memory_bytes=None)
    finally:
        process.kill()


@pytest.mark.filterwarnings("error")
def test_all_ends_of_an_extraction_process_are_closed():
    before = psutil.Process().num_fds()
    process = ExtractionProcess(one_thread=True)
    process.kill()
    assert psutil.Process().num_fds() == before


def test_a_new_interpreter_has_the_search_path_of_this_one(tmp_path, monkeypatch):
    """A colon in a folder's name included, and the working folder where this process imports from it."""
    odd = tmp_path / "a:b"
    odd.mkdir()
    (odd / "shown.py").write_text("import json, sys\ndef main(words): print(json.dumps([sys.path, words]))\n")
    monkeypatch.setattr(sys, "path", ["", str(odd), *sys.path])
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(interpreter.command("shown", "one", "two"), capture_output=True, text=True, check=True)
    paths, words = json.loads(done.stdout)
    assert paths[:2] == [str(tmp_path), str(odd)]
    assert words == ["one", "two"]
