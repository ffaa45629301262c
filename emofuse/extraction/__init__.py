"""The extraction builds a feature cache. It is the only part that knows both streams and caches.

`plan` finds what is missing, `worker` computes one block, `pool` and `cluster` run blocks on this machine or on a Dask
scheduler, `tally` and `record` keep the results, `run` connects these steps, and `estimate` predicts time and size.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emofuse.extraction.estimate import BuildEstimate, estimate_build
    from emofuse.extraction.options import BuildOptions
    from emofuse.extraction.plan import BuildPlan, plan_build
    from emofuse.extraction.run import build_cache
    from emofuse.extraction.tally import BuildSummary
    from emofuse.progress import BuildState, Progress

# An extraction process starts with this package and needs none of these, so each is imported when it is used.
_MODULES = {
    "BuildEstimate": "emofuse.extraction.estimate",
    "BuildOptions": "emofuse.extraction.options",
    "BuildPlan": "emofuse.extraction.plan",
    "BuildState": "emofuse.progress",
    "BuildSummary": "emofuse.extraction.tally",
    "Progress": "emofuse.progress",
    "build_cache": "emofuse.extraction.run",
    "estimate_build": "emofuse.extraction.estimate",
    "plan_build": "emofuse.extraction.plan",
}

__all__ = [
    "BuildEstimate",
    "BuildOptions",
    "BuildPlan",
    "BuildState",
    "BuildSummary",
    "Progress",
    "build_cache",
    "estimate_build",
    "plan_build",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value
