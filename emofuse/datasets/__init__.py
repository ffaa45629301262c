"""Datasets -> manifests. One reader a kind; what they share is in `rows`.

Light to import: readers, and polars with them, are loaded when a dataset is read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, assert_never

from emofuse.specs import CsvSpec, DatasetSpec, DemoSpec, EmoSetSpec, FolderSpec

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
    match spec:
        case EmoSetSpec():
            from emofuse.datasets.emoset import read_emoset

            return read_emoset(spec)
        case FolderSpec():
            from emofuse.datasets.folder import read_folder

            return read_folder(spec)
        case CsvSpec():
            from emofuse.datasets.csv_table import read_csv_table

            return read_csv_table(spec)
        case DemoSpec():
            return _read_demo(spec)
        case _:
            assert_never(spec)


def _read_demo(spec: DemoSpec) -> Listing:
    """Generates the demo dataset unless it is there, and reads it as the EmoSet it looks like."""
    from emofuse.datasets.demo import demo_info, generate_demo
    from emofuse.datasets.emoset import read_emoset
    from emofuse.datasets.rows import check_root_given

    root = check_root_given(spec.root, spec.kind)
    generate_demo(root, images=spec.images, seed=spec.seed)
    listing = read_emoset(EmoSetSpec(root=root))
    info = {**listing.manifest.info, "name": "demo", "kind": spec.kind, **demo_info(root)}
    return replace(listing, manifest=replace(listing.manifest, info=info))
