from __future__ import annotations

from build_fixtures import contents, images, in_process, manifest, refusing_store
from cache_fixtures import block_values, cache_path, make_layout, make_manifest

__all__ = [
    "block_values",
    "cache_path",
    "contents",
    "images",
    "in_process",
    "make_layout",
    "make_manifest",
    "manifest",
    "refusing_store",
]
