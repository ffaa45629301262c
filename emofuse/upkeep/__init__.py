"""The upkeep of a finished cache: verify its bytes, list problems, repair blocks, retry rows, and compare a sample."""

from emofuse.upkeep.repair import RepairSummary, repair_cache, retry_rows
from emofuse.upkeep.sample import SampleComparison, compare_sample

__all__ = ["RepairSummary", "SampleComparison", "compare_sample", "repair_cache", "retry_rows"]
