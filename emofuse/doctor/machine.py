"""The findings on the machine: interpreter, cores, memory, devices, open files, and the codecs of caches."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence

from emofuse.doctor.findings import Finding
from emofuse.doctor.probe import ProbeReply

AREA = "machine"
WORKER_BYTES = 2_500_000_000
"""The memory of a process that extracts all six streams of the paper."""
TESTED_PYTHONS = ((3, 11), (3, 12))
_LEAST_SPEED_UP = 1.2  # from which bfloat16 is recommended
_RUNTIMES = {"torch": "PyTorch", "openvino": "OpenVINO"}
_FILES, _FILES_PER_WORKER = 128, 24


def python_finding(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Return the finding on the Python interpreter."""
    what = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if version in TESTED_PYTHONS:
        return Finding(AREA, "ok", what)
    tested = " and ".join(".".join(map(str, each)) for each in TESTED_PYTHONS)
    return Finding(
        AREA, "note", f"{what}: emofuse is tested on Python {tested}", "If something fails, use one of those"
    )


def capacity_findings() -> list[Finding]:
    """Return the finding on cores and memory, and on how many extraction processes they suffice for."""
    import psutil

    cores = available_cores()
    memory = psutil.virtual_memory()
    workers = min(cores, memory.available // WORKER_BYTES)
    what = f"{cores} cores, {memory.total / 2**30:.0f} GiB of memory, {memory.available / 2**30:.1f} GiB of it free"
    if workers:
        return [Finding(AREA, "ok", f"{what}: enough for {workers} extraction processes with all six streams")]
    advice = "Close other programs, or cache fewer streams at a time"
    return [Finding(AREA, "note", f"{what}: less than one process with all six streams needs", advice)]


def files_findings(cores: int) -> list[Finding]:
    """Return the finding on whether a build with one worker per core may open its files and connections."""
    import resource

    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES + _FILES_PER_WORKER * cores
    what = "any number of open files" if limit == resource.RLIM_INFINITY else f"{limit} open files per process"
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return [Finding(AREA, "ok", what)]
    is_allowed = most == resource.RLIM_INFINITY or most >= needed
    advice = (
        f"ulimit -n {needed}" if is_allowed else f"Raise the hard limit, or build with fewer --workers than {cores}"
    )
    return [Finding(AREA, "note", f"{what}: a build on {cores} cores may need {needed}", advice)]


def device_findings(reply: ProbeReply) -> list[Finding]:
    """Return a finding for each CUDA device that torch sees."""
    if reply.problem:
        return [Finding(AREA, "fault", f"torch cannot be asked for GPUs: {reply.problem}", "Repair torch first")]
    if not reply.value:
        return [Finding(AREA, "note", "no CUDA device: networks and heads run on the CPU", "With a GPU: nvidia-smi")]
    return [
        Finding(AREA, "ok", f"cuda:{number}: {device['name']}, {device['memory_bytes'] / 2**30:.0f} GiB")
        for number, device in enumerate(reply.value)
    ]


def bfloat16_findings(reply: ProbeReply) -> list[Finding]:
    """Return the finding on whether networks are faster in bfloat16 on this CPU: on some CPUs they are slower."""
    if reply.problem:
        return [Finding(AREA, "note", f"bfloat16 networks cannot run on this CPU: {reply.problem}", "Keep float32")]
    is_faster = reply.value >= _LEAST_SPEED_UP
    what = (
        f"networks in PyTorch on this CPU: a convolution in bfloat16 is {reply.value:.1f} times as fast as in float32"
    )
    advice = "`precision: bfloat16` pays there" if is_faster else "keep `precision: float32`"
    return [Finding(AREA, "ok", f"{what}, {advice}")]


def runtime_findings(reply: ProbeReply) -> list[Finding]:
    """Return the finding on the runtime that `auto` is for networks on this CPU, and how to get the faster one."""
    if reply.problem:
        what = f"OpenVINO cannot run networks on this CPU: {reply.problem}"
        return [Finding(AREA, "note", what, "Reinstall openvino, or set EMOFUSE_RUNTIME=torch")]
    auto, version = _RUNTIMES[reply.value["auto"]], reply.value["openvino"]
    if version is None:
        what = "networks on this CPU run in PyTorch: OpenVINO, which takes half the time or less, is not installed"
        return [Finding(AREA, "note", what, "pip install 'emofuse[fast]'")]
    speed_up = reply.value["speed_up"]
    reason = "as EMOFUSE_RUNTIME says" if reply.value["by_variable"] else "as it is installed"
    what = (
        f"networks on this CPU run in {auto}, {reason}: OpenVINO {version} is {speed_up:.1f} times as fast as PyTorch"
    )
    is_faster = (speed_up >= 1) == (auto == "OpenVINO")
    if is_faster:
        return [Finding(AREA, "ok", what)]
    return [Finding(AREA, "note", what, f"EMOFUSE_RUNTIME={'torch' if speed_up < 1 else 'openvino'}")]


def products_findings(reply: ProbeReply) -> list[Finding]:
    """Return the finding on whether heads are faster with bfloat16 products on this CPU."""
    if reply.problem:
        return [Finding(AREA, "note", f"bfloat16 products cannot run on this CPU: {reply.problem}", "Keep float32")]
    what = f"heads on this CPU: products in bfloat16 are {reply.value:.1f} times as fast as in float32"
    pays = "EMOFUSE_PRODUCTS=bfloat16 pays for wide heads" if reply.value >= _LEAST_SPEED_UP else "keep float32"
    return [Finding(AREA, "ok", f"{what}, {pays}")]


def codec_findings(replies: Mapping[str, ProbeReply]) -> list[Finding]:
    """Return the finding on the codec pipeline that writes chunks; features and statuses are read without one."""
    reply = replies["codec"]
    if reply.problem:
        return [Finding(AREA, "fault", f"caches cannot be opened: {reply.problem}", "Repair zarr first")]
    if "zarrs" in reply.value:
        return [Finding(AREA, "ok", "chunks are written with zarrs, and read without zarr")]
    return [Finding(AREA, "ok", "chunks are written with zarr's own codecs, and read without zarr")]


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_findings(replies: Mapping[str, ProbeReply]) -> Sequence[Finding]:
    """Return all findings on the machine but the one on memory, which needs a package."""
    return [
        python_finding(),
        *files_findings(available_cores()),
        *device_findings(replies["cuda"]),
        *bfloat16_findings(replies["bfloat16"]),
        *runtime_findings(replies["runtime"]),
        *products_findings(replies["products"]),
        *codec_findings(replies),
    ]
