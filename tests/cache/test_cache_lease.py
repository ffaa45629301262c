from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from emofuse import stores
from emofuse.cache import lease
from emofuse.cache.lease import hold_lease
from emofuse.errors import CacheError, StoreError
from emofuse.stores import RemotePath, as_path

HOLD = """
import sys, time
from emofuse.cache import lease
from emofuse.stores import as_path
lease.BEAT_S = 0.1
with lease.hold_lease(as_path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def cache(s3_bucket, monkeypatch) -> RemotePath:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    monkeypatch.setattr(lease, "PATIENCE_S", 5.0)  # a busy machine delays the beats of those that live
    monkeypatch.setattr(lease, "_LOOK_S", 0.05)
    return as_path(s3_bucket) / "f" / "features.zarr"


@pytest.fixture
def _impatient(cache, monkeypatch) -> None:
    monkeypatch.setattr(lease, "PATIENCE_S", 0.6)


def wait_until(condition, timeout_s: float = 600) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def told(cache: RemotePath) -> dict[str, object]:
    return json.loads((cache.parent / "features.lease.json").read_bytes())


def test_a_held_cache_is_refused_with_its_holder(cache):
    with hold_lease(cache):
        assert told(cache)["pid"] == os.getpid()
        message = (
            rf"s3://.*/features\.zarr: another build is writing this cache \(process {os.getpid()} on "
            rf"{platform.node()}, since 20.*\)\. Wait for it, or stop it first\."
        )
        with pytest.raises(CacheError, match=message), hold_lease(cache):
            pass
        assert told(cache)["pid"] == os.getpid()
    assert not (cache.parent / "features.lease.json").exists()
    with hold_lease(cache):
        pass


def test_the_holder_keeps_saying_that_it_lives(cache):
    with hold_lease(cache):
        before = told(cache)["beat"]
        wait_until(lambda: told(cache)["beat"] > before)


def test_a_dead_holder_of_this_machine_is_replaced_at_once(cache, monkeypatch):
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(cache)], stdout=subprocess.PIPE, text=True)
    assert held.stdout.readline() == "held\n"
    with pytest.raises(CacheError, match=f"process {held.pid} on"), hold_lease(cache):
        pass
    held.kill()
    held.wait()
    assert told(cache)["pid"] == held.pid
    waits = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: pytest.fail("it is watched"))
    monkeypatch.setattr(lease, "time", waits)
    with hold_lease(cache):
        assert told(cache)["pid"] == os.getpid()


def test_a_holder_that_ends_while_it_is_watched_is_followed(cache, monkeypatch):
    first = threading.Event()

    def hold_a_moment() -> None:
        with hold_lease(cache):
            first.set()
            time.sleep(0.2)

    monkeypatch.setattr(lease, "BEAT_S", 100.0)  # it says nothing, and then it is gone
    other = threading.Thread(target=hold_a_moment)
    other.start()
    first.wait()
    with hold_lease(cache):
        assert told(cache)["pid"] == os.getpid()
    other.join()


@pytest.mark.usefixtures("_impatient")
def test_a_holder_of_another_machine_that_is_silent_is_replaced(cache):
    silent = {"id": "x", "host": "elsewhere", "pid": 1, "since": "2020", "beat": 7}
    (cache.parent / "features.lease.json").write_bytes(json.dumps(silent).encode())
    started = time.monotonic()
    with hold_lease(cache):
        assert time.monotonic() - started > 0.5
        assert told(cache)["host"] == platform.node()


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("damage", [b"", b"no JSON", b"[]"])
def test_a_lease_that_says_nothing_is_replaced_when_it_stays_so(cache, damage):
    (cache.parent / "features.lease.json").write_bytes(damage)
    with hold_lease(cache):
        assert told(cache)["pid"] == os.getpid()


def test_of_two_that_come_at_once_one_is_refused(cache, monkeypatch):
    monkeypatch.setattr(lease, "PATIENCE_S", 2.0)
    silent = {"id": "x", "host": "elsewhere", "pid": 1, "since": "2020", "beat": 7}
    (cache.parent / "features.lease.json").write_bytes(json.dumps(silent).encode())
    outcomes, refused = [], threading.Event()

    def come() -> None:
        try:
            with hold_lease(cache):
                refused.wait(600)
                outcomes.append("held")
        except CacheError:
            outcomes.append("refused")
            refused.set()

    both = [threading.Thread(target=come) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(outcomes) == ["held", "refused"]


def test_one_that_was_taken_over_leaves_the_new_holder_alone(cache):
    with hold_lease(cache):
        taken = {"id": "other", "host": "elsewhere", "pid": 1, "since": "2020", "beat": 1}
        (cache.parent / "features.lease.json").write_bytes(json.dumps(taken).encode())
        time.sleep(0.3)
        assert told(cache) == taken
    assert told(cache) == taken


def test_a_store_that_stops_answering_does_not_end_the_holder(cache, monkeypatch):
    with hold_lease(cache):
        write_if = RemotePath.write_if

        def fail(*_):
            raise StoreError("no answer")

        monkeypatch.setattr(RemotePath, "write_if", fail)
        time.sleep(0.3)
        monkeypatch.setattr(RemotePath, "write_if", write_if)
        before = told(cache)["beat"]
        wait_until(lambda: told(cache)["beat"] > before)


def test_a_store_that_does_not_answer_is_said(cache, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(stores.connection, "_ATTEMPTS", 1)
    stores.forget_connections()
    with pytest.raises(StoreError, match=r"features\.lease\.json: the store cannot be used"), hold_lease(cache):
        pass
