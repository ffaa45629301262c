"""Builds a feature cache: the only part that knows streams, cache and Dask.

`plan` finds out what is missing, `worker` computes one block, `execution` and `cluster` run blocks here or on Dask,
`tally` and `record` keep what came of them, `run` wires them together, `estimate` says beforehand how long it takes.
"""

from emofuse.build.estimate import BuildEstimate, estimate_build
from emofuse.build.options import BuildOptions
from emofuse.build.plan import BuildPlan, plan_build
from emofuse.build.progress import BuildState, Progress
from emofuse.build.repair import RepairSummary, repair_cache, retry_rows
from emofuse.build.run import build_cache
from emofuse.build.sample import Comparison, compare_sample
from emofuse.build.tally import BuildSummary

__all__ = [
    "BuildEstimate",
    "BuildOptions",
    "BuildPlan",
    "BuildState",
    "BuildSummary",
    "Comparison",
    "Progress",
    "RepairSummary",
    "build_cache",
    "compare_sample",
    "estimate_build",
    "plan_build",
    "repair_cache",
    "retry_rows",
]
