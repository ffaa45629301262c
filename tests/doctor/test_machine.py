"""What is said of the machine."""

from __future__ import annotations

import resource
from types import SimpleNamespace

import pytest

from emofuse.doctor import machine
from emofuse.doctor.machine import (
    WORKER_BYTES,
    bfloat16_findings,
    capacity_findings,
    codec_findings,
    device_findings,
    files_findings,
    products_findings,
    python_finding,
    runtime_findings,
)
from emofuse.doctor.probe import ProbeReply
from emofuse.extraction.pool import WORKER_BYTES as BUILD_WORKER_BYTES


def test_pythons_that_are_tested_and_others():
    assert python_finding((3, 11)).state == python_finding((3, 12)).state == "ok"
    other = python_finding((3, 14))
    assert other.state == "note"
    assert other.what.endswith("emofuse is tested on Python 3.11 and 3.12")


def test_a_worker_takes_what_the_build_reckons():
    assert WORKER_BYTES == BUILD_WORKER_BYTES


@pytest.mark.parametrize(
    ("free", "state", "what"), [(20e9, "ok", "enough for 4 extraction"), (1e9, "note", "less than one")]
)
def test_memory_is_told_as_workers(monkeypatch, free, state, what):
    import psutil

    monkeypatch.setattr(machine, "available_cores", lambda: 4)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=24 * 2**30, available=int(free)))
    (found,) = capacity_findings()
    assert found.state == state
    assert found.what.startswith("4 cores, 24 GiB of memory, ")
    assert what in found.what


@pytest.mark.parametrize(
    ("soft", "hard", "cores", "state", "advice"),
    [
        (1024, 4096, 2, "ok", ""),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 200, "ok", ""),
        (256, 4096, 16, "note", "ulimit -n 512"),
        (256, resource.RLIM_INFINITY, 16, "note", "ulimit -n 512"),
        (256, 256, 16, "note", "Raise the hard limit, or build with fewer --workers than 16"),
    ],
)
def test_open_files_are_held_against_a_build_on_all_cores(monkeypatch, soft, hard, cores, state, advice):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    (found,) = files_findings(cores)
    assert (found.state, found.advice) == (state, advice)


def test_gpus_are_named_with_their_memory():
    (found,) = device_findings(ProbeReply([{"name": "A fast one", "memory_bytes": 80 * 2**30}]))
    assert (found.state, found.what) == ("ok", "cuda:0: A fast one, 80 GiB")
    assert device_findings(ProbeReply([]))[0].state == "note"
    broken = device_findings(ProbeReply(None, "ImportError: no"))[0]
    assert (broken.state, broken.what) == ("fault", "torch cannot be asked for GPUs: ImportError: no")


def test_the_runtime_of_networks_is_named_with_its_reason_and_how_to_get_the_faster_one():
    def finding(**values):
        (line,) = runtime_findings(ProbeReply({"by_variable": False, "openvino": "2026.4.1", **values}))
        return line

    used = finding(auto="openvino", speed_up=3.2)
    assert used.state == "ok"
    assert used.what == (
        "networks on this CPU run in OpenVINO, as it is installed: OpenVINO 2026.4.1 is 3.2 times as fast as PyTorch"
    )
    lacking = finding(auto="torch", openvino=None)
    assert (lacking.state, lacking.advice) == ("note", "pip install 'emofuse[fast]'")
    left_out = finding(auto="torch", by_variable=True, speed_up=2.0)
    assert left_out.what.startswith("networks on this CPU run in PyTorch, as EMOFUSE_RUNTIME says")
    assert (left_out.state, left_out.advice) == ("note", "EMOFUSE_RUNTIME=openvino")
    slow = finding(auto="openvino", speed_up=0.8)
    assert (slow.state, slow.advice) == ("note", "EMOFUSE_RUNTIME=torch")
    (broken,) = runtime_findings(ProbeReply(None, "ImportError: libopenvino.so"))
    assert (broken.state, broken.advice) == ("note", "Reinstall openvino, or set EMOFUSE_RUNTIME=torch")


def test_bfloat16_is_advised_where_it_is_faster():
    (slower,), (faster,) = (bfloat16_findings(ProbeReply(times)) for times in (0.5, 2.8))
    assert slower.what.endswith("is 0.5 times as fast as in float32, keep `precision: float32`")
    assert faster.what.endswith("is 2.8 times as fast as in float32, `precision: bfloat16` pays there")
    (broken,) = bfloat16_findings(ProbeReply(None, "RuntimeError: no such kernel"))
    assert broken.state == "note"


def test_bfloat16_products_of_heads_are_advised_where_they_are_faster():
    (slower,), (faster,) = (products_findings(ProbeReply(times)) for times in (0.5, 1.9))
    assert slower.what.endswith("are 0.5 times as fast as in float32, keep float32")
    assert faster.what.endswith("are 1.9 times as fast as in float32, EMOFUSE_PRODUCTS=bfloat16 pays for wide heads")
    (broken,) = products_findings(ProbeReply(None, "RuntimeError: no such kernel"))
    assert broken.state == "note"


def test_the_codec_pipeline_is_told():
    own, gone = ProbeReply("zarr.core.BatchedCodecPipeline"), ProbeReply(None, "ImportError: no zarr")
    fast = codec_findings({"codec": ProbeReply("zarrs.ZarrsCodecPipeline")})[0]
    assert (fast.state, fast.what) == ("ok", "chunks are written with zarrs, and read without zarr")
    assert codec_findings({"codec": own})[0].state == "ok"
    broken = codec_findings({"codec": gone})[0]
    assert (broken.state, broken.what) == ("fault", "caches cannot be opened: ImportError: no zarr")
