"""Builds a feature cache: the only part that knows streams, cache and Dask.

`plan` finds out what is missing, `worker` computes one block, `execution` and `cluster` run blocks here or on Dask,
`tally` and `record` keep what came of them, `run` wires them together, `estimate` says beforehand how long it takes.
"""

from emofuse.extraction.estimate import BuildEstimate, estimate_build
from emofuse.extraction.options import BuildOptions
from emofuse.extraction.plan import BuildPlan, plan_build
from emofuse.extraction.run import build_cache
from emofuse.extraction.tally import BuildSummary
from emofuse.progress import BuildState, Progress

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
