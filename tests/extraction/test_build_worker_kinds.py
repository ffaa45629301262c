"""Mixed clusters: networks on workers with a GPU, all else on those without."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from processes import is_gone
from worker_kind_streams import KIND, GeometrySpec, NetworkSpec

from emofuse.cache.reader import open_cache
from emofuse.datasets.sources import Source
from emofuse.extraction import BuildOptions, BuildState, build_cache, worker_kinds
from emofuse.extraction.tasks import BlockDone, BlockFailed, BlockTask, BuildJob, Problem
from emofuse.extraction.worker_kinds import PartialResults, TaskQueues, WorkerKind, gpu_streams, split, workers_by_kind
from emofuse.specs import BackboneSpec, CacheSpec, LbpSpec, RandomWeights
from emofuse.status import Status

BOTH = CacheSpec(block_rows=4, streams=(NetworkSpec(), GeometrySpec()))


def job(device: str = "auto", *streams) -> BuildJob:
    spec = CacheSpec(streams=streams or BOTH.streams)
    return BuildJob(Path("x.zarr"), spec, {}, device, one_thread=True)


def task(block: int = 0, streams=("network", "geometry"), **changed) -> BlockTask:
    return BlockTask(block, 4 * block, streams, (Source(Path("a")),) * 4, ("a",) * 4, **changed)


def test_networks_belong_on_a_gpu_unless_the_build_says_cpu():
    streams = (BackboneSpec(model="resnet18", weights=RandomWeights()), LbpSpec(), *BOTH.streams)
    names = [stream.name for stream in streams]
    assert gpu_streams(job("auto", *streams), names) == {"resnet18", "network"}
    assert gpu_streams(job("cuda", *streams), names) == {"resnet18", "network"}
    assert gpu_streams(job("auto", *streams), ["lbp", "network"]) == {"network"}
    assert gpu_streams(job("cpu", *streams), names) == frozenset()


GPU, CPU = {"resources": {"GPU": 1.0}}, {"resources": {}}


@pytest.mark.parametrize(
    ("workers", "wants_gpu", "expected"),
    [
        ({"a": CPU, "b": GPU, "c": CPU}, True, {WorkerKind.GPU: ["b"], WorkerKind.CPU: ["a", "c"]}),
        ({"a": CPU, "b": GPU}, False, {WorkerKind.ANY: ["a", "b"]}),
        ({"a": CPU, "b": CPU}, True, {WorkerKind.ANY: ["a", "b"]}),
        ({"a": GPU, "b": GPU}, True, {WorkerKind.ANY: ["a", "b"]}),
        ({"a": {}, "b": {"resources": {"GPU": 0.5}}}, True, {WorkerKind.ANY: ["a", "b"]}),
        ({}, True, {WorkerKind.ANY: []}),
    ],
)
def test_a_cluster_with_and_without_gpus_has_two_kinds_of_workers(workers, wants_gpu, expected):
    assert workers_by_kind(workers, wants_gpu) == expected


def test_a_task_is_split_by_its_streams():
    whole = task(retried={("network", 0): {1: (3, "x")}, ("geometry", 0): {2: (4, "y")}})
    parts = split(whole, frozenset({"network"}))
    assert parts[WorkerKind.GPU].streams == ("network",)
    assert parts[WorkerKind.CPU].streams == ("geometry",)
    assert parts[WorkerKind.GPU].retried == {("network", 0): {1: (3, "x")}}
    assert parts[WorkerKind.CPU].of_streams == whole.streams
    assert split(task(streams=("network",)), frozenset({"network"})) == {WorkerKind.GPU: task(streams=("network",))}
    assert split(task(streams=("geometry",)), frozenset({"network"})) == {WorkerKind.CPU: task(streams=("geometry",))}


def test_each_kind_of_worker_gets_all_tasks_at_its_own_speed():
    queues = TaskQueues(job(), map(task, range(5)))
    on_gpu = [queues.take(WorkerKind.GPU) for _ in range(6)]
    on_cpu = [queues.take(WorkerKind.CPU) for _ in range(6)]
    assert [part and (part.block, part.streams) for part in on_gpu] == [(i, ("network",)) for i in range(5)] + [None]
    assert [part and (part.block, part.streams) for part in on_cpu] == [(i, ("geometry",)) for i in range(5)] + [None]


def test_tasks_of_one_kind_alone_wait_for_nobody():
    queues = TaskQueues(job(), (task(block, ("geometry",)) for block in range(3)))
    assert queues.take(WorkerKind.GPU) is None
    assert [queues.take(WorkerKind.CPU).block for _ in range(3)] == [0, 1, 2]


def test_the_faster_kind_waits_for_the_slower_one(monkeypatch):
    monkeypatch.setattr(worker_kinds, "_MOST_WAITING", 3)
    made = []
    queues = TaskQueues(job(), (made.append(block) or task(block) for block in range(100)))
    assert [part and part.block for part in (queues.take(WorkerKind.GPU) for _ in range(5))] == [0, 1, 2, None, None]
    assert len(made) == 3
    assert queues.take(WorkerKind.CPU).block == 0
    assert queues.take(WorkerKind.GPU).block == 3


def test_what_waits_for_a_kind_that_has_gone_is_done_by_any():
    queues = TaskQueues(job(), map(task, range(2)))
    queues.take(WorkerKind.GPU)
    assert queues.take(WorkerKind.ANY).streams == ("geometry",)
    assert queues.take(WorkerKind.ANY).streams == ("network", "geometry")
    assert queues.take(WorkerKind.ANY) is None


def done(stream: str, *problems: Problem) -> BlockDone:
    return BlockDone(4, {stream: (0, 4, 0, 0, 0)}, problems)


def test_two_partial_results_make_a_block():
    parts, partial = split(task(), frozenset({"network"})), PartialResults()
    unreadable, own = Problem(2, "", "no picture"), Problem(1, "geometry", "odd")
    assert partial.add(parts[WorkerKind.CPU], done("geometry", own, unreadable)) is None
    whole = partial.add(parts[WorkerKind.GPU], done("network", unreadable))
    assert (whole.rows, whole.counts.keys()) == (4, {"network", "geometry"})
    assert whole.problems == (own, unreadable)
    assert list(partial.left()) == []


def test_a_part_that_fails_does_not_hold_the_other_one():
    parts, partial = split(task(), frozenset({"network"})), PartialResults()
    failed = BlockFailed("rows 0-3", "out of memory")
    assert partial.add(parts[WorkerKind.GPU], failed) == failed
    assert partial.add(parts[WorkerKind.CPU], done("geometry")) == done("geometry")
    assert partial.add(parts[WorkerKind.GPU], done("network")) is None
    assert partial.add(parts[WorkerKind.CPU], failed) == failed


def test_a_part_whose_other_part_never_came_is_passed_on_at_the_end():
    parts, partial = split(task(), frozenset({"network"})), PartialResults()
    partial.add(parts[WorkerKind.GPU], done("network"))
    assert list(partial.left()) == [done("network")]
    assert partial.add(task(), done("network")) == done("network")  # a whole task is passed on as it is


@pytest.fixture
def start_cluster(tmp_path) -> Iterator[Callable[..., str]]:
    """Starts a real `dask scheduler` with real workers in processes of their own: kinds -> its address."""
    started = []

    def start(*kinds: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", f"tcp://{address}", "--no-dashboard"]
        log = (tmp_path / "cluster.txt").open("w")
        path = os.pathsep.join(part for part in sys.path if part)
        started.append(psutil.Popen(dask, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path}))
        for kind in kinds:
            worker = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://{address}", "--nthreads", "1"]
            worker += ["--no-dashboard", "--local-directory", str(tmp_path)]
            worker += ["--resources", "GPU=1"] if kind == "gpu" else []
            environment = {**os.environ, KIND: kind, "PYTHONPATH": path}
            started.append(psutil.Popen(worker, stdout=log, stderr=log, env=environment))
        return f"tcp://{address}"

    yield start
    for process in reversed(started):
        for child in (*process.children(recursive=True), process):
            if child.is_running():
                child.kill()
        process.wait()


def wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False, timeout=600) as client:
        client.wait_for_workers(count, timeout=600)


class Recorder:
    def __init__(self) -> None:
        self.rows: list[int] = []

    def update(self, state: BuildState) -> None:
        self.rows.append(state.rows)


def test_on_a_mixed_cluster_networks_run_on_the_gpu_and_all_else_beside_it(tmp_path, manifest, start_cluster):
    scheduler = start_cluster("cpu", "gpu")
    wait_for_workers(scheduler, 2)
    recorder = Recorder()
    summary = build_cache(tmp_path / "f.zarr", manifest, BOTH, BuildOptions(scheduler=scheduler), recorder)
    streams = open_cache(tmp_path / "f.zarr").streams
    for name, on_gpu in (("network", 1), ("geometry", 0)):
        features, status = streams[name].read()
        ok = status == Status.OK
        assert set(features[ok, 0]) == {on_gpu}
        np.testing.assert_array_equal(features[ok, 1], np.flatnonzero(ok))
    assert (summary.rows, recorder.rows[-1]) == (40, 40)
    assert summary.counts["network"] == summary.counts["geometry"] == {"ok": 39, "unreadable": 1}
    assert [(problem.row, problem.stream) for problem in summary.problems] == [(9, "")]
    assert sorted(recorder.rows) == recorder.rows


def test_workers_without_a_gpu_may_leave_a_cluster_in_the_middle(tmp_path, manifest, start_cluster):
    scheduler = start_cluster("cpu", "gpu")
    wait_for_workers(scheduler, 2)
    [leaving] = [child for child in psutil.Process().children() if child.environ().get(KIND) == "cpu"]

    class Leave:
        def update(self, state: BuildState) -> None:
            if state.rows >= 8 and not is_gone(leaving):
                for process in (leaving, *leaving.children(recursive=True)):
                    process.kill()

    spec = BOTH.model_copy(update={"streams": (NetworkSpec(), GeometrySpec(delay_s=0.3))})
    options = BuildOptions(scheduler=scheduler)
    building = threading.Thread(
        target=build_cache, args=(tmp_path / "f.zarr", manifest, spec, options, Leave()), daemon=True
    )
    building.start()
    building.join(120)
    assert not building.is_alive(), "it waits for workers that are gone"
    assert is_gone(leaving)
    for stream in open_cache(tmp_path / "f.zarr").streams.values():
        assert stream.counts() == {"pending": 0, "ok": 39, "no_detection": 0, "unreadable": 1, "failed": 0}


def test_where_all_workers_are_alike_a_worker_does_both(tmp_path, manifest, start_cluster):
    scheduler = start_cluster("gpu")
    wait_for_workers(scheduler, 1)
    build_cache(tmp_path / "f.zarr", manifest, BOTH, BuildOptions(scheduler=scheduler))
    streams = open_cache(tmp_path / "f.zarr").streams
    for name in ("network", "geometry"):
        features, status = streams[name].read()
        assert set(features[status == Status.OK, 0]) == {1}
