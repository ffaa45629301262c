"""One build at a time on a disk: who holds a cache, and what becomes of a holder that died."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
import time

import pytest

from emofuse.cache.lock import hold_lock, lock_path
from emofuse.cache.structure import drop_stream, lock_cache
from emofuse.errors import CacheError, UnwritableCacheError

CODE = """
import os, signal, sys, time
from pathlib import Path
from emofuse.cache.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.zarr"


@pytest.fixture
def start_holder(path):
    """Starts a process that holds the cache."""
    started = []

    def start() -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", CODE, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_second_is_told_who_is_first(path, start_holder):
    holder = start_holder()
    expected = (
        rf"^{path}: another build is writing this cache \(process {holder.pid} on {platform.node()}, since 20..-.*\)\. "
        r"Wait for it, or stop it first\.$"
    )
    with pytest.raises(CacheError, match=expected), hold_lock(path):
        pass
    assert holder.poll() is None


def test_the_lock_of_a_killed_process_is_taken_over(path, start_holder):
    holder = start_holder()
    holder.kill()
    holder.wait()
    assert json.loads(lock_path(path).read_text())["pid"] == holder.pid
    with hold_lock(path):
        assert json.loads(lock_path(path).read_text())["pid"] == os.getpid()


def test_nothing_is_left_when_it_is_given_back(path):
    with hold_lock(path):
        assert lock_path(path).name == "features.lock"
    assert list(path.parent.iterdir()) == []


def test_a_lock_given_back_while_another_process_opens_it_is_not_taken_twice(path, monkeypatch):
    """The newcomer has opened the file when its holder removes it: what it then locks is nobody's any more."""
    opened = os.open
    holder = hold_lock(path)
    holder.__enter__()
    calls = []

    def give_back_meanwhile(name, flags, mode=0o777):
        file = opened(name, flags, mode)
        if str(name).endswith(".lock") and not calls:
            calls.append(name)
            holder.__exit__(None, None, None)
        return file

    monkeypatch.setattr(os, "open", give_back_meanwhile)
    with hold_lock(path):
        monkeypatch.undo()
        assert lock_path(path).is_file()
        with pytest.raises(CacheError, match=f"process {os.getpid()} on"), hold_lock(path):
            pass


@pytest.mark.parametrize("is_alive", [True, False])
def test_where_there_are_no_locks_what_the_file_says_decides(path, monkeypatch, start_holder, is_alive):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    lock_path(path).write_text(json.dumps({"host": platform.node(), "pid": process.pid, "since": "today"}))
    monkeypatch.setattr(fcntl, "flock", no_locks)
    if not is_alive:
        process.kill()
        process.wait()
    try:
        if is_alive:
            with pytest.raises(CacheError, match=rf"\(process {process.pid} on .*, since today\)"), hold_lock(path):
                pass
        else:
            with hold_lock(path):
                assert json.loads(lock_path(path).read_text())["pid"] == os.getpid()
    finally:
        process.kill()
        process.wait()


def test_a_process_of_another_machine_is_believed_where_there_are_no_locks(path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lock_path(path).write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "today"}))
    with pytest.raises(CacheError, match=r"\(process 1 on elsewhere, since today\)"), hold_lock(path):
        pass


def test_a_folder_that_may_only_be_read_is_said_so(path, monkeypatch):
    def refuse(name, flags, mode=0o777):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(
            UnwritableCacheError,
            match=r"the folder of this cache cannot be written: it is read-only \(Read-only file system\)\.$",
        ),
        hold_lock(path),
    ):
        pass


def test_all_that_writes_a_cache_holds_it(cache_path):
    with lock_cache(cache_path):
        with pytest.raises(CacheError, match="another build is writing this cache"):
            drop_stream(cache_path, "lbp")
        time.sleep(0)
    drop_stream(cache_path, "lbp")
