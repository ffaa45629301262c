"""What disks, stores, schedulers and other builds do to a build: real processes, real signals, real file systems."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import dask
import psutil
import pytest
from cheap_streams import DELAY, MISBEHAVING, DeadlySpec, FlakyStoreSpec, MeanColourSpec, SizeSpec
from distributed import Client, LocalCluster
from processes import children_of, done_blocks, is_gone, is_worker, wait_until
from shaped_streams import SHAPES

from emofuse.cache.lock import lock_path
from emofuse.cache.reader import open_cache
from emofuse.errors import BuildError, CacheError, StreamError
from emofuse.extraction import BuildOptions, BuildState, build_cache, cluster
from emofuse.specs import CacheSpec

SPEC = CacheSpec(block_rows=4, streams=(MeanColourSpec(), SizeSpec(), *SHAPES))
SCRIPT = Path(__file__).parents[1] / "builds" / "build_script.py"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "features.zarr"


@pytest.fixture
def undisturbed(tmp_path, manifest, in_process, contents) -> dict[str, object]:
    """Contents of the same cache, built in this process without a stop."""
    build_cache(tmp_path / "undisturbed.zarr", manifest, SPEC, in_process)
    return contents(tmp_path / "undisturbed.zarr")


# Two builds of one cache.


def test_the_second_build_is_told_which_process_is_first_and_takes_over_when_it_is_dead(
    path, manifest, in_process, contents, undisturbed, start_build
):
    first = start_build(path, delay_s=0.3)
    wait_until(lambda: done_blocks(path) >= 1)
    with pytest.raises(
        CacheError, match=rf"another build is writing this cache \(process {first.pid} on .*, since .*\)\. Wait for it"
    ):
        build_cache(path, manifest, SPEC, in_process)
    first.kill()
    wait_until(lambda: is_gone(first))
    assert lock_path(path).is_file()
    build_cache(path, manifest, SPEC, in_process)
    assert contents(path) == undisturbed
    assert not lock_path(path).exists()


@pytest.mark.parametrize("deadly", [("hang", "4"), ("sleep", "600")], ids=lambda deadly: deadly[0])
def test_a_picture_that_takes_for_ever_does_not_outlive_a_killed_build(
    path, start_build, tmp_path, monkeypatch, deadly
):
    """A process that sleeps hears of it; one that holds the interpreter is ended by nothing but a clock of its own."""
    monkeypatch.setenv(MISBEHAVING, str(tmp_path / "misbehaving"))
    build = start_build(path, deadly=deadly)
    wait_until((tmp_path / "misbehaving").exists)
    workers = list(filter(is_worker, children_of(build)))
    build.kill()
    assert workers
    wait_until(lambda: all(map(is_gone, workers)))


# Disks and stores.

FULL = """
mount -t tmpfs -o size={small} tmpfs "$DISK" || exit 99
"$PYTHON" "$SCRIPT" "$IMAGES" "$DISK/features.zarr" 2 > "$OUT/first.txt" 2>&1
echo $? > "$OUT/status.txt"
ls "$DISK/features.zarr/streams/thumbnail/status" | grep -c '^c' > "$OUT/done.txt"
mount -o remount,{then} "$DISK" || exit 98
"$PYTHON" "$SCRIPT" "$IMAGES" "$DISK/features.zarr" 2 > "$OUT/second.txt" 2>&1
echo $? >> "$OUT/status.txt"
cp -r "$DISK/features.zarr" "$OUT/features.zarr" || true
"""


@pytest.fixture
def on_small_disk(tmp_path, images):
    """Builds twice on a small disk of its own, which is changed in between; gives the folder of what came of it."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        subprocess.run([*command, "mount -t tmpfs tmpfs /mnt"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets nobody mount a small disk of his own")

    def run(small: str, then: str, script: str = FULL) -> Path:
        (tmp_path / "disk").mkdir()
        (tmp_path / "out").mkdir()
        names = {"DISK": tmp_path / "disk", "OUT": tmp_path / "out", "IMAGES": images, "SCRIPT": SCRIPT}
        environment = {**os.environ, **{name: str(value) for name, value in names.items()}, "PYTHON": sys.executable}
        done = subprocess.run([*command, script.format(small=small, then=then)], env=environment, check=False)
        assert done.returncode == 0
        return tmp_path / "out"

    return run


def test_a_full_disk_ends_the_build_in_words_and_a_larger_one_lets_it_go_on(on_small_disk, contents, undisturbed):
    out = on_small_disk("400k", "size=8m")
    assert (out / "status.txt").read_text().split() == ["1", "0"]
    error = (out / "first.txt").read_text()
    assert "UnwritableCacheError" in error
    assert "blocks failed, then it was given up: rows " in error
    assert "cannot be written: the disk is full (No space left on device). Free some space." in error
    assert "Finished blocks are kept; run the same build again when the cause is removed." in error
    done = int((out / "done.txt").read_text())
    assert 1 <= done < 10
    # Of each block that failed, some streams may be done; that of thumbnails is written last.
    computed = int((out / "second.txt").read_text().split()[0])
    assert computed == 40 - 4 * done
    assert contents(out / "features.zarr") == undisturbed


