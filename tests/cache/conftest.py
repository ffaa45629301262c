from __future__ import annotations

from cache_fixtures import block_values, cache_path, make_layout, make_manifest

__all__ = ["block_values", "cache_path", "make_layout", "make_manifest"]
