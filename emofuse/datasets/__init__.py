"""Datasets -> manifests. One reader a kind; what they share is in `rows`.

Light to import: readers, and polars with them, are loaded when a dataset is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from emofuse.progress import step
from emofuse.specs import DatasetSpec

if TYPE_CHECKING:
    from emofuse.datasets.manifest import Manifest
    from emofuse.datasets.rows import Listing

OnBadRows = Literal["raise", "keep"]


def read_dataset(spec: DatasetSpec, *, on_bad_rows: OnBadRows = "raise") -> Manifest:
    """Reads a dataset into its manifest; a demo dataset is generated first if it is not there.

    Args:
        spec: which dataset, where it is and how it is split.
        on_bad_rows: `raise` lists every bad row (missing file, unknown label, repeated id, path that leaves the root,
            git-lfs pointer, ...) in one error; `keep` keeps each in its place, marked in the column `problem`.

    Raises:
        DatasetError: bad rows (unless kept), or the dataset as a whole is missing or not what its kind demands.
    """
    listing = list_dataset(spec)
    if on_bad_rows == "raise":
        listing.check_no_bad_rows()
    return listing.manifest


def list_dataset(spec: DatasetSpec) -> Listing:
    """Reads a dataset into its manifest with the record of its bad rows.

    Raises:
        DatasetError: the dataset as a whole is missing or not what its kind demands.
    """
    with step("reading the dataset"):
        return spec.read()
