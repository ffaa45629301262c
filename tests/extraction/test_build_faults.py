"""What pictures, signals and machines do to a build: real processes, real signals."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from cheap_streams import DELAY, OPENED, DeadlySpec, MeanColourSpec, SizeSpec
from processes import children_of, is_gone, is_worker
from shaped_streams import SHAPES

from emofuse.cache.reader import open_cache
from emofuse.datasets import read_dataset
from emofuse.datasets.manifest import Manifest
from emofuse.errors import BuildError, StreamError
from emofuse.extraction import BuildOptions, BuildState, build_cache, isolation
from emofuse.specs import CacheSpec, FolderSpec, StratifiedSplit
from emofuse.status import Status

SPEC = CacheSpec(block_rows=4, streams=(MeanColourSpec(), SizeSpec(), *SHAPES))
WORKERS = BuildOptions(workers=2, device="cpu")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "features.zarr"


@pytest.fixture
def undisturbed(tmp_path, manifest, in_process, contents) -> dict[str, object]:
    """Contents of the same cache, built in this process."""
    build_cache(tmp_path / "undisturbed.zarr", manifest, SPEC, in_process)
    return contents(tmp_path / "undisturbed.zarr")


def extraction_processes() -> list[psutil.Process]:
    return [child for child in children_of(psutil.Process()) if not is_gone(child) and is_worker(child)]


def statuses(path: Path, stream: str) -> dict[int, str]:
    """Row -> status and reason of the rows that are not OK."""
    cached = open_cache(path).streams[stream]
    reasons = cached.reasons()[:, 0]
    status = cached.status[:, 0]
    return {row: f"{Status(status[row]).name}: {reasons[row]}" for row in np.flatnonzero(status != Status.OK).tolist()}


@pytest.fixture
def some(manifest) -> Manifest:
    """The first sixteen rows: two blocks of eight."""
    return Manifest(manifest.table[:16], manifest.classes, manifest.root, manifest.info)


@pytest.mark.parametrize(
    ("how", "limits", "reason"),
    [
        ("segfault", {}, "ended its process with SIGSEGV"),
        ("exit", {}, "ended its process with exit status 3"),
        ("hang", {"block_timeout_s": 3}, "took longer than 3 s"),
        ("hang when read", {"block_timeout_s": 3}, "took longer than 3 s"),
        ("allocate", {"memory_bytes": 700_000_000}, "took more than 0.7 GB of memory"),
    ],
)
def test_a_picture_that_its_stream_does_not_survive_fails_alone(path, some, how, limits, reason):
    spec = CacheSpec(block_rows=8, streams=(DeadlySpec(red=10, how=how),))
    summary = build_cache(path, some, spec, BuildOptions(workers=1, device="cpu", **limits))
    failed = statuses(path, "deadly")
    assert list(failed) == [9, 10]
    assert failed[10] == f"FAILED: {reason}"
    features, _ = open_cache(path).streams["deadly"].read()
    assert features[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 11, 12, 13, 14, 15]
    assert [(problem.row, problem.stream, problem.reason) for problem in summary.problems][1] == (10, "deadly", reason)


def test_a_file_longer_than_any_picture_is_read_by_nobody(path, tmp_path, images):
    """Three gigabytes, of which the disk holds none: whoever reads them takes more memory than there is."""
    shutil.copytree(images / "fear", tmp_path / "images/fear")
    with (tmp_path / "images/fear/03.png").open("wb") as file:
        file.truncate(3_000_000_000)
    manifest = read_dataset(FolderSpec(root=tmp_path / "images", split=StratifiedSplit()))
    spec = CacheSpec(block_rows=8, streams=(SizeSpec(),))
    build_cache(path, manifest, spec, BuildOptions(workers=1, device="cpu", memory_bytes=700_000_000))
    reason = "3,000,000,000 bytes, more than any picture of max_pixels = 100,000,000 has"
    assert list(statuses(path, "size")) == [3, 9]
    assert statuses(path, "size")[3] == f"UNREADABLE: {reason}"


def test_streams_that_survive_a_picture_keep_its_features(path, some):
    """And the others of the block are what they are without the deadly stream."""
    spec = CacheSpec(block_rows=8, streams=(SizeSpec(), DeadlySpec(red=10), MeanColourSpec()))
    summary = build_cache(path, some, spec, BuildOptions(workers=1, device="cpu"))
    deadly = "FAILED: ended its process with SIGKILL (out of memory, or by hand)"
    assert statuses(path, "deadly")[10] == deadly
    assert list(statuses(path, "size")) == list(statuses(path, "mean_colour")) == [9]
    of_ok = {"ok": 15, "unreadable": 1}
    assert summary.counts == {"size": of_ok, "mean_colour": of_ok, "deadly": {"ok": 14, "unreadable": 1, "failed": 1}}
    assert summary.rows == 16
    assert [(problem.row, problem.stream) for problem in summary.problems] == [(9, ""), (10, "deadly")]
    assert build_cache(path, some, spec, WORKERS).rows == 0


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """What extraction processes are asked, in order."""
    requests = []
    ask = isolation.ExtractionProcess.ask
    monkeypatch.setattr(
        isolation.ExtractionProcess,
        "ask",
        lambda process, request, **limits: requests.append(request.what) or ask(process, request, **limits),
    )
    return requests


def test_streams_are_opened_once_and_not_for_every_block(path, some, asked):
    spec = CacheSpec(block_rows=4, streams=(SizeSpec(),))
    build_cache(path, some, spec, BuildOptions(workers=1, device="cpu"))
    assert asked == ["describe_streams", *["compute_block"] * 4]
    asked.clear()
    for chunk in path.glob("streams/size/status/c.[12].0"):
        chunk.unlink()
    build_cache(path, some, spec, BuildOptions(workers=1, device="cpu"))
    assert asked == ["open_streams", *["compute_block"] * 2]


def test_a_process_that_is_killed_while_it_has_nothing_to_do_costs_no_search_for_a_deadly_row(path, some, asked):
    class KillsIdle:
        """Kills the extraction process between two blocks."""

        def update(self, state: BuildState) -> None:
            if state.rows == 8:
                [process] = extraction_processes()
                process.kill()
                process.wait()

    spec = CacheSpec(block_rows=8, streams=(SizeSpec(),))
    build_cache(path, some, spec, BuildOptions(workers=1, device="cpu"), KillsIdle())
    assert asked == ["describe_streams", "compute_block", "open_streams", "compute_block"]


class Killer:
    """A progress that sends a signal to the extraction processes after the first blocks."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.killed = 0

    def update(self, state: BuildState) -> None:
        if state.rows >= 8 and self.killed < self.times:
            for process in extraction_processes():
                process.send_signal(signal.SIGKILL)
                self.killed += 1


