"""The device of a command, from the user's choice and the devices that torch sees on this machine."""

from __future__ import annotations

import platform
import re

from emofuse.errors import DeviceError

_CUDA = re.compile(r"cuda(?::(\d+))?")


def resolve_device(device: str) -> str:
    """Return the device that a name stands for on this machine; `auto` takes a GPU if there is one.

    Args:
        device: `auto`, `cpu`, `cuda` (the current CUDA device) or `cuda:N`.

    Returns:
        `cpu` or `cuda:N`. torch is not imported for `cpu`.

    Raises:
        DeviceError: the name is unknown, or torch sees no such CUDA device.
    """
    if device == "cpu":
        return device
    match = _CUDA.fullmatch(device)
    if device != "auto" and match is None:
        raise DeviceError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N")
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
