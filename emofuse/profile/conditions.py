"""The conditions that the numbers of a profile depend on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

import emofuse

_PACKAGES = ("numpy", "torch", "torchvision", "mediapipe", "ultralytics", "opencv-python", "pillow")


def describe_conditions(device: str, threads: int) -> dict[str, Any]:
    """Return machine, load (the average of a minute), threads, device, versions and date as plain JSON.

    Args:
        device: the device as torch names it.
        threads: the number of threads of native libraries.
    """
    where = torch.device(device)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": available_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_before": round(os.getloadavg()[0], 2),
        "threads": threads,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "versions": {"emofuse": emofuse.__version__, "python": platform.python_version(), **_versions()},
    }


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # another distribution may provide it (opencv-contrib-python)
    return versions


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
