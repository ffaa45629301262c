"""Pretrained weights: a registry of published files, and a folder of the files on this machine.

A file gets its name in the folder only after its hash was checked. Loading is always weights-only, so that a file
cannot run code. Random weights are used only where a spec says so.
"""

from __future__ import annotations

from emofuse.weights.checkpoint import load_checkpoint
from emofuse.weights.fetch import fetch_entry, fetch_weights
from emofuse.weights.hub import hub_entry
from emofuse.weights.registry import REGISTRY, WeightsEntry, default_weights, find_entry
from emofuse.weights.resolve import ResolvedWeights, locate_file, resolve_weights
from emofuse.weights.store import StoredWeights, Verdict, import_weights, stored_weights, verify_weights, weights_dir

__all__ = [
    "REGISTRY",
    "ResolvedWeights",
    "StoredWeights",
    "Verdict",
    "WeightsEntry",
    "default_weights",
    "fetch_entry",
    "fetch_weights",
    "find_entry",
    "hub_entry",
    "import_weights",
    "load_checkpoint",
    "locate_file",
    "resolve_weights",
    "stored_weights",
    "verify_weights",
    "weights_dir",
]