@pytest.mark.parametrize("times", [1, 3])
def test_extraction_processes_that_somebody_kills_cost_nothing(
    path, manifest, contents, undisturbed, monkeypatch, times
):
    monkeypatch.setenv(DELAY, "0.1")
    killer = Killer(times)
    build_cache(path, manifest, SPEC, WORKERS, killer)
    assert killer.killed >= times
    assert contents(path) == undisturbed


def test_streams_that_end_their_process_when_they_are_opened_end_the_build(path, manifest):
    spec = CacheSpec(block_rows=8, streams=(DeadlySpec(red=10, how="kill when opened"),))
    with pytest.raises(
        BuildError,
        match=r"^an extraction process died 2 times while it opened deadly \(ended its process with SIGKILL \(out of "
        r"memory, or by hand\)\)\. Try fewer with --workers, or --workers 0 to see it happen\.$",
    ):
        build_cache(path, manifest, spec, WORKERS)


def test_a_process_that_somebody_kills_while_it_opens_streams_is_started_again(path, some, tmp_path, monkeypatch):
    monkeypatch.setenv(OPENED, str(tmp_path / "opened"))
    spec = CacheSpec(block_rows=8, streams=(DeadlySpec(red=10, how="kill when first opened"),))
    build_cache(path, some, spec, BuildOptions(workers=1, device="cpu"))
    assert list(statuses(path, "deadly")) == [9]