def test_a_finished_cache_is_of_use_on_a_disk_that_may_only_be_read(on_small_disk):
    out = on_small_disk("8m", "ro")
    assert (out / "status.txt").read_text().split() == ["0", "0"]
    assert (out / "second.txt").read_text() == "complete, nothing to do"


def test_a_disk_that_may_only_be_read_is_refused_before_anything_is_extracted(on_small_disk):
    out = on_small_disk("8m,ro", "size=8m")
    assert (out / "status.txt").read_text().split() == ["1", "1"]
    error = (out / "first.txt").read_text().splitlines()[-1]
    assert error.startswith("emofuse.errors.UnwritableCacheError: ")
    assert error.endswith("the folder of this cache cannot be written: it is read-only (Read-only file system).")
    assert "emofuse/extraction/worker" not in (out / "first.txt").read_text()


FOLDER_READ_ONLY = """
mount -t tmpfs -o size={small} tmpfs "$DISK" || exit 99
"$PYTHON" "$SCRIPT" "$IMAGES" "$DISK/features.zarr" 0 > "$OUT/first.txt" 2>&1
echo $? > "$OUT/status.txt"
rm "$DISK"/features.zarr/streams/*/status/c.3.0
mount --bind "$DISK/features.zarr" "$DISK/features.zarr" || exit 98
mount -o remount,bind,{then} "$DISK/features.zarr" || exit 97
"$PYTHON" "$SCRIPT" "$IMAGES" "$DISK/features.zarr" 0 > "$OUT/second.txt" 2>&1
echo $? >> "$OUT/status.txt"
"""


def test_a_cache_that_may_only_be_read_is_refused_before_anything_is_extracted(on_small_disk):
    """Though what lies beside it, the lock and the manifest, may be written."""
    out = on_small_disk("8m", "ro", FOLDER_READ_ONLY)
    assert (out / "status.txt").read_text().split() == ["0", "1"]
    error = (out / "second.txt").read_text().splitlines()[-1]
    assert error.startswith("emofuse.errors.UnwritableCacheError: ")
    assert error.endswith("features.zarr cannot be written: it is read-only (Read-only file system).")
    assert "blocks failed" not in error


def test_a_disk_without_room_for_an_empty_cache_is_said_to_be_full(on_small_disk):
    out = on_small_disk("8k", "size=8m")
    assert (out / "status.txt").read_text().split() == ["1", "0"]
    error = (out / "first.txt").read_text().splitlines()[-1]
    assert error.startswith("emofuse.errors.UnwritableCacheError: ")
    assert error.endswith("cannot be written: the disk is full (No space left on device). Free some space.")


def test_a_disk_that_fails_one_write_in_ten_is_asked_again(path, manifest, in_process, tmp_path):
    spec = CacheSpec(block_rows=4, streams=(FlakyStoreSpec(),))
    build_cache(path, manifest, spec, BuildOptions(workers=1, device="cpu"))
    assert open_cache(path).streams["flaky_store"].lacking_blocks().tolist() == []
    build_cache(tmp_path / "undisturbed.zarr", manifest, CacheSpec(block_rows=4, streams=(SizeSpec(),)), in_process)
    sizes = tmp_path / "undisturbed.zarr/streams/size"
    chunks = list(sizes.glob("*/c.*"))
    assert len(chunks) == 31
    for chunk in chunks:
        assert (path / "streams/flaky_store" / chunk.relative_to(sizes)).read_bytes() == chunk.read_bytes()


# A scheduler and workers of the user's own, each a process.


