"""Compare a measured time with the limits of the machine: arithmetic, and the memory that the optimizer moves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from emofuse.heads.arithmetic import fast_arithmetic
from emofuse.training.costs import TrainingCost, head_cost, step_bytes
from emofuse.training.machine import Machine
from emofuse.training.members import Member
from emofuse.training.rates import UPDATE_BYTES, shortest_s


@dataclass(frozen=True)
class Ceilings:
    """The largest speed of the machine.

    Attributes:
        flops_per_s: of a large square matrix product of random numbers, by the library that the engine takes: a GPU
            multiplies zeros and ones faster.
        bytes_per_s: the bytes that are read and written by a copy that no cache holds.
    """

    flops_per_s: float
    bytes_per_s: float

    @classmethod
    def measured(cls, machine: Machine) -> Ceilings:
        """Measure the ceilings in about a fifth of a second."""
        wide, copied = (2048, 1 << 24) if machine.device.type == "cpu" else (8192, 1 << 30)
        kind = machine.products or machine.dtype
        left, right = (torch.randn(wide, wide, device=machine.device).to(kind) for _ in range(2))
        read, written = (torch.ones(copied, device=machine.device) for _ in range(2))
        with fast_arithmetic(machine.device):
            product_s = shortest_s(lambda: torch.mm(left, right), machine.device, calls=5)
        copy_s = shortest_s(lambda: written.copy_(read), machine.device, calls=5)
        return cls(2 * wide**3 / product_s, 2 * read.nbytes / copy_s)


def limits(
    members: Sequence[Member],
    dims: Mapping[str, int],
    classes: int,
    *,
    machine: Machine,
    ceilings: Sequence[Ceilings],
    rows: int,
    seconds: float,
) -> dict[str, Any]:
    """Return the shares of arithmetic and of the optimizer in the time of some heads.

    Floating-point operations and parameters are counted on each head; the ceilings are measured beside the timed runs.
    The floor is the sum of both times, since an update cannot begin before its gradient is computed. Reading rows,
    batch norm, activations and validation are the rest.

    Args:
        members: the heads.
        dims: stream -> D.
        classes: C.
        machine: where they trained.
        ceilings: of the machine, measured several times.
        rows: the number of rows that each member was trained on in the time.
        seconds: the measured time.
    """
    costs = [cost_of(member, dims, classes, machine) for member in members]
    steps = [math.ceil(rows / member.train.batch_size) for member in members]
    flops = rows * sum(cost.flops_per_row for cost in costs)
    moved = UPDATE_BYTES * sum(cost.parameters * count for cost, count in zip(costs, steps, strict=True))
    flops_per_s = statistics.median(ceiling.flops_per_s for ceiling in ceilings)
    bytes_per_s = statistics.median(ceiling.bytes_per_s for ceiling in ceilings)
    arithmetic_s, optimizer_s = flops / flops_per_s, moved / bytes_per_s
    return {
        "parameters_of_all_heads": sum(cost.parameters for cost in costs),
        "flops": flops,
        "optimizer_bytes": moved,
        "measured_gflops_per_s": round(flops_per_s / 1e9, 1),
        "measured_gbytes_per_s": round(bytes_per_s / 1e9, 1),
        "seconds": round(seconds, 4),
        "arithmetic_share": round(arithmetic_s / seconds, 3),
        "optimizer_share": round(optimizer_s / seconds, 3),
        "rest_share": round(1 - (arithmetic_s + optimizer_s) / seconds, 3),
        "limit": "arithmetic" if arithmetic_s > optimizer_s else "optimizer's bytes",
        "times_the_floor": round(seconds / (arithmetic_s + optimizer_s), 2),
    }


def cost_of(member: Member, dims: Mapping[str, int], classes: int, machine: Machine) -> TrainingCost:
    """Return the cost of one head."""
    used = tuple((stream, dims[stream]) for stream in member.streams)
    return head_cost(member.head, used, classes, member.train.batch_size, machine)


def memory_bytes(members: Sequence[Member], dims: Mapping[str, int], classes: int, machine: Machine) -> int:
    """Return the bytes that training these together takes beside the table, as counted before it starts."""
    return step_bytes(
        [cost_of(member, dims, classes, machine) for member in members],
        members[0].train.batch_size,
        folds=len({member.fold for member in members}),
        width=sum(dims[stream] for stream in {stream for member in members for stream in member.streams}),
        machine=machine,
    )
