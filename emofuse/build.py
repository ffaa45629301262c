"""The former name of `emofuse.extraction`, kept for scripts that import it."""

from emofuse.extraction import (
    BuildEstimate,
    BuildOptions,
    BuildPlan,
    BuildSummary,
    build_cache,
    estimate_build,
    plan_build,
)

__all__ = [
    "BuildEstimate",
    "BuildOptions",
    "BuildPlan",
    "BuildSummary",
    "build_cache",
    "estimate_build",
    "plan_build",
]