@pytest.fixture
def remote(monkeypatch):
    """A real `dask scheduler` with two real `dask worker`s: its address and the processes."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SCRIPT.parent), *sys.path]))
    monkeypatch.setenv(DELAY, "0.3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", f"tcp://{address}", "--no-dashboard"]
    processes = [subprocess.Popen(dask, **quiet)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://{address}", "--nthreads", "1"]
    options = ["--host", "127.0.0.1", "--no-dashboard"]
    processes += [subprocess.Popen([*worker, *options], **quiet) for _ in range(2)]
    with Client(f"tcp://{address}", set_as_default=False, timeout=600) as client:  # builds wait for less
        client.wait_for_workers(2, timeout=600)
    yield f"tcp://{address}", [psutil.Process(process.pid) for process in processes]
    for process in processes:
        for left in (*children_of(psutil.Process(process.pid)), process):
            left.kill()
        process.wait()


class Disturber:
    """A progress that does something once, a moment after the first blocks."""

    def __init__(self, disturb) -> None:
        self.timer = threading.Timer(0.1, disturb)
        self.is_started = False

    def update(self, state: BuildState) -> None:
        if state.rows >= 8 and not self.is_started:
            self.is_started = True
            self.timer.start()


def test_a_killed_dask_worker_costs_nothing(path, manifest, contents, undisturbed, remote):
    address, (_, worker, _) = remote

    def extracting() -> list[psutil.Process]:
        return [child for child in worker.children() if any(map(is_worker, children_of(child)))]

    def kill() -> None:
        wait_until(lambda: len(extracting()) == 1)
        [child] = extracting()
        extractions = list(filter(is_worker, child.children()))
        child.kill()
        wait_until(lambda: all(map(is_gone, extractions)))
        killed.extend(extractions)

    killed: list[psutil.Process] = []
    disturber = Disturber(kill)
    build_cache(path, manifest, SPEC, BuildOptions(scheduler=address, device="cpu"), disturber)
    disturber.timer.join()
    assert len(killed) == 1
    assert contents(path) == undisturbed


def test_a_killed_scheduler_ends_the_build_and_what_is_finished_is_kept(
    path, manifest, in_process, contents, undisturbed, remote, monkeypatch
):
    address, (scheduler, *_) = remote
    monkeypatch.setattr(cluster, "_CONNECT_TIMEOUT_S", 10)  # for so long a scheduler that is gone is looked for
    with pytest.raises(
        BuildError,
        match=rf"^{address}: the Dask scheduler is gone \(.*Error\)\. Finished blocks are kept: start it again, and",
    ):
        build_cache(path, manifest, SPEC, BuildOptions(scheduler=address, device="cpu"), Disturber(scheduler.kill))
    done = done_blocks(path)
    assert 2 <= done < 10
    assert build_cache(path, manifest, SPEC, in_process).rows <= 40 - 4 * (done - 1)
    assert contents(path) == undisturbed


@pytest.fixture
def fragile():
    """A cluster on which a task that ended its worker is not tried again."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1") as running,
    ):
        yield running.scheduler_address


def test_a_block_that_ends_its_dask_worker_every_time_fails_and_costs_no_other(path, manifest, fragile):
    spec = CacheSpec(block_rows=4, streams=(DeadlySpec(red=10, how="kill worker"),))
    with pytest.raises(
        StreamError, match=r"^1 of 10 blocks failed: rows 8-11 \(block 2\): its Dask worker died 1 times"
    ):
        build_cache(path, manifest, spec, BuildOptions(scheduler=fragile, device="cpu"))
    assert open_cache(path).streams["deadly"].lacking_blocks().tolist() == [2]


def test_streams_that_end_their_dask_worker_when_they_are_opened_end_the_build(path, manifest, fragile):
    spec = CacheSpec(block_rows=4, streams=(DeadlySpec(red=10, how="kill worker when opened"),))
    with pytest.raises(BuildError, match=r"^workers died 1 times while they opened deadly \(out of memory, or a nat"):
        build_cache(path, manifest, spec, BuildOptions(scheduler=fragile, device="cpu"))


def test_extraction_processes_of_a_cluster_end_with_the_build(path, manifest, remote):
    address, (_, *workers) = remote
    build_cache(path, manifest, SPEC, BuildOptions(scheduler=address, device="cpu"))
    wait_until(lambda: not any(is_worker(child) for worker in workers for child in children_of(worker)))
    shutil.rmtree(path)


# Encryption: what Dask's own configuration says is used.


@pytest.fixture
def tls(tmp_path) -> dict[str, object]:
    """A certificate of the test's own, as the configuration of Dask that says to use it."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    try:
        subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl to make a certificate with")
    own = {"key": str(key), "cert": str(certificate)}
    roles = dict.fromkeys(("scheduler", "worker", "client"), own)
    return {"distributed": {"comm": {"tls": {"ca-file": str(certificate), **roles}}}}


def test_a_scheduler_behind_tls_is_used_with_the_settings_of_dask(
    path, manifest, contents, undisturbed, tls, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SCRIPT.parent), *sys.path]))
    monkeypatch.setattr(cluster, "_CONNECT_TIMEOUT_S", 600)  # the worker has to start first
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "tls.yaml").write_text(json.dumps(tls))  # JSON is YAML
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "dask"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tls://127.0.0.1:{free.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    ends = [["dask_scheduler", "--host", address], ["dask_worker", address, "--nthreads", "1"]]
    processes = [
        subprocess.Popen([sys.executable, "-m", f"distributed.cli.{name}", *options, "--no-dashboard"], **quiet)
        for name, *options in ends
    ]
    try:
        with dask.config.set(dask.config.merge(dask.config.config, tls)):
            build_cache(path, manifest, SPEC, BuildOptions(scheduler=address, device="cpu"))
        assert contents(path) == undisturbed
        monkeypatch.setattr(cluster, "_CONNECT_TIMEOUT_S", 2)
        with pytest.raises(
            BuildError, match=rf"^{address}: no Dask scheduler answers \(.*\)\. Certificates are set in"
        ):
            build_cache(tmp_path / "plain.zarr", manifest, SPEC, BuildOptions(scheduler=address, device="cpu"))
    finally:
        for process in processes:
            for left in (*children_of(psutil.Process(process.pid)), process):
                left.kill()
            process.wait()
