from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from cheap_streams import MISBEHAVING, MeanColourSpec, SizeSpec
from distributed import LocalCluster
from processes import children_of, done_blocks, is_gone, is_worker, wait_until
from shaped_streams import SHAPES

from emofuse.datasets.sources import Source
from emofuse.errors import BuildError
from emofuse.extraction import BuildOptions, BuildState, BuildSummary, build_cache, cluster, pool
from emofuse.extraction.isolation import ExtractionProcess, IsolatedExtraction
from emofuse.extraction.tasks import BlockFailed, BlockTask, BuildJob
from emofuse.specs import CacheSpec

SPEC = CacheSpec(block_rows=4, streams=(MeanColourSpec(), SizeSpec(), *SHAPES))
BLOCKS = 10


@pytest.fixture(scope="module")
def scheduler():
    """A cluster of the user's own."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1") as running:
        yield running.scheduler_address


@pytest.fixture
def undisturbed(tmp_path, manifest, in_process, contents) -> dict[str, object]:
    """Contents of the same cache, built in this process without a stop."""
    build_cache(tmp_path / "undisturbed.zarr", manifest, SPEC, in_process)
    return contents(tmp_path / "undisturbed.zarr")


def listening_ports(process: psutil.Process) -> set[tuple[int, int]]:
    """(process, port) of everything that it listens on."""
    connections = process.net_connections(kind="inet")
    return {(process.pid, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}


def make_job() -> BuildJob:
    digests = dict.fromkeys((spec.name for spec in SPEC.streams), "")
    return BuildJob(Path("none.zarr"), SPEC, digests, "cpu", one_thread=True)


class Observer:
    """A progress that looks at the processes of the build while it runs.

    Ports that this process listens on already, for other tests, are not the build's.
    """

    def __init__(self) -> None:
        self.ports: set[tuple[int, int]] = set()
        self._before = listening_ports(psutil.Process())
        self.workers: dict[int, dict[str, str]] = {}

    def update(self, state: BuildState) -> None:
        me = psutil.Process()
        children = me.children(recursive=True)
        workers = [child for child in children if is_worker(child)]
        for process in (me, *children):
            self.ports |= listening_ports(process) - self._before
        self.workers |= {worker.pid: worker.environ() for worker in workers}


@pytest.fixture(scope="module")
def observed(tmp_path_factory, manifest) -> tuple[Path, BuildSummary, Observer]:
    """A build with two workers of its own."""
    path, observer = tmp_path_factory.mktemp("observed") / "features.zarr", Observer()
    summary = build_cache(path, manifest, SPEC, BuildOptions(workers=2, device="cpu"), observer)
    return path, summary, observer


def test_workers_give_the_same_cache_as_one_process(observed, contents, undisturbed):
    path, summary, _ = observed
    assert contents(path) == undisturbed
    assert summary.rows == 40
    assert summary.counts["size"] == {"ok": 39, "unreadable": 1}
    assert [problem.row for problem in summary.problems] == [9]


def test_nothing_listens_during_a_build_on_this_machine(observed):
    _, _, observer = observed
    assert observer.ports == set()


def test_workers_have_one_thread_each_and_are_gone_afterwards(observed):
    _, _, observer = observed
    assert len(observer.workers) == 2
    for environment in observer.workers.values():
        assert {environment[name] for name in environment if name.endswith("_NUM_THREADS")} == {"1"}
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in observer.workers))


def test_a_scheduler_that_is_there_is_used(tmp_path, manifest, contents, undisturbed, scheduler):
    path = tmp_path / "features.zarr"
    build_cache(path, manifest, SPEC, BuildOptions(scheduler=scheduler, device="cpu"))
    assert contents(path) == undisturbed


def test_a_complete_cache_starts_no_cluster(tmp_path, manifest, in_process, monkeypatch):
    path = tmp_path / "features.zarr"
    build_cache(path, manifest, SPEC, in_process)
    monkeypatch.setattr(pool, "local_workers", None)
    assert build_cache(path, manifest, SPEC, BuildOptions(workers=2)).rows == 0


def test_no_scheduler_there(tmp_path, manifest, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(
        BuildError, match=r"^tcp://127\.0\.0\.1:9: no Dask scheduler answers \(.*\)\. Start one with: dask"
    ):
        build_cache(tmp_path / "features.zarr", manifest, SPEC, BuildOptions(scheduler="tcp://127.0.0.1:9"))


@pytest.mark.parametrize("address", ["foo", "127.0.0.1", "http://127.0.0.1:8786", "tcp://127.0.0.1:port"])
def test_what_is_no_address_of_a_scheduler_is_said_at_once(tmp_path, manifest, monkeypatch, address):
    monkeypatch.setattr(cluster, "Client", None)
    with pytest.raises(
        BuildError, match=rf"^'{address}' is no address of a Dask scheduler \(.*\)\. It looks like tcp://"
    ):
        build_cache(tmp_path / "features.zarr", manifest, SPEC, BuildOptions(scheduler=address))


def test_a_scheduler_without_workers(tmp_path, manifest, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_TIMEOUT_S", 0.5)
    with LocalCluster(n_workers=0, dashboard_address=":0", host="127.0.0.1") as empty:
        address = empty.scheduler_address
        with pytest.raises(BuildError, match=f"^{address}: the scheduler has no workers. Start one a core with"):
            build_cache(tmp_path / "features.zarr", manifest, SPEC, BuildOptions(scheduler=address))


def test_no_more_blocks_are_in_flight_than_workers(scheduler):
    """So neither the scheduler's graph nor memory grows with the dataset."""
    given = []

    def tasks():
        for block in range(20):
            given.append(block)
            yield BlockTask(block, block, (), ())

    job = make_job()
    with cluster.remote_workers(scheduler) as workers:
        results = workers.compute(job, tasks())
        for count, _ in enumerate(results, start=1):
            assert len(given) <= count + 2
    assert len(given) == 20


