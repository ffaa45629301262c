"""The machine: cores, memory, devices, open files, and what caches are read with."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence

from emofuse.doctor.findings import Finding
from emofuse.doctor.probe import Answer

AREA = "machine"
WORKER_BYTES = 2_500_000_000
"""A process that extracts all six streams of the paper."""
TESTED_PYTHONS = ((3, 11), (3, 12))
_PAYS = 1.2
_FILES, _FILES_A_WORKER = 128, 24


def python_finding(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Of the interpreter."""
    what = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if version in TESTED_PYTHONS:
        return Finding(AREA, "ok", what)
    tested = " and ".join(".".join(map(str, each)) for each in TESTED_PYTHONS)
    return Finding(
        AREA, "note", f"{what}: emofuse is tested on Python {tested}", "If something fails, take one of those"
    )


def capacity_findings() -> list[Finding]:
    """Cores and memory, and the workers that they feed."""
    import psutil

    cores = available_cores()
    memory = psutil.virtual_memory()
    workers = min(cores, memory.available // WORKER_BYTES)
    what = f"{cores} cores, {memory.total / 2**30:.0f} GiB of memory, {memory.available / 2**30:.1f} GiB of it free"
    if workers:
        return [Finding(AREA, "ok", f"{what}: room for {workers} extraction processes of all six streams")]
    advice = "Close other programs, or cache fewer streams at a time"
    return [Finding(AREA, "note", f"{what}: less than one process of all six streams takes", advice)]


def files_findings(cores: int) -> list[Finding]:
    """Whether a build with a worker a core may open its files and connections."""
    import resource

    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES + _FILES_A_WORKER * cores
    what = "any number of open files" if limit == resource.RLIM_INFINITY else f"{limit} open files a process"
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return [Finding(AREA, "ok", what)]
    allowed = most == resource.RLIM_INFINITY or most >= needed
    advice = f"ulimit -n {needed}" if allowed else f"Raise the hard limit, or build with fewer --workers than {cores}"
    return [Finding(AREA, "note", f"{what}: a build on {cores} cores may need {needed}", advice)]


def device_findings(answer: Answer) -> list[Finding]:
    """CUDA devices that torch sees."""
    if answer.problem:
        return [Finding(AREA, "fault", f"torch cannot be asked for GPUs: {answer.problem}", "Mend torch first")]
    if not answer.value:
        return [Finding(AREA, "note", "no CUDA device: networks and heads run on the CPU", "With a GPU: nvidia-smi")]
    return [
        Finding(AREA, "ok", f"cuda:{number}: {device['name']}, {device['memory_bytes'] / 2**30:.0f} GiB")
        for number, device in enumerate(answer.value)
    ]


def bfloat16_findings(answer: Answer) -> list[Finding]:
    """Whether networks are faster in bfloat16 on this CPU: there are those that can multiply it and are slower."""
    if answer.problem:
        return [Finding(AREA, "note", f"bfloat16 networks cannot run on this CPU: {answer.problem}", "Keep float32")]
    pays = answer.value >= _PAYS
    what = f"networks on this CPU: a convolution in bfloat16 is {answer.value:.1f} times as fast as in float32"
    return [Finding(AREA, "ok", what + (", `precision: bfloat16` pays" if pays else ", keep `precision: float32`"))]


def codec_findings(answers: Mapping[str, Answer]) -> list[Finding]:
    """With which codec pipeline chunks are written; features and statuses are read without one."""
    found = answers["codec"]
    if found.problem:
        return [Finding(AREA, "fault", f"caches cannot be opened: {found.problem}", "Mend zarr first")]
    if "zarrs" in found.value:
        return [Finding(AREA, "ok", "chunks are written with zarrs, and read without zarr")]
    return [Finding(AREA, "ok", "chunks are written with zarr's own codecs, and read without zarr")]


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_findings(answers: Mapping[str, Answer]) -> Sequence[Finding]:
    """All of them but memory, which needs a package."""
    return [
        python_finding(),
        *files_findings(available_cores()),
        *device_findings(answers["cuda"]),
        *bfloat16_findings(answers["bfloat16"]),
        *codec_findings(answers),
    ]
