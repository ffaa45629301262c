"""Where and how precisely heads train."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from emofuse.errors import TrainingError, did_you_mean

PRODUCTS_VARIABLE = "EMOFUSE_PRODUCTS"
"""The environment variable that sets the type of the operands of matrix products of heads."""
PRODUCTS = ("float32", "bfloat16")

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

        `EMOFUSE_PRODUCTS` sets the type of the products on either: bfloat16 pays on some CPUs too, and there results
        differ from float32 by more than rounding of the last digits. Graphs are switched on by hand
        (`Machine(device, graphs=True)`) until they have been measured on a GPU.

        Raises:
            TrainingError: the variable names another type.
        """
        asked = os.environ.get(PRODUCTS_VARIABLE) or ("bfloat16" if device.type == "cuda" else "float32")
        if asked not in PRODUCTS:
            hint = did_you_mean(asked, PRODUCTS)
            raise TrainingError(f"{PRODUCTS_VARIABLE}={asked}: must be {' or '.join(PRODUCTS)}{hint}")
        return cls(device, products=torch.bfloat16 if asked == "bfloat16" else None)

    @property
    def products_name(self) -> str:
        """The type of the operands of matrix products."""
        return str(self.products or self.dtype).removeprefix("torch.")


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
