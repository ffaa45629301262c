"""Write results with the command, machine, date and versions that they were measured with."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "numpy",
    "torch",
    "torchvision",
    "mediapipe",
    "zarr",
    "dask",
    "opencv-python",
    "scikit-image",
    "scikit-learn",
    "h5py",
    "transformers",
    "timm",
    "openvino",
    "onnxruntime",
    "opensmile",
)


def write_result(name: str, numbers: dict[str, Any], *, script: str | None = None, folder: Path = RESULTS) -> Path:
    """Write `<name>.json`: how, where and when the numbers were measured, then the numbers.

    A script that measures in parts writes the same file after each part, so that a time limit loses only one part.

    Args:
        name: the name of the file.
        numbers: plain JSON.
        script: the module of `benchmarks` that measured, if its name is not that of the file.
        folder: the folder of the file.
    """
    result = {
        "command": " ".join(["python", "-m", f"benchmarks.{script or name}", *_arguments(sys.argv[1:])]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "system": platform.system(),
        },
        "versions": {package: number for package in PACKAGES if (number := _version(package))},
        **numbers,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def _arguments(arguments: list[str]) -> list[str]:
    """Return the arguments that decide what is measured.

    These are all but `--out FOLDER` and `--runs FOLDER`, which are places on a machine, and `--only NAME...`,
    `--missing` and `--minutes N`, which divide a measurement into several calls that write one result.
    """
    left_out = ("--out", "--runs", "--only", "--missing", "--minutes")
    kept, dropping = [], False
    for argument in arguments:
        if argument.startswith("--"):
            dropping = argument.partition("=")[0] in left_out
        if not dropping:
            kept.append(argument)
    return kept


def _version(package: str) -> str | None:
    """Return the version of a package, None if it is not installed: a benchmark may run where some are not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
