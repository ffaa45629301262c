from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest

from emofuse.datasets import manifest
from emofuse.datasets.manifest import Manifest


@pytest.mark.parametrize("at_once", [1, 3, 4, 100])
def test_the_digest_of_the_ids_does_not_depend_on_how_they_are_read(monkeypatch, at_once):
    monkeypatch.setattr(manifest, "_IDS_AT_ONCE", at_once)
    ids = ["a", "b\u00e9", "c", "d", "e", "f", "g", "h"]
    table = pl.DataFrame(dict.fromkeys(manifest.COLUMNS, ids))
    expected = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    assert Manifest(table, (), Path(), {}).ids_digest == expected
    assert Manifest(table[:0], (), Path(), {}).ids_digest == hashlib.sha256(b"").hexdigest()
