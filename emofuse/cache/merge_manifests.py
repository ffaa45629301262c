"""The samples of a merged cache: those of caches that say the same of them, or of all caches one after another."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from emofuse.cache.reader import Cache
from emofuse.datasets.manifest import Manifest
from emofuse.errors import CacheError
from emofuse.stores import SCHEME, as_path, is_remote

_LISTED = 20
_FACTS = ("label", "split")


def check_same_labels(caches: Sequence[Cache]) -> None:
    """Raises unless caches of the same samples agree in their classes, labels and splits.

    Raises:
        CacheError: they do not, with the number of rows and the first one.
    """
    first = caches[0].manifest
    faults = []
    for cache in caches[1:]:
        other = cache.manifest
        if other.classes != first.classes:
            faults.append(f"the labels of {cache.path} are {', '.join(other.classes)}, not {', '.join(first.classes)}")
            continue
        for fact in _FACTS:
            differs = first.table[fact].ne_missing(other.table[fact])
            if differs.any():
                row = int(differs.arg_true()[0])
                had, has = first.table[fact][row], other.table[fact][row]
                sample_id = first.table["sample_id"][row]
                faults.append(
                    f"{fact} differs in {int(differs.sum())} rows of {cache.path}, row {row} ({sample_id}): "
                    f"{has or 'none'} there, {had or 'none'} in {caches[0].path}"
                )
    if faults:
        raise CacheError(
            f"the caches cannot be merged: {' | '.join(faults)}. Give them the same labels and splits first: a build "
            "with the same dataset does that and extracts nothing."
        )


def all_rows(caches: Sequence[Cache]) -> Manifest:
    """The manifest of caches that share no sample, their rows one cache after another.

    Paths become relative to the folder that all roots have in common.

    Raises:
        CacheError: a sample is in two of them, or they have other classes.
    """
    first = caches[0].manifest
    faults = [
        f"the labels of {cache.path} are {', '.join(cache.classes)}, not {', '.join(first.classes)}"
        for cache in caches[1:]
        if cache.classes != first.classes
    ]
    ids = pl.concat([cache.manifest.table["sample_id"] for cache in caches])
    repeated = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    if len(repeated):
        listed = ", ".join(repeated.head(_LISTED).to_list())
        more = f" and {len(repeated) - _LISTED} more" if len(repeated) > _LISTED else ""
        faults.append(
            f"they are of different rows, but {len(repeated)} samples are in more than one of them: {listed}{more}"
        )
    roots = [cache.manifest.root for cache in caches]
    if len({_drive(root) for root in roots}) > 1:
        faults.append(f"no folder holds the images of all of them: {', '.join(map(str, roots))}")
    if faults:
        raise CacheError(f"the caches cannot be merged: {' | '.join(faults)}")
    root = _common_folder(roots)
    tables = [_below(cache.manifest, root) for cache in caches]
    table = pl.concat(tables, how="diagonal_relaxed")
    bad_rows = table["problem"].is_not_null().sum()
    info = {**first.info, "rows": table.height, "bad_rows": bad_rows, "merged": [str(cache.path) for cache in caches]}
    files = [cache.manifest.files for cache in caches]
    known = [each for each in files if each is not None]
    return Manifest(table, first.classes, root, info, pl.concat(known) if len(known) == len(files) else None)


def _drive(root: Path) -> str:
    """What two roots must share to have a folder in common: the bucket of a store; a disk has one root for all."""
    return str(root).removeprefix(SCHEME).split("/")[0] if is_remote(root) else root.absolute().anchor


def _common_folder(roots: Sequence[Path]) -> Path:
    if is_remote(roots[0]):
        return as_path(SCHEME + posixpath.commonpath([str(root).removeprefix(SCHEME) for root in roots]))
    return Path(os.path.commonpath([root.absolute() for root in roots]))


def _below(manifest: Manifest, root: Path) -> pl.DataFrame:
    """A manifest's table with its paths relative to a folder above its root."""
    inner = str(manifest.root.absolute())[len(str(root)) :].strip("/")
    if not inner:
        return manifest.table
    moved = pl.when(pl.col("path") != "").then(pl.format("{}/{}", pl.lit(inner), "path")).otherwise("path")
    return manifest.table.with_columns(moved.alias("path"))
