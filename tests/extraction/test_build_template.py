"""The template of extraction processes: forks that are as good as started interpreters, and what happens without it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from cheap_streams import MeanColourSpec, SizeSpec
from processes import children_of, is_gone, is_worker, wait_until

from emofuse.cache.reader import open_cache
from emofuse.extraction import BuildOptions, BuildState, ahead, build_cache
from emofuse.extraction.ahead import take_template, template_ahead
from emofuse.extraction.forks import ProcessTemplate, TemplateClosedError, modules_of
from emofuse.extraction.isolation import ExtractionProcess
from emofuse.specs import BackboneSpec, CacheSpec, FaceSpec, LandmarksSpec, RandomWeights

SPEC = CacheSpec(block_rows=4, streams=(MeanColourSpec(), SizeSpec()))
ONE = BuildOptions(workers=1, device="cpu")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@pytest.fixture(scope="module")
def template():
    template = ProcessTemplate(("emofuse.extraction.worker", "no_such_module"), {})
    yield template
    template.close()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "features.zarr"


class Watcher:
    """A progress that calls a function with the extraction processes after the first block."""

    def __init__(self, act) -> None:
        self.act = act
        self.seen: list[psutil.Process] = []

    def update(self, state: BuildState) -> None:
        if state.rows and not self.seen:
            self.seen = [each for each in children_of(psutil.Process()) if is_worker(each)]
            self.act()


def test_a_forked_process_has_the_environment_folder_and_exit_status_of_a_started_one(template, tmp_path, monkeypatch):
    monkeypatch.setenv("EMOFUSE_OF_THIS_TEST", "1")
    monkeypatch.chdir(tmp_path)
    process = ExtractionProcess(one_thread=True, template=template)
    forked = psutil.Process(process.pid)
    assert is_worker(forked)
    wait_until(lambda: Path(forked.cwd()) == tmp_path)  # it changes to it after it was forked
    assert not process.has_ended
    os.kill(process.pid, signal.SIGTERM)
    wait_until(lambda: process.has_ended)
    assert process._process.poll() == -signal.SIGTERM
    process.kill()
    assert process._process.wait() == -signal.SIGTERM


def test_a_forked_process_ends_when_its_connection_ends(template):
    ours, theirs = socket.socketpair()
    with theirs:
        process = template.fork(theirs, "", os.environ)
    assert process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    ours.close()
    assert process.wait(30) == 0
    process.close()


def test_processes_of_a_build_share_the_libraries_of_one_template(path, manifest, contents, tmp_path, in_process):
    watcher = Watcher(lambda: None)
    build_cache(path, manifest, SPEC, BuildOptions(workers=2, device="cpu"), watcher)
    assert all("emofuse.extraction.template" in each.parent().cmdline() for each in watcher.seen if each.is_running())
    build_cache(tmp_path / "plain.zarr", manifest, SPEC, in_process)
    assert contents(path) == contents(tmp_path / "plain.zarr")
    wait_until(lambda: all(is_gone(each) for each in watcher.seen))


def test_a_library_that_starts_threads_is_never_forked(path, manifest, tmp_path, monkeypatch):
    """A fork of a process with threads can hang for ever, so interpreters are started as without a template."""
    module = "starts_a_thread_when_imported"
    text = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ahead, "modules_of", lambda spec, kept: (module,))
    commands: list[list[str]] = []
    watcher = Watcher(lambda: commands.extend(each.cmdline() for each in watcher.seen))
    assert build_cache(path, manifest, SPEC, ONE, watcher).rows == len(manifest)
    assert len(commands) == 1
    assert "emofuse.extraction.child" in commands[0]


@pytest.mark.parametrize("torch_itself", [True, False])
def test_a_template_that_has_opened_a_gpu_is_never_forked(path, manifest, tmp_path, monkeypatch, torch_itself):
    """A fork cannot use a GPU that its parent has opened. There is none here, so a module stands for torch."""
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    text = "class cuda:\n    @staticmethod\n    def is_initialized():\n        return True\n"
    if not torch_itself:
        device = tmp_path / "dev" / "nvidia0"
        device.parent.mkdir()
        device.touch()
        text = (
            f"from emofuse.extraction import template\ntemplate._GPUS = {str(device)!r}\nheld = open({str(device)!r})\n"
        )
    (fakes / ("torch.py" if torch_itself else "opens_a_gpu.py")).write_text(text, encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(fakes)
        opened = ProcessTemplate(("torch" if torch_itself else "opens_a_gpu",), {})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert opened.fork(theirs, "", os.environ) is None
    opened.close()


def test_a_template_of_networks_opens_no_gpu_before_it_forks():
    """Its modules ask torch for no device: a worker does, after it was forked."""
    modules = modules_of(CacheSpec(streams=(BackboneSpec(model="resnet18", weights=RandomWeights(seed=0)),)))
    code = (
        "import importlib, torch\ntorch.cuda._lazy_init = torch.cuda.device_count = torch.cuda.is_available = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "from emofuse.extraction.template import why_not_fork\nassert why_not_fork() is None, why_not_fork()"
    )
    started = subprocess.run([sys.executable, "-c", code], env={**os.environ, **ahead.ONE_THREAD}, check=False)
    assert started.returncode == 0


def test_a_template_that_is_killed_costs_no_block(path, manifest):
    """Its processes go on, and those that end later are replaced by started interpreters."""

    def kill() -> None:
        templates = [each for each in psutil.Process().children() if "emofuse.extraction.template" in each.cmdline()]
        for each in (*templates, *watcher.seen):
            each.kill()
        wait_until(lambda: all(is_gone(each) for each in templates))

    watcher = Watcher(kill)
    assert build_cache(path, manifest, SPEC, ONE, watcher).rows == len(manifest)
    assert not any(len(stream.lacking_blocks()) for stream in open_cache(path).streams.values())


def test_nobody_waits_for_a_template_when_the_build_ends(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    template = ProcessTemplate(("slow_to_import",), {})
    template.refuse()
    began = time.monotonic()
    with pytest.raises(TemplateClosedError, match="the build was stopped"):
        ExtractionProcess(one_thread=True, template=template)
    template.close()
    assert time.monotonic() - began < 300


def test_a_template_starts_ahead_only_for_a_build_with_something_to_extract(path, monkeypatch):
    started: list[str] = []

    class Template:
        def close(self) -> None:
            started.append("closed")

    monkeypatch.setattr(ahead, "start_template", lambda *_: started.append("started") or Template())
    for options in (BuildOptions(workers=0), BuildOptions(scheduler="tcp://x:1")):
        with template_ahead(path, SPEC, options):
            assert started == []
    with template_ahead("s3://bucket/features.zarr", SPEC, ONE):
        assert started == []
    with template_ahead(path, SPEC, ONE):  # no build follows: its dataset cannot be read
        pass
    assert started == ["started", "closed"]
    with template_ahead(path, SPEC, ONE):
        assert isinstance(take_template(SPEC, ONE), Template)
    assert started[2:] == ["started"]  # whoever takes it closes it
    for stream in SPEC.streams:
        (path / "streams" / stream.name).mkdir(parents=True)
    with template_ahead(path, SPEC, ONE):
        assert len(started) == 3


def test_the_template_imports_what_the_streams_need_and_nothing_else():
    assert modules_of(SPEC) == ("emofuse.extraction.worker",)
    faces = (LandmarksSpec(),)
    assert modules_of(CacheSpec(streams=faces))[1:] == ("mediapipe.python.solution_base",)
    assert modules_of(CacheSpec(streams=faces, face=FaceSpec(detector="yunet")))[1:] == ()
    network = BackboneSpec(model="resnet18", weights=RandomWeights(seed=0))
    assert modules_of(CacheSpec(streams=(network,)))[1:] == ("torch", "emofuse.streams.networks.classification")


def test_an_extraction_process_imports_no_polars():
    code = "import sys, emofuse.extraction.worker; sys.exit('polars' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
