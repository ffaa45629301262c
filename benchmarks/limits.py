"""How far a measured time is from what the machine can do: arithmetic, and the optimizer's walk through memory."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from emofuse.training.machine import Machine
from emofuse.training.members import Member
from emofuse.training.planning import UPDATE_BYTES, Rates, head_cost


def limits(
    members: Sequence[Member],
    dims: dict[str, int],
    classes: int,
    *,
    machine: Machine,
    rates: Sequence[Rates],
    rows: int,
    seconds: float,
) -> dict[str, Any]:
    """What the time of some heads is made of.

    Floating-point operations and parameters are counted on each head, rates are measured beside the timed runs: a
    matrix product of 2048 x 2048 x 2048 and a copy that no cache holds. The floor is their sum, since no part of an
    update can begin before its gradient is there. Reading rows, batch norm, activations and validation are not in it:
    they are what is left.

    Args:
        members: that trained.
        dims: stream -> D.
        classes: C.
        machine: where.
        rates: of the machine, measured several times.
        rows: that each member was trained on in the time.
        seconds: taken.
    """
    flops = parameters = steps_parameters = 0
    for member in members:
        used = tuple((stream, dims[stream]) for stream in member.streams)
        cost = head_cost(member.head, used, classes, member.train.batch_size, machine)
        flops += cost.flops_per_row * rows
        parameters += cost.parameters
        steps_parameters += cost.parameters * math.ceil(rows / member.train.batch_size)
    flops_per_s = statistics.median(rate.flops_per_s for rate in rates)
    bytes_per_s = statistics.median(rate.bytes_per_s for rate in rates)
    arithmetic_s = flops / flops_per_s
    optimizer_s = steps_parameters * UPDATE_BYTES / bytes_per_s
    return {
        "parameters_of_all_heads": parameters,
        "flops": flops,
        "optimizer_bytes": steps_parameters * UPDATE_BYTES,
        "measured_gflops_per_s": round(flops_per_s / 1e9, 1),
        "measured_gbytes_per_s": round(bytes_per_s / 1e9, 1),
        "seconds": round(seconds, 4),
        "arithmetic_share": round(arithmetic_s / seconds, 3),
        "optimizer_share": round(optimizer_s / seconds, 3),
        "rest_share": round(1 - (arithmetic_s + optimizer_s) / seconds, 3),
        "limit": "arithmetic" if arithmetic_s > optimizer_s else "optimizer's bytes",
        "times_the_floor": round(seconds / (arithmetic_s + optimizer_s), 2),
    }
