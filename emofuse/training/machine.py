"""Where and how precisely heads train."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from emofuse.errors import TrainingError


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


def resolve_device(device: str) -> torch.device:
    """`auto` is the current CUDA device where there is one, else the CPU.

    Raises:
        TrainingError: a device that torch does not know or does not see.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    name, _, number = device.partition(":")
    if device != "cpu" and (name != "cuda" or not (number.isdecimal() or device == "cuda")):
        raise TrainingError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N")
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count():
        raise TrainingError(f"device {device!r} was asked for, but torch sees no such CUDA device; use cpu or auto")
    return torch.device("cuda", int(number) if number else torch.cuda.current_device())
