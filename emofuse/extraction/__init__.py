"""The extraction builds a feature cache. It is the only part that knows both streams and caches.

`plan` finds what is missing, `worker` computes one block, `pool` and `cluster` run blocks on this machine or on a Dask
scheduler, `tally` and `record` keep the results, `run` connects these steps, and `estimate` predicts time and size.
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
