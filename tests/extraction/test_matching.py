"""Which row of a cache is which row of the dataset as it is now."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import polars as pl
import pytest

from emofuse.datasets.manifest import Manifest
from emofuse.extraction.matching import NOWHERE, match_rows
from emofuse.specs import CustomDatasetSpec
from emofuse.specs.datasets import DATASETS


class ByPathSpec(CustomDatasetSpec):
    ids_from_paths: ClassVar[bool] = True
    kind: Literal["by_path"] = "by_path"


class ByIdSpec(CustomDatasetSpec):
    kind: Literal["by_id"] = "by_id"


@pytest.fixture
def kinds():
    """Two kinds of datasets from outside of the package."""
    for spec in (ByPathSpec, ByIdSpec):
        DATASETS.add(spec, "a test")
    yield
    DATASETS.remove("a test")


def manifest(kind: str, ids: list[str], paths: list[str]) -> Manifest:
    columns = {"sample_id": ids, "path": paths, "split": None, "label": "x", "problem": None}
    return Manifest(pl.DataFrame(columns), ("x",), Path("nowhere"), {"kind": kind})


@pytest.mark.parametrize(("kind", "expected"), [("by_path", [1, NOWHERE]), ("by_id", [0, NOWHERE])])
def test_rows_are_matched_by_path_where_the_kind_makes_ids_from_paths(kinds, kind, expected):
    old = manifest(kind, ["a", "b"], ["a.png", "b.png"])
    new = manifest(kind, ["a", "a.png"], ["a.jpg", "a.png"])  # the new picture a.jpg has the id that a.png had
    assert match_rows(old, new).tolist() == expected
