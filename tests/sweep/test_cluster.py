"""A real scheduler and two workers, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from small_question import HEADS, planted, small_sweep

from emofuse.cache.reader import open_cache
from emofuse.errors import BuildError, TrainingError
from emofuse.sweep import cluster as sweep_cluster
from emofuse.sweep.cluster import GroupTask, WorkerFacts, train_task
from emofuse.sweep.groups import SearchGroup, searched_runs, versions
from emofuse.sweep.options import SweepOptions
from emofuse.sweep.rows import ResultsFolder, RunRow
from emofuse.sweep.run import run_sweep
from emofuse.sweep.searching import stream_types
from emofuse.sweep.strategies import make_strategy
from emofuse.training.data import TrainingData

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

SCRIPT = Path(__file__).parent / "sweep_script.py"


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_cache):
    return open_cache(write_cache(tmp_path_factory.mktemp("cache") / "features.zarr", **planted()))


@pytest.fixture(scope="module")
def local(cache, tmp_path_factory):
    """The rows of the same sweep in this process."""
    folder = tmp_path_factory.mktemp("local")
    run_sweep(cache, small_sweep(), folder, SweepOptions(device="cpu"))
    return table(folder)


class Cluster:
    """A scheduler and its workers, without nannies: a worker that dies stays dead."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        self.processes = [_start("dask_scheduler", *options, "--scheduler-file", str(self._file), "--no-jupyter")]
        wait_until(self._file.is_file)
        self.workers: list[subprocess.Popen] = []

    @property
    def address(self) -> str:
        import json

        return json.loads(self._file.read_text())["address"]

    def add_worker(self, *options: str) -> subprocess.Popen:
        worker = _start(
            "dask_worker",
            *("--scheduler-file", str(self._file), "--nthreads", "1", "--no-nanny", "--no-dashboard"),
            *("--host", "127.0.0.1", *options),
        )
        self.workers.append(worker)
        self.processes.append(worker)
        return worker

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


def _start(module: str, *options: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"distributed.cli.{module}", *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(tmp_path):
    running = Cluster(tmp_path)
    yield running
    running.close()


def wait_until(condition, timeout_s: float = 600) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def table(folder: Path) -> list[RunRow]:
    rows = [replace(row, seconds=0.0, created="") for row in ResultsFolder(folder).rows()]
    return sorted(rows, key=lambda row: row.digest)


def test_workers_give_the_same_rows_as_this_process(cache, local, cluster, tmp_path):
    cluster.add_worker()
    cluster.add_worker()
    out = tmp_path / "out"
    summary = run_sweep(cache, small_sweep(), out, SweepOptions(device="cpu", scheduler=cluster.address))
    assert summary.trained == HEADS
    assert table(out) == local
    assert summary.report_written


def test_the_group_of_a_worker_that_dies_is_trained_by_another(cache, local, cluster, tmp_path):
    cluster.add_worker()
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), str(cache.path), str(out), "0", "0", cluster.address]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    cluster.processes.append(driver)
    wait_until(lambda: list((out / "claims").glob("*.json")))  # a group is with the only worker
    cluster.workers[0].kill()
    cluster.add_worker()
    output, errors = driver.communicate(timeout=600)
    assert driver.returncode == 0, errors
    assert output.endswith(f"trained {HEADS}\n")
    assert table(out) == local


def test_workers_that_offer_gpus_are_given_a_group_a_gpu(cache, cluster, tmp_path):
    cluster.add_worker("--resources", "GPU=1")
    cluster.add_worker()
    with sweep_cluster.dask_trainer(
        cluster.address, cache, small_sweep().base, device="cpu", memory_bytes=None
    ) as trainer:
        wait_until(lambda: len(trainer._client.scheduler_info(n_workers=-1)["workers"]) == 2)
        assert trainer._workers() == (1, {"GPU": 1})
        assert trainer.description.startswith("1 worker") or trainer.description.startswith("2 workers")


def test_no_scheduler_and_no_worker_are_told(cache, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("emofuse.extraction.cluster._CONNECT_TIMEOUT_S", 1)
    nobody = SweepOptions(device="cpu", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(BuildError, match=r"no Dask scheduler answers .* Start one with: dask scheduler"):
        run_sweep(cache, small_sweep(), tmp_path / "out", nobody)
    with pytest.raises(BuildError, match=r"the scheduler has no workers"):
        run_sweep(cache, small_sweep(), tmp_path / "out", SweepOptions(device="cpu", scheduler=cluster.address))
    assert not (tmp_path / "out").exists()


def test_workers_of_another_version_are_refused():
    ours = versions()
    facts = WorkerFacts("far", "cpu", "cpu", 10**9, {**ours, "torch": "1.0"})
    with pytest.raises(BuildError, match=r"worker on far has torch 1\.0, this process has .* the same versions"):
        sweep_cluster._check_versions([facts])


def task(cache, **changes) -> GroupTask:
    data = TrainingData.of(cache, small_sweep().base.split)
    search = make_strategy(small_sweep(), stream_types(cache))
    runs = searched_runs(data, search.ask()[:1], small_sweep())
    group = SearchGroup(tuple(runs), "small", None, 1.0)
    digests = tuple(data.digest(run.spec) for run in runs)
    return replace(GroupTask(cache.path, data.memory_bytes, "cpu", group, digests), **changes)


def test_a_worker_opens_the_cache_once(cache, monkeypatch):
    monkeypatch.setattr(sweep_cluster, "_opened", {})
    opened = []
    monkeypatch.setattr(sweep_cluster, "open_cache", lambda path: opened.append(path) or open_cache(path))
    first, second = train_task(task(cache)), train_task(task(cache))
    assert [replace(row, seconds=0.0, created="") for row in first] == [
        replace(row, seconds=0.0, created="") for row in second
    ]
    assert opened == [cache.path]


def test_a_worker_that_sees_another_cache_refuses(cache, monkeypatch):
    monkeypatch.setattr(sweep_cluster, "_opened", {})
    with pytest.raises(TrainingError, match=r"is another cache here, or another emofuse reads it"):
        train_task(task(cache, digests=("0" * 64, "1" * 64)))


def test_a_worker_reads_labels_anew_when_they_have_changed(tmp_path, write_cache, monkeypatch):
    monkeypatch.setattr(sweep_cluster, "_opened", {})
    arguments = planted()
    path = tmp_path / "features.zarr"
    first = train_task(task(open_cache(write_cache(path, **arguments))))
    labels = arguments["labels"].copy()
    labels[10:] = (labels[10:] + 1) % 3
    second = train_task(task(open_cache(write_cache(path, **{**arguments, "labels": labels}))))
    assert first[0].digest != second[0].digest
