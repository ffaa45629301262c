"""Where and how precisely heads train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

HOST_SHARE, DEVICE_SHARE = 0.5, 0.8
_CONTROL_GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Machine:
    """A device and a precision. On another one results differ by rounding.

    Attributes:
        device: of rows and heads.
        dtype: of weights, moments and sums.
        products: of the operands of matrix products; None for `dtype`.
        graphs: whether steps are captured as CUDA graphs.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    products: torch.dtype | None = None
    graphs: bool = False

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """float32 throughout on the CPU; on CUDA bfloat16 matrix products with float32 weights.

        Graphs are asked for by hand (`Machine(device, graphs=True)`) until they have been measured on a GPU.
        """
        return cls(device, products=torch.bfloat16 if device.type == "cuda" else None)


def default_memory_bytes(device: torch.device) -> int:
    """What training may use unless told otherwise: a share of what the machine has, not of what is free just now.

    So the same sweep is cut into the same groups each time. On CUDA no more than the share of the machine's own memory,
    for features pass through both.
    """
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for file in _CONTROL_GROUP_LIMITS:
        found = file.read_text().strip() if file.is_file() else ""
        limits += [int(found)] if found.isdecimal() else []  # "max" is no limit
    usable = int(HOST_SHARE * min(limits))
    if device.type != "cuda":
        return usable
    return min(usable, int(DEVICE_SHARE * torch.cuda.get_device_properties(device).total_memory))
