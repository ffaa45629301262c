"""emofuse: extract once, fuse many times.

Frozen extractors run once over an emotion dataset into a Zarr cache; fusion heads train on the cached vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emofuse.cache.reader import open_cache
    from emofuse.datasets import read_dataset
    from emofuse.extraction import build_cache
    from emofuse.specs import CacheSpec, CustomStreamSpec

__version__ = "0.1.0"
__all__ = ["CacheSpec", "CustomStreamSpec", "__version__", "build_cache", "open_cache", "read_dataset"]

_HOME = {
    "build_cache": "emofuse.extraction",
    "open_cache": "emofuse.cache.reader",
    "read_dataset": "emofuse.datasets",
    "CacheSpec": "emofuse.specs",
    "CustomStreamSpec": "emofuse.specs",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import emofuse` is quick and loads no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'emofuse' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
