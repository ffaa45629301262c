"""Keeps a finished cache sound: verify its bytes, list its problems, repair and retry rows, compare a sample anew."""

from emofuse.upkeep.repair import RepairSummary, repair_cache, retry_rows
from emofuse.upkeep.sample import Comparison, compare_sample

__all__ = ["Comparison", "RepairSummary", "compare_sample", "repair_cache", "retry_rows"]
