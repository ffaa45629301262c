"""The device of a command, from the user's choice and the devices that torch sees on this machine."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from pathlib import Path

from emofuse.errors import DeviceError

_CUDA = re.compile(r"cuda(?::(\d+))?")


def resolve_device(device: str) -> str:
    """Return the device that a name stands for on this machine; `auto` takes a GPU if there is one.

    Args:
        device: `auto`, `cpu`, `cuda` (the current CUDA device) or `cuda:N`.

    Returns:
        `cpu` or `cuda:N`. torch is not imported for `cpu`, nor for `auto` where the system has no driver of a GPU.

    Raises:
        DeviceError: the name is unknown, or torch sees no such CUDA device.
    """
    if device == "cpu":
        return device
    match = _CUDA.fullmatch(device)
    if device != "auto" and match is None:
        raise DeviceError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N")
    if device == "auto" and not _has_driver():
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if match is None:
        return f"cuda:{torch.cuda.current_device()}" if count else "cpu"
    if int(match[1] or 0) >= count:
        raise DeviceError(
            f"device {device!r} was asked for, but torch on {platform.node()} sees no such CUDA device; "
            "use cpu or auto (--device cpu)"
        )
    return device if match[1] else f"cuda:{torch.cuda.current_device()}"


def _has_driver() -> bool:
    """Return whether torch could find a GPU: on Linux, whether the library of a driver or its device is there.

    Loading the driver's library opens no device.
    """
    if "torch" in sys.modules or not sys.platform.startswith("linux"):
        return True
    if Path("/dev/kfd").exists():  # AMD's driver
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