def test_a_picture_that_streams_survive_one_by_one_but_not_together_fails_in_all_of_them(path, some):
    pair = tuple(DeadlySpec(name=name, red=10, how="kill in company") for name in ("a", "b"))
    build_cache(path, some, CacheSpec(block_rows=8, streams=pair), BuildOptions(workers=1, device="cpu"))
    deadly = "FAILED: ended its process with SIGKILL (out of memory, or by hand)"
    for name in ("a", "b"):
        assert list(statuses(path, name)) == [9, 10]
        assert statuses(path, name)[10] == deadly


def test_an_extraction_process_that_nobody_asks_ends_by_itself(tmp_path):
    """A build that was killed leaves it to a worker of a cluster that lives on, and its connection stays open."""
    (tmp_path / "temporary").mkdir()
    ours, theirs = socket.socketpair()
    code = (
        "from emofuse.extraction import child; child._IDLE_S = 0.2; "
        f"child.main(['{theirs.fileno()}', {str(tmp_path / 'temporary')!r}])"
    )
    with ours, theirs, subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()]) as process:
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert not (tmp_path / "temporary").exists()


def test_a_block_in_which_too_many_rows_are_deadly_is_given_up(path, some, monkeypatch):
    monkeypatch.setattr(isolation, "_MOST_DEADLY_ROWS", 0)
    monkeypatch.setattr(isolation, "_MOST_DEADLY_SHARE", 0.1)
    spec = CacheSpec(block_rows=8, streams=(DeadlySpec(red=10),))
    with pytest.raises(
        StreamError,
        match=r"^1 of 2 blocks failed: rows 8-15 \(block 1\): 1 rows end their process, first row 10: it ended its "
        r"process with SIGKILL",
    ):
        build_cache(path, some, spec, WORKERS)
    assert open_cache(path).streams["deadly"].lacking_blocks().tolist() == [1]


def test_a_block_that_takes_too_long_though_no_row_does_is_waited_for_longer(path, some):
    """Eight pictures of 0.3 s: too long for a limit of 1.5 s, not for four times that."""
    spec = CacheSpec(block_rows=8, streams=(DeadlySpec(red=10, how="slow"),))
    build_cache(path, some, spec, BuildOptions(workers=2, device="cpu", block_timeout_s=1.5))
    assert list(statuses(path, "deadly")) == [9]


def test_an_extraction_process_goes_before_the_build_when_the_machine_runs_out_of_memory(path, manifest, monkeypatch):
    if not Path("/proc/self/oom_score_adj").exists():
        pytest.skip("this system has no such score")
    monkeypatch.setenv(DELAY, "0.1")
    scores = []

    class Reader:
        def update(self, state: BuildState) -> None:
            if state.rows >= 8:
                scores.extend(
                    int(Path(f"/proc/{each.pid}/oom_score_adj").read_text()) for each in extraction_processes()
                )

    build_cache(path, manifest, SPEC, WORKERS, Reader())
    assert set(scores) == {900}
    assert int(Path("/proc/self/oom_score_adj").read_text()) < 900


def test_what_native_code_prints_does_not_disturb_the_answers(path, some, capfd):
    spec = CacheSpec(block_rows=8, streams=(DeadlySpec(red=10, how="print"),))
    build_cache(path, some, spec, BuildOptions(workers=1, device="cpu"))
    assert "hello from native code" in capfd.readouterr().err
    assert list(statuses(path, "deadly")) == [9]