def test_answers_of_another_emofuse_are_not_taken_for_results(scheduler, manifest, monkeypatch):
    task = BlockTask(0, 0, ("size",), (Source(manifest.root / "fear/00.png"),))
    job = make_job()
    monkeypatch.setattr(ExtractionProcess, "ask", lambda process, request, **limits: "done")
    extraction = IsolatedExtraction()
    reason = extraction.compute(job, task).reason
    extraction.close()
    assert reason.endswith("an extraction process of another emofuse answered str")
    with cluster.remote_workers(scheduler) as workers:
        monkeypatch.setattr(cluster, "_compute", _answer_otherwise)
        with pytest.raises(BuildError, match=r"rows 0-0 \(block 0\): a worker of another emofuse answered with str$"):
            list(workers.compute(job, iter([task])))


def _answer_otherwise(job: BuildJob, task: BlockTask) -> str:
    return "done"


def test_nothing_is_started_again_for_a_build_that_was_stopped(scheduler, manifest):
    """A worker may come to a task of it that nobody took back."""
    task = BlockTask(0, 0, ("size",), (Source(manifest.root / "fear/00.png"),))
    job = make_job()
    extraction = IsolatedExtraction()
    extraction.close()
    assert extraction.compute(job, task) == BlockFailed(str(task), "BuildError: the build was stopped")
    with cluster.remote_workers(scheduler) as workers:
        stopped = replace(job, build="stopped")
        list(workers.compute(stopped, iter(())))
        workers.close()
        [result] = workers.compute(stopped, iter([task]))
    assert result == BlockFailed(str(task), "BuildError: the build was stopped")
    assert not list(filter(is_worker, children_of(psutil.Process())))


def test_a_build_killed_in_the_middle_goes_on_to_the_same_cache(
    tmp_path, manifest, in_process, contents, undisturbed, start_build
):
    path = tmp_path / "features.zarr"
    process = start_build(path, delay_s=0.2)
    wait_until(lambda: done_blocks(path) >= 3)
    workers = list(filter(is_worker, children_of(process)))
    process.kill()
    wait_until(lambda: all(map(is_gone, workers)))
    assert done_blocks(path) < BLOCKS
    build_cache(path, manifest, SPEC, in_process)
    assert contents(path) == undisturbed


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_at_once_and_can_go_on(
    tmp_path, manifest, in_process, contents, undisturbed, start_build, stop
):
    path = tmp_path / "features.zarr"
    process = start_build(path, delay_s=1)
    wait_until(lambda: done_blocks(path) >= 1)
    workers = list(filter(is_worker, children_of(process)))
    assert len(workers) == 2
    done = done_blocks(path)
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # a terminal sends Ctrl-C to all of them
    else:
        process.send_signal(stop)
    wait_until(lambda: is_gone(process))
    output = (tmp_path / "output.txt").read_text()
    assert all(map(is_gone, workers))
    assert output.strip().endswith("KeyboardInterrupt")
    assert output.count("Traceback") == 1, output
    assert done_blocks(path) < BLOCKS, output
    assert done_blocks(path) <= done + 3 * len(workers), output  # the blocks in hand; the others take seconds
    build_cache(path, manifest, SPEC, in_process)
    assert contents(path) == undisturbed


def test_a_picture_that_hangs_does_not_outlive_an_interrupted_build(tmp_path, start_build, monkeypatch):
    """Its block may take ten minutes more."""
    monkeypatch.setenv(MISBEHAVING, str(tmp_path / "misbehaving"))
    process = start_build(tmp_path / "features.zarr", deadly=("hang", "600"))
    wait_until((tmp_path / "misbehaving").exists)
    workers = list(filter(is_worker, children_of(process)))
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: all(map(is_gone, (process, *workers))))


def test_interrupted_while_the_workers_start(tmp_path, start_build):
    path = tmp_path / "features.zarr"
    process = start_build(path, delay_s=0)
    wait_until((path / "zarr.json").is_file)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    wait_until(lambda: is_gone(process))
    assert not any(process.pid == child.ppid() for child in psutil.process_iter())
