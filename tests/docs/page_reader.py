"""The reader that the page on the cache format shows, and its comparison with emofuse's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from workshop import DOCS, read_blocks

import emofuse

READER = next(block for block in read_blocks(DOCS / "cache-format.md") if block.file_name == "read_cache.py")


def read_cache(path):
    names: dict[str, Any] = {}
    exec(compile(READER.text, "read_cache.py", "exec"), names)
    return names["read_cache"](path)


def check_same(path: Path) -> None:
    manifest, classes, streams = read_cache(path)
    cache = emofuse.open_cache(path)
    assert classes == list(cache.classes)
    assert manifest["sample_id"].to_list() == cache.manifest.table["sample_id"].to_list()
    assert set(streams) == set(cache.streams)
    for name, own in cache.streams.items():
        found = streams[name]
        assert found["attributes"]["digest"] == own.digest
        for view in range(own.views):
            features, status = own.read(view)
            np.testing.assert_array_equal(found["features"][:, view], features)
            np.testing.assert_array_equal(found["status"][:, view], status)
            if own.is_sequence:
                np.testing.assert_array_equal(found["mask"][:, view], own.read_mask(view))
        np.testing.assert_array_equal(found["reason"], own.reasons())
