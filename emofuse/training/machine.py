"""Where and how precisely heads train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

HOST_SHARE, DEVICE_SHARE = 0.5, 0.8
_CONTROL_GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Machine:
    """A device and a precision. On another machine results differ by rounding.

    Attributes:
        device: the device of rows and heads.
        dtype: the type of weights, moments and sums.
        products: the type of the operands of matrix products; None for `dtype`.
        graphs: whether steps are captured as CUDA graphs.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    products: torch.dtype | None = None
    graphs: bool = False

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """Return float32 throughout on the CPU, and bfloat16 matrix products with float32 weights on CUDA.

        Graphs are switched on by hand (`Machine(device, graphs=True)`) until they have been measured on a GPU.
        """
        return cls(device, products=torch.bfloat16 if device.type == "cuda" else None)


def default_memory_bytes(device: torch.device) -> int:
    """Return the bytes that training may use by default: a share of all memory, not of what is free at the moment.

    So a sweep is cut into the same groups each time. On CUDA it is at most the share of the host's memory, because
    features pass through both.
    """
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for file in _CONTROL_GROUP_LIMITS:
        limit = file.read_text().strip() if file.is_file() else ""
        limits += [int(limit)] if limit.isdecimal() else []  # "max" is no limit
    usable = int(HOST_SHARE * min(limits))
    if device.type != "cuda":
        return usable
    return min(usable, int(DEVICE_SHARE * torch.cuda.get_device_properties(device).total_memory))
