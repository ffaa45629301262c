"""Datasets and their manifests: one file per kind with its spec and its reader; `rows` holds what readers share.

This package is light to import: readers, and polars with them, are loaded when a dataset is read.
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
    """Read a dataset into its manifest; a demo dataset that is not there is generated first.

    Args:
        spec: the kind of the dataset, its root and its split.
        on_bad_rows: `raise` lists every bad row (missing file, unknown label, repeated id, path that leaves the root,
            git-lfs pointer, ...) in one error; `keep` keeps each in its place, marked in the column `problem`.

    Raises:
        DatasetError: there are bad rows that are not to be kept, or the dataset as a whole is missing or not what its
            kind requires.
    """
    listing = list_dataset(spec)
    if on_bad_rows == "raise":
        listing.check_no_bad_rows()
    return listing.manifest


def list_dataset(spec: DatasetSpec) -> Listing:
    """Read a dataset into its manifest, with the record of its bad rows.

    Raises:
        DatasetError: the dataset as a whole is missing or not what its kind requires.
    """
    with step("reading the dataset"):
        return spec.read()
