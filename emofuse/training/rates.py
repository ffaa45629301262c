"""The speed of a machine, for estimates: measured in about half a second, or assumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from emofuse.heads.arithmetic import fast_arithmetic
from emofuse.scaling import Scaling
from emofuse.specs import ConcatHeadSpec, TrainSpec
from emofuse.training.costs import group_operations
from emofuse.training.engine import train_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member

UPDATE_BYTES = 28
"""An update of a float32 weight reads it, its gradient and moments, and writes all but the gradient."""


@dataclass(frozen=True)
class Rates:
    """The speed of a machine.

    Attributes:
        flops_per_s: the floating-point operations of matrix products in a second.
        bytes_per_s: the bytes of memory that the optimizer reads and writes in a second.
        operation_s: the seconds to start one operation of a step (see `Operations`).
    """

    flops_per_s: float
    bytes_per_s: float
    operation_s: float


def nominal_rates(machine: Machine) -> Rates:
    """Return the speed of a common machine of the kind: a core or two, or a GPU of a data centre."""
    if machine.device.type == "cuda":
        return Rates(flops_per_s=2e14, bytes_per_s=2e12, operation_s=1e-5)
    return Rates(flops_per_s=1e11, bytes_per_s=1e10, operation_s=1e-5)


def measure_rates(machine: Machine) -> Rates:
    """Time a matrix product and an update of weights as steps have them, and steps that compute next to nothing."""
    with fast_arithmetic(machine.device):
        return Rates(_flops_per_s(machine), _bytes_per_s(machine), _operation_s(machine))


def _flops_per_s(machine: Machine) -> float:
    """Time rows times weights, and rows times gradients, which makes the gradient of the weights."""
    rows, width = (64, 2048) if machine.device.type == "cpu" else (1024, 8192)
    kind = machine.products or machine.dtype
    values = torch.ones(rows, width, dtype=kind, device=machine.device)
    weights = torch.ones(width, width, dtype=kind, device=machine.device)
    forward_s = shortest_s(lambda: torch.mm(values, weights), machine.device)
    gradient_s = shortest_s(lambda: torch.mm(values.T, values, out=weights), machine.device)
    return 4 * rows * width**2 / (forward_s + gradient_s)


def _bytes_per_s(machine: Machine) -> float:
    """Time the optimizer, which reads and writes more memory than the rest of a step."""
    count = 1 << 24 if machine.device.type == "cpu" else 1 << 26
    weight = torch.zeros(count, device=machine.device)
    weight.grad = torch.ones_like(weight)
    adam = torch.optim.Adam([weight], fused=True)
    return UPDATE_BYTES * count / shortest_s(adam.step, machine.device)


def _operation_s(machine: Machine) -> float:
    """Train a tiny head for one epoch and for three; the difference is that of two epochs."""
    rows, steps, head = 128, 32, ConcatHeadSpec(embed_dim=2, depth=2, width=2)
    streams = tuple(f"stream{index}" for index in range(4))
    features = {stream: torch.zeros(rows, 2) for stream in streams}
    valid = {stream: torch.ones(rows, dtype=torch.bool) for stream in streams}
    table = FeatureTable(features, valid, torch.arange(rows) % 2, classes=2)
    scaling = {stream: Scaling(np.zeros(2, np.float32), np.ones(2, np.float32)) for stream in streams}
    fold = Fold(np.arange(rows), np.arange(2), scaling)
    plain = replace(machine, graphs=False)

    def seconds(epochs: int) -> float:
        member = Member(streams, head, TrainSpec(epochs=epochs, batch_size=rows // steps))
        return shortest_s(lambda: train_group(table, [fold], [member], plain), machine.device)

    operations = group_operations(head, ((2,),) * len(streams), folds=1)
    return max(seconds(3) - seconds(1), 1e-6) / (2 * steps * (operations.step + operations.update))


def shortest_s(function: Callable[[], object], device: torch.device, calls: int = 3) -> float:
    """Return the seconds of the shortest of some calls, which follow one that is not timed."""
    times = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])
