"""The share of each kind of operation in the time of training heads, which explains the distance to the limits."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch

from benchmarks.contenders import Work, emofuse_group

KINDS = {
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::addmm_", "aten::baddbmm_"),
    "optimizer": ("aten::_fused_adam_", "aten::_fused_adamw_"),
    "reading rows": ("aten::index_select", "aten::gather", "aten::index"),
    "casts and copies": ("aten::copy_", "aten::to", "aten::_to_copy", "aten::clone", "aten::cat", "aten::contiguous"),
}
_LARGEST = 6


def profile_heads(work: Work, products: torch.dtype | None) -> dict[str, Any]:
    """Return the shares of kinds of operations in the time of the processor, and the largest others.

    `between operations` is the time of the profiled thread outside of operations: Python, and autograd's bookkeeping.
    """
    from torch.profiler import ProfilerActivity, profile

    short = replace(work, shape=replace(work.shape, epochs=2))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        emofuse_group(short, products=products, score=False)
    kind_of = {operation: kind for kind, operations in KINDS.items() for operation in operations}
    seconds: dict[str, float] = defaultdict(float)
    others: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        own = event.self_cpu_time_total / 1e6
        kind = kind_of.get(event.key, "elementwise and other operations")
        if not event.key.startswith("aten::"):
            kind = "between operations"
        seconds[kind] += own
        if kind == "elementwise and other operations":
            others[event.key.removeprefix("aten::")] += own
    total = sum(seconds.values())
    largest = sorted(others, key=lambda name: -others[name])[:_LARGEST]
    return {
        "shares": {kind: round(value / total, 3) for kind, value in sorted(seconds.items(), key=lambda item: -item[1])},
        "largest_others": {name: round(others[name] / total, 3) for name in largest},
    }
