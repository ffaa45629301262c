from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cheap_streams import MeanColourSpec, SizeSpec

from emofuse.cache.structure import add_stream, create_cache
from emofuse.errors import DeviceError
from emofuse.extraction import pool, worker
from emofuse.extraction.plan import plan_build
from emofuse.extraction.worker import (
    BlockFailed,
    BuildJob,
    close_extractor,
    compute_block,
    describe_streams,
    device_for_streams,
)
from emofuse.specs import BackboneSpec, CacheSpec, LbpSpec, RandomWeights, digest

SPEC = CacheSpec(block_rows=8, streams=(MeanColourSpec(), SizeSpec()))
BACKBONE = BackboneSpec(model="resnet18", weights=RandomWeights(seed=0))


@pytest.fixture
def plan(tmp_path, manifest):
    return plan_build(tmp_path / "features.zarr", manifest, SPEC)


@pytest.fixture
def job(tmp_path, manifest, plan):
    """An empty cache and the job to fill it."""
    path = tmp_path / "features.zarr"
    create_cache(path, manifest, block_rows=8)
    digests = {name: digest(identity) for name, identity in plan.identities.items()}
    yield BuildJob(path, SPEC, digests, device="cpu", one_thread=False)
    close_extractor()


def test_streams_are_described_by_those_that_open_them(job):
    colour, size = describe_streams(job, ("mean_colour", "size"))
    assert (colour.name, colour.kind, colour.dim, colour.dtype, colour.flag_names) == (
        "mean_colour", "mean_colour", 3, "float32", (),
    )  # fmt: skip
    assert (size.dim, size.dtype, size.flag_names, size.columns) == (2, "float16", ("wide",), ("width", "height"))
    assert colour.spec == {"kind": "mean_colour", "name": "mean_colour", "dtype": "float32", "scale": 1.0}
    assert colour.face is None
    assert colour.digest == job.digests["mean_colour"]


def test_one_extractor_is_open_at_a_time(job, plan, manifest, monkeypatch):
    opened, closed = [], []
    extractor = worker.Extractor

    class Watched(extractor):
        def __init__(self, streams, *args, **options):
            opened.append([spec.name for spec in streams])
            super().__init__(streams, *args, **options)

        def close(self):
            closed.append(list(self.streams))
            super().close()

    monkeypatch.setattr(worker, "Extractor", Watched)
    for name in ("mean_colour", "size"):
        add_stream(job.cache, *describe_streams(job, (name,)))
    assert (opened, closed) == ([["mean_colour"], ["size"]], [["mean_colour"]])
    first, second, *_ = plan.tasks()
    compute_block(job, first)
    both = ["mean_colour", "size"]
    assert (opened[2:], closed[1:]) == ([both], [["size"]])
    done = compute_block(job, replace(second, streams=("size",)))  # one of those that are open
    assert (opened[3:], closed[2:]) == ([], [])
    assert list(done.counts) == ["size"]


def test_a_worker_with_other_libraries_or_weights_refuses(job, plan, manifest):
    other = BuildJob(job.cache, SPEC, {**job.digests, "size": "0" * 64}, device="cpu", one_thread=False)
    failed = compute_block(other, next(plan.tasks()))
    assert isinstance(failed, BlockFailed)
    assert "size would differ from what the planning machine makes. Give all workers the same emofuse" in failed.reason


def test_what_goes_wrong_in_the_cache_is_told_apart(job, plan, manifest):
    failed = compute_block(job, next(plan.tasks()))  # its streams were never added
    assert isinstance(failed, BlockFailed)
    assert failed.in_cache
    assert failed.rows == "rows 0-7 (block 0)"
    assert "no stream 'mean_colour' to write to" in failed.reason


@pytest.mark.parametrize(
    ("device", "streams", "has_gpu", "expected"),
    [
        ("auto", [LbpSpec()], True, "cpu"),
        ("cuda", [LbpSpec()], False, "cpu"),
        ("auto", [LbpSpec(), BACKBONE], True, "cuda:0"),
        ("auto", [LbpSpec(), BACKBONE], False, "cpu"),
        ("auto", [SizeSpec()], True, "cuda:0"),
        ("cuda:0", [BACKBONE], True, "cuda:0"),
        ("cpu", [BACKBONE], True, "cpu"),
    ],
)
def test_the_device_of_a_build(monkeypatch, device, streams, has_gpu, expected):
    cuda = SimpleNamespace(is_available=lambda: has_gpu, device_count=lambda: 1, current_device=lambda: 0)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert device_for_streams(device, streams) == expected


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False)))
    with pytest.raises(DeviceError, match=r"device 'cuda' was asked for, but torch on .* sees no such CUDA device"):
        device_for_streams("cuda", [BACKBONE])


@pytest.mark.parametrize(
    ("cores", "free_gb", "gpu_gb", "expected"),
    [(16, 128, None, 16), (16, 8, None, 3), (2, 1, None, 1), (16, 128, 24, 6), (16, 128, 2, 1), (4, 128, 80, 4)],
)
def test_workers_fit_the_machine(monkeypatch, cores, free_gb, gpu_gb, expected):
    monkeypatch.setattr(pool, "usable_cores", lambda: cores)
    monkeypatch.setattr(pool, "_CONTROL_GROUP", Path("none"))
    monkeypatch.setattr(pool.psutil, "virtual_memory", lambda: SimpleNamespace(available=free_gb * 1e9))
    memory = SimpleNamespace(mem_get_info=lambda: ((gpu_gb or 0) * 1e9, 0))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=memory))
    assert pool.default_workers(cuda=gpu_gb is not None) == expected


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, 8, 64e9),
        ({"cpu.max": "150000 100000", "memory.max": "3000000000"}, 2, 3e9),
        ({"cpu.max": "20000 100000", "memory.max": "max"}, 1, 64e9),
        ({"cpu.max": "max 100000"}, 8, 64e9),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8, 64e9),
        (
            {
                "cpu/cpu.cfs_quota_us": "300000",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "5000000000",
            },
            3,
            5e9,
        ),
    ],
)
def test_a_container_has_the_cores_and_memory_of_its_control_group(tmp_path, monkeypatch, files, cores, memory):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(pool, "_CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(pool.psutil, "virtual_memory", lambda: SimpleNamespace(available=64e9))
    assert (pool.usable_cores(), pool.usable_memory()) == (cores, memory)


def test_native_threads_are_capped_when_workers_share_a_machine(job, monkeypatch):
    set_to = {}
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(setNumThreads=lambda count: set_to.update(cv2=count)))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=lambda count: set_to.update(torch=count)))
    describe_streams(job, ("size",))
    assert set_to == {}
    shared = BuildJob(job.cache, SPEC, job.digests, device="cpu", one_thread=True)
    describe_streams(shared, ("mean_colour",))
    assert set_to == {"cv2": 1, "torch": 1}
