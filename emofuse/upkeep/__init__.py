"""Keeps a finished cache sound: verify its bytes, list its problems, repair and retry rows, compare a sample anew."""

from emofuse.upkeep.repair import RepairSummary, repair_cache, retry_rows
from emofuse.upkeep.sample import SampleComparison, compare_sample

__all__ = ["RepairSummary", "SampleComparison", "compare_sample", "repair_cache", "retry_rows"]
